//! Deleting what is no longer needed, the dependent ones first.

use super::{Kind, Leftover, Operation, Phase, Stage, Turn, millis, reason};
use crate::cfn::providers::{self, Action, Failure};
use crate::cfn::{Resource, Stack};
use crate::world::{Ctx, World};

/// After a good update: what was replaced or removed.
pub(super) fn begin_cleanup(ctx: &Ctx, stack: &mut Stack, operation: &mut Operation) {
    operation.phase = Phase::Sweep;
    stack.turn(ctx.now, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", None, operation.token.clone());
    let mut leftovers = Vec::new();
    for (logical, before) in &operation.before {
        let wanted = stack.spec.resources.get(logical);
        let now = stack.resources.get(logical);
        let keep = match wanted {
            Some(_) if now.is_some_and(|now| now.physical == before.physical) => continue,
            Some(wanted) => wanted.replace_policy != "Delete",
            None => before.deletion_policy != "Delete",
        };
        leftovers.push(Leftover {
            logical: logical.clone(),
            resource: before.clone(),
            stage: Stage::Waiting,
            keep,
            current: wanted.is_none(),
        });
    }
    // What an earlier update that stopped half-way had made and this one no longer wants.
    for (logical, made) in &operation.made {
        let live = stack.resources.get(logical).is_some_and(|now| now.physical == made.physical);
        if !live || !stack.spec.resources.contains_key(logical) {
            leftovers.push(Leftover {
                logical: logical.clone(),
                resource: made.clone(),
                stage: Stage::Waiting,
                keep: false,
                current: live,
            });
        }
    }
    operation.leftovers = leftovers;
}

/// After a failed create: everything.
pub(super) fn begin_rollback(ctx: &Ctx, stack: &mut Stack, operation: &mut Operation, told: Option<String>) {
    operation.phase = Phase::Sweep;
    operation.rolling_back = true;
    let delete = stack.on_failure.as_deref() == Some("DELETE");
    if delete {
        operation.kind = Kind::Delete;
    }
    let status = if delete { "DELETE_IN_PROGRESS" } else { "ROLLBACK_IN_PROGRESS" };
    stack.turn(ctx.now, status, told, operation.token.clone());
    operation.leftovers = stack
        .resources
        .iter()
        .filter(|(_, resource)| resource.stands())
        .map(|(logical, resource)| Leftover {
            logical: logical.clone(),
            resource: resource.clone(),
            stage: Stage::Waiting,
            keep: kept_on_rollback(operation, resource),
            current: true,
        })
        .collect();
}

/// After a failed update went back: what it had made.
pub(super) fn begin_rollback_cleanup(ctx: &Ctx, stack: &mut Stack, operation: &mut Operation) {
    operation.phase = Phase::Sweep;
    stack.turn(ctx.now, "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS", None, operation.token.clone());
    let mut leftovers = Vec::new();
    for (logical, made) in &operation.made {
        let before = operation.before.get(logical);
        if before.is_some_and(|before| before.physical == made.physical) {
            continue;
        }
        leftovers.push(Leftover {
            logical: logical.clone(),
            keep: before.is_none() && kept_on_rollback(operation, made),
            resource: made.clone(),
            stage: Stage::Waiting,
            current: before.is_none(),
        });
    }
    // New ones that never got a physical resource leave no trace but their events.
    let made: Vec<&String> = leftovers.iter().map(|leftover| &leftover.logical).collect();
    stack.resources.retain(|logical, _| operation.before.contains_key(logical) || made.contains(&logical));
    operation.leftovers = leftovers;
}

fn kept_on_rollback(operation: &Operation, resource: &Resource) -> bool {
    resource.imported || resource.deletion_policy == "Retain" && !operation.retain_except_on_create
}

pub(super) fn advance(world: &mut World, ctx: &Ctx, stack: &mut Stack, operation: &mut Operation) -> Turn {
    let mut moved = false;
    for index in 0..operation.leftovers.len() {
        let next = match &operation.leftovers[index].stage {
            Stage::Running { until, .. } if ctx.now < *until => None,
            Stage::Running { .. } => finish(world, ctx, stack, operation, index),
            Stage::Waiting if free(operation, index) => start(world, ctx, stack, operation, index),
            _ => None,
        };
        if let Some(stage) = next {
            operation.leftovers[index].stage = stage;
            moved = true;
        }
    }
    if moved {
        return Turn::Moved;
    }
    let running = |leftover: &Leftover| matches!(leftover.stage, Stage::Running { .. });
    let startable = (0..operation.leftovers.len())
        .any(|index| operation.leftovers[index].stage == Stage::Waiting && free(operation, index));
    if startable || operation.leftovers.iter().any(running) {
        return Turn::Idle;
    }
    end(ctx, stack, operation)
}

/// Nothing that is still there depends on it.
fn free(operation: &Operation, index: usize) -> bool {
    let logical = &operation.leftovers[index].logical;
    !operation.leftovers.iter().any(|other| {
        other.stage != Stage::Done && other.logical != *logical && other.resource.depends.contains(logical)
    })
}

fn mark(ctx: &Ctx, stack: &mut Stack, operation: &Operation, index: usize, status: &str, told: Option<String>) {
    let leftover = &operation.leftovers[index];
    let event = Resource { status: status.to_owned(), reason: told, time: ctx.now, ..leftover.resource.clone() };
    stack.note(ctx.now, &leftover.logical, &event, operation.token.clone());
    if leftover.current {
        stack.resources.insert(leftover.logical.clone(), event);
    }
}

fn start(world: &mut World, ctx: &Ctx, stack: &mut Stack, operation: &Operation, index: usize) -> Option<Stage> {
    let leftover = &operation.leftovers[index];
    if leftover.keep {
        mark(ctx, stack, operation, index, "DELETE_SKIPPED", None);
        return Some(Stage::Done);
    }
    let Some(physical) = leftover.resource.physical.clone() else {
        mark(ctx, stack, operation, index, "DELETE_COMPLETE", None);
        return Some(Stage::Done);
    };
    // What the service is still busy making cannot be deleted yet.
    if !providers::settled(world, ctx, &leftover.resource.kind, &physical) {
        return None;
    }
    mark(ctx, stack, operation, index, "DELETE_IN_PROGRESS", None);
    let until = millis(world, ctx, providers::seconds(&leftover.resource.kind, Action::Delete));
    match providers::delete(world, ctx, &leftover.resource.kind, &physical, &leftover.resource.properties) {
        Ok(()) => Some(Stage::Running { until, fail: None }),
        // Asked again when the wait is over.
        Err(Failure::Busy(told)) => Some(Stage::Running { until, fail: Some(told) }),
        Err(failure) => Some(failed(ctx, stack, operation, index, reason(failure))),
    }
}

fn failed(ctx: &Ctx, stack: &mut Stack, operation: &Operation, index: usize, told: String) -> Stage {
    mark(ctx, stack, operation, index, "DELETE_FAILED", Some(told));
    Stage::Failed
}

fn finish(world: &mut World, ctx: &Ctx, stack: &mut Stack, operation: &Operation, index: usize) -> Option<Stage> {
    let leftover = &operation.leftovers[index];
    let (kind, properties) = (leftover.resource.kind.clone(), leftover.resource.properties.clone());
    let physical = leftover.resource.physical.clone()?;
    if matches!(leftover.stage, Stage::Running { fail: Some(_), .. }) {
        return match providers::delete(world, ctx, &kind, &physical, &properties) {
            Ok(()) => Some(Stage::Running { until: ctx.now, fail: None }),
            Err(Failure::Busy(_)) => None,
            Err(failure) => Some(failed(ctx, stack, operation, index, reason(failure))),
        };
    }
    if !providers::gone(world, ctx, &kind, &physical) {
        return None;
    }
    mark(ctx, stack, operation, index, "DELETE_COMPLETE", None);
    Some(Stage::Done)
}

fn end(ctx: &Ctx, stack: &mut Stack, operation: &mut Operation) -> Turn {
    let failed: Vec<String> = operation
        .leftovers
        .iter()
        .filter(|leftover| leftover.stage == Stage::Failed)
        .map(|leftover| leftover.logical.clone())
        .collect();
    let told = format!("The following resource(s) failed to delete: [{}]. ", failed.join(", "));
    let token = operation.token.clone();
    match (operation.kind, operation.rolling_back) {
        (Kind::Update, rolling_back) => {
            // Clean-up that fails does not undo the update: the resource is merely no longer the stack's.
            let spec = &stack.spec;
            stack.resources.retain(|logical, _| spec.resources.contains_key(logical));
            stack.turn(ctx.now, if rolling_back { "UPDATE_ROLLBACK_COMPLETE" } else { "UPDATE_COMPLETE" }, None, token);
        }
        (Kind::Create, _) if failed.is_empty() => stack.turn(ctx.now, "ROLLBACK_COMPLETE", None, token),
        (Kind::Create, _) => {
            stack.parked = Some(Operation { kind: Kind::Create, ..operation.clone() });
            stack.turn(ctx.now, "ROLLBACK_FAILED", Some(told), token);
        }
        (Kind::Delete, _) if failed.is_empty() => {
            stack.deleted = Some(ctx.now);
            stack.outputs.clear();
            stack.turn(ctx.now, "DELETE_COMPLETE", None, token);
        }
        (Kind::Delete, _) => stack.turn(ctx.now, "DELETE_FAILED", Some(told), token),
    }
    Turn::Finished
}
