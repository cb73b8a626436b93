//! Subprocesses behind a trait, so that everything above is tested without any.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use super::leftovers;

/// Turns true when the run must stop. A sender that is gone never cancels.
pub type Cancel = watch::Receiver<bool>;

/// How long a tool may take to clean up after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait for the next line once the process has ended.
const DRAIN: Duration = Duration::from_millis(500);
/// Longest line that is kept, in bytes; a progress bar without a newline must not fill the memory.
const LONGEST_LINE: usize = 16 * 1024;

/// One command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invocation {
    /// Name in PATH, or a path.
    pub program: String,
    /// Arguments. They are visible to every user of the machine: no secrets.
    pub args: Vec<OsString>,
    /// Variables beside the inherited ones. Other processes of the same user can read them: no secrets either.
    pub env: BTreeMap<String, OsString>,
    /// Gives up after this time; none for a build.
    pub limit: Option<Duration>,
}

impl Invocation {
    /// A program with arguments.
    pub fn new(program: impl Into<String>, args: &[&str]) -> Self {
        Invocation { program: program.into(), args: args.iter().map(Into::into).collect(), ..Invocation::default() }
    }

    /// Adds one argument.
    pub fn arg(&mut self, arg: impl Into<OsString>) -> &mut Self {
        self.args.push(arg.into());
        self
    }

    /// Adds several arguments.
    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.args.extend(args.iter().map(Into::into));
        self
    }

    /// Sets the limit.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How a subprocess ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal that was not ours.
    Signal(i32),
    /// Stopped by us because the run was cancelled.
    Cancelled,
    /// Stopped by us at the invocation's limit.
    TimedOut,
}

impl Exit {
    /// Whether it ended with code 0.
    pub fn ok(self) -> bool {
        self == Exit::Code(0)
    }
}

/// Receives each line. (A name of its own because `async_trait` would tie the `&str` to the caller's lifetime.)
pub type OnLine<'a> = dyn FnMut(Stream, &str) + Send + 'a;

/// Runs subprocesses.
#[async_trait]
pub trait Runner: Send + Sync {
    /// Runs to the end and hands on each line (without its newline) as it comes. When `cancel` turns true, or the
    /// future is dropped, the process and its children are stopped.
    ///
    /// # Errors
    /// The program cannot be started; `NotFound` when there is none.
    async fn run(&self, invocation: &Invocation, cancel: &Cancel, line: &mut OnLine<'_>) -> io::Result<Exit>;
}

/// Runs a command and returns its standard output when it ends with code 0, else none; also when it does not exist.
pub(super) async fn probe(runner: &dyn Runner, invocation: &Invocation) -> Option<String> {
    let (_keep, never) = watch::channel(false);
    let mut out = String::new();
    let exit = runner
        .run(invocation, &never, &mut |stream, line| {
            if stream == Stream::Out {
                out.push_str(line);
                out.push('\n');
            }
        })
        .await;
    matches!(exit, Ok(exit) if exit.ok()).then_some(out)
}

/// The operating system's processes. Each gets a process group of its own: Ctrl-C reaches only us, and we stop the
/// whole group, because the tools start helpers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processes;

#[async_trait]
impl Runner for Processes {
    async fn run(&self, invocation: &Invocation, cancel: &Cancel, line: &mut OnLine<'_>) -> io::Result<Exit> {
        let mut child = Command::new(&invocation.program)
            .args(&invocation.args)
            .envs(&invocation.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (sender, mut lines) = mpsc::channel(256);
        if let Some(out) = child.stdout.take() {
            tokio::spawn(read_lines(out, Stream::Out, sender.clone()));
        }
        if let Some(err) = child.stderr.take() {
            tokio::spawn(read_lines(err, Stream::Err, sender));
        }
        let mut group = Group::new(child);
        let mut cancel = cancel.clone();
        let stopped = async {
            let cancelled = async {
                // The guard that is returned must not live across an await.
                let stop = cancel.wait_for(|stop| *stop).await.is_ok();
                if !stop {
                    std::future::pending::<()>().await;
                }
            };
            let limit = async {
                match invocation.limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancelled => Exit::Cancelled,
                () = limit => Exit::TimedOut,
            }
        };
        tokio::pin!(stopped);
        let mut exited = None;
        let exit = loop {
            tokio::select! {
                next = lines.recv() => match (next, exited) {
                    (Some((stream, text)), _) => line(stream, &text),
                    (None, Some(exit)) => break exit,
                    // Both pipes are closed; what is left is the exit status.
                    (None, None) => tokio::select! {
                        status = group.child.wait() => break exit_of(status?),
                        why = &mut stopped => { group.stop().await?; break why; }
                    },
                },
                status = group.child.wait(), if exited.is_none() => exited = Some(exit_of(status?)),
                // A helper that the tool left behind may hold the pipes for ever.
                () = tokio::time::sleep(DRAIN), if exited.is_some() => break exited.unwrap_or(Exit::TimedOut),
                why = &mut stopped => { group.stop().await?; break why; }
            }
        };
        Ok(exit)
    }
}

fn exit_of(status: std::process::ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match status.code() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.signal().unwrap_or_default()),
    }
}

/// A child with its process group; killed when dropped unfinished.
struct Group {
    child: Child,
    id: Option<rustix::process::Pid>,
}

impl Group {
    fn new(child: Child) -> Self {
        let id = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        id.inspect(|id| leftovers::begin_group(*id));
        Group { child, id }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        // It can only fail because the group is gone, which is what is wanted.
        let _ = self.id.map(|id| rustix::process::kill_process_group(id, signal));
    }

    /// Asks to end, then insists.
    async fn stop(&mut self) -> io::Result<()> {
        self.signal(rustix::process::Signal::TERM);
        let ended = tokio::time::timeout(GRACE, self.child.wait()).await;
        // Also when the child has ended: a helper of its own may not have.
        self.signal(rustix::process::Signal::KILL);
        if ended.is_err() {
            self.child.wait().await?;
        }
        Ok(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once the child was waited for, its number may belong to somebody else.
        if self.child.id().is_some() {
            self.signal(rustix::process::Signal::KILL);
        }
        self.id.inspect(|id| leftovers::end_group(*id));
    }
}

/// Sends lines until the end of the pipe. Carriage returns end a line too: progress bars use them.
async fn read_lines(pipe: impl AsyncRead + Unpin, stream: Stream, to: mpsc::Sender<(Stream, String)>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        let (used, ended) = {
            let Ok(buffer) = pipe.fill_buf().await else { break };
            if buffer.is_empty() {
                break;
            }
            match buffer.iter().position(|b| *b == b'\n' || *b == b'\r') {
                Some(at) => {
                    line.extend_from_slice(&buffer[..at]);
                    (at + 1, true)
                }
                None => {
                    line.extend_from_slice(buffer);
                    (buffer.len(), false)
                }
            }
        };
        pipe.consume(used);
        if ended || line.len() >= LONGEST_LINE {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if !text.is_empty() && to.send((stream, text)).await.is_err() {
                return;
            }
        }
    }
    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
    if !text.is_empty() {
        let _ = to.send((stream, text)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn shell(script: &str) -> Invocation {
        Invocation::new("sh", &["-c", script])
    }

    async fn run(invocation: &Invocation, cancel: &Cancel) -> (Exit, Vec<(Stream, String)>) {
        let mut lines = Vec::new();
        let exit = Processes.run(invocation, cancel, &mut |s, l| lines.push((s, l.to_owned()))).await.expect("starts");
        (exit, lines)
    }

    #[tokio::test]
    async fn lines_streams_and_codes() {
        let (_keep, cancel) = watch::channel(false);
        let (exit, lines) = run(&shell("printf 'a\\nb\\rc'; printf 'd\\n' >&2; exit 3"), &cancel).await;
        assert_eq!(exit, Exit::Code(3));
        let out: Vec<_> = lines.iter().filter(|(s, _)| *s == Stream::Out).map(|(_, l)| l.as_str()).collect();
        assert_eq!(out, ["a", "b", "c"]);
        assert!(lines.contains(&(Stream::Err, "d".into())));
        assert_eq!(run(&shell("kill -9 $$"), &cancel).await.0, Exit::Signal(9));
    }

    #[tokio::test]
    async fn absent_programs_are_not_found() {
        let (_keep, cancel) = watch::channel(false);
        let result = Processes.run(&Invocation::new("no-such-tool", &[]), &cancel, &mut |_, _| {}).await;
        assert_eq!(result.map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
    }

    /// Whether a process exists and is not a zombie.
    fn alive(pid: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
    }

    async fn gone(pid: &str) -> bool {
        for _ in 0..100 {
            if !alive(pid) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    #[tokio::test]
    async fn cancelling_stops_grandchildren_too() {
        let (stop, cancel) = watch::channel(false);
        let mut grandchild = String::new();
        let begun = Instant::now();
        let exit = Processes
            .run(&shell("sleep 60 & echo $!; wait"), &cancel, &mut |_, line| {
                grandchild = line.to_owned();
                stop.send_replace(true);
            })
            .await
            .expect("starts");
        assert_eq!(exit, Exit::Cancelled);
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(gone(&grandchild).await, "the grandchild still runs");
    }

    #[tokio::test]
    async fn dropping_the_future_kills() {
        let (_keep, cancel) = watch::channel(false);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let _ = Processes
                .run(&shell("sleep 60 & echo $!; wait"), &cancel, &mut |_, line| drop(sender.send(line.to_owned())))
                .await;
        });
        let grandchild = receiver.recv().await.expect("a line");
        assert!(alive(&grandchild));
        task.abort();
        assert!(gone(&grandchild).await, "the grandchild still runs");
    }

    #[tokio::test]
    async fn limits_end_a_hanging_tool() {
        let (_keep, cancel) = watch::channel(false);
        let (exit, _) = run(&shell("sleep 60").limit(Duration::from_millis(100)), &cancel).await;
        assert_eq!(exit, Exit::TimedOut);
    }

    #[tokio::test]
    async fn a_helper_left_behind_does_not_hold_us() {
        let (_keep, cancel) = watch::channel(false);
        let begun = Instant::now();
        let (exit, lines) = run(&shell("sleep 20 & echo $!; exit 4"), &cancel).await;
        assert_eq!((exit, lines.len()), (Exit::Code(4), 1));
        assert!(begun.elapsed() < Duration::from_secs(15));
        let pid = lines[0].1.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it still runs");
    }

    #[tokio::test]
    async fn cancelled_before_it_begins() {
        let (stop, cancel) = watch::channel(false);
        stop.send_replace(true);
        let (exit, _) = run(&shell("sleep 60"), &cancel).await;
        assert_eq!(exit, Exit::Cancelled);
    }
}
