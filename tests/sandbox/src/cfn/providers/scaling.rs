//! AWS::ApplicationAutoScaling::ScalableTarget and ScalingPolicy.

use serde_json::{Map, Value, json};

use super::{Change, Failure, Job, as_map, call, pick, tags};
use crate::world::{Ctx, World};

const TARGET: [&str; 3] = ["ServiceNamespace", "ResourceId", "ScalableDimension"];
const POLICIES: [&str; 3] = [
    "PredictiveScalingPolicyConfiguration",
    "StepScalingPolicyConfiguration",
    "TargetTrackingScalingPolicyConfiguration",
];

/// The target in a physical id: `resource|dimension|namespace`.
fn target(physical: &str) -> Value {
    let mut parts = physical.split('|');
    let resource = parts.next().unwrap_or_default();
    let dimension = parts.next().unwrap_or_default();
    let namespace = parts.next().unwrap_or_default();
    json!({ "ServiceNamespace": namespace, "ResourceId": resource, "ScalableDimension": dimension })
}

/// The target of a policy: named by its id, or by three properties.
fn policy_target(properties: &Map<String, Value>) -> Map<String, Value> {
    match properties.get("ScalingTargetId").and_then(Value::as_str) {
        Some(id) => target(id).as_object().cloned().unwrap_or_default(),
        None => pick(properties, &TARGET),
    }
}

pub(super) fn create(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<String, Failure> {
    if job.kind == "AWS::ApplicationAutoScaling::ScalingPolicy" {
        return put_policy(world, ctx, job);
    }
    let names: Vec<&str> =
        TARGET.iter().rev().map(|n| job.properties.get(*n).and_then(Value::as_str).unwrap_or_default()).collect();
    let (dimension, resource, namespace) = (names[0], names[1], names[2]);
    let known = json!({ "ServiceNamespace": namespace, "ResourceIds": [resource], "ScalableDimension": dimension });
    let found = call(world, ctx, "application-autoscaling", "DescribeScalableTargets", known)?;
    if found.get("ScalableTargets").and_then(Value::as_array).is_some_and(|targets| !targets.is_empty()) {
        // RegisterScalableTarget would overwrite it; a create handler must not.
        return Err(Failure::Handler {
            message: format!("{resource}|{dimension}|{namespace} already exists"),
            code: "AlreadyExists",
        });
    }
    register(world, ctx, job, true)?;
    put_actions(world, ctx, job.properties, &[])?;
    Ok(format!("{resource}|{dimension}|{namespace}"))
}

fn register(world: &mut World, ctx: &Ctx, job: &Job<'_>, new: bool) -> Result<(), Failure> {
    let mut input = pick(job.properties, &TARGET);
    input.extend(pick(job.properties, &["MinCapacity", "MaxCapacity", "RoleARN", "SuspendedState"]));
    if new {
        input.insert("Tags".to_owned(), as_map(&tags(job)));
    }
    call(world, ctx, "application-autoscaling", "RegisterScalableTarget", Value::Object(input))?;
    Ok(())
}

fn actions(properties: &Map<String, Value>) -> &[Value] {
    properties.get("ScheduledActions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Puts what is new or different, and deletes what is no longer there.
fn put_actions(world: &mut World, ctx: &Ctx, new: &Map<String, Value>, old: &[Value]) -> Result<(), Failure> {
    let target = pick(new, &TARGET);
    for action in actions(new).iter().filter(|action| !old.contains(action)) {
        let mut input = action.as_object().cloned().unwrap_or_default();
        input.extend(target.clone());
        call(world, ctx, "application-autoscaling", "PutScheduledAction", Value::Object(input))?;
    }
    let name = |action: &Value| action.get("ScheduledActionName").cloned();
    for action in old.iter().filter(|old| !actions(new).iter().any(|new| name(new) == name(old))) {
        let mut input = target.clone();
        input.extend(name(action).map(|name| ("ScheduledActionName".to_owned(), name)));
        match call(world, ctx, "application-autoscaling", "DeleteScheduledAction", Value::Object(input)) {
            Err(error) if error.code != "ObjectNotFoundException" => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn put_policy(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<String, Failure> {
    let mut input = policy_target(job.properties);
    input.extend(pick(job.properties, &["PolicyName", "PolicyType"]));
    input.extend(pick(job.properties, &POLICIES));
    let made = call(world, ctx, "application-autoscaling", "PutScalingPolicy", Value::Object(input))?;
    match made.get("PolicyARN").and_then(Value::as_str) {
        Some(arn) => Ok(arn.to_owned()),
        None => {
            Err(Failure::Handler { message: "PutScalingPolicy gave no PolicyARN".to_owned(), code: "InternalFailure" })
        }
    }
}

pub(super) fn update(world: &mut World, ctx: &Ctx, change: &Change<'_>) -> Result<(), Failure> {
    if change.job.kind == "AWS::ApplicationAutoScaling::ScalingPolicy" {
        return put_policy(world, ctx, &change.job).map(drop);
    }
    // Registering again brings the template's bounds back, also where schedules had moved them.
    register(world, ctx, &change.job, false)?;
    put_actions(world, ctx, change.job.properties, actions(change.old))
}

pub(super) fn delete(
    world: &mut World,
    ctx: &Ctx,
    kind: &str,
    physical: &str,
    properties: &Map<String, Value>,
) -> Result<(), Failure> {
    let (operation, input) = if kind == "AWS::ApplicationAutoScaling::ScalingPolicy" {
        let mut input = policy_target(properties);
        input.extend(pick(properties, &["PolicyName"]));
        ("DeleteScalingPolicy", Value::Object(input))
    } else {
        ("DeregisterScalableTarget", target(physical))
    };
    call(world, ctx, "application-autoscaling", operation, input)?;
    Ok(())
}

pub(super) fn attributes(kind: &str, physical: &str) -> Value {
    if kind == "AWS::ApplicationAutoScaling::ScalingPolicy" {
        json!({ "Arn": physical })
    } else {
        json!({ "Id": physical })
    }
}
