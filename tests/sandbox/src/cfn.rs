//! CloudFormation: templates, change sets, and stacks that create, update, roll back and delete for real.
//!
//! - `template`, `params`, `expand`, `spec`: from text to what a stack is wanted to be.
//! - `schema`: the resource types; `diff`: what a change set says.
//! - `ops` and its children: the API; `engine`: what happens while time passes.
//! - `providers`: how each type is made, changed and deleted, through the services' own APIs.
//! - `rules`: what is refused, with sources.

mod diff;
mod engine;
mod expand;
mod names;
mod ops;
mod params;
mod providers;
mod rules;
mod schema;
mod spec;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::world::{Answer, ApiError, Ctx, World};

use engine::Operation;
use spec::Spec;

pub use rules::RULES;

type Fail = ApiError;

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// By stack id, deleted ones too.
    stacks: BTreeMap<String, Stack>,
    /// By change set id.
    change_sets: BTreeMap<String, ChangeSet>,
}

/// One parameter of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Parameter {
    key: String,
    value: String,
    no_echo: bool,
}

/// One stack.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Stack {
    id: String,
    name: String,
    status: String,
    reason: Option<String>,
    created: i64,
    updated: Option<i64>,
    deleted: Option<i64>,
    /// What it is, or is becoming.
    spec: Spec,
    resources: BTreeMap<String, Resource>,
    events: Vec<Event>,
    outputs: Vec<Output>,
    disable_rollback: bool,
    /// `DELETE` removes the stack when its creation fails.
    on_failure: Option<String>,
    protected: bool,
    policy: Option<String>,
    /// The change set that was executed last.
    change_set: Option<String>,
    /// Tokens seen, with what they asked for.
    tokens: BTreeMap<String, String>,
    /// What goes on.
    operation: Option<Operation>,
    /// What stopped half-way and can be rolled back or continued.
    parked: Option<Operation>,
}

/// One output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Output {
    key: String,
    value: String,
    description: Option<String>,
    export: Option<String>,
}

/// One resource as deployed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Resource {
    kind: String,
    physical: Option<String>,
    status: String,
    reason: Option<String>,
    time: i64,
    /// As sent to the provider.
    properties: Map<String, Value>,
    attributes: Map<String, Value>,
    /// The stack's tags when it was last touched.
    tags: Vec<(String, String)>,
    depends: BTreeSet<String>,
    deletion_policy: String,
    replace_policy: String,
    metadata: Value,
    /// It was there before the stack.
    imported: bool,
}

/// One event.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Event {
    id: String,
    logical: String,
    physical: String,
    kind: String,
    time: i64,
    status: String,
    reason: Option<String>,
    properties: Option<String>,
    token: Option<String>,
}

/// One change set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct ChangeSet {
    id: String,
    name: String,
    stack_id: String,
    stack_name: String,
    /// `CREATE` or `UPDATE`.
    kind: String,
    description: Option<String>,
    created: i64,
    /// When its creation goes a step on.
    due: i64,
    status: String,
    reason: Option<String>,
    execution: String,
    spec: Spec,
    /// With values; they are left out of answers that do not ask for them.
    changes: Vec<Value>,
    /// Logical ids to take over, with their physical ids.
    imports: BTreeMap<String, String>,
    /// What early validation found: name, logical id, path, message.
    violations: Vec<diff::Violation>,
    import_existing: bool,
    on_failure: Option<String>,
    client_token: Option<String>,
    disable_validation: bool,
}

/// One operation, input and output as in the API's JSON.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    ops::call(world, ctx, operation, input)
}

/// Moves what takes time. True if anything moved.
pub fn tick(world: &mut World, now: i64) -> bool {
    let mut moved = false;
    let regions: Vec<String> = world.regions.keys().cloned().collect();
    for region in regions {
        let ctx = Ctx { region: region.clone(), request_id: uuid::Uuid::new_v4().to_string(), now };
        moved |= diff::tick(world, &ctx);
        let state = &world.region(&region).cfn;
        let busy: Vec<String> =
            state.stacks.values().filter(|stack| stack.operation.is_some()).map(|stack| stack.id.clone()).collect();
        for id in busy {
            // Taken out, so that its providers can have the world.
            if let Some(mut stack) = world.region(&region).cfn.stacks.remove(&id) {
                moved |= engine::advance(world, &ctx, &mut stack);
                world.region(&region).cfn.stacks.insert(id, stack);
            }
        }
    }
    moved
}

impl State {
    /// A live stack by name, or any by id.
    fn find(&self, name_or_id: &str) -> Option<&Stack> {
        self.stacks.get(name_or_id).or_else(|| {
            self.stacks.values().find(|stack| stack.name == name_or_id && stack.status != "DELETE_COMPLETE")
        })
    }

    fn find_mut(&mut self, name_or_id: &str) -> Option<&mut Stack> {
        let id = self.find(name_or_id)?.id.clone();
        self.stacks.get_mut(&id)
    }

    /// The live stack that has a resource of this type under this physical id.
    fn owner(&self, kind: &str, physical: &str) -> Option<&Stack> {
        self.stacks.values().find(|stack| {
            stack.resources.values().any(|resource| {
                resource.kind == kind && resource.physical.as_deref() == Some(physical) && resource.stands()
            })
        })
    }
}

impl Resource {
    /// It is the stack's: neither deleted nor left behind.
    fn stands(&self) -> bool {
        !matches!(self.status.as_str(), "DELETE_COMPLETE" | "DELETE_SKIPPED")
    }
}

impl Stack {
    fn in_progress(&self) -> bool {
        self.operation.is_some()
    }

    /// Sets the status and writes the stack's own event.
    fn turn(&mut self, now: i64, status: &str, reason: Option<String>, token: Option<String>) {
        self.status = status.to_owned();
        self.reason.clone_from(&reason);
        let event = Event {
            id: uuid::Uuid::new_v4().to_string(),
            logical: self.name.clone(),
            physical: self.id.clone(),
            kind: "AWS::CloudFormation::Stack".to_owned(),
            time: now,
            status: status.to_owned(),
            reason,
            properties: None,
            token,
        };
        self.events.push(event);
    }

    /// Writes an event of a resource.
    fn note(&mut self, now: i64, logical: &str, resource: &Resource, token: Option<String>) {
        self.events.push(Event {
            id: format!("{logical}-{}-{}", resource.status, uuid::Uuid::new_v4()),
            logical: logical.to_owned(),
            physical: resource.physical.clone().unwrap_or_default(),
            kind: resource.kind.clone(),
            time: now,
            status: resource.status.clone(),
            reason: resource.reason.clone(),
            properties: Some(Value::Object(resource.properties.clone()).to_string()),
            token,
        });
    }
}

/// A ValidationError, what CloudFormation answers to nearly everything it does not like.
fn invalid(message: impl Into<String>) -> Fail {
    ApiError::new("ValidationError", message)
}

/// A text member; the query protocol knows nothing else.
fn text<'a>(input: &'a Value, member: &str) -> Option<&'a str> {
    input.get(member).and_then(Value::as_str)
}

/// A boolean member, as JSON or as the query protocol's text.
fn flag(input: &Value, member: &str) -> bool {
    flag_maybe(input, member).unwrap_or(false)
}

fn flag_maybe(input: &Value, member: &str) -> Option<bool> {
    match input.get(member)? {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) => Some(text.eq_ignore_ascii_case("true")),
        _ => None,
    }
}

/// A list member, or nothing.
fn list<'a>(input: &'a Value, member: &str) -> &'a [Value] {
    input.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The texts of a list member.
fn texts(input: &Value, member: &str) -> Vec<String> {
    list(input, member).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
