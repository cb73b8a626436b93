//! The command `comfy-sandbox`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use comfy_sandbox::container::{Choice, Containers};
use comfy_sandbox::sagemaker::{Comfyui, Serving};
use comfy_sandbox::server::{Options, Running, Store, start, start_serving};
use comfy_sandbox::world::{ACCOUNT, KEY};
use tokio::signal::unix::{SignalKind, signal};

/// AWS on loopback, as far as comfy-deploy needs it.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Answers until it gets SIGTERM or SIGINT.
    Serve {
        /// A loopback address; port 0 picks a free port.
        #[arg(long, default_value = "127.0.0.1:4599", value_name = "ADDR:PORT")]
        listen: SocketAddr,
        /// Where the state lives [default: $COMFY_SANDBOX_STATE, $XDG_STATE_HOME/comfy-sandbox or
        /// ~/.local/state/comfy-sandbox]
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
        /// Real seconds that one AWS second takes; 1 is AWS's own pace.
        #[arg(long, default_value_t = 0.02, value_name = "FACTOR")]
        time_scale: f64,
        #[command(flatten)]
        endpoints: Endpoints,
    },
    /// Ends the sandbox that uses a state directory, and waits until it is gone. Its state stays.
    Stop {
        /// Its state directory [default: as for serve]
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
}

/// How endpoints run.
#[derive(Debug, clap::Args)]
struct Endpoints {
    /// Keep SageMaker's rules but run nothing behind endpoints, whatever the options below say.
    #[arg(long, env = "COMFY_SANDBOX_SIMULATE_ENDPOINTS", value_parser = clap::builder::FalseyValueParser::new())]
    simulate_endpoints: bool,
    /// What runs the images that were pushed to the sandbox. auto takes the first of docker, podman and (as root) runc that
    /// works. With none of them, or with an option below, or for an image of another registry, comfy-serve stands for the
    /// image, as a process
    #[arg(long, env = "COMFY_SANDBOX_CONTAINER_ENGINE", value_enum, default_value = "auto", value_name = "ENGINE")]
    container_engine: Choice,
    /// The comfy-serve binary that stands for an image [default: comfy-serve beside this program]
    #[arg(long, env = "COMFY_SANDBOX_COMFY_SERVE", value_name = "PATH")]
    comfy_serve: Option<PathBuf>,
    /// A ComfyUI that runs already, for all instances that are processes [default: comfyui-stand-in beside this program,
    /// one for each]
    #[arg(long, env = "COMFY_SANDBOX_COMFYUI_URL", value_name = "URL")]
    comfyui_url: Option<String>,
    /// A command that starts a ComfyUI for an instance, its words separated by spaces; `--listen 127.0.0.1 --port PORT
    /// --extra-model-paths-config FILE` is added
    #[arg(long, env = "COMFY_SANDBOX_COMFYUI_COMMAND", value_name = "COMMAND", conflicts_with = "comfyui_url")]
    comfyui_command: Option<String>,
}

impl Endpoints {
    /// What runs behind endpoints, or why nothing does.
    fn resolve(self) -> Result<Result<Serving, String>, String> {
        if self.simulate_endpoints {
            return Ok(Err("as --simulate-endpoints asks".to_owned()));
        }
        let beside = |name: &str| {
            let path = std::env::current_exe().ok()?.with_file_name(name);
            path.is_file().then_some(path)
        };
        let asked = self.comfyui_url.is_some() || self.comfyui_command.is_some();
        let containers = match self.container_engine {
            // Who says what stands for an image wants to see that, and not the image.
            Choice::Auto if asked || self.comfy_serve.is_some() => Choice::None,
            Choice::Docker | Choice::Podman | Choice::Runc if asked => {
                return Err("--container-engine runs the ComfyUI that is in the image, so --comfyui-url and \
                            --comfyui-command can only go with --container-engine none"
                    .to_owned());
            }
            choice => choice,
        };
        let comfy_serve = match self.comfy_serve {
            Some(path) if path.is_file() => {
                std::path::absolute(&path).map_err(|e| format!("{}: {e}", path.display()))?
            }
            Some(path) => {
                return Err(format!(
                    "there is no comfy-serve at {}; build it with `cargo build -p comfy-serve`",
                    path.display()
                ));
            }
            None => {
                match beside("comfy-serve") {
                    Some(path) => path,
                    None if asked => {
                        return Err("a ComfyUI is given, but there is no comfy-serve beside this program; say where it is with \
                                --comfy-serve PATH"
                        .to_owned());
                    }
                    None => return Ok(Err("for there is no comfy-serve beside this program".to_owned())),
                }
            }
        };
        let comfyui = match (self.comfyui_url, self.comfyui_command) {
            (Some(url), _) => Comfyui::Url(url),
            (None, Some(command)) => {
                let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
                if words.is_empty() {
                    return Err("--comfyui-command is empty".to_owned());
                }
                Comfyui::Command(words)
            }
            (None, None) => match beside("comfyui-stand-in") {
                Some(path) => Comfyui::Command(vec![path.to_string_lossy().into_owned()]),
                None => {
                    return Ok(Err("for there is no comfyui-stand-in beside this program and no --comfyui-url or \
                                   --comfyui-command"
                        .to_owned()));
                }
            },
        };
        let containers = Arc::new(Containers::new(containers));
        Ok(Ok(Serving { containers, comfy_serve, comfyui, startup: None, invocation: None }))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("COMFY_SANDBOX_LOG").unwrap_or_else(|_| "warn,s3s=off".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let result = match Cli::parse().verb {
        Verb::Serve { listen, state, time_scale, endpoints } => serve(listen, state, time_scale, endpoints).await,
        Verb::Stop { state } => stop(state).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn state_dir(given: Option<PathBuf>) -> Result<PathBuf, Box<dyn std::error::Error>> {
    match given {
        Some(dir) => Ok(std::path::absolute(dir)?),
        None => Ok(default_state_dir().ok_or("neither XDG_STATE_HOME nor HOME is set; say where with --state DIR")?),
    }
}

/// Asks by SIGTERM, as an operator would, so that the state is saved.
async fn stop(state: Option<PathBuf>) -> Outcome {
    let dir = state_dir(state)?;
    let Some(process) = Store::holder(&dir)?.and_then(rustix::process::Pid::from_raw) else {
        return say(&format!("no sandbox uses {}\n", dir.display()));
    };
    rustix::process::kill_process(process, rustix::process::Signal::TERM)?;
    for _ in 0..100 {
        if Store::holder(&dir)?.is_none() {
            return say(&format!("stopped; its state stays in {}\n", dir.display()));
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    Err(format!("the sandbox (process {}) does not end", process.as_raw_nonzero()).into())
}

async fn serve(listen: SocketAddr, state: Option<PathBuf>, time_scale: f64, endpoints: Endpoints) -> Outcome {
    let dir = state_dir(state)?;
    let endpoints = endpoints.resolve()?;
    // Before the line that says ready, so that a signal sent after it is never lost.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let options = Options { listen, dir, time_scale };
    let (running, how) = match endpoints {
        Ok(serving) => {
            let how = describe(&serving);
            // What was chosen must work; what works need not be known before requests are answered.
            if serving.containers.chosen() {
                serving.containers.require().await?;
            }
            (start_serving(options, serving.clone()).await?, Ok((serving, how)))
        }
        Err(why) => (start(options).await?, Err(why)),
    };
    announce(&running)?;
    let how = async {
        match how {
            Err(why) => format!("endpoints are simulated, {why}"),
            Ok((serving, natively)) => match serving.containers.engine().await {
                Some(engine) => format!("endpoints run the images that are pushed, by {engine}"),
                None => natively,
            },
        }
    };
    tokio::select! {
        how = how => say(&format!("# {how}\n"))?,
        _ = term.recv() => return Ok(running.stop().await?),
        _ = int.recv() => return Ok(running.stop().await?),
    }
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    running.stop().await?;
    Ok(())
}

/// What stands for images.
fn describe(serving: &Serving) -> String {
    let program = serving.comfy_serve.display();
    match &serving.comfyui {
        Comfyui::Url(url) => format!("endpoints run {program} with ComfyUI at {url}"),
        Comfyui::Command(words) => format!("endpoints run {program} with ComfyUI `{}`", words.join(" ")),
    }
}

/// The line that says ready, and what to export.
fn announce(running: &Running) -> Outcome {
    let url = running.url();
    let text = format!(
        "comfy-sandbox ready at {url}, account {ACCOUNT}, state {}\n\
         export AWS_ENDPOINT_URL={url}\n\
         export AWS_ACCESS_KEY_ID={KEY}\n\
         export AWS_SECRET_ACCESS_KEY={KEY}\n\
         export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1\n",
        running.shared.dir.display()
    );
    say(&text)
}

/// Writes to stdout. A reader that went away (`| head -1`) is no reason to stop.
fn say(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn default_state_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("COMFY_SANDBOX_STATE") {
        return Some(dir);
    }
    let base = set("XDG_STATE_HOME").filter(|p| p.is_absolute()).or_else(|| Some(set("HOME")?.join(".local/state")))?;
    Some(base.join("comfy-sandbox"))
}
