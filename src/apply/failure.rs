//! Turns a failed stack operation into one error: root cause, the endpoint's reason, the container's last words, in
//! that order, and what to do.

use std::path::PathBuf;

use super::Run;
use super::follow::Ended;
use crate::cloud::StackEvent;
use crate::error::{Error, Kind};

/// The event that began the failure: the first failed one that was not merely cancelled with the rest.
pub fn root_cause(events: &[StackEvent]) -> Option<&StackEvent> {
    let failed = |e: &&StackEvent| e.status.ends_with("_FAILED");
    let cancelled =
        |e: &StackEvent| e.reason.as_deref().is_some_and(|r| r.contains("cancelled") || r.contains("canceled"));
    events.iter().filter(failed).find(|e| !cancelled(e)).or_else(|| events.iter().find(failed))
}

/// One line for an event.
pub fn line(event: &StackEvent) -> String {
    let reason = event.reason.as_deref().unwrap_or("no reason given");
    format!("{} ({}): {reason}", event.logical_id, event.kind)
}

/// The error for a stack operation that ended badly.
pub fn operation(run: &Run<'_>, stack: &str, ended: &Ended) -> Error {
    let rolled_back = ended.status.contains("ROLLBACK_COMPLETE");
    let what = if rolled_back {
        format!("the stack {stack} failed and was rolled back ({})", ended.status)
    } else {
        format!("the stack {stack} failed ({})", ended.status)
    };
    let cause = root_cause(&ended.events);
    let mut error = Error::new(kind(ended, rolled_back), what);
    match (cause, &ended.reason) {
        (Some(event), _) => error = error.why(line(event)),
        (None, Some(reason)) => error = error.why(reason.clone()),
        (None, None) => {}
    }
    if let Some(failure) = ended.endpoint.as_ref().and_then(|e| e.failure.as_ref()) {
        error = error.why(format!("endpoint: {failure}"));
    }
    if !ended.container.is_empty() {
        let tail = ended.container.len().saturating_sub(10);
        error = error.why(format!("the container's last log lines:\n{}", ended.container[tail..].join("\n")));
        if let Some(file) = save(run, stack, &ended.container) {
            error = error.why(format!("more of its log in {}", file.display()));
        }
    }
    let next = advice(&error.to_string(), run, stack, ended);
    error.next(next)
}

/// The error for a stack that could not be deleted.
pub fn deletion(run: &Run<'_>, stack: &str, ended: &Ended) -> Error {
    let mut error = Error::failed(format!("the stack {stack} could not be deleted ({})", ended.status));
    if let Some(event) = root_cause(&ended.events) {
        error = error.why(line(event));
    } else if let Some(reason) = &ended.reason {
        error = error.why(reason.clone());
    }
    error.next(format!("mend the cause, then: {}", run.resume))
}

fn kind(ended: &Ended, rolled_back: bool) -> Kind {
    let reasons: String = ended
        .events
        .iter()
        .filter_map(|e| e.reason.as_deref())
        .chain(ended.endpoint.iter().filter_map(|e| e.failure.as_deref()))
        .collect();
    if reasons.contains("ResourceLimitExceeded")
        || reasons.contains("InsufficientInstanceCapacity")
        || reasons.contains("service limit")
    {
        Kind::Quota
    } else if rolled_back {
        Kind::RolledBack
    } else {
        Kind::Failed
    }
}

fn advice(told: &str, run: &Run<'_>, stack: &str, ended: &Ended) -> String {
    if told.contains("ping health check") {
        return "the container did not answer /ping in time: look at its log lines, try the image locally, or raise endpoint.startup_timeout".into();
    }
    if told.contains("model data") {
        return "check the model artifact and endpoint.download_timeout; the instance's disk must hold it compressed and extracted".into();
    }
    if told.contains("service limit") || told.contains("ResourceLimitExceeded") {
        return "ask for more of this instance type in Service Quotas (\"... for endpoint usage\"), or choose another endpoint.instance_type".into();
    }
    if told.contains("InsufficientInstanceCapacity") {
        return "AWS has none of these instances free now: try later, or another endpoint.instance_type or region"
            .into();
    }
    if run.keep_on_failure && ended.status.ends_with("_FAILED") {
        return format!(
            "it was left standing for you to look at; then either `{}` or: aws cloudformation rollback-stack --stack-name {stack}",
            run.resume
        );
    }
    format!("mend the cause, then: {}", run.resume)
}

/// Keeps the log lines where a rollback cannot reach them.
fn save(run: &Run<'_>, stack: &str, lines: &[String]) -> Option<PathBuf> {
    let file = run.scratch.join(format!("{stack}-container.log"));
    std::fs::create_dir_all(&run.scratch).ok()?;
    std::fs::write(&file, lines.join("\n") + "\n").ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, status: &str, reason: &str) -> StackEvent {
        StackEvent {
            id: id.into(),
            at: 0,
            logical_id: id.into(),
            kind: "AWS::X::Y".into(),
            status: status.into(),
            reason: Some(reason.into()),
            physical_id: None,
            token: None,
        }
    }

    #[test]
    fn the_root_cause_is_the_first_failure_that_is_not_a_cancellation() {
        let events = [
            event("A", "CREATE_FAILED", "Resource creation cancelled"),
            event("B", "CREATE_FAILED", "it broke"),
            event("C", "CREATE_FAILED", "later"),
        ];
        assert_eq!(root_cause(&events).map(|e| e.id.as_str()), Some("B"));
        assert_eq!(root_cause(&events[..1]).map(|e| e.id.as_str()), Some("A"));
        assert!(root_cause(&[event("D", "CREATE_COMPLETE", "")]).is_none());
    }
}
