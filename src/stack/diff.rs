//! What an update would do to each resource.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::create_only::is_create_only;
use super::evaluate::{Evaluated, Resource, canonical, referenced};

/// What happens to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is made.
    Add,
    /// It is changed in place.
    Modify,
    /// Another one is made, then the old one is removed or retained.
    Replace,
    /// It is removed or retained.
    Remove,
}

/// The change of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResourceChange {
    /// Logical id.
    pub logical_id: String,
    /// `AWS::...`
    pub kind: String,
    /// What happens.
    pub action: Action,
    /// Top-level properties and attributes that change, sorted.
    pub properties: Vec<String>,
    /// Removed or replaced, but the physical resource stays.
    pub retained: bool,
}

/// What CloudFormation would do to get from `old` to `new`: changes in the order of their dependencies, then
/// removals in the reverse order, as its clean-up does them.
///
/// A reference to a resource that is replaced is itself a change. A reference to one that is only modified is
/// not: none of the attributes used here change in place.
pub fn diff(old: Option<&Evaluated>, new: &Evaluated) -> Vec<ResourceChange> {
    let mut changes = Vec::new();
    let mut replaced = BTreeSet::new();
    for id in new.in_order() {
        let resource = &new.resources[id];
        let change = |action, properties, retained| ResourceChange {
            logical_id: id.to_owned(),
            kind: resource.kind.clone(),
            action,
            properties,
            retained,
        };
        match old.and_then(|old| old.resources.get(id)) {
            None => changes.push(change(Action::Add, Vec::new(), false)),
            Some(before) => {
                let properties = changed(before, resource, &replaced);
                let replace =
                    before.kind != resource.kind || properties.iter().any(|p| is_create_only(&resource.kind, p));
                if replace {
                    replaced.insert(id.to_owned());
                    let retained = keeps(resource.update_replace_policy.as_deref());
                    changes.push(change(Action::Replace, properties, retained));
                } else if !properties.is_empty() {
                    changes.push(change(Action::Modify, properties, false));
                }
            }
        }
    }
    if let Some(old) = old {
        for id in old.in_order().into_iter().rev().filter(|id| !new.resources.contains_key(*id)) {
            let resource = &old.resources[id];
            changes.push(ResourceChange {
                logical_id: id.to_owned(),
                kind: resource.kind.clone(),
                action: Action::Remove,
                properties: Vec::new(),
                retained: keeps(resource.deletion_policy.as_deref()),
            });
        }
    }
    changes
}

/// Adds what a change of the stack's tags does: CloudFormation copies them to every resource that can have
/// tags, so each of those in `new` that is not touched anyway is modified.
pub fn with_stack_tags(changes: Vec<ResourceChange>, new: &Evaluated) -> Vec<ResourceChange> {
    let (mut removed, touched): (Vec<_>, Vec<_>) = changes.into_iter().partition(|c| c.action == Action::Remove);
    let mut all = Vec::new();
    for id in new.in_order() {
        let kind = &new.resources[id].kind;
        match touched.iter().find(|c| c.logical_id == id) {
            Some(change) => {
                let mut change = change.clone();
                if change.action == Action::Modify && taggable(kind) && !change.properties.iter().any(|p| p == "Tags") {
                    change.properties.push("Tags".into());
                    change.properties.sort();
                }
                all.push(change);
            }
            None if taggable(kind) => all.push(ResourceChange {
                logical_id: id.to_owned(),
                kind: kind.clone(),
                action: Action::Modify,
                properties: vec!["Tags".into()],
                retained: false,
            }),
            None => {}
        }
    }
    all.append(&mut removed);
    all
}

/// Types without a `Tags` property in the registry's schemas; all others used here have one.
fn taggable(kind: &str) -> bool {
    !matches!(
        kind,
        "AWS::ApplicationAutoScaling::ScalingPolicy"
            | "AWS::Lambda::Permission"
            | "AWS::Lambda::Url"
            | "AWS::S3::BucketPolicy"
    )
}

/// Whether an update must first switch autoscaling off: SageMaker refuses to change the instance type of a
/// variant that is registered as a scalable target, and to remove such a variant ("Update endpoints that use
/// automatic scaling").
///
/// That the desired stack has no target does not help, because CloudFormation updates the endpoint before it
/// removes the target in its clean-up.
pub fn split_instance_type_change(deployed: &Evaluated, desired: &Evaluated) -> bool {
    let instance_type = |evaluated: &Evaluated, variant: &str| {
        evaluated
            .resources
            .values()
            .filter(|r| r.kind == "AWS::SageMaker::EndpointConfig")
            .filter_map(|r| r.properties.get("ProductionVariants").and_then(Value::as_array))
            .flatten()
            .find(|v| v.get("VariantName").and_then(Value::as_str) == Some(variant))
            .and_then(|v| v.get("InstanceType").cloned())
    };
    deployed
        .resources
        .values()
        .filter(|r| r.kind == "AWS::ApplicationAutoScaling::ScalableTarget")
        .filter_map(|r| r.properties.get("ResourceId").and_then(Value::as_str))
        // endpoint/<name>/variant/<variant>
        .filter_map(|id| id.rsplit_once('/').map(|(_, variant)| variant))
        .any(|variant| instance_type(deployed, variant) != instance_type(desired, variant))
}

/// Top-level properties that differ or refer to something replaced, and the two policies.
fn changed(before: &Resource, after: &Resource, replaced: &BTreeSet<String>) -> Vec<String> {
    let names: BTreeSet<&String> = [&before.properties, &after.properties]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(|properties| properties.keys())
        .collect();
    let mut changed: Vec<String> = names
        .into_iter()
        .filter(|name| {
            let (old, new) = (before.properties.get(*name), after.properties.get(*name));
            old.map(canonical) != new.map(canonical) || new.is_some_and(|v| !referenced(v).is_disjoint(replaced))
        })
        .cloned()
        .collect();
    if before.deletion_policy != after.deletion_policy {
        changed.push("DeletionPolicy".into());
    }
    if before.update_replace_policy != after.update_replace_policy {
        changed.push("UpdateReplacePolicy".into());
    }
    changed.sort();
    changed
}

fn keeps(policy: Option<&str>) -> bool {
    matches!(policy, Some("Retain" | "RetainExceptOnCreate"))
}
