//! What is going on, kept from the events: the one state that the live screen and the plain lines draw from.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Event, Task};

/// The rate is taken over this time, so that it follows a change without jumping at each part.
const RATE_WINDOW: Duration = Duration::from_secs(15);

/// A task and its bytes.
#[derive(Debug, Clone)]
pub struct TaskState {
    /// Which.
    pub task: Task,
    /// What it does.
    pub label: String,
    /// Bytes in all, where known.
    pub total: Option<u64>,
    /// Bytes done.
    pub done: u64,
    /// When it began.
    pub since: Duration,
    /// The last line of its subprocess.
    pub line: Option<String>,
    /// Its summary, once it is over.
    pub summary: Option<String>,
    samples: VecDeque<(Duration, u64)>,
}

impl TaskState {
    /// Bytes per second over the last seconds.
    pub fn rate(&self) -> Option<u64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let span = last.0.checked_sub(first.0).filter(|s| *s >= Duration::from_millis(500))?;
        Some((last.1.saturating_sub(first.1) as f64 / span.as_secs_f64()) as u64)
    }

    /// The time that the rest takes at this rate.
    pub fn eta(&self) -> Option<Duration> {
        let rest = self.total?.saturating_sub(self.done);
        let rate = self.rate().filter(|rate| *rate > 0)?;
        Some(Duration::from_secs(rest.div_ceil(rate)))
    }

    /// Whole percent done.
    pub fn percent(&self) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((u128::from(self.done.min(total)) * 100 / u128::from(total)) as u64)
    }
}

/// A stack resource.
#[derive(Debug, Clone)]
pub struct ResourceState {
    /// The stack.
    pub stack: String,
    /// Its logical id.
    pub logical_id: String,
    /// Its type.
    pub kind: String,
    /// `CREATE_IN_PROGRESS` and so on.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// When it began to move.
    pub since: Duration,
    /// When its status last changed.
    pub changed: Duration,
}

impl ResourceState {
    /// Whether it is still moving.
    pub fn moving(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS")
    }

    /// Whether it is the stack itself, which CloudFormation tells like a resource.
    pub fn is_stack(&self) -> bool {
        self.kind == "AWS::CloudFormation::Stack" && self.logical_id == self.stack
    }

    /// Whether it failed.
    pub fn failed(&self) -> bool {
        self.status.ends_with("_FAILED") || self.status.contains("ROLLBACK")
    }

    /// How long it moved, or has been moving.
    pub fn elapsed(&self, now: Duration) -> Duration {
        if self.moving() { now } else { self.changed }.saturating_sub(self.since)
    }
}

/// The endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointState {
    /// Its name.
    pub name: String,
    /// Its status.
    pub status: String,
    /// What happens inside it.
    pub stage: Option<String>,
    /// When this status began.
    pub since: Duration,
}

/// Everything that goes on.
#[derive(Debug, Clone, Default)]
pub struct Board {
    /// The phase.
    pub phase: Option<(String, Duration)>,
    /// Tasks, in the order they began.
    pub tasks: Vec<TaskState>,
    /// Resources, in the order they first moved.
    pub resources: Vec<ResourceState>,
    /// The endpoint.
    pub endpoint: Option<EndpointState>,
    /// The container's last log line.
    pub container: Option<String>,
}

impl Board {
    /// Takes an event in. Says whether anything changed that is worth a line of its own.
    pub fn apply(&mut self, event: &Event, now: Duration) -> bool {
        match event {
            Event::Phase(text) => {
                let changed = self.phase.as_ref().is_none_or(|(old, _)| old != text);
                self.phase = Some((text.clone(), now));
                changed
            }
            Event::Begin { task, label, total } => {
                self.tasks.retain(|t| t.task != *task);
                self.tasks.push(TaskState {
                    task: *task,
                    label: label.clone(),
                    total: *total,
                    done: 0,
                    since: now,
                    line: None,
                    summary: None,
                    samples: VecDeque::from([(now, 0)]),
                });
                true
            }
            Event::Bytes { task, done } => {
                if let Some(state) = self.tasks.iter_mut().find(|t| t.task == *task) {
                    state.done = *done;
                    // Four samples a second are enough; a part per sample could be thousands.
                    if state.samples.back().is_none_or(|(at, _)| now.saturating_sub(*at) >= Duration::from_millis(250))
                    {
                        state.samples.push_back((now, *done));
                    }
                    while state.samples.len() > 2
                        && state.samples.front().is_some_and(|(at, _)| now.saturating_sub(*at) > RATE_WINDOW)
                    {
                        state.samples.pop_front();
                    }
                }
                false
            }
            Event::Line { task, line } => {
                if let Some(state) = self.tasks.iter_mut().find(|t| t.task == *task) {
                    state.line = Some(line.clone());
                }
                true
            }
            Event::End { task, summary } => {
                if let Some(state) = self.tasks.iter_mut().find(|t| t.task == *task) {
                    state.summary = Some(summary.clone());
                    state.done = state.total.unwrap_or(state.done);
                }
                true
            }
            Event::Resource { stack, logical_id, kind, status, reason } => {
                self.resource(stack, logical_id, kind, status, reason, now)
            }
            Event::Endpoint { name, status, stage } => {
                let old = self.endpoint.take();
                let same_status = old.as_ref().filter(|old| old.name == *name && old.status == *status);
                let since = same_status.map_or(now, |old| old.since);
                let new = EndpointState { name: name.clone(), status: status.clone(), stage: stage.clone(), since };
                let changed = old.as_ref() != Some(&new);
                self.endpoint = Some(new);
                changed
            }
            Event::Container(line) => {
                self.container = Some(line.clone());
                true
            }
            Event::Note(_) | Event::Warning(_) => true,
        }
    }

    fn resource(
        &mut self,
        stack: &str,
        logical_id: &str,
        kind: &str,
        status: &str,
        reason: &Option<String>,
        now: Duration,
    ) -> bool {
        match self.resources.iter_mut().find(|r| r.stack == stack && r.logical_id == logical_id) {
            Some(old) => {
                // CloudFormation says "in progress" again with every remark; only a failure's reason is news.
                let news = status.ends_with("_FAILED") && reason.is_some() && old.reason != *reason;
                let changed = old.status != status || news;
                if old.status != status {
                    // A resource that begins to move again, as in a clean-up, is timed anew.
                    if !old.moving() && status.ends_with("_IN_PROGRESS") {
                        old.since = now;
                    }
                    old.changed = now;
                }
                old.status = status.to_owned();
                if !kind.is_empty() {
                    old.kind = kind.to_owned();
                }
                if reason.is_some() {
                    old.reason.clone_from(reason);
                }
                changed
            }
            None => {
                self.resources.push(ResourceState {
                    stack: stack.to_owned(),
                    logical_id: logical_id.to_owned(),
                    kind: kind.to_owned(),
                    status: status.to_owned(),
                    reason: reason.clone(),
                    since: now,
                    changed: now,
                });
                true
            }
        }
    }
}
