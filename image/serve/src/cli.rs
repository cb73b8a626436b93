//! The command line. Everything can be set by environment too: SageMaker gives no arguments but `serve`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::disk::Directories;

/// The server in front of ComfyUI in a SageMaker container.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start ComfyUI and answer /ping and /invocations.
    Serve(Box<Serve>),
    /// Ask a running server's /ping, for a container's HEALTHCHECK: exit 0 when it answers 200, else 1.
    Health(Health),
}

/// Options of `health`.
#[derive(Debug, clap::Args)]
pub struct Health {
    /// Where the server listens; 0.0.0.0 is asked on the loopback address.
    #[arg(long, env = "COMFY_SERVE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
}

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Where to listen.
    #[arg(long, env = "COMFY_SERVE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where ComfyUI listens.
    #[arg(long, env = "COMFY_SERVE_COMFYUI_URL", default_value = "http://127.0.0.1:8188")]
    pub comfyui_url: String,
    /// Do not start ComfyUI: one is running at the URL, or will be.
    #[arg(long, env = "COMFY_SERVE_NO_SPAWN", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_spawn: bool,
    /// Arguments for ComfyUI when no command is given, separated by spaces; the image sets its own here.
    #[arg(long, env = "COMFYUI_IMAGE_ARGS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub comfyui_image_args: String,
    /// More of them, after those; what is said twice counts as said last.
    #[arg(long, env = "COMFYUI_ARGS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub comfyui_args: String,
    /// ComfyUI's output directory, from which finished files are removed [default: /dev/shm/comfyui/output where
    /// that is in memory with 1 GiB free, else /tmp/comfyui/output, emptied at the start; with a command of your own
    /// what its --output-directory says; with --no-spawn none, and nothing is removed]
    #[arg(long, env = "COMFYUI_OUTPUT_DIR")]
    pub output_dir: Option<PathBuf>,
    /// The directory in which ComfyUI makes its temp directory; default as for the output
    #[arg(long, env = "COMFYUI_TEMP_DIR")]
    pub temp_dir: Option<PathBuf>,
    /// ComfyUI's input directory, from which pictures that came with a request are removed [default:
    /// /opt/comfyui/input, else as for the output]
    #[arg(long, env = "COMFYUI_INPUT_DIR")]
    pub input_dir: Option<PathBuf>,

    /// Seconds from the arrival of a request until it is given up. SageMaker itself gives up after 60.
    #[arg(long, env = "INVOCATION_TIMEOUT", default_value = "58", value_parser = seconds)]
    pub invocation_timeout: Duration,
    /// Requests that may wait or run; one more is answered with 503 and Retry-After.
    #[arg(long, env = "MAX_QUEUE", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_queue: u32,
    /// Largest request body in megabytes (1,000,000 bytes). SageMaker's own limit is 25.
    #[arg(long, env = "MAX_BODY_MB", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_body_mb: u32,
    /// JPEG quality, 0 to 95.
    #[arg(long, env = "JPEG_QUALITY", default_value = "90", value_parser = quality)]
    pub jpeg_quality: u8,

    /// Workflow that is run before /ping says 200, or "off". The default file may be missing, any other may not.
    #[arg(long, env = "WARMUP", default_value = DEFAULT_WARMUP)]
    pub warmup: String,
    /// Failed probes in a row after which /ping says 503.
    #[arg(long, env = "HEALTH_FAILURES", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub health_failures: u32,
    /// Seconds of failed probes after which /ping says 503 while a job runs: loading a model blocks ComfyUI.
    #[arg(long, env = "HEALTH_BUSY_GRACE", default_value = "60", value_parser = seconds)]
    pub health_busy_grace: Duration,

    /// Log the headers of every request; credentials are masked.
    #[arg(long, env = "DEBUG_HEADER", value_parser = clap::builder::FalseyValueParser::new())]
    pub debug_header: bool,
    /// Port on the loopback address for Prometheus' GET /metrics; 0 is any free one [default: off]
    #[arg(long, env = "METRICS_PORT")]
    pub metrics_port: Option<u16>,

    /// The command that starts ComfyUI [default: python3 /opt/comfyui/main.py with the port and directories above]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub comfyui: Vec<String>,
}

/// Where the deployment tool puts the app's default workflow.
pub const DEFAULT_WARMUP: &str = "/opt/ml/model/.comfy-deploy/warmup.json";
/// In memory, where pictures that live for a moment belong. SageMaker does not say how large it is, and Docker's own
/// 64 MB hold no video.
const IN_MEMORY: &str = "/dev/shm";
/// How much of it must be free, in bytes, as this server starts: a few jobs' videos.
const ENOUGH: u64 = 1 << 30;
/// Otherwise. On the instance's disk, and not in the image's layers.
const ON_DISK: &str = "/tmp";
/// The directory there that is ours alone; `output` and `temp` are in it.
const OURS: &str = "comfyui";
/// ComfyUI's own.
const INPUT_DIR: &str = "/opt/comfyui/input";

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("it must be a number of seconds from 0.1 to 3600".into()),
    }
}

fn quality(text: &str) -> Result<u8, String> {
    text.parse::<u8>()
        .ok()
        .filter(|quality| *quality <= 95)
        .ok_or_else(|| "it must be a whole number from 0 (smallest file) to 95 (best picture)".into())
}

/// How ComfyUI is started, and where it writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Comfyui {
    /// Program and arguments; none when somebody else starts it.
    pub(crate) command: Option<Vec<String>>,
    /// Where it writes, as far as known.
    pub(crate) directories: Directories,
    /// The output directory is ours alone.
    pub(crate) owns_output: bool,
}

impl Serve {
    /// How to start ComfyUI on a port.
    pub(crate) fn comfyui(&self, port: u16) -> Comfyui {
        let temp = |dir: PathBuf| dir.join("temp");
        if self.no_spawn {
            let (output, dir, input) = (self.output_dir.clone(), self.temp_dir.clone(), self.input_dir.clone());
            let directories = Directories { output, temp: dir.map(temp), input };
            return Comfyui { command: None, directories, owns_output: false };
        }
        if !self.comfyui.is_empty() {
            let said = |flag| value_of(&self.comfyui, flag).map(PathBuf::from);
            let directories = Directories {
                output: self.output_dir.clone().or_else(|| said("--output-directory")),
                temp: self.temp_dir.clone().or_else(|| said("--temp-directory")).map(temp),
                input: self.input_dir.clone().or_else(|| said("--input-directory")),
            };
            return Comfyui { command: Some(self.comfyui.clone()), directories, owns_output: false };
        }
        // The picture's metadata would hold the whole workflow, and so leak prompts to whoever gets the picture.
        let fixed =
            ["python3", "/opt/comfyui/main.py", "--listen", "127.0.0.1", "--disable-auto-launch", "--disable-metadata"];
        let mut command: Vec<String> = fixed.map(str::to_owned).into();
        command.extend(["--port".to_owned(), port.to_string()]);
        let ours = root(free_memory(IN_MEMORY.as_ref())).join(OURS);
        let output = self.output_dir.clone().unwrap_or_else(|| ours.join("output"));
        let dir = self.temp_dir.clone().unwrap_or_else(|| ours.clone());
        let input = self.input_dir.as_ref();
        for (flag, dir) in
            [("--output-directory", Some(&output)), ("--temp-directory", Some(&dir)), ("--input-directory", input)]
        {
            command.extend(dir.into_iter().flat_map(|dir| [flag.to_owned(), dir.to_string_lossy().into_owned()]));
        }
        for args in [&self.comfyui_image_args, &self.comfyui_args] {
            command.extend(args.split_whitespace().map(str::to_owned));
        }
        // The arguments come last and may say something else.
        let said = |flag| value_of(&command, flag).map(PathBuf::from);
        let (output, dir) = (said("--output-directory").unwrap_or(output), said("--temp-directory").unwrap_or(dir));
        let owns_output = output == ours.join("output");
        let input = Some(said("--input-directory").unwrap_or_else(|| INPUT_DIR.into()));
        let directories = Directories { output: Some(output), temp: Some(temp(dir)), input };
        Comfyui { command: Some(command), directories, owns_output }
    }

    /// The workflow to warm up with; none when that is off.
    pub(crate) fn warmup(&self) -> Option<PathBuf> {
        (!matches!(self.warmup.to_ascii_lowercase().as_str(), "off" | "false" | "0" | "no" | ""))
            .then(|| PathBuf::from(&self.warmup))
    }
}

impl Health {
    /// The address to ask.
    pub fn target(&self) -> SocketAddr {
        let mut target = self.listen;
        if target.ip().is_unspecified() {
            target.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        target
    }
}

/// Where output and temp go, given the free bytes in memory, if there is such a file system.
fn root(free: Option<u64>) -> &'static Path {
    let in_memory = free.is_some_and(|free| free >= ENOUGH);
    Path::new(if in_memory { IN_MEMORY } else { ON_DISK })
}

/// The free bytes of a file system that is in memory.
fn free_memory(path: &Path) -> Option<u64> {
    // linux/magic.h
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let kind = rustix::fs::statfs(path).ok()?;
    if kind.f_type != TMPFS_MAGIC {
        return None;
    }
    let free = rustix::fs::statvfs(path).ok()?;
    Some(free.f_bavail.saturating_mul(free.f_frsize))
}

/// The last value of a flag, as `--flag value` or `--flag=value`.
fn value_of<'a>(command: &'a [String], flag: &str) -> Option<&'a str> {
    let after = |(at, arg): (usize, &'a String)| match arg.strip_prefix(flag)? {
        "" => command.get(at + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    };
    command.iter().enumerate().rev().find_map(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Serve {
        match Cli::try_parse_from(["comfy-serve", "serve"].iter().chain(args)).expect("parses").command {
            Command::Serve(serve) => *serve,
            Command::Health(_) => unreachable!("it was asked to serve"),
        }
    }

    fn refused(args: &[&str]) -> String {
        Cli::try_parse_from(["comfy-serve", "serve"].iter().chain(args)).expect_err("is refused").to_string()
    }

    #[test]
    fn commands() {
        let comfyui = parse(&["--comfyui-args", "--highvram --fast"]).comfyui(9);
        let command = comfyui.command.expect("spawns");
        assert_eq!(command[..2], ["python3", "/opt/comfyui/main.py"]);
        assert_eq!(command[command.len() - 2..], ["--highvram", "--fast"]);
        assert_eq!(value_of(&command, "--port"), Some("9"));
        let directory = comfyui.directories.output.as_deref().and_then(Path::parent).expect("known").to_owned();
        assert!(comfyui.owns_output && directory.ends_with("comfyui"));
        assert_eq!(comfyui.directories.temp, Some(directory.join("temp")));

        let own = parse(&["sh", "-c", "--x"]).comfyui(9);
        assert_eq!(own.command, Some(["sh", "-c", "--x"].map(str::to_owned).into()));
        assert_eq!((own.directories, own.owns_output), (Directories::default(), false));
        assert_eq!(parse(&["--no-spawn"]).comfyui(9), Comfyui::default());
    }

    #[test]
    fn the_image_and_its_user_both_have_arguments() {
        let comfyui =
            parse(&["--comfyui-image-args=--a --output-directory /i", "--comfyui-args=--output-directory /u"]);
        let comfyui = comfyui.comfyui(9);
        assert_eq!(comfyui.directories.output, Some("/u".into()));
        assert!(comfyui.command.expect("spawns").contains(&"--a".to_owned()));
    }

    #[test]
    fn outputs_are_in_memory_where_there_is_room() {
        assert_eq!(root(Some(ENOUGH)), Path::new("/dev/shm"));
        assert_eq!(root(Some(64 << 20)), Path::new("/tmp"));
        assert_eq!(root(None), Path::new("/tmp"));
        // A file system of another kind; a path that is none.
        assert_eq!(free_memory("/proc".as_ref()), None);
        assert_eq!(free_memory("/no/such/path".as_ref()), None);
    }

    #[test]
    fn directories_are_what_comfyui_is_told() {
        let by_args = parse(&["--comfyui-args", "--output-directory=/dev/shm/o --temp-directory /t"]).comfyui(9);
        assert_eq!((by_args.directories.output, by_args.owns_output), (Some("/dev/shm/o".into()), false));
        assert_eq!(by_args.directories.temp, Some("/t/temp".into()));
        let own = parse(&["main", "--output-directory", "/a", "--output-directory", "/b"]).comfyui(9);
        assert_eq!(own.directories.output, Some("/b".into()));
        let given = parse(&["--output-dir", "/c", "--no-spawn"]).comfyui(9);
        assert_eq!((given.directories.output, given.owns_output), (Some("/c".into()), false));
    }

    #[test]
    fn what_is_out_of_range_says_the_range() {
        for bad in ["96", "-1", "high", "90.5", ""] {
            assert!(refused(&[&format!("--jpeg-quality={bad}")]).contains("from 0 (smallest file) to 95"), "{bad}");
        }
        assert_eq!(parse(&["--jpeg-quality", "0"]).jpeg_quality, 0);
        for bad in ["0", "nan", "1h", "4000"] {
            assert!(refused(&["--invocation-timeout", bad]).contains("0.1 to 3600"), "{bad}");
        }
        assert!(refused(&["--max-queue", "0"]).contains("1..=10000"));
    }

    #[test]
    fn the_warmup_can_be_switched_off() {
        assert_eq!(parse(&[]).warmup(), Some(DEFAULT_WARMUP.into()));
        assert_eq!(parse(&["--warmup", "/x.json"]).warmup(), Some("/x.json".into()));
        for off in ["off", "OFF", "false", "0", ""] {
            assert_eq!(parse(&["--warmup", off]).warmup(), None, "{off}");
        }
    }

    #[test]
    fn health_is_asked_on_loopback() {
        let target = |listen: &str| match Cli::try_parse_from(["comfy-serve", "health", "--listen", listen]) {
            Ok(Cli { command: Command::Health(health) }) => health.target().to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(target("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(target("10.0.0.1:81"), "10.0.0.1:81");
    }
}
