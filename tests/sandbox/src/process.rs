//! Processes that the sandbox starts: each leads a group of its own, which ends with it, with its handle, and with
//! the sandbox however that ends.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

/// Bytes of one line of output; what is longer is cut into several lines (CloudWatch Logs quota: 256 KB an event,
/// 1 MB since 2025; the smaller one keeps the state small).
const LINE: u64 = 256 * 1024;

type Order = (Command, Option<Signal>, oneshot::Sender<io::Result<std::process::Child>>);

/// Starts processes on one thread that lives as long as this value. The kernel's death signal is tied to the thread
/// that forked, so that thread must not be one that a pool ends when it is idle.
#[derive(Debug, Clone)]
pub struct Spawner(mpsc::Sender<Order>);

impl Default for Spawner {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, death, reply) in receiver {
                if let Some(signal) = death {
                    let parent = rustix::process::getpid();
                    let before_exec = move || {
                        rustix::process::set_parent_process_death_signal(Some(signal))?;
                        // The parent may have died before the line above.
                        match rustix::process::getppid() {
                            Some(now) if now == parent => Ok(()),
                            _ => Err(io::Error::other("the sandbox ended")),
                        }
                    };
                    // SAFETY: the closure makes two system calls and allocates nothing unless the parent is gone.
                    #[allow(unsafe_code)]
                    unsafe {
                        command.pre_exec(before_exec);
                    }
                }
                // Nobody waits when the request was given up; then the child is reaped here.
                if let Err(Ok(mut child)) = reply.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        Spawner(sender)
    }
}

/// What becomes of a line of output.
pub type Sink = Box<dyn FnMut(String) + Send>;

/// A running process and its group. Dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// Whether the leader was reaped: its number may then belong to somebody else.
    reaped: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<ExitStatus>>,
    output: watch::Receiver<bool>,
    /// Bytes, as seen last.
    peak: AtomicU64,
    /// Its thread must not end before this process.
    _spawner: Spawner,
}

impl Spawner {
    /// Starts a command as the leader of a new group with no input. `death` is the signal that it gets when the
    /// sandbox is killed. Both outputs go to `sink` line by line.
    pub async fn start(&self, mut command: Command, death: Signal, mut sink: Sink) -> io::Result<Process> {
        let (reader, writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        let (reply, started) = oneshot::channel();
        self.0.send((command, Some(death), reply)).map_err(|_| io::Error::other("the spawner ended"))?;
        let mut child = started.await.map_err(|_| io::Error::other("the spawner ended"))??;
        let pid = Pid::from_child(&child);
        let (exited, exit) = watch::channel(None);
        let reaped = Arc::new(Mutex::new(false));
        let flag = reaped.clone();
        std::thread::spawn(move || {
            // Waiting without reaping keeps the number of the group ours while the rest of it is killed.
            while let Err(rustix::io::Errno::INTR) =
                rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
            {}
            let status = {
                let mut flag = flag.lock();
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
                *flag = true;
                child.wait()
            };
            exited.send_replace(Some(status.unwrap_or_else(|_| ExitStatus::from_raw(0))));
        });
        let (closed, output) = watch::channel(false);
        let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        tokio::spawn(async move {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            loop {
                line.clear();
                match (&mut reader).take(LINE).read_until(b'\n', &mut line).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => sink(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned()),
                }
            }
            closed.send_replace(true);
        });
        Ok(Process { pid, reaped, exit, output, peak: AtomicU64::new(0), _spawner: self.clone() })
    }
}

impl Process {
    /// Sends a signal to the whole group, if its leader still runs.
    pub fn signal(&self, signal: Signal) {
        if !*self.reaped.lock() {
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }

    /// How it ended; none while it runs.
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub async fn wait(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            Err(_) => ExitStatus::default(),
        }
    }

    /// Waits until everything it wrote has reached the sink: after its end, or not at all if it handed its output on.
    pub async fn drained(&self, most: Duration) {
        let mut output = self.output.clone();
        let _ = tokio::time::timeout(most, output.wait_for(|closed| *closed)).await;
    }

    /// Asks it to end, and kills the group when the time is over.
    pub async fn stop(&self, grace: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::KILL);
                self.wait().await
            }
        }
    }

    /// The most memory that the leader held so far, in bytes; after its end, what was seen last.
    pub fn peak_memory(&self) -> u64 {
        let read = || {
            let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero())).ok()?;
            let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
            Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        let now = if *self.reaped.lock() { 0 } else { read().unwrap_or_default() };
        self.peak.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// Its number.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// How Go's os/exec, on which Lambda's runtime supervisor is written, words an end.
pub fn worded(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "signal: killed".to_owned(),
        (None, Some(6)) => "signal: aborted".to_owned(),
        (None, Some(11)) => "signal: segmentation fault".to_owned(),
        (None, Some(15)) => "signal: terminated".to_owned(),
        (None, number) => format!("signal: {}", number.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    async fn run(script: &str) -> (Process, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let process =
            Spawner::default().start(sh(script), Signal::KILL, Box::new(move |l| sink.lock().push(l))).await.unwrap();
        (process, lines)
    }

    fn alive(pid: &str) -> bool {
        // A zombie is dead too.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
    }

    async fn until(what: impl Fn() -> bool) {
        let waited = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap();
    }

    #[tokio::test]
    async fn both_outputs_arrive_in_order_and_the_end_is_told() {
        let (process, lines) = run("echo one; echo two >&2; printf three; exit 3").await;
        assert_eq!(worded(process.wait().await), "exit status 3");
        process.drained(Duration::from_secs(20)).await;
        assert_eq!(*lines.lock(), ["one", "two", "three"]);
    }

    #[tokio::test]
    async fn the_group_ends_with_its_leader_and_with_its_handle() {
        for dropped in [false, true] {
            let (process, lines) = run("sleep 1000 & echo $!; [ -z \"$0\" ] || sleep 1000").await;
            until(|| !lines.lock().is_empty()).await;
            let grandchild = lines.lock()[0].clone();
            assert!(alive(&grandchild));
            if dropped {
                drop(process);
            } else {
                assert_eq!(worded(process.stop(Duration::from_secs(20)).await), "signal: terminated");
            }
            until(|| !alive(&grandchild)).await;
        }
    }

    #[tokio::test]
    async fn one_that_ignores_the_request_is_killed() {
        let (process, lines) = run("trap '' TERM; echo ready; while :; do sleep 1; done").await;
        until(|| !lines.lock().is_empty()).await;
        assert_eq!(worded(process.stop(Duration::from_millis(50)).await), "signal: killed");
        // Its number may be somebody else's by now: nothing is sent.
        process.signal(Signal::KILL);
    }

    #[tokio::test]
    async fn what_cannot_start_says_why() {
        let command = Command::new("/nonexistent/bootstrap");
        let error = Spawner::default().start(command, Signal::KILL, Box::new(drop)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
