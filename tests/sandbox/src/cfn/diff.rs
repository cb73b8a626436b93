//! Change sets: what an execution would do, and what makes it impossible.

mod details;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use details::Why;

use super::engine::{Live, changed, resolve};
use super::expand::{KNOWN_AFTER_APPLY, Mention, Resources, mentions};
use super::spec::{Spec, Wanted};
use super::{ChangeSet, Fail, Resource, Stack, providers, schema, template::plain};
use crate::world::{Ctx, World};

/// One finding of early validation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// `AWS::EarlyValidation::...`.
    pub name: String,
    pub logical: String,
    pub kind: String,
    pub path: String,
    pub told: String,
}

/// AWS seconds until a change set begins, and until it is there.
pub const PENDING_SECONDS: f64 = 1.0;
const CREATING_SECONDS: f64 = 4.0;

/// What AWS says of a change set that changes nothing.
pub const NO_CHANGES: &str =
    "The submitted information didn't contain changes. Submit different information to create a change set.";

/// Moves every change set that is being made.
pub(super) fn tick(world: &mut World, ctx: &Ctx) -> bool {
    let state = &world.region(&ctx.region).cfn;
    let due: Vec<String> = state
        .change_sets
        .values()
        .filter(|set| set.due <= ctx.now && matches!(set.status.as_str(), "CREATE_PENDING" | "CREATE_IN_PROGRESS"))
        .map(|set| set.id.clone())
        .collect();
    for id in &due {
        let Some(mut set) = world.region(&ctx.region).cfn.change_sets.remove(id) else { continue };
        if set.status == "CREATE_PENDING" {
            set.status = "CREATE_IN_PROGRESS".to_owned();
            set.due = ctx.now + world.millis(CREATING_SECONDS);
        } else {
            make(world, ctx, &mut set);
        }
        world.region(&ctx.region).cfn.change_sets.insert(id.clone(), set);
    }
    !due.is_empty()
}

fn make(world: &mut World, ctx: &Ctx, set: &mut ChangeSet) {
    let fail = |set: &mut ChangeSet, told: String| {
        set.status = "FAILED".to_owned();
        set.execution = "UNAVAILABLE".to_owned();
        set.reason = Some(told);
    };
    let Some(stack) = world.region(&ctx.region).cfn.stacks.get(&set.stack_id).cloned() else {
        return fail(set, format!("Stack [{}] does not exist", set.stack_name));
    };
    let mut found = match compare(&stack, &set.spec) {
        Ok(found) => found,
        Err(error) => return fail(set, error.message),
    };
    let mut violations = std::mem::take(&mut found.violations);
    for change in found.changes.iter_mut().filter(|change| change.action == "Add") {
        let Some(physical) = providers::existing(world, ctx, &change.kind, &change.properties) else { continue };
        let owner = world.region(&ctx.region).cfn.owner(&change.kind, &physical).map(|stack| stack.id.clone());
        if set.import_existing && owner.is_none() {
            if change.deletion_policy == "Delete" {
                return fail(
                    set,
                    format!(
                        "Resources [{}] must have a DeletionPolicy of Retain or RetainExceptOnCreate to be imported.",
                        change.logical
                    ),
                );
            }
            change.action = "Import";
            set.imports.insert(change.logical.clone(), physical.clone());
            change.physical = Some(physical);
            continue;
        }
        let told = match owner {
            Some(owner) => format!(
                "Resource of type '{}' with identifier '{physical}' already exists in stack {owner}.",
                change.kind
            ),
            None => format!("Resource of type '{}' with identifier '{physical}' already exists.", change.kind),
        };
        violations.push(Violation {
            name: "AWS::EarlyValidation::ResourceExistenceCheck".to_owned(),
            logical: change.logical.clone(),
            kind: change.kind.clone(),
            path: format!("/Resources/{}", change.logical),
            told,
        });
    }
    if set.disable_validation {
        violations.clear();
    }
    if !violations.is_empty() {
        let names: BTreeSet<&str> = violations.iter().map(|violation| violation.name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let told = format!(
            "The following hook(s)/validation failed: [{}]. To troubleshoot Early Validation errors, use the DescribeEvents API for detailed failure information.",
            names.join(", ")
        );
        set.violations = violations;
        return fail(set, told);
    }
    if found.changes.is_empty() && !found.others {
        return fail(set, NO_CHANGES.to_owned());
    }
    set.changes = found.changes.iter().map(Change::answer).collect();
    set.status = "CREATE_COMPLETE".to_owned();
    set.execution = "AVAILABLE".to_owned();
}

/// What differs between a stack and a spec.
#[derive(Debug, Default)]
pub(super) struct Found {
    changes: Vec<Change>,
    /// Outputs or tags differ.
    others: bool,
    violations: Vec<Violation>,
}

impl Found {
    /// Nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.others
    }
}

#[derive(Debug)]
struct Change {
    action: &'static str,
    logical: String,
    kind: String,
    physical: Option<String>,
    replacement: Option<&'static str>,
    scope: BTreeSet<&'static str>,
    details: Vec<Value>,
    policy_action: Option<&'static str>,
    properties: Map<String, Value>,
    deletion_policy: String,
    before: Option<Value>,
    after: Option<Value>,
}

impl Change {
    fn answer(&self) -> Value {
        let mut change = json!({
            "Action": self.action,
            "LogicalResourceId": self.logical,
            "ResourceType": self.kind,
            "Scope": self.scope,
            "Details": self.details,
        });
        if let Some(physical) = &self.physical {
            change["PhysicalResourceId"] = json!(physical);
        }
        if let Some(replacement) = self.replacement {
            change["Replacement"] = json!(replacement);
        }
        if let Some(action) = self.policy_action {
            change["PolicyAction"] = json!(action);
        }
        if let Some(before) = &self.before {
            change["BeforeContext"] = json!(before.to_string());
        }
        if let Some(after) = &self.after {
            change["AfterContext"] = json!(after.to_string());
        }
        json!({ "Type": "Resource", "ResourceChange": change })
    }
}

/// Resources as a change set sees them: those that will be new are not known yet.
struct Foreseen<'a> {
    live: Live<'a>,
    /// Will be new for certain.
    new: BTreeSet<String>,
}

impl Resources for Foreseen<'_> {
    fn reference(&self, name: &str) -> Option<Value> {
        if self.new.contains(name) { Some(json!(KNOWN_AFTER_APPLY)) } else { self.live.reference(name) }
    }

    fn attribute(&self, name: &str, attribute: &str) -> Option<Value> {
        if self.new.contains(name) { Some(json!(KNOWN_AFTER_APPLY)) } else { self.live.attribute(name, attribute) }
    }
}

/// Compares. Fails where the template cannot be resolved.
pub(super) fn compare(stack: &Stack, spec: &Spec) -> Result<Found, Fail> {
    let standing: BTreeMap<&String, &Resource> =
        stack.resources.iter().filter(|(_, resource)| resource.physical.is_some() && resource.stands()).collect();
    let mut foreseen = Foreseen { live: Live(&stack.resources), new: BTreeSet::new() };
    foreseen.new.extend(spec.resources.keys().filter(|name| !standing.contains_key(name)).cloned());
    let mut found = Found::default();
    let tags_changed = stack.spec.tags != spec.tags;
    found.others = tags_changed || stack.spec.outputs != spec.outputs || outputs_differ(stack, spec, &foreseen)?;
    // How each changed resource changes: None is in place.
    let mut moved: BTreeMap<String, &'static str> = BTreeMap::new();
    for logical in in_order(&spec.resources) {
        let wanted = &spec.resources[&logical];
        let properties = match resolve(&logical, wanted, &spec.scope, &foreseen) {
            Ok(properties) => properties,
            Err(error) if error.message.starts_with("Properties validation failed") => {
                found.violations.push(Violation {
                    name: "AWS::EarlyValidation::PropertyValidation".to_owned(),
                    logical: logical.clone(),
                    kind: wanted.kind.clone(),
                    path: format!("/Resources/{logical}/Properties"),
                    told: error.message,
                });
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(old) = standing.get(&logical) else {
            found.changes.push(added(&logical, wanted, properties));
            continue;
        };
        let change = modified(stack, spec, &logical, wanted, old, properties, &moved, tags_changed)?;
        if let Some(change) = change {
            let replacement = change.replacement.unwrap_or("False");
            if replacement == "True" {
                foreseen.new.insert(logical.clone());
            }
            moved.insert(logical.clone(), replacement);
            found.changes.push(change);
        }
    }
    for (logical, old) in &standing {
        if !spec.resources.contains_key(*logical) {
            found.changes.push(removed(logical, old));
        }
    }
    found.changes.sort_by(|a, b| a.logical.cmp(&b.logical));
    Ok(found)
}

fn outputs_differ(stack: &Stack, spec: &Spec, resources: &dyn Resources) -> Result<bool, Fail> {
    for (key, body) in &spec.outputs {
        let Some(value) = body.get("Value") else { continue };
        let value = spec.scope.resolve(value, resources)?.as_ref().map(plain).unwrap_or_default();
        let same = stack.outputs.iter().any(|output| output.key == *key && output.value == value);
        if !same && !value.contains(KNOWN_AFTER_APPLY) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Logical ids, dependencies first.
fn in_order(resources: &BTreeMap<String, Wanted>) -> Vec<String> {
    let mut ordered: Vec<String> = Vec::new();
    let mut rest: Vec<&String> = resources.keys().collect();
    while !rest.is_empty() {
        let (ready, waiting): (Vec<&String>, Vec<&String>) =
            rest.iter().partition(|name| resources[**name].depends.iter().all(|d| ordered.contains(d)));
        if ready.is_empty() {
            // Circles were refused before; this cannot loop for ever all the same.
            ordered.extend(waiting.into_iter().cloned());
            break;
        }
        ordered.extend(ready.into_iter().cloned());
        rest = waiting;
    }
    ordered
}

fn added(logical: &str, wanted: &Wanted, properties: Map<String, Value>) -> Change {
    Change {
        action: "Add",
        logical: logical.to_owned(),
        kind: wanted.kind.clone(),
        physical: None,
        replacement: None,
        scope: BTreeSet::new(),
        details: Vec::new(),
        policy_action: None,
        before: None,
        after: Some(json!({ "Properties": properties })),
        properties,
        deletion_policy: wanted.deletion_policy.clone(),
    }
}

fn removed(logical: &str, old: &Resource) -> Change {
    Change {
        action: "Remove",
        logical: logical.to_owned(),
        kind: old.kind.clone(),
        physical: old.physical.clone(),
        replacement: None,
        scope: BTreeSet::new(),
        details: Vec::new(),
        policy_action: Some(if old.deletion_policy == "Delete" { "Delete" } else { "Retain" }),
        before: Some(json!({ "Properties": old.properties })),
        after: None,
        properties: old.properties.clone(),
        deletion_policy: old.deletion_policy.clone(),
    }
}

#[allow(clippy::too_many_arguments)]
fn modified(
    stack: &Stack,
    spec: &Spec,
    logical: &str,
    wanted: &Wanted,
    old: &Resource,
    properties: Map<String, Value>,
    moved: &BTreeMap<String, &'static str>,
    tags_changed: bool,
) -> Result<Option<Change>, Fail> {
    let (mut scope, mut details) = (BTreeSet::new(), Vec::new());
    let mut replacement = "False";
    let different = changed(&old.properties, &properties);
    for name in &different {
        let recreation = schema::recreation(&wanted.kind, name);
        // A reference to a resource that will be new changes for certain, though its value is not known.
        replacement = worse(replacement, recreation, true);
        scope.insert(if name == "Tags" { "Tags" } else { "Properties" });
        let (source, cause) = source(stack, spec, logical, name, moved)?;
        let why = Why { recreation, evaluation: "Static", source, cause };
        details.extend(details::of(name, &why, old.properties.get(name), properties.get(name)));
    }
    // A reference to what another change may make different: only execution knows.
    for (name, value) in &wanted.properties {
        if different.contains(name) {
            continue;
        }
        for (target, attribute) in references(value)? {
            let Some(how) = moved.get(&target) else { continue };
            // An id stays when a resource is changed in place, an attribute may not.
            if attribute.is_none() && *how == "False" || *how == "True" {
                continue;
            }
            let recreation = schema::recreation(&wanted.kind, name);
            replacement = worse(replacement, recreation, false);
            scope.insert("Properties");
            let (source, cause) = match &attribute {
                Some(attribute) => ("ResourceAttribute", format!("{target}.{attribute}")),
                None => ("ResourceReference", target.clone()),
            };
            let (before, after) = (old.properties.get(name), properties.get(name));
            let why = Why { recreation, evaluation: "Dynamic", source, cause: Some(cause) };
            details.push(details::one(name, &format!("/Properties/{name}"), &why, before, after));
        }
    }
    if tags_changed && schema::of(&wanted.kind).is_some_and(|schema| !schema.tag_property.is_empty()) {
        scope.insert("Tags");
        details.push(json!({
            "Target": { "Attribute": "Tags", "RequiresRecreation": "Never" },
            "Evaluation": "Static",
            "ChangeSource": "DirectModification",
        }));
    }
    for (attribute, before, after) in [
        ("DeletionPolicy", json!(old.deletion_policy), json!(wanted.deletion_policy)),
        ("UpdateReplacePolicy", json!(old.replace_policy), json!(wanted.replace_policy)),
        ("Metadata", old.metadata.clone(), wanted.metadata.clone()),
    ] {
        if before != after {
            scope.insert(attribute);
            details.push(json!({
                "Target": { "Attribute": attribute, "RequiresRecreation": "Never" },
                "Evaluation": "Static",
                "ChangeSource": "DirectModification",
            }));
        }
    }
    if details.is_empty() {
        return Ok(None);
    }
    let keeps = wanted.replace_policy != "Delete";
    Ok(Some(Change {
        action: "Modify",
        logical: logical.to_owned(),
        kind: wanted.kind.clone(),
        physical: old.physical.clone(),
        replacement: Some(replacement),
        scope,
        details,
        policy_action: (replacement == "True").then_some(if keeps { "ReplaceAndRetain" } else { "ReplaceAndDelete" }),
        before: Some(json!({ "Properties": old.properties })),
        after: Some(json!({ "Properties": properties })),
        properties,
        deletion_policy: wanted.deletion_policy.clone(),
    }))
}

/// The worse of what was known and what a property's change means.
fn worse(known: &'static str, recreation: &str, certain: bool) -> &'static str {
    match (known, recreation, certain) {
        ("True", _, _) | (_, "Always", true) => "True",
        (_, "Always", false) | (_, "Conditionally", _) => "Conditional",
        (known, _, _) => known,
    }
}

fn references(value: &Value) -> Result<Vec<(String, Option<String>)>, Fail> {
    let mut found = BTreeSet::new();
    mentions(value, &mut found)?;
    Ok(found
        .into_iter()
        .filter_map(|mention| match mention {
            Mention::Name(name) => Some((name, None)),
            Mention::Attribute(name, attribute) => Some((name, Some(attribute))),
            Mention::Condition(_) => None,
        })
        .collect())
}

/// Why a property changes, and what causes it: the template itself, or a parameter or resource it mentions.
fn source(
    stack: &Stack,
    spec: &Spec,
    logical: &str,
    property: &str,
    moved: &BTreeMap<String, &'static str>,
) -> Result<(&'static str, Option<String>), Fail> {
    let declared = |spec: &Spec| spec.declared.get(logical).and_then(|all| all.get(property)).cloned();
    if declared(&stack.spec) != declared(spec) {
        return Ok(("DirectModification", None));
    }
    let Some(value) = declared(spec) else { return Ok(("DirectModification", None)) };
    for (name, attribute) in references(&value)? {
        match (attribute, moved.contains_key(&name)) {
            (Some(attribute), true) => return Ok(("ResourceAttribute", Some(format!("{name}.{attribute}")))),
            (None, true) => return Ok(("ResourceReference", Some(name))),
            (None, false) if stack.spec.scope.values.get(&name) != spec.scope.values.get(&name) => {
                return Ok(("ParameterReference", Some(name)));
            }
            _ => {}
        }
    }
    Ok(("DirectModification", None))
}
