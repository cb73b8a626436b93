//! Bringing every resource to what is wanted.

use super::{
    Kind, Operation, Phase, Stage, Step, Turn, changed, injected, job, look, millis, name_clash, outputs, reason,
    resolve,
};
use super::{Live, revert, sweep};
use crate::cfn::providers::{self, Action, Failure, Status};
use crate::cfn::{Resource, Stack, schema};
use crate::world::{Ctx, World};

pub(super) fn advance(world: &mut World, ctx: &Ctx, stack: &mut Stack, operation: &mut Operation) -> Turn {
    let mut moved = false;
    let running: Vec<String> = names(operation, |stage| matches!(stage, Stage::Running { .. }));
    for logical in running {
        moved |= finish(world, ctx, stack, operation, &logical);
    }
    let failed = operation.works.values().any(|work| work.stage == Stage::Failed);
    if failed || operation.cancel {
        return give_up(ctx, stack, operation);
    }
    let ready: Vec<String> = operation
        .works
        .iter()
        .filter(|(_, work)| work.stage == Stage::Waiting)
        .filter(|(_, work)| {
            work.after.iter().all(|name| operation.works.get(name).is_none_or(|other| other.stage == Stage::Done))
        })
        .map(|(logical, _)| logical.clone())
        .collect();
    for logical in ready {
        moved |= start(world, ctx, stack, operation, &logical);
        if operation.works.get(&logical).is_some_and(|work| work.stage == Stage::Failed) {
            return Turn::Moved;
        }
    }
    if operation.works.values().all(|work| work.stage == Stage::Done) {
        return complete(ctx, stack, operation);
    }
    if moved { Turn::Moved } else { Turn::Idle }
}

fn names(operation: &Operation, fits: impl Fn(&Stage) -> bool) -> Vec<String> {
    operation.works.iter().filter(|(_, work)| fits(&work.stage)).map(|(logical, _)| logical.clone()).collect()
}

fn complete(ctx: &Ctx, stack: &mut Stack, operation: &mut Operation) -> Turn {
    if let Err(error) = outputs(stack) {
        // An output that cannot be made is a failed operation, as with any resource.
        operation.cancel = true;
        stack.reason = Some(error.message);
        return give_up(ctx, stack, operation);
    }
    if operation.kind == Kind::Create {
        stack.turn(ctx.now, "CREATE_COMPLETE", None, operation.token.clone());
        return Turn::Finished;
    }
    sweep::begin_cleanup(ctx, stack, operation);
    Turn::Moved
}

/// Stops what is going on. The services go on with what they were told; later steps wait for them.
pub(super) fn cancel(ctx: &Ctx, stack: &mut Stack, operation: &mut Operation) {
    for logical in names(operation, |stage| matches!(stage, Stage::Running { .. })) {
        let step = operation.works.get(&logical).map(|work| work.step).unwrap_or_default();
        let told = if step == Step::Create { "Resource creation cancelled" } else { "Resource update cancelled" };
        fail(ctx, stack, operation, &logical, told.to_owned());
    }
}

fn give_up(ctx: &Ctx, stack: &mut Stack, operation: &mut Operation) -> Turn {
    cancel(ctx, stack, operation);
    let failed = |creating: bool| -> Vec<&str> {
        operation
            .works
            .iter()
            .filter(|(_, work)| work.stage == Stage::Failed && (work.step == Step::Create) == creating)
            .map(|(logical, _)| logical.as_str())
            .collect()
    };
    let mut told = String::new();
    for (names, what) in [(failed(true), "create"), (failed(false), "update")] {
        if !names.is_empty() {
            told.push_str(&format!("The following resource(s) failed to {what}: [{}]. ", names.join(", ")));
        }
    }
    if operation.cancel && told.is_empty() {
        told = stack.reason.clone().unwrap_or_default();
    }
    let stop = operation.disable_rollback && !operation.cancel;
    match operation.kind {
        Kind::Update if stop => park(ctx, stack, operation, "UPDATE_FAILED", told),
        Kind::Update => {
            let told = if operation.cancel { "User Initiated".to_owned() } else { told };
            revert::begin(ctx, stack, operation, Some(told));
            Turn::Moved
        }
        _ if stop => park(ctx, stack, operation, "CREATE_FAILED", told),
        _ if stack.on_failure.as_deref() == Some("DELETE") => {
            let told = format!("{told}Delete requested by user.");
            sweep::begin_rollback(ctx, stack, operation, Some(told));
            Turn::Moved
        }
        _ => {
            sweep::begin_rollback(ctx, stack, operation, Some(format!("{told}Rollback requested by user.")));
            Turn::Moved
        }
    }
}

fn park(ctx: &Ctx, stack: &mut Stack, operation: &Operation, status: &str, told: String) -> Turn {
    stack.turn(ctx.now, status, Some(told), operation.token.clone());
    stack.parked = Some(operation.clone());
    Turn::Finished
}

fn fail(ctx: &Ctx, stack: &mut Stack, operation: &mut Operation, logical: &str, told: String) {
    let Some(work) = operation.works.get_mut(logical) else { return };
    work.stage = Stage::Failed;
    let status = match work.step {
        Step::Create => "CREATE_FAILED",
        Step::Import => "IMPORT_FAILED",
        _ => "UPDATE_FAILED",
    };
    let made = stack.resources.entry(logical.to_owned()).or_default();
    made.status = status.to_owned();
    made.reason = Some(told);
    made.time = ctx.now;
    let event = made.clone();
    if work.step == Step::Replace
        && let Some(before) = operation.before.get(logical)
    {
        // The one that was to be replaced is still the stack's.
        *made = Resource { status: status.to_owned(), reason: event.reason.clone(), time: ctx.now, ..before.clone() };
    }
    stack.note(ctx.now, logical, &event, operation.token.clone());
}

/// Starts one resource. False if it has to be tried again later.
fn start(world: &mut World, ctx: &Ctx, stack: &mut Stack, operation: &mut Operation, logical: &str) -> bool {
    let Some(wanted) = stack.spec.resources.get(logical).cloned() else { return false };
    let properties = resolve(logical, &wanted, &stack.spec.scope, &Live(&stack.resources));
    let old = stack.resources.get(logical).filter(|old| old.physical.is_some()).cloned();
    let mut resource = Resource {
        kind: wanted.kind.clone(),
        tags: stack.spec.tags.clone(),
        depends: wanted.depends.clone(),
        deletion_policy: wanted.deletion_policy.clone(),
        replace_policy: wanted.replace_policy.clone(),
        metadata: wanted.metadata.clone(),
        time: ctx.now,
        ..Resource::default()
    };
    let properties = match properties {
        Ok(properties) => properties,
        Err(error) => {
            let step = if old.is_some() { Step::Update } else { Step::Create };
            set_step(operation, logical, step);
            let entry = stack.resources.entry(logical.to_owned()).or_insert(resource);
            let event = Resource {
                status: if step == Step::Create { "CREATE_IN_PROGRESS" } else { "UPDATE_IN_PROGRESS" }.to_owned(),
                reason: None,
                ..entry.clone()
            };
            stack.note(ctx.now, logical, &event, operation.token.clone());
            fail(ctx, stack, operation, logical, error.message);
            return true;
        }
    };
    resource.properties = properties;
    if let Some(old) = old {
        return change(world, ctx, stack, operation, logical, resource, old);
    }
    if let Some(physical) = operation.imports.get(logical).cloned() {
        return import(world, ctx, stack, operation, logical, resource, physical);
    }
    set_step(operation, logical, Step::Create);
    resource.status = "CREATE_IN_PROGRESS".to_owned();
    // Busy services are asked again at later ticks, with one event only.
    let again = stack.resources.get(logical).is_some_and(|seen| seen.status == "CREATE_IN_PROGRESS");
    if !again {
        stack.note(ctx.now, logical, &resource, operation.token.clone());
        stack.resources.insert(logical.to_owned(), resource.clone());
    }
    make(world, ctx, stack, operation, logical, resource, !again)
}

fn set_step(operation: &mut Operation, logical: &str, step: Step) {
    if let Some(work) = operation.works.get_mut(logical) {
        work.step = step;
    }
}

fn set_stage(operation: &mut Operation, logical: &str, stage: Stage) {
    if let Some(work) = operation.works.get_mut(logical) {
        work.stage = stage;
    }
}

/// Calls the provider for a new physical resource.
fn make(
    world: &mut World,
    ctx: &Ctx,
    stack: &mut Stack,
    operation: &mut Operation,
    logical: &str,
    mut resource: Resource,
    first: bool,
) -> bool {
    let until = millis(world, ctx, providers::seconds(&resource.kind, Action::Create));
    if let Some(message) = injected(world, logical) {
        set_stage(operation, logical, Stage::Running { until, fail: Some(message) });
        return true;
    }
    let made = providers::create(world, ctx, &job(stack, logical, &resource.kind, &resource.properties));
    match made {
        Ok(made) => {
            resource.physical = Some(made.physical);
            resource.attributes = made.attributes;
            resource.reason = Some("Resource creation Initiated".to_owned());
            stack.note(ctx.now, logical, &resource, operation.token.clone());
            operation.made.push((logical.to_owned(), resource.clone()));
            stack.resources.insert(logical.to_owned(), resource);
            set_stage(operation, logical, Stage::Running { until, fail: None });
            true
        }
        Err(Failure::Busy(_)) => first,
        Err(failure) => {
            fail(ctx, stack, operation, logical, reason(failure));
            true
        }
    }
}

fn import(
    world: &mut World,
    ctx: &Ctx,
    stack: &mut Stack,
    operation: &mut Operation,
    logical: &str,
    mut resource: Resource,
    physical: String,
) -> bool {
    set_step(operation, logical, Step::Import);
    resource.status = "IMPORT_IN_PROGRESS".to_owned();
    resource.reason = Some("Resource import started.".to_owned());
    resource.attributes = providers::attributes(world, ctx, &resource.kind, &physical, &resource.properties);
    resource.physical = Some(physical);
    resource.imported = true;
    stack.note(ctx.now, logical, &resource, operation.token.clone());
    stack.resources.insert(logical.to_owned(), resource);
    let until = millis(world, ctx, 2.0);
    set_stage(operation, logical, Stage::Running { until, fail: None });
    true
}

/// An existing resource: left alone, updated in place, or replaced.
fn change(
    world: &mut World,
    ctx: &Ctx,
    stack: &mut Stack,
    operation: &mut Operation,
    logical: &str,
    mut resource: Resource,
    old: Resource,
) -> bool {
    let changed = changed(&old.properties, &resource.properties);
    let taggable = schema::of(&old.kind).is_some_and(|schema| !schema.tag_property.is_empty());
    let tags_changed = taggable && old.tags != resource.tags;
    let retried = old.status.ends_with("_FAILED");
    resource.imported = old.imported;
    if changed.is_empty() && !tags_changed && !retried {
        let kept = Resource {
            physical: old.physical,
            attributes: old.attributes,
            status: old.status,
            reason: old.reason,
            time: old.time,
            ..resource
        };
        stack.resources.insert(logical.to_owned(), kept);
        set_stage(operation, logical, Stage::Done);
        return true;
    }
    let replace = changed.iter().any(|name| schema::recreation(&old.kind, name) == "Always");
    set_step(operation, logical, if replace { Step::Replace } else { Step::Update });
    resource.status = "UPDATE_IN_PROGRESS".to_owned();
    let again = old.status == "UPDATE_IN_PROGRESS";
    if replace {
        resource.reason =
            Some("Requested update requires the creation of a new physical resource; hence creating one.".to_owned());
        if !again {
            let event = Resource { physical: old.physical.clone(), ..resource.clone() };
            stack.note(ctx.now, logical, &event, operation.token.clone());
        }
        if let Some(name) = name_clash(&old.kind, &old.properties, &resource.properties) {
            let told = format!(
                "CloudFormation cannot update a stack when a custom-named resource requires replacing. Rename {name} and update the stack again."
            );
            fail(ctx, stack, operation, logical, told);
            return true;
        }
        if operation.disable_rollback {
            let told = "Replacement type updates not supported on stack with disable-rollback.";
            fail(ctx, stack, operation, logical, told.to_owned());
            return true;
        }
        resource.reason = None;
        // A replacement's provider is tried again from here, so the old entry shows that it began.
        if let Some(entry) = stack.resources.get_mut(logical) {
            entry.status = "UPDATE_IN_PROGRESS".to_owned();
        }
        return make(world, ctx, stack, operation, logical, resource, !again);
    }
    let Some(physical) = old.physical.clone() else { return false };
    resource.physical = Some(physical.clone());
    resource.attributes = old.attributes.clone();
    if !again {
        stack.note(ctx.now, logical, &resource, operation.token.clone());
        if let Some(entry) = stack.resources.get_mut(logical) {
            entry.status = "UPDATE_IN_PROGRESS".to_owned();
        }
    }
    let until = millis(world, ctx, providers::seconds(&resource.kind, Action::Update));
    if let Some(message) = injected(world, logical) {
        set_stage(operation, logical, Stage::Running { until, fail: Some(message) });
        return true;
    }
    let job = job(stack, logical, &resource.kind, &resource.properties);
    match providers::update(world, ctx, &job, &physical, &old.properties, &old.tags) {
        Ok(()) => {
            stack.resources.insert(logical.to_owned(), resource);
            set_stage(operation, logical, Stage::Running { until, fail: None });
            true
        }
        Err(Failure::Busy(_)) => !again,
        Err(failure) => {
            fail(ctx, stack, operation, logical, reason(failure));
            true
        }
    }
}

/// Looks whether a running one is done. True if so.
fn finish(world: &mut World, ctx: &Ctx, stack: &mut Stack, operation: &mut Operation, logical: &str) -> bool {
    let Some(work) = operation.works.get(logical) else { return false };
    let (step, stage) = (work.step, work.stage.clone());
    let Stage::Running { until, fail: wanted_failure } = stage else { return false };
    if ctx.now < until {
        return false;
    }
    if let Some(message) = wanted_failure {
        fail(ctx, stack, operation, logical, message);
        return true;
    }
    let Some(mut resource) = stack.resources.get(logical).cloned() else { return false };
    match look(world, ctx, &resource) {
        Status::Pending => false,
        Status::Failed(told) => {
            let told = reason(Failure::Handler { message: told, code: "NotStabilized" });
            fail(ctx, stack, operation, logical, told);
            true
        }
        Status::Ready => {
            if let Some(physical) = resource.physical.clone() {
                resource.attributes =
                    providers::attributes(world, ctx, &resource.kind, &physical, &resource.properties);
            }
            resource.status = match step {
                Step::Create => "CREATE_COMPLETE",
                Step::Import => "IMPORT_COMPLETE",
                _ => "UPDATE_COMPLETE",
            }
            .to_owned();
            resource.reason = (step == Step::Import).then(|| "Resource import completed.".to_owned());
            resource.time = ctx.now;
            stack.note(ctx.now, logical, &resource, operation.token.clone());
            stack.resources.insert(logical.to_owned(), resource);
            set_stage(operation, logical, Stage::Done);
            debug_assert_eq!(operation.phase, Phase::Forward);
            true
        }
    }
}
