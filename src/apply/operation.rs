//! One stack operation: change set, guard, execution, and what is left if it must stop half-way.

use super::follow::follow;
use super::{Run, pace};
use crate::cloud::{Change, ChangeRequest, ChangeSetState};
use crate::error::{Error, Kind, Result};
use crate::plan::{Step, StepKind};
use crate::progress::Event;
use crate::stack::{Action, ResourceChange};

/// Largest template in a request body; larger ones go through the bucket (AWS: CreateChangeSet, TemplateBody).
pub const BODY_LIMIT: usize = 51_200;

/// A change set that is ready and holds nothing but what was confirmed.
#[derive(Debug)]
pub struct Prepared {
    change_set: String,
    token: String,
    /// The newest event before it is executed.
    seen: Option<String>,
}

impl Prepared {
    /// The ClientRequestToken that its events will carry.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The newest event before it is executed, from where to follow.
    pub fn seen(&self) -> Option<String> {
        self.seen.clone()
    }
}

/// Makes the change set of a step and checks it against the step. `None` when CloudFormation finds nothing to change.
///
/// # Errors
/// [`Kind::Refused`] when it would do what the step does not say; what CloudFormation says.
pub async fn prepare(run: &Run<'_>, step: &Step, template_url: Option<String>) -> Result<Option<Prepared>> {
    let create = step.kind != StepKind::Update;
    if step.kind == StepKind::Recreate {
        remove_shell(run, &step.stack).await?;
    }
    // CloudFormation's own limits leave no room for a reused name: a set of that name may have failed before.
    let token = super::token();
    let request = ChangeRequest {
        stack: step.stack.clone(),
        name: token.clone(),
        create,
        template: step.body.clone(),
        template_url,
        parameters: step.parameters.clone(),
        tags: step.tags.clone(),
        role_arn: run.role_arn.clone(),
        import_existing: create && step.import_existing,
    };
    let change_set = match run.cloud.stacks.request_changes(&request, &token).await {
        Ok(change_set) => change_set,
        Err(e) => return Err(raced(run, step, e).await),
    };
    let ready = judge(run, step, &change_set).await;
    if !matches!(ready, Ok(Some(_))) {
        discard(run, step, &change_set).await;
    }
    Ok(ready?.map(|Ready { seen }| Prepared { change_set, token, seen }))
}

/// A change set that may be executed.
struct Ready {
    /// The newest event before it is.
    seen: Option<String>,
}

/// Waits for a change set and checks it. `None` when there is nothing to change.
///
/// # Errors
/// As [`prepare`]. [`Kind::Busy`] when another change was executed first: what was confirmed was planned for a stack that
/// is no more, so it has to be planned and confirmed again.
async fn judge(run: &Run<'_>, step: &Step, change_set: &str) -> Result<Option<Ready>> {
    match computed(run, &step.stack, change_set).await? {
        ChangeSetState::Ready(changes) => {
            guard(step, &changes)?;
            // Read before anything is begun, so that what fails here leaves nothing that has to be ended.
            let events = pace::patiently(run, async || run.cloud.stacks.events(&step.stack, None).await).await?;
            Ok(Some(Ready { seen: events.into_iter().next_back().map(|e| e.id) }))
        }
        ChangeSetState::Empty => Ok(None),
        ChangeSetState::Failed(reason) => {
            let refused = Error::failed(format!("CloudFormation refuses the change of {}", step.stack)).why(reason);
            Err(raced(run, step, refused.next(format!("mend the cause, then: {}", run.resume))).await)
        }
        ChangeSetState::Obsolete | ChangeSetState::Pending => {
            Err(crate::plan::busy(&step.stack, "another change was executed first"))
        }
    }
}

/// Executes a prepared change set.
///
/// # Errors
/// What CloudFormation says; nothing was executed then. [`Kind::Busy`] when an operation runs on the stack, which may be
/// this one if only the answer was lost.
pub async fn execute(run: &Run<'_>, step: &Step, prepared: &Prepared) -> Result<()> {
    let keep = run.keep_on_failure && !replaces(step);
    if keep != run.keep_on_failure {
        run.say(Event::Warning(
            "--keep-on-failure holds for first creations only here: CloudFormation refuses replacements without rollback".into(),
        ));
    }
    if let Err(e) = run.cloud.stacks.execute(&step.stack, &prepared.change_set, &prepared.token, keep).await {
        // Without effect if it was begun nevertheless, as when only the answer was lost.
        discard(run, step, &prepared.change_set).await;
        return Err(raced(run, step, e).await);
    }
    Ok(())
}

/// Whether an update replaces anything. With rollback disabled CloudFormation refuses that: "Replacement type updates
/// not supported on stack with disable-rollback".
fn replaces(step: &Step) -> bool {
    step.kind == StepKind::Update && step.changes.iter().any(|c| c.action == Action::Replace)
}

/// Waits until CloudFormation has computed a change set.
async fn computed(run: &Run<'_>, stack: &str, change_set: &str) -> Result<ChangeSetState> {
    let mut pace = run.pace();
    loop {
        match run.cloud.stacks.changes(stack, change_set).await {
            Ok(ChangeSetState::Pending) => {}
            Ok(done) => return Ok(done),
            Err(e) if pace::passing(&e) => {}
            Err(e) => return Err(e),
        }
        if pace.over() {
            return Err(Error::failed(format!("CloudFormation has not computed the change set of {stack} in time")));
        }
        pace.pause(&run.cancel).await?;
    }
}

/// Removes a change set that will not be executed, and the empty stack that it made. Best effort: a leftover is
/// reused by the next run.
async fn discard(run: &Run<'_>, step: &Step, change_set: &str) {
    let _ = run.cloud.stacks.discard(&step.stack, change_set).await;
    if step.kind != StepKind::Update
        && let Ok(Some(stack)) = run.cloud.stacks.stack(&step.stack).await
        && stack.status == "REVIEW_IN_PROGRESS"
    {
        let _ = run.cloud.stacks.delete(&step.stack, &super::token(), run.role_arn.as_deref()).await;
    }
}

/// Takes back a prepared change set that is not wanted any more, with the empty stack that it made.
pub async fn take_back(run: &Run<'_>, step: &Step, prepared: &Prepared) {
    discard(run, step, &prepared.change_set).await;
}

/// Takes back a prepared change set because another run was faster. An empty stack stays: the other run's change set
/// is in it.
pub async fn abandon(run: &Run<'_>, step: &Step, prepared: &Prepared) {
    let _ = run.cloud.stacks.discard(&step.stack, &prepared.change_set).await;
}

/// Tells a refusal because another run has begun to change the stack meanwhile from every other one. CloudFormation has
/// several texts for it (already exists, in progress, not found), so the stack is asked.
async fn raced(run: &Run<'_>, step: &Step, error: Error) -> Error {
    if matches!(error.kind(), Kind::Access | Kind::Busy | Kind::Interrupted) {
        return error;
    }
    match run.cloud.stacks.stack(&step.stack).await {
        Ok(Some(stack)) if stack.busy() => crate::plan::busy(&step.stack, &stack.status),
        // It was to be made and somebody else has made it.
        Ok(Some(stack)) if step.kind != StepKind::Update && stack.status == "CREATE_COMPLETE" => {
            crate::plan::busy(&step.stack, &stack.status)
        }
        _ => error,
    }
}

/// Deletes a stack whose first creation failed.
async fn remove_shell(run: &Run<'_>, name: &str) -> Result<()> {
    let Some(stack) = run.cloud.stacks.stack(name).await? else { return Ok(()) };
    run.say(Event::Phase(format!("removing the failed stack {name} ({})", stack.status)));
    let token = super::token();
    run.cloud.stacks.delete(name, &token, run.role_arn.as_deref()).await?;
    let ended = follow(run, &stack.id, None, Some(&token), None).await?;
    if ended.status != "DELETE_COMPLETE" {
        return Err(super::failure::deletion(run, name, &ended));
    }
    Ok(())
}

/// Refuses a change set that replaces or removes what the confirmed step does not replace or remove.
///
/// # Errors
/// [`Kind::Refused`].
pub fn guard(step: &Step, changes: &[Change]) -> Result<()> {
    let planned = |id: &str| step.changes.iter().find(|c| c.logical_id == id);
    let surprises: Vec<String> =
        changes.iter().filter_map(|change| surprise(change, planned(&change.logical_id))).collect();
    if surprises.is_empty() {
        return Ok(());
    }
    let mut error = Error::new(
        Kind::Refused,
        format!("the change set of {} does more than the plan that was confirmed; nothing was changed", step.stack),
    );
    for line in surprises {
        error = error.why(line);
    }
    Err(error.next("run it again: the stack may have been changed meanwhile. If it happens twice, please report it with this message"))
}

fn surprise(change: &Change, planned: Option<&ResourceChange>) -> Option<String> {
    let action = planned.map(|p| p.action);
    let unexpected = match (change.action.as_str(), change.replacement.as_str()) {
        ("Remove", _) => action != Some(Action::Remove),
        (_, "True") => !matches!(action, Some(Action::Replace | Action::Add)),
        // CloudFormation cannot know before it runs; what is in the plan at all was confirmed.
        (_, "Conditional") => action.is_none(),
        _ => false,
    };
    unexpected.then(|| {
        let what = if change.action == "Remove" { "would be removed" } else { "would be replaced" };
        format!("{} ({}) {what}", change.logical_id, change.kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Map;

    fn step(changes: Vec<ResourceChange>) -> Step {
        Step {
            stack: "app".into(),
            kind: StepKind::Update,
            title: "service".into(),
            import_existing: false,
            body: String::new(),
            parameters: Map::new(),
            tags: Map::new(),
            changes,
        }
    }

    fn planned(id: &str, action: Action) -> ResourceChange {
        ResourceChange {
            logical_id: id.into(),
            kind: "AWS::X::Y".into(),
            action,
            properties: Vec::new(),
            retained: false,
        }
    }

    fn change(id: &str, action: &str, replacement: &str) -> Change {
        Change {
            logical_id: id.into(),
            kind: "AWS::X::Y".into(),
            action: action.into(),
            replacement: replacement.into(),
            physical_id: None,
        }
    }

    #[test]
    fn what_was_confirmed_passes_and_nothing_else() {
        let confirmed =
            step(vec![planned("A", Action::Replace), planned("B", Action::Modify), planned("C", Action::Remove)]);
        let ok = [
            change("A", "Modify", "True"),
            change("B", "Modify", "Conditional"),
            change("C", "Remove", ""),
            change("D", "Modify", "False"),
            change("E", "Add", ""),
        ];
        assert!(guard(&confirmed, &ok).is_ok());
        for bad in [
            change("B", "Modify", "True"),
            change("B", "Remove", ""),
            change("D", "Modify", "Conditional"),
            change("D", "Modify", "True"),
        ] {
            let refused = guard(&confirmed, &[bad]).expect_err("a surprise");
            assert_eq!(refused.kind(), Kind::Refused);
        }
    }
}
