//! `--sandbox`: finds the stand-in, or starts it. That the URL is on loopback was decided with the settings, and the
//! adapters check it once more.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::{Error, Result};
use crate::ui::Ui;

/// Where the sandbox listens unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:4599";

/// Returns the URL of a running sandbox, starting one if there is none. An empty `url` means the default.
///
/// # Errors
/// [`crate::error::Kind::Usage`] when `comfy-sandbox` is not found; what it says when it does not start.
pub async fn ensure(url: &str, ui: &Ui) -> Result<String> {
    let url = if url.is_empty() { DEFAULT_URL } else { url };
    let listen = url.trim_start_matches("http://").replace("localhost", "127.0.0.1");
    if alive(&listen).await {
        return Ok(url.to_owned());
    }
    let program = find().ok_or_else(|| {
        Error::usage("comfy-sandbox is not found beside comfy-deploy or on the PATH")
            .next("cargo build -p comfy-sandbox, or start one yourself: comfy-sandbox serve")
    })?;
    let state = state_dir();
    std::fs::create_dir_all(&state).map_err(|e| Error::io("create", &state, &e))?;
    let log = state.join("sandbox.log");
    let file = std::fs::File::create(&log).map_err(|e| Error::io("write", &log, &e))?;
    let errors = file.try_clone().map_err(|e| Error::io("write", &log, &e))?;
    let mut command = std::process::Command::new(&program);
    command.args(["serve", "--listen", &listen, "--state"]).arg(&state);
    if let Ok(scale) = std::env::var("COMFY_SANDBOX_TIME_SCALE") {
        command.args(["--time-scale", &scale]);
    }
    command.stdin(Stdio::null()).stdout(file).stderr(errors);
    // Its own process group: Ctrl-C for this run is none for the sandbox.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|e| Error::io("start", &program, &e))?;
    for _ in 0..100 {
        if alive(&listen).await {
            ui.talk(&format!("started the sandbox at {url} (process {}, state in {})", child.id(), state.display()));
            return Ok(url.to_owned());
        }
        if let Ok(Some(status)) = child.try_wait() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(Error::failed(format!("the sandbox ended at once ({status})")).why(said.trim().to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::failed(format!("the sandbox does not answer at {url}")).next(format!("look at {}", log.display())))
}

/// Asks for its health.
async fn alive(listen: &str) -> bool {
    answers(listen, "/_sandbox/health").await
}

/// Whether a server on this machine answers a GET with 200. Plain HTTP by hand: an HTTP client for one request would
/// bring its TLS along.
pub(super) async fn answers(listen: &str, path: &str) -> bool {
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(listen).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {listen}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(&answer == b"HTTP/1.1 200")
    };
    matches!(tokio::time::timeout(Duration::from_secs(2), ask).await, Ok(Ok(true)))
}

fn find() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("comfy-sandbox")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(std::env::split_paths(&path).map(|dir| dir.join("comfy-sandbox"))).find(|p| p.is_file())
}

fn state_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("COMFY_SANDBOX_STATE") {
        return dir.into();
    }
    let base = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
    base.unwrap_or_else(std::env::temp_dir).join("comfy-sandbox")
}
