//! What happens while time passes: resources are made, changed and deleted in order of their dependencies, and
//! taken back when one fails.
//!
//! An operation is in one of three phases. `Forward` moves every resource to what is wanted; `Revert` (updates
//! only) moves them back; `Sweep` deletes what is no longer needed: everything (delete, rollback of a create),
//! replaced and removed resources (clean-up), or what a failed update had made. Deadlines are in the state, so
//! nothing is lost when the process ends.

mod forward;
mod revert;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::expand::{Resources, Scope};
use super::providers::{self, Failure, Job};
use super::spec::{Spec, Wanted};
use super::{Fail, Output, Resource, Stack, invalid, schema, template::plain};
use crate::faults::What;
use crate::world::{Ctx, World};

/// What was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    #[default]
    Create,
    Update,
    Delete,
}

/// Where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    #[default]
    Forward,
    Revert,
    Sweep,
}

/// One operation on a stack.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Operation {
    pub kind: Kind,
    pub phase: Phase,
    pub rolling_back: bool,
    /// The caller's token; every event carries it.
    pub token: Option<String>,
    /// What an update goes back to.
    pub previous: Spec,
    /// The resources before an update.
    pub(super) before: BTreeMap<String, Resource>,
    pub works: BTreeMap<String, Work>,
    /// Physical resources that this operation made.
    pub(super) made: Vec<(String, Resource)>,
    pub leftovers: Vec<Leftover>,
    pub disable_rollback: bool,
    /// Logical ids whose physical resource exists already.
    pub imports: BTreeMap<String, String>,
    /// Not to be deleted, by logical id.
    pub retain: BTreeSet<String>,
    /// Not to be reverted, by logical id.
    pub skip: BTreeSet<String>,
    /// Treats `Retain` as `RetainExceptOnCreate`.
    pub retain_except_on_create: bool,
    /// The user asked to go back.
    pub cancel: bool,
}

/// One resource's part in `Forward` and `Revert`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    pub stage: Stage,
    pub step: Step,
    /// What has to be done first.
    pub after: BTreeSet<String>,
}

/// How a resource is brought to what is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    #[default]
    Keep,
    Create,
    Update,
    Replace,
    Import,
}

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    #[default]
    Waiting,
    /// Not before `until`; then the service is asked, unless a test wants it to fail.
    Running {
        until: i64,
        fail: Option<String>,
    },
    Done,
    Failed,
}

/// One physical resource to delete.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Leftover {
    pub logical: String,
    pub(super) resource: Resource,
    pub stage: Stage,
    /// Left in place.
    pub keep: bool,
    /// It is the stack's own entry for the logical id, not one that was replaced.
    pub current: bool,
}

/// What one look at an operation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing, until time passes.
    Idle,
    /// Something; look again.
    Moved,
    /// It is over.
    Finished,
}

/// Moves a stack's operation as far as it goes now. True if anything moved.
pub(super) fn advance(world: &mut World, ctx: &Ctx, stack: &mut Stack) -> bool {
    let Some(mut operation) = stack.operation.take() else { return false };
    let mut moved = false;
    loop {
        let turn = match operation.phase {
            Phase::Forward => forward::advance(world, ctx, stack, &mut operation),
            Phase::Revert => revert::advance(world, ctx, stack, &mut operation),
            Phase::Sweep => sweep::advance(world, ctx, stack, &mut operation),
        };
        match turn {
            Turn::Idle => {
                stack.operation = Some(operation);
                return moved;
            }
            Turn::Moved => moved = true,
            Turn::Finished => return true,
        }
    }
}

/// Starts making every resource of the stack's spec. Changes the status.
pub(super) fn create(stack: &mut Stack, ctx: &Ctx, mut operation: Operation) {
    operation.kind = Kind::Create;
    operation.works = works(&stack.spec);
    stack.turn(ctx.now, "CREATE_IN_PROGRESS", Some("User Initiated".to_owned()), operation.token.clone());
    stack.parked = None;
    stack.operation = Some(operation);
}

/// Starts the way to another spec.
pub(super) fn update(stack: &mut Stack, ctx: &Ctx, spec: Spec, mut operation: Operation) {
    operation.kind = Kind::Update;
    operation.works = works(&spec);
    // An update of a stack that stopped half-way goes back, if it has to, to what was stable before both.
    // (of a create: nothing at all).
    match stack.parked.take() {
        Some(parked) => {
            operation.previous = parked.previous;
            operation.before = parked.before;
            operation.made = parked.made;
        }
        None => {
            operation.previous = stack.spec.clone();
            operation.before = stack.resources.clone();
        }
    }
    stack.spec = spec;
    stack.updated = Some(ctx.now);
    stack.turn(ctx.now, "UPDATE_IN_PROGRESS", Some("User Initiated".to_owned()), operation.token.clone());
    stack.operation = Some(operation);
}

/// Starts deleting everything.
pub(super) fn delete(stack: &mut Stack, ctx: &Ctx, mut operation: Operation) {
    if let Some(mut going_on) = stack.operation.take() {
        forward::cancel(ctx, stack, &mut going_on);
        operation.made = going_on.made;
    }
    operation.kind = Kind::Delete;
    operation.phase = Phase::Sweep;
    operation.leftovers = stack
        .resources
        .iter()
        .filter(|(_, resource)| resource.stands())
        .map(|(logical, resource)| Leftover {
            logical: logical.clone(),
            keep: resource.deletion_policy != "Delete" || operation.retain.contains(logical),
            resource: resource.clone(),
            stage: Stage::Waiting,
            current: true,
        })
        .collect();
    // What an update that could not go back had made is the stack's too.
    for (logical, made) in stack.parked.take().into_iter().flat_map(|parked| parked.made) {
        if !operation.leftovers.iter().any(|leftover| leftover.resource.physical == made.physical) {
            operation.leftovers.push(Leftover { logical, resource: made, ..Leftover::default() });
        }
    }
    stack.turn(ctx.now, "DELETE_IN_PROGRESS", Some("User Initiated".to_owned()), operation.token.clone());
    stack.operation = Some(operation);
}

/// Rolls back what stopped half-way: to the state before an update, or to nothing.
pub(super) fn roll_back(stack: &mut Stack, ctx: &Ctx, token: Option<String>, skip: BTreeSet<String>) {
    let Some(mut operation) = stack.parked.take() else { return };
    operation.token = token;
    operation.skip = skip;
    operation.rolling_back = true;
    match operation.kind {
        Kind::Update => revert::begin(ctx, stack, &mut operation, Some("User Initiated".to_owned())),
        Kind::Create | Kind::Delete => {
            sweep::begin_rollback(ctx, stack, &mut operation, Some("User Initiated".to_owned()))
        }
    }
    stack.operation = Some(operation);
}

fn works(spec: &Spec) -> BTreeMap<String, Work> {
    spec.resources
        .iter()
        .map(|(logical, wanted)| (logical.clone(), Work { after: wanted.depends.clone(), ..Work::default() }))
        .collect()
}

/// The stack's resources as functions see them.
pub(super) struct Live<'a>(pub &'a BTreeMap<String, Resource>);

impl Resources for Live<'_> {
    fn reference(&self, name: &str) -> Option<Value> {
        self.0.get(name)?.physical.clone().map(Value::String)
    }

    fn attribute(&self, name: &str, attribute: &str) -> Option<Value> {
        let attributes = &self.0.get(name)?.attributes;
        if let Some(value) = attributes.get(attribute) {
            return Some(value.clone());
        }
        // `A.B` of a nested attribute.
        let mut parts = attribute.split('.');
        let first = attributes.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part)).cloned()
    }
}

/// The properties of a resource as its provider gets them, checked.
pub(super) fn resolve(
    logical: &str,
    wanted: &Wanted,
    scope: &Scope,
    resources: &dyn Resources,
) -> Result<Map<String, Value>, Fail> {
    let mut resolved = Map::new();
    for (name, value) in &wanted.properties {
        if let Some(value) = scope.resolve(value, resources)? {
            resolved.insert(name.clone(), value);
        }
    }
    let Some(schema) = schema::of(&wanted.kind) else {
        return Err(invalid(format!("Unrecognized resource types: [{}]", wanted.kind)));
    };
    let resolved = schema.coerce(&resolved);
    let violations = schema.violations(&resolved);
    if violations.is_empty() {
        return Ok(resolved);
    }
    let told = match violations.as_slice() {
        [one] => one.clone(),
        several => format!("#: {} schema violations found\n{}", several.len(), several.join("\n")),
    };
    Err(invalid(format!("Properties validation failed for resource {logical} with message:\n[{told}]")))
}

/// The top-level properties that differ.
pub(super) fn changed(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    let mut names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names.retain(|name| old.get(*name) != new.get(*name));
    names.into_iter().cloned().collect()
}

/// The resource is custom-named and would keep its name although it has to be replaced.
pub(super) fn name_clash(kind: &str, old: &Map<String, Value>, new: &Map<String, Value>) -> Option<String> {
    let property = schema::name_property(kind)?;
    let name = new.get(property)?;
    (old.get(property) == Some(name)).then(|| plain(name))
}

fn job<'a>(stack: &'a Stack, logical: &'a str, kind: &'a str, properties: &'a Map<String, Value>) -> Job<'a> {
    Job { stack_id: &stack.id, stack_name: &stack.name, logical, kind, properties, tags: &stack.spec.tags }
}

fn injected(world: &mut World, logical: &str) -> Option<String> {
    match world.faults.take(|what| matches!(what, What::ResourceFails { logical_id, .. } if logical_id == logical))? {
        What::ResourceFails { message, .. } => Some(message),
        _ => None,
    }
}

/// The reason of a failed event.
fn reason(failure: Failure) -> String {
    match failure {
        Failure::Busy(message) | Failure::Plain(message) => message,
        Failure::Handler { message, code } => format!(
            "Resource handler returned message: \"{message}\" (RequestToken: {}, HandlerErrorCode: {code})",
            uuid::Uuid::new_v4()
        ),
    }
}

/// Fills in the outputs from the resources.
fn outputs(stack: &mut Stack) -> Result<(), Fail> {
    let mut outputs = Vec::new();
    for (key, body) in &stack.spec.outputs {
        let live = Live(&stack.resources);
        let text = |member: Option<&Value>| -> Result<Option<String>, Fail> {
            match member {
                Some(member) => Ok(stack.spec.scope.resolve(member, &live)?.as_ref().map(plain)),
                None => Ok(None),
            }
        };
        let Some(value) = text(body.get("Value"))? else { continue };
        let description = body.get("Description").map(plain);
        let export = text(body.get("Export").and_then(|export| export.get("Name")))?;
        outputs.push(Output { key: key.clone(), value, description, export });
    }
    stack.outputs = outputs;
    Ok(())
}

fn millis(world: &World, ctx: &Ctx, seconds: f64) -> i64 {
    ctx.now + world.millis(seconds)
}

/// Whether its provider says that it is there in the wanted form.
fn look(world: &mut World, ctx: &Ctx, resource: &Resource) -> providers::Status {
    match &resource.physical {
        Some(physical) => providers::status(world, ctx, &resource.kind, physical, &resource.properties),
        None => providers::Status::Ready,
    }
}
