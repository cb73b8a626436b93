//! Progress as plain lines, for logs and CI: one line per change, bytes every few seconds, and a sign of life when
//! nothing happened for half a minute, so that a CI system does not take the job for dead.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::board::{Board, TaskState};
use super::units::{bytes, stamp, time};
use super::{Event, Reporter, Task};

/// Silence after which a sign of life is due. Some CI systems stop a job after minutes without output; a reader
/// wonders sooner.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Between two lines about the bytes of one task.
const BYTES_EVERY: Duration = Duration::from_secs(10);

/// The time since the start.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;
/// Where a line goes, without its newline.
pub type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// A clock that starts now.
pub fn clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || start.elapsed())
}

/// Plain lines.
pub struct Lines {
    clock: Clock,
    sink: Sink,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    board: Board,
    last_line: Duration,
    last_bytes: Vec<(Task, Duration)>,
    finished: bool,
}

impl Lines {
    /// Lines without a heartbeat of their own: the caller calls [`Lines::tick`].
    pub fn new(clock: Clock, sink: Sink) -> Self {
        Lines { clock, sink, state: Mutex::default() }
    }

    /// Lines with a thread that calls [`Lines::tick`] each second for as long as anybody holds them.
    pub fn start(clock: Clock, sink: Sink) -> Arc<Self> {
        let lines = Arc::new(Self::new(clock, sink));
        let weak = Arc::downgrade(&lines);
        // Without the thread there is no heartbeat, which is a pity but no reason to fail.
        let _ = std::thread::Builder::new().name("heartbeat".into()).spawn(move || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                match weak.upgrade() {
                    Some(lines) if !lines.lock().finished => lines.tick(),
                    _ => break,
                }
            }
        });
        lines
    }

    /// Writes a sign of life if one is due.
    pub fn tick(&self) {
        let now = (self.clock)();
        let mut state = self.lock();
        if state.finished || now.saturating_sub(state.last_line) < HEARTBEAT {
            return;
        }
        let doing = doing(&state.board, now);
        if !doing.is_empty() {
            self.line(&mut state, now, &format!("still working: {}", doing.join("; ")));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, state: &mut State, now: Duration, text: &str) {
        state.last_line = now;
        (self.sink)(&format!("{}  {text}", stamp(now)));
    }
}

impl Reporter for Lines {
    fn report(&self, event: Event) {
        let now = (self.clock)();
        let mut state = self.lock();
        let changed = state.board.apply(&event, now);
        if let Event::Bytes { task, .. } = &event {
            let due = match state.last_bytes.iter().find(|(t, _)| t == task) {
                Some((_, at)) => now.saturating_sub(*at) >= BYTES_EVERY,
                None => false,
            };
            if due {
                state.last_bytes.retain(|(t, _)| t != task);
                state.last_bytes.push((*task, now));
                if let Some(text) = state.board.tasks.iter().find(|t| t.task == *task).map(amount) {
                    self.line(&mut state, now, &format!("{}: {text}", task.word()));
                }
            }
            return;
        }
        if !changed {
            return;
        }
        let text = match event {
            Event::Phase(text) => text,
            Event::Begin { task, label, total } => {
                state.last_bytes.retain(|(t, _)| *t != task);
                state.last_bytes.push((task, now));
                match total {
                    Some(total) => format!("{}: {label}, {}", task.word(), bytes(total)),
                    None => format!("{}: {label}", task.word()),
                }
            }
            Event::Line { task, line } => format!("{}: {}", task.word(), clean(&line)),
            Event::End { task, summary } => format!("{}: {summary}", task.word()),
            Event::Resource { logical_id, kind, status, reason, .. } => {
                // Why something begins is CloudFormation's routine; why it failed is not.
                let told =
                    |r: &String| !r.is_empty() && (!status.ends_with("_IN_PROGRESS") || status.contains("ROLLBACK"));
                let reason = reason.filter(told).map(|r| format!(": {}", clean(&r))).unwrap_or_default();
                let kind = if kind.is_empty() { String::new() } else { format!(" ({kind})") };
                format!("{status}  {logical_id}{kind}{reason}")
            }
            Event::Endpoint { name, status, stage } => {
                format!("endpoint {name}: {status}{}", stage.map(|s| format!(", {s}")).unwrap_or_default())
            }
            Event::Container(line) => format!("container: {}", clean(&line)),
            Event::Note(text) => format!("note: {text}"),
            Event::Warning(text) => format!("warning: {text}"),
            Event::Bytes { .. } => return,
        };
        self.line(&mut state, now, &text);
    }

    fn finish(&self) {
        self.lock().finished = true;
    }
}

/// `1.2 GiB of 6.5 GiB, 18%, 85.0 MiB/s, 1m04s left`.
pub(super) fn amount(task: &TaskState) -> String {
    let mut parts = vec![match task.total {
        Some(total) => format!("{} of {}", bytes(task.done), bytes(total)),
        None => bytes(task.done),
    }];
    parts.extend(task.percent().map(|p| format!("{p}%")));
    parts.extend(task.rate().filter(|r| *r > 0).map(|r| format!("{}/s", bytes(r))));
    parts.extend(task.eta().filter(|eta| !eta.is_zero()).map(|eta| format!("{} left", time(eta))));
    parts.join(", ")
}

/// What is going on, for the sign of life.
fn doing(board: &Board, now: Duration) -> Vec<String> {
    let mut doing: Vec<String> = board
        .tasks
        .iter()
        .filter(|t| t.summary.is_none())
        .map(|t| match t.done {
            0 => format!("{} {} for {}", t.task.word(), t.label, time(now.saturating_sub(t.since))),
            _ => format!("{} {}", t.task.word(), amount(t)),
        })
        .collect();
    let moving: Vec<_> = board.resources.iter().filter(|r| r.moving()).collect();
    doing.extend(moving.iter().take(3).map(|r| format!("{} {} for {}", r.logical_id, r.status, time(r.elapsed(now)))));
    if moving.len() > 3 {
        doing.push(format!("{} more resources", moving.len() - 3));
    }
    if let Some(endpoint) = board.endpoint.as_ref().filter(|e| e.status != "InService") {
        doing.push(format!(
            "endpoint {} {} for {}",
            endpoint.name,
            endpoint.status,
            time(now.saturating_sub(endpoint.since))
        ));
    }
    if doing.is_empty() {
        doing.extend(
            board.phase.as_ref().map(|(text, since)| format!("{text}, for {}", time(now.saturating_sub(*since)))),
        );
    }
    doing
}

/// A foreign line without escape sequences and control characters: it must not move the reader's cursor.
pub(super) fn clean(line: &str) -> String {
    let plain = anstream::adapter::strip_str(line).to_string();
    // A progress bar rewrites its line with carriage returns; the last state is the one to show.
    let last = plain.trim_end().rsplit('\r').next().unwrap_or_default();
    last.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests;
