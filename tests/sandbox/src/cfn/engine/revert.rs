//! Going back to what was before an update.

use super::{Operation, Phase, Stage, Step, Turn, Work, injected, job, millis, outputs, reason, sweep};
use crate::cfn::providers::{self, Action, Failure, Status};
use crate::cfn::{Resource, Stack};
use crate::world::{Ctx, World};

/// Turns an update around.
pub(super) fn begin(ctx: &Ctx, stack: &mut Stack, operation: &mut Operation, told: Option<String>) {
    operation.phase = Phase::Revert;
    operation.rolling_back = true;
    operation.cancel = false;
    stack.spec = operation.previous.clone();
    stack.turn(ctx.now, "UPDATE_ROLLBACK_IN_PROGRESS", told, operation.token.clone());
    operation.works = operation
        .before
        .iter()
        .filter(|(logical, before)| {
            // The forward way left alone what is not different now.
            stack.resources.get(*logical).is_none_or(|now| {
                now.physical != before.physical
                    || now.properties != before.properties
                    || now.tags != before.tags
                    || now.status != before.status
            })
        })
        .map(|(logical, before)| {
            let step = match stack.resources.get(logical) {
                Some(now) if now.physical != before.physical => Step::Replace,
                _ => Step::Update,
            };
            (logical.clone(), Work { stage: Stage::Waiting, step, after: before.depends.clone() })
        })
        .collect();
    // What was only looked at keeps the attributes of a resource, nothing else.
    for (logical, before) in &operation.before {
        if !operation.works.contains_key(logical) {
            stack.resources.insert(logical.clone(), before.clone());
        }
    }
}

pub(super) fn advance(world: &mut World, ctx: &Ctx, stack: &mut Stack, operation: &mut Operation) -> Turn {
    let mut moved = false;
    for logical in operation.works.keys().cloned().collect::<Vec<_>>() {
        let Some(work) = operation.works.get(&logical) else { continue };
        let next = match work.stage.clone() {
            Stage::Running { until, .. } if ctx.now < until => None,
            Stage::Running { fail: Some(told), .. } => Some(fail(ctx, stack, operation, &logical, told)),
            Stage::Running { .. } => finish(world, ctx, stack, operation, &logical),
            Stage::Waiting => {
                let free = work
                    .after
                    .iter()
                    .all(|name| operation.works.get(name).is_none_or(|other| other.stage == Stage::Done));
                if free { start(world, ctx, stack, operation, &logical) } else { None }
            }
            Stage::Done | Stage::Failed => None,
        };
        if let Some(stage) = next
            && let Some(work) = operation.works.get_mut(&logical)
        {
            work.stage = stage;
            moved = true;
        }
    }
    if moved {
        return Turn::Moved;
    }
    if operation.works.values().any(|work| matches!(work.stage, Stage::Running { .. })) {
        return Turn::Idle;
    }
    let failed: Vec<&str> = operation
        .works
        .iter()
        .filter(|(_, work)| work.stage == Stage::Failed)
        .map(|(logical, _)| logical.as_str())
        .collect();
    if !failed.is_empty() {
        let told = format!("The following resource(s) failed to update: [{}]. ", failed.join(", "));
        stack.turn(ctx.now, "UPDATE_ROLLBACK_FAILED", Some(told), operation.token.clone());
        stack.parked = Some(operation.clone());
        return Turn::Finished;
    }
    if operation.works.values().any(|work| work.stage == Stage::Waiting) {
        return Turn::Idle;
    }
    if let Err(error) = outputs(stack) {
        stack.turn(ctx.now, "UPDATE_ROLLBACK_FAILED", Some(error.message), operation.token.clone());
        stack.parked = Some(operation.clone());
        return Turn::Finished;
    }
    sweep::begin_rollback_cleanup(ctx, stack, operation);
    Turn::Moved
}

fn fail(ctx: &Ctx, stack: &mut Stack, operation: &Operation, logical: &str, told: String) -> Stage {
    if let Some(resource) = stack.resources.get_mut(logical) {
        resource.status = "UPDATE_FAILED".to_owned();
        resource.reason = Some(told);
        resource.time = ctx.now;
        let event = resource.clone();
        stack.note(ctx.now, logical, &event, operation.token.clone());
    }
    Stage::Failed
}

fn complete(ctx: &Ctx, stack: &mut Stack, operation: &Operation, logical: &str) -> Option<Stage> {
    let before = operation.before.get(logical)?;
    let done = Resource { status: "UPDATE_COMPLETE".to_owned(), reason: None, time: ctx.now, ..before.clone() };
    stack.note(ctx.now, logical, &done, operation.token.clone());
    stack.resources.insert(logical.to_owned(), done);
    Some(Stage::Done)
}

fn start(world: &mut World, ctx: &Ctx, stack: &mut Stack, operation: &mut Operation, logical: &str) -> Option<Stage> {
    let before = operation.before.get(logical).cloned()?;
    if operation.skip.contains(logical) {
        return complete(ctx, stack, operation, logical);
    }
    let physical = before.physical.clone()?;
    // A service still busy with the update has to come to rest first.
    if !providers::settled(world, ctx, &before.kind, &physical) {
        return None;
    }
    let now = stack.resources.get(logical).cloned().unwrap_or_else(|| before.clone());
    let event = Resource {
        status: "UPDATE_IN_PROGRESS".to_owned(),
        reason: None,
        physical: Some(physical.clone()),
        ..before.clone()
    };
    stack.note(ctx.now, logical, &event, operation.token.clone());
    let replaced = operation.works.get(logical).is_some_and(|work| work.step == Step::Replace);
    if replaced {
        return complete(ctx, stack, operation, logical);
    }
    let until = millis(world, ctx, providers::seconds(&before.kind, Action::Update));
    if let Some(message) = injected(world, logical) {
        return Some(Stage::Running { until, fail: Some(message) });
    }
    // The properties that the failed update asked for may or may not have arrived: all of them go back.
    let asked = now.properties;
    let job = job(stack, logical, &before.kind, &before.properties);
    match providers::update(world, ctx, &job, &physical, &asked, &now.tags) {
        Ok(()) => Some(Stage::Running { until, fail: None }),
        Err(Failure::Busy(_)) => None,
        Err(failure) => Some(fail(ctx, stack, operation, logical, reason(failure))),
    }
}

fn finish(world: &mut World, ctx: &Ctx, stack: &mut Stack, operation: &mut Operation, logical: &str) -> Option<Stage> {
    let before = operation.before.get(logical)?.clone();
    match super::look(world, ctx, &before) {
        Status::Pending => None,
        Status::Failed(told) => {
            let told = reason(Failure::Handler { message: told, code: "NotStabilized" });
            Some(fail(ctx, stack, operation, logical, told))
        }
        Status::Ready => complete(ctx, stack, operation, logical),
    }
}
