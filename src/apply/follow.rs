//! Follows one stack operation: events, the endpoint's stage, the container's first log lines.

use super::{Run, pace};
use crate::cloud::{Endpoint, StackEvent};
use crate::error::{Error, Kind, Result};
use crate::progress::Event;
use crate::settings::duration;

/// How a stack operation ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The stack's final status; `DELETE_COMPLETE` also when it is gone.
    pub status: String,
    /// StackStatusReason.
    pub reason: Option<String>,
    /// The operation's events, oldest first.
    pub events: Vec<StackEvent>,
    /// What was seen of the endpoint when things went wrong.
    pub endpoint: Option<Endpoint>,
    /// The container's last log lines, read before a rollback removed the endpoint.
    pub container: Vec<String>,
}

impl Ended {
    /// Whether it is what was wanted.
    pub fn good(&self) -> bool {
        matches!(self.status.as_str(), "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE")
    }
}

/// What to look at beside the stack.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The endpoint's name.
    pub endpoint: String,
    /// Whether the container's log is of interest, as it is while one starts.
    pub container: bool,
}

impl Watch {
    /// The log group that SageMaker makes.
    pub fn log_group(&self) -> String {
        format!("/aws/sagemaker/Endpoints/{}", self.endpoint)
    }
}

/// Lines of the container's log that are kept for the error.
const LOG_LINES: usize = 40;

/// Follows a stack, by name or by ARN, until no operation runs any more.
///
/// `seen` is the newest event before the operation, `token` the operation's ClientRequestToken where it is known.
///
/// # Errors
/// [`Kind::Interrupted`], the deadline, and lost credentials: the operation goes on in all three cases.
pub async fn follow(
    run: &Run<'_>,
    stack: &str,
    seen: Option<String>,
    token: Option<&str>,
    watch: Option<Watch>,
) -> Result<Ended> {
    let mut follower = Follower {
        run,
        stack,
        seen,
        token,
        watch,
        events: Vec::new(),
        endpoint: None,
        container: Vec::new(),
        old_lines: Vec::new(),
        failed: None,
    };
    let mut pace = run.pace();
    loop {
        match follower.look().await {
            Ok(Look::Ended { status, reason }) => {
                let Follower { events, endpoint, container, failed, .. } = follower;
                return Ok(Ended { status, reason, events, endpoint: failed.or(endpoint), container });
            }
            Ok(Look::Moving(moved)) => {
                if moved {
                    pace.quicken();
                }
            }
            Err(e) if pace::passing(&e) => tracing::debug!("poll failed, going on: {e}"),
            Err(e) => return Err(detached(run, stack, e)),
        }
        if pace.over() {
            let late = Error::failed(format!("{} is not done after {}", name_of(stack), duration::write(run.timeout)));
            return Err(detached(run, stack, late));
        }
        if let Err(e) = pace.pause(&run.cancel).await {
            return Err(detached(run, stack, e));
        }
    }
}

/// The operation goes on without us: say so, and how to come back.
fn detached(run: &Run<'_>, stack: &str, error: Error) -> Error {
    let error = error.why(format!("the operation on {} goes on in AWS", name_of(stack)));
    match error.kind() {
        Kind::Access => error.next(format!("renew the credentials, then continue with: {}", run.resume)),
        _ => error.next(format!("continue with: {} (or look with `comfy-deploy status`)", run.resume)),
    }
}

enum Look {
    Ended { status: String, reason: Option<String> },
    Moving(bool),
}

struct Follower<'a, 'r> {
    run: &'a Run<'r>,
    stack: &'a str,
    seen: Option<String>,
    token: Option<&'a str>,
    watch: Option<Watch>,
    events: Vec<StackEvent>,
    endpoint: Option<Endpoint>,
    container: Vec<String>,
    /// What the log held before the operation touched the endpoint.
    old_lines: Vec<String>,
    failed: Option<Endpoint>,
}

impl Follower<'_, '_> {
    async fn look(&mut self) -> Result<Look> {
        // Status before events: what ends the loop must be among the events that were read.
        let stack = self.run.cloud.stacks.stack(self.stack).await?;
        let moved = self.read_events().await? | self.watch_endpoint().await;
        let Some(stack) = stack else { return Ok(Look::Ended { status: "DELETE_COMPLETE".into(), reason: None }) };
        if stack.busy() {
            return Ok(Look::Moving(moved));
        }
        Ok(Look::Ended { status: stack.status, reason: stack.reason })
    }

    async fn read_events(&mut self) -> Result<bool> {
        let read = match self.run.cloud.stacks.events(self.stack, self.seen.as_deref()).await {
            Ok(events) => events,
            // A deleted stack's events are only found by its ARN.
            Err(e) if e.is_aws("ValidationError") => return Ok(false),
            Err(e) => return Err(e),
        };
        let Some(last) = read.last() else { return Ok(false) };
        // Whoever joins an operation knows no event before it, and gets the stack's whole life at first.
        let fresh = if self.seen.is_none() { &read[beginning(name_of(self.stack), &read)..] } else { &read[..] };
        self.seen = Some(last.id.clone());
        let ours: Vec<StackEvent> = fresh
            .iter()
            .filter(|e| self.token.is_none() || e.token.is_none() || e.token.as_deref() == self.token)
            .cloned()
            .collect();
        for event in &ours {
            self.run.say(Event::Resource {
                stack: name_of(self.stack).to_owned(),
                logical_id: event.logical_id.clone(),
                kind: event.kind.clone(),
                status: event.status.clone(),
                reason: event.reason.clone(),
            });
        }
        self.events.extend(ours);
        Ok(true)
    }

    /// Never fails: the endpoint is company, the stack decides.
    async fn watch_endpoint(&mut self) -> bool {
        let Some(watch) = self.watch.clone() else { return false };
        let Ok(Some(endpoint)) = self.run.cloud.endpoints.endpoint(&watch.endpoint).await else { return false };
        if self.endpoint.is_none() && endpoint.status == "InService" {
            // The container that serves now; the one that the operation starts writes after it.
            self.old_lines = self.tail(&watch).await;
        }
        let moved =
            self.endpoint.as_ref().is_none_or(|old| old.status != endpoint.status || old.stage != endpoint.stage);
        if moved {
            self.run.say(Event::Endpoint {
                name: endpoint.name.clone(),
                status: endpoint.status.clone(),
                stage: stage(&endpoint),
            });
        }
        let in_trouble = endpoint.failure.is_some()
            || matches!(endpoint.status.as_str(), "Failed" | "RollingBack" | "UpdateRollbackFailed");
        if moved || in_trouble {
            self.read_container(&watch).await;
        }
        if in_trouble {
            self.failed = Some(endpoint.clone());
        }
        self.endpoint = Some(endpoint);
        moved
    }

    async fn read_container(&mut self, watch: &Watch) {
        let mut lines = self.tail(watch).await;
        lines.retain(|line| !self.old_lines.contains(line));
        for line in lines.iter().filter(|l| !self.container.contains(l)) {
            self.run.say(Event::Container(line.clone()));
        }
        if !lines.is_empty() {
            self.container = lines;
        }
    }

    /// The end of the container's log; empty when there is none or it may not be read.
    async fn tail(&self, watch: &Watch) -> Vec<String> {
        if !watch.container {
            return Vec::new();
        }
        self.run.cloud.logs.tail(&watch.log_group(), LOG_LINES).await.ok().flatten().unwrap_or_default()
    }
}

/// The stage as it is shown: the one variant's name says nothing, nor does a stage that repeats the status.
fn stage(endpoint: &Endpoint) -> Option<String> {
    let stage = endpoint.stage.as_deref()?;
    let stage = stage.strip_prefix(&format!("{}: ", crate::stack::VARIANT)).unwrap_or(stage);
    (stage != endpoint.status).then(|| stage.to_owned())
}

/// Where the newest operation begins among a stack's events: at the last event by which the stack itself began to be
/// created, updated, imported into or deleted. A rollback belongs to what it takes back.
fn beginning(stack: &str, events: &[StackEvent]) -> usize {
    const BEGIN: [&str; 4] = ["CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "IMPORT_IN_PROGRESS", "DELETE_IN_PROGRESS"];
    let begins = |e: &StackEvent| {
        e.kind == "AWS::CloudFormation::Stack" && e.logical_id == stack && BEGIN.contains(&e.status.as_str())
    };
    events.iter().rposition(begins).unwrap_or(0)
}

/// `arn:...:stack/NAME/id` -> `NAME`.
fn name_of(stack: &str) -> &str {
    stack.split(":stack/").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or(stack)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, kind: &str, status: &str) -> StackEvent {
        StackEvent {
            id: format!("{id} {status}"),
            at: 0,
            logical_id: id.into(),
            kind: kind.into(),
            status: status.into(),
            reason: None,
            physical_id: None,
            token: None,
        }
    }

    #[test]
    fn only_the_newest_operation_is_told_and_a_rollback_belongs_to_it() {
        let stack = "AWS::CloudFormation::Stack";
        let events = [
            event("app", stack, "REVIEW_IN_PROGRESS"),
            event("app", stack, "CREATE_IN_PROGRESS"),
            event("Old", "AWS::X::Y", "CREATE_FAILED"),
            event("app", stack, "CREATE_COMPLETE"),
            event("app", stack, "UPDATE_IN_PROGRESS"),
            event("New", "AWS::X::Y", "UPDATE_FAILED"),
            event("app", stack, "UPDATE_ROLLBACK_IN_PROGRESS"),
        ];
        assert_eq!(beginning("app", &events), 4);
        assert_eq!(beginning("app", &events[..4]), 1);
        assert_eq!(beginning("app", &events[5..]), 0, "the beginning is not there: everything");
        assert_eq!(name_of("arn:aws:cloudformation:eu-west-1:123456789012:stack/app/1"), "app");
    }
}
