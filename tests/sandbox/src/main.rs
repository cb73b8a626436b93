//! The command `comfy-sandbox`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use comfy_sandbox::server::{Options, Running, Store, start};
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
    },
    /// Ends the sandbox that uses a state directory, and waits until it is gone. Its state stays.
    Stop {
        /// Its state directory [default: as for serve]
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
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
        Verb::Serve { listen, state, time_scale } => serve(listen, state, time_scale).await,
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

async fn serve(listen: SocketAddr, state: Option<PathBuf>, time_scale: f64) -> Outcome {
    let dir = state_dir(state)?;
    // Before the line that says ready, so that a signal sent after it is never lost.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let running = start(Options { listen, dir, time_scale }).await?;
    announce(&running)?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    running.stop().await?;
    Ok(())
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
