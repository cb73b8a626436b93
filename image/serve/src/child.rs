//! ComfyUI as a child process.

use std::io;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, Command};

/// A ComfyUI that we started. Its output goes where ours goes; it dies with us.
#[derive(Debug)]
pub(crate) struct Comfyui(Child);

impl Comfyui {
    /// Starts it.
    pub(crate) fn start(command: &[String]) -> io::Result<Self> {
        let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let child = Command::new(program)
            .args(args)
            // Python would hold back its lines otherwise, and with them the reason of a crash.
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|cause| io::Error::new(cause.kind(), format!("cannot start {program}: {cause}")))?;
        Ok(Comfyui(child))
    }

    /// Until it ends by itself.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }

    /// Ends it at once. It keeps nothing worth saving: its own handling of SIGTERM is to die on the spot too.
    pub(crate) async fn stop(&mut self) {
        if let Err(cause) = self.0.kill().await {
            tracing::warn!(%cause, "cannot stop ComfyUI");
        }
    }
}
