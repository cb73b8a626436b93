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
}

impl Prepared {
    /// The ClientRequestToken that its events will carry.
    pub fn token(&self) -> &str {
        &self.token
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
    for attempt in 0..3 {
        let token = super::token();
        let request = ChangeRequest {
            stack: step.stack.clone(),
            name: token.clone(),
            create,
            template: step.body.clone(),
            template_url: template_url.clone(),
            parameters: step.parameters.clone(),
            tags: step.tags.clone(),
            role_arn: run.role_arn.clone(),
            import_existing: create && step.title.starts_with("foundation"),
        };
        let change_set = run.cloud.stacks.request_changes(&request, &token).await?;
        let outcome = computed(run, &step.stack, &change_set).await;
        match outcome {
            Ok(ChangeSetState::Ready(changes)) => {
                if let Err(refusal) = guard(step, &changes) {
                    discard(run, step, &change_set).await;
                    return Err(refusal);
                }
                return Ok(Some(Prepared { change_set, token }));
            }
            Ok(ChangeSetState::Empty) => {
                discard(run, step, &change_set).await;
                return Ok(None);
            }
            Ok(ChangeSetState::Obsolete) if attempt < 2 => {
                run.say(Event::Note(format!("another change to {} was executed first; asking again", step.stack)));
            }
            Ok(ChangeSetState::Failed(reason)) => {
                discard(run, step, &change_set).await;
                return Err(Error::failed(format!("CloudFormation refuses the change of {}", step.stack)).why(reason));
            }
            Ok(_) => {
                discard(run, step, &change_set).await;
                return Err(crate::plan::busy(&step.stack, "change set obsolete"));
            }
            Err(e) => {
                discard(run, step, &change_set).await;
                return Err(e);
            }
        }
    }
    Err(crate::plan::busy(&step.stack, "change set obsolete"))
}

/// Executes a prepared change set. Returns the newest event before it, from where to follow.
///
/// # Errors
/// What CloudFormation says; nothing was executed then.
pub async fn execute(run: &Run<'_>, step: &Step, prepared: &Prepared) -> Result<Option<String>> {
    let events = pace::patiently(run, async || run.cloud.stacks.events(&step.stack, None).await).await?;
    let seen = events.into_iter().next_back().map(|e| e.id);
    run.cloud.stacks.execute(&step.stack, &prepared.change_set, &prepared.token, run.keep_on_failure).await?;
    Ok(seen)
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

/// Takes back a prepared change set that is not wanted any more.
pub async fn abandon(run: &Run<'_>, step: &Step, prepared: &Prepared) {
    discard(run, step, &prepared.change_set).await;
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
