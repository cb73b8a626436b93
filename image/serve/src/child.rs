//! ComfyUI as a child process: started, its output passed on, restarted when it dies, and stopped.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cli::Comfyui;
use crate::disk;
use crate::job::Presence;
use crate::orphans::Supervised;

/// Pauses before the next starts; the last one is repeated.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
/// A ComfyUI that lived so long did not fail because of how it was started.
const LIVED: Duration = Duration::from_secs(120);
/// How long it may take to end on SIGINT: 2.0 to 3.5 s were measured, also while a job runs.
const GOODBYE: Duration = Duration::from_millis(4500);
/// Longest piece of a line that is passed on at once, in bytes.
const LONGEST_LINE: usize = 16 * 1024;
/// In front of each of its lines.
const PREFIX: &[u8] = b"comfyui | ";

/// Keeps ComfyUI running until told to stop.
///
/// # Errors
/// It cannot be started at all the first time: the command is wrong.
pub(crate) async fn keep_running(
    comfyui: Comfyui,
    presence: watch::Sender<Presence>,
    mut stop: watch::Receiver<bool>,
    supervised: Supervised,
) -> io::Result<()> {
    let Some(command) = comfyui.command.clone() else { return Ok(()) };
    let mut failures = 0;
    loop {
        if let Some(output) = comfyui.directories.output.as_deref().filter(|_| comfyui.owns_output)
            && let Err(cause) = disk::empty(output)
        {
            tracing::warn!(path = %output.display(), %cause, "cannot empty ComfyUI's output directory");
        }
        let begun = Instant::now();
        let started = {
            let mut supervised = supervised.lock();
            let started = start(&command);
            *supervised = started.as_ref().ok().and_then(|running| running.group);
            started
        };
        let ended = match started {
            Ok(mut running) => {
                presence.send_modify(|presence| *presence = Presence { up: true, starts: presence.starts + 1 });
                let status = tokio::select! {
                    status = running.child.wait() => Some(status?),
                    _ = stop.wait_for(|stop| *stop) => None,
                };
                presence.send_modify(|presence| presence.up = false);
                if status.is_some() {
                    // Its number may be another's now.
                    *supervised.lock() = None;
                }
                let Some(status) = status else {
                    return running.end().await;
                };
                // What it started may live on, and hold its port or the GPU.
                running.signal(Signal::KILL);
                describe(status)
            }
            Err(cause) if presence.borrow().starts == 0 => return Err(cause),
            Err(cause) => cause.to_string(),
        };
        failures = if begun.elapsed() >= LIVED { 0 } else { failures + 1 };
        let pause = PAUSES[usize::min(failures, PAUSES.len() - 1)];
        tracing::error!("ComfyUI ended: {ended}; it is started again in {} ms", pause.as_millis());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

/// The process and its group.
struct Running {
    child: Child,
    group: Option<Pid>,
}

fn start(command: &[String]) -> io::Result<Running> {
    let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command
        .args(args)
        // Python would hold back its lines otherwise, and with them the reason of a crash.
        .env("PYTHONUNBUFFERED", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: a Ctrl-C in the terminal is for us, and its own children end with it.
        .process_group(0)
        .kill_on_drop(true);
    die_with_us(&mut command);
    let mut child = command
        .spawn()
        .map_err(|cause| io::Error::new(cause.kind(), format!("cannot start ComfyUI: {program}: {cause}")))?;
    if let Some(output) = child.stdout.take() {
        tokio::spawn(pass_on(output));
    }
    if let Some(output) = child.stderr.take() {
        tokio::spawn(pass_on(output));
    }
    // The group keeps its number while anything of it lives, also when the child itself is gone.
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok(Running { child, group })
}

/// Lets the kernel kill the child when we are killed: a ComfyUI without its server would hold the GPU and the port.
#[expect(unsafe_code, reason = "between fork and exec there is no other way to ask for the signal")]
fn die_with_us(command: &mut Command) {
    let ask = || rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
    // SAFETY: the closure makes one system call, allocates nothing and takes no lock, as is required after a fork.
    unsafe { command.pre_exec(ask) };
}

impl Running {
    /// SIGINT, on which it removes its temp directory; then SIGKILL for it and all that it started.
    async fn end(mut self) -> io::Result<()> {
        self.signal(Signal::INT);
        match tokio::time::timeout(GOODBYE, self.child.wait()).await {
            Ok(status) => tracing::info!("ComfyUI ended: {}", describe(status?)),
            Err(_) => tracing::warn!("ComfyUI does not end and is killed"),
        }
        self.signal(Signal::KILL);
        self.child.wait().await.map(drop)
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Gone already is as good.
            let _ = kill_process_group(group, signal);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "killed by signal 9, as the kernel does when memory runs out".into(),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Copies output line by line, each with the prefix.
async fn pass_on(mut from: impl AsyncRead + Unpin) {
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let lines = if read == 0 { splitter.rest() } else { splitter.feed(&buffer[..read]) };
        if !lines.is_empty() {
            let mut out = io::stdout().lock();
            // Nobody reads the log any more: ComfyUI must go on all the same.
            let _ = out.write_all(&lines).and_then(|()| out.flush());
        }
        if read == 0 {
            return;
        }
    }
}

/// Makes prefixed lines of bytes. A carriage return ends a line too: progress bars overwrite theirs.
#[derive(Default)]
struct Splitter(Vec<u8>);

impl Splitter {
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => lines.extend(self.rest()),
                _ => {
                    self.0.push(*byte);
                    if self.0.len() >= LONGEST_LINE {
                        lines.extend(self.rest());
                    }
                }
            }
        }
        lines
    }

    fn rest(&mut self) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut line = PREFIX.to_vec();
        line.append(&mut self.0);
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_the_prefix() {
        let mut splitter = Splitter::default();
        let mut text = |bytes: &[u8]| String::from_utf8(splitter.feed(bytes)).expect("UTF-8");
        assert_eq!(text(b"one\ntw"), "comfyui | one\n");
        assert_eq!(text(b"o\r\n\n 10%|#\r 20%|##"), "comfyui | two\ncomfyui |  10%|#\n");
        assert_eq!(text(b""), "");
        assert_eq!(splitter.rest(), b"comfyui |  20%|##\n");
        assert_eq!(splitter.rest(), b"");
        assert_eq!(splitter.feed(&[b'x'; LONGEST_LINE * 2 + 1]).iter().filter(|byte| **byte == b'\n').count(), 2);
    }

    #[test]
    fn how_it_ended() {
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "exit status 3");
        assert_eq!(describe(ExitStatus::from_raw(11)), "killed by signal 11");
        assert!(describe(ExitStatus::from_raw(9)).contains("memory"));
    }
}
