//! The command line. Everything can be set by environment too: SageMaker gives no arguments but `serve`.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

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
    Serve(Serve),
    /// Ask /ping of the server in this container; ends with 0 if it is healthy.
    Health(crate::health_command::Health),
}

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Do not start ComfyUI; one is running at the URL, or will be.
    #[arg(long, env = "COMFY_SERVE_NO_SPAWN", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_spawn: bool,
    /// Where ComfyUI listens.
    #[arg(long, env = "COMFY_SERVE_COMFYUI_URL", default_value = "http://127.0.0.1:8188")]
    pub comfyui_url: String,
    /// Where to listen.
    #[arg(long, env = "COMFY_SERVE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// JPEG quality, 1 to 100.
    #[arg(long, env = "JPEG_QUALITY", default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub jpeg_quality: u8,
    /// Seconds until a request is given up. SageMaker itself gives up after 60.
    #[arg(long, env = "COMFY_SERVE_DEADLINE", default_value_t = 58, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub deadline: u64,
    /// More arguments for ComfyUI when no command is given, separated by spaces.
    #[arg(long, env = "COMFYUI_ARGS", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub comfyui_args: String,
    /// The command that starts ComfyUI [default: python3 /opt/comfyui/main.py with the port of the URL]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub comfyui: Vec<String>,
}

impl Serve {
    /// The command that starts ComfyUI; none with `--no-spawn`.
    pub(crate) fn comfyui_command(&self, port: u16) -> Option<Vec<String>> {
        if self.no_spawn {
            return None;
        }
        if !self.comfyui.is_empty() {
            return Some(self.comfyui.clone());
        }
        // The picture's metadata would hold the whole workflow, and so leak prompts to whoever gets the picture.
        let fixed =
            ["python3", "/opt/comfyui/main.py", "--listen", "127.0.0.1", "--disable-auto-launch", "--disable-metadata"];
        let mut command: Vec<String> = fixed.map(str::to_owned).into();
        command.extend(["--port".to_owned(), port.to_string()]);
        command.extend(self.comfyui_args.split_whitespace().map(str::to_owned));
        Some(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Serve {
        let args = ["comfy-serve", "serve"].iter().chain(args);
        match Cli::try_parse_from(args).expect("parses").command {
            Command::Serve(serve) => serve,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands() {
        let command = parse(&["--comfyui-args", "--highvram --fast"]).comfyui_command(9).expect("spawns");
        assert_eq!(command[..2], ["python3", "/opt/comfyui/main.py"]);
        assert_eq!(command[command.len() - 4..], ["--port", "9", "--highvram", "--fast"]);
        assert_eq!(parse(&["sh", "-c", "--x"]).comfyui_command(9), Some(["sh", "-c", "--x"].map(str::to_owned).into()));
        assert_eq!(parse(&["--no-spawn"]).comfyui_command(9), None);
        assert!(Cli::try_parse_from(["comfy-serve", "serve", "--jpeg-quality", "0"]).is_err());
    }
}
