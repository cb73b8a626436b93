//! Application Auto Scaling for the variants of SageMaker endpoints.
//!
//! Nothing is measured here, so a policy is kept but never acts; limits and scheduled actions do act.

mod policies;
mod rules;
mod schedule;
mod schedules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::input::{limit, page, string_map, strings, text};
use crate::rules::Rule;
use crate::sagemaker;
use crate::world::{ACCOUNT, Answer, ApiError, Ctx, World, epoch};

/// What Application Auto Scaling refuses.
pub const RULES: &[Rule] = rules::RULES;

const NAMESPACE: &str = "sagemaker";
const DIMENSION: &str = "sagemaker:variant:DesiredInstanceCount";
/// Activities kept per region.
const KEPT_ACTIVITIES: usize = 200;

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// By resource id, as `endpoint/NAME/variant/NAME`.
    targets: BTreeMap<String, Target>,
    /// Newest last.
    activities: Vec<Activity>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Target {
    id: String,
    min: i64,
    max: i64,
    role: String,
    created: i64,
    suspended: Value,
    tags: BTreeMap<String, String>,
    /// By name: (input, when made, id).
    policies: BTreeMap<String, policies::Policy>,
    schedules: BTreeMap<String, schedules::Action>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Activity {
    id: String,
    resource: String,
    description: String,
    cause: String,
    start: i64,
    end: i64,
    status: String,
    message: String,
}

/// One operation, input and output as in the API's JSON.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    if input["ServiceNamespace"].as_str().is_some_and(|n| n != NAMESPACE) {
        return Err(invalid(format!("The sandbox scales only {NAMESPACE}, not {}.", input["ServiceNamespace"])));
    }
    if input["ScalableDimension"].as_str().is_some_and(|d| d != DIMENSION) {
        return Err(invalid(format!(
            "Unsupported service namespace, resource type or scalable dimension: {}",
            text(input, "ScalableDimension")
        )));
    }
    match operation {
        "RegisterScalableTarget" => register(world, ctx, input),
        "DeregisterScalableTarget" => {
            let resource = text(input, "ResourceId");
            match world.region(&ctx.region).scaling.targets.remove(resource) {
                Some(_) => Ok(json!({})),
                None => Err(not_found("No scalable target found", resource, "")),
            }
        }
        "DescribeScalableTargets" => describe_targets(world, ctx, input),
        "DescribeScalingActivities" => describe_activities(world, ctx, input),
        "PutScalingPolicy" => policies::put(world, ctx, input),
        "DeleteScalingPolicy" => policies::delete(world, ctx, input),
        "DescribeScalingPolicies" => policies::describe(world, ctx, input),
        "PutScheduledAction" => schedules::put(world, ctx, input),
        "DeleteScheduledAction" => schedules::delete(world, ctx, input),
        "DescribeScheduledActions" => schedules::describe(world, ctx, input),
        "ListTagsForResource" => Ok(json!({"Tags": tagged(world, ctx, input)?.tags})),
        "TagResource" => {
            tagged(world, ctx, input)?.tags.extend(string_map(&input["Tags"]));
            Ok(json!({}))
        }
        "UntagResource" => {
            let target = tagged(world, ctx, input)?;
            strings(&input["TagKeys"]).iter().for_each(|key| {
                target.tags.remove(key);
            });
            Ok(json!({}))
        }
        other => Err(ApiError::new(
            "UnknownOperationException",
            format!("the sandbox has no Application Auto Scaling operation {other}"),
        )),
    }
}

/// Fires what is due and moves capacity into its limits. True if anything moved.
pub fn tick(world: &mut World, now: i64) -> bool {
    let regions: Vec<String> =
        world.regions.iter().filter(|(_, r)| !r.scaling.targets.is_empty()).map(|(n, _)| n.clone()).collect();
    let mut moved = false;
    for region in regions {
        moved |= schedules::fire(world, &region, now);
        let ctx = Ctx { region, request_id: String::new(), now };
        moved |= keep_limits(world, &ctx);
    }
    moved
}

/// Moves every settled variant into the limits of its target.
fn keep_limits(world: &mut World, ctx: &Ctx) -> bool {
    let targets: Vec<(String, i64, i64, bool)> = world
        .region(&ctx.region)
        .scaling
        .targets
        .iter()
        .map(|(id, t)| (id.clone(), t.min, t.max, t.suspended["ScheduledScalingSuspended"] == true))
        .collect();
    let mut moved = false;
    for (resource, min, max, suspended) in targets {
        let Some((endpoint, variant)) = split(&resource) else { continue };
        let Some(have) = sagemaker::desired_count(world, &ctx.region, endpoint, variant) else { continue };
        // A real-time variant cannot run without an instance.
        let want = have.clamp(min, max.max(min)).max(1);
        if want == have || suspended {
            continue;
        }
        let result = sagemaker::set_desired_count(world, ctx, endpoint, variant, want);
        let limit = if want > have {
            format!("minimum capacity was set to {min}")
        } else {
            format!("maximum capacity was set to {max}")
        };
        let mut activity = Activity {
            id: uuid::Uuid::new_v4().to_string(),
            resource: resource.clone(),
            description: format!("Setting desired instance count to {want}."),
            cause: limit,
            start: ctx.now,
            end: ctx.now,
            ..Activity::default()
        };
        match result {
            Ok(()) => {
                activity.status = "Successful".into();
                activity.message = format!(
                    "Successfully set desired instance count to {want}. Change successfully fulfilled by sagemaker."
                );
            }
            Err(error) => {
                activity.status = "Failed".into();
                activity.message = format!("Failed to set desired instance count to {want}. Reason: {}", error.message);
            }
        }
        let activities = &mut world.region(&ctx.region).scaling.activities;
        // A failure that goes on is one activity, not one a tick.
        let same = activities.iter().rev().find(|a| a.resource == resource);
        if same.is_some_and(|a| a.status == "Failed" && a.message == activity.message) {
            continue;
        }
        activities.push(activity);
        let surplus = activities.len().saturating_sub(KEPT_ACTIVITIES);
        activities.drain(..surplus);
        moved = true;
    }
    moved
}

/// Names of an endpoint's variants that are registered as scalable targets.
pub fn registered_variants(world: &World, region: &str, endpoint: &str) -> Vec<String> {
    let Some(region) = world.regions.get(region) else { return Vec::new() };
    let pairs = region.scaling.targets.keys().filter_map(|id| split(id));
    pairs.filter(|(e, _)| *e == endpoint).map(|(_, v)| v.to_owned()).collect()
}

/// Removes the scalable targets of an endpoint.
pub fn forget_endpoint(world: &mut World, region: &str, endpoint: &str) {
    world.region(region).scaling.targets.retain(|id, _| split(id).is_none_or(|(e, _)| e != endpoint));
}

/// Endpoint and variant of a resource id.
fn split(resource: &str) -> Option<(&str, &str)> {
    resource.strip_prefix("endpoint/")?.split_once("/variant/").filter(|(e, v)| !e.is_empty() && !v.is_empty())
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new("ValidationException", text)
}

fn not_found(what: &str, resource: &str, more: &str) -> ApiError {
    let text = format!(
        "{what} for service namespace: {NAMESPACE}, resource ID: {resource}, scalable dimension: {DIMENSION}{more}"
    );
    ApiError::new("ObjectNotFoundException", text)
}

fn target<'a>(world: &'a mut World, ctx: &Ctx, resource: &str) -> Result<&'a mut Target, ApiError> {
    let found = world.region(&ctx.region).scaling.targets.get_mut(resource);
    found.ok_or_else(|| not_found("No scalable target registered", resource, ""))
}

fn arn(ctx: &Ctx, target_id: &str) -> String {
    format!("arn:aws:application-autoscaling:{}:{ACCOUNT}:scalable-target/{target_id}", ctx.region)
}

fn tagged<'a>(world: &'a mut World, ctx: &Ctx, input: &Value) -> Result<&'a mut Target, ApiError> {
    let wanted = text(input, "ResourceARN");
    let found = world.region(&ctx.region).scaling.targets.values_mut().find(|t| arn(ctx, &t.id) == wanted);
    found.ok_or_else(|| {
        let text = format!("The specified resource doesn't exist: {wanted}");
        ApiError::new("ResourceNotFoundException", text)
    })
}

/// Refuses bounds in the wrong order.
fn check_bounds(min: i64, max: i64) -> Result<(), ApiError> {
    if min < 0 || max < 0 {
        return Err(invalid("Minimum and maximum capacity cannot be negative"));
    }
    if max < min {
        return Err(invalid("Maximum capacity cannot be less than minimum capacity"));
    }
    Ok(())
}

fn register(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let resource = text(input, "ResourceId").to_owned();
    let Some((endpoint, variant)) = split(&resource) else {
        return Err(invalid(format!("Unsupported resource ID: {resource}. It is endpoint/NAME/variant/NAME")));
    };
    if !sagemaker::has_variant(world, &ctx.region, endpoint, variant) {
        return Err(invalid(format!("SageMaker variant doesn't exist: {resource}")));
    }
    let targets = &mut world.region(&ctx.region).scaling.targets;
    let old = targets.get(&resource);
    let min = input["MinCapacity"].as_i64().or(old.map(|t| t.min));
    let max = input["MaxCapacity"].as_i64().or(old.map(|t| t.max));
    let (Some(min), Some(max)) = (min, max) else {
        return Err(invalid("MinCapacity and MaxCapacity are required to register a new scalable target"));
    };
    check_bounds(min, max)?;
    let target = targets.entry(resource).or_insert_with(|| Target {
        id: uuid::Uuid::new_v4().simple().to_string(),
        created: ctx.now,
        role: format!(
            "arn:aws:iam::{ACCOUNT}:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/\
             AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
        ),
        suspended: json!({
            "DynamicScalingInSuspended": false,
            "DynamicScalingOutSuspended": false,
            "ScheduledScalingSuspended": false,
        }),
        tags: string_map(&input["Tags"]),
        ..Target::default()
    });
    target.min = min;
    target.max = max;
    for (name, value) in input["SuspendedState"].as_object().into_iter().flatten() {
        target.suspended[name] = value.clone();
    }
    if let Some(role) = input["RoleARN"].as_str() {
        target.role = role.to_owned();
    }
    let arn = arn(ctx, &target.id);
    keep_limits(world, ctx);
    Ok(json!({"ScalableTargetARN": arn}))
}

fn describe_targets(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let wanted = strings(&input["ResourceIds"]);
    let all = world.region(&ctx.region).scaling.targets.iter();
    let shown = all.filter(|(id, _)| wanted.is_empty() || wanted.contains(id)).map(|(id, target)| {
        json!({
            "ServiceNamespace": NAMESPACE,
            "ResourceId": id,
            "ScalableDimension": DIMENSION,
            "MinCapacity": target.min,
            "MaxCapacity": target.max,
            "RoleARN": target.role,
            "CreationTime": epoch(target.created),
            "SuspendedState": target.suspended,
            "ScalableTargetARN": arn(ctx, &target.id),
        })
    });
    paged("ScalableTargets", shown.collect(), input)
}

fn describe_activities(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let wanted = input["ResourceId"].as_str();
    let all = world.region(&ctx.region).scaling.activities.iter().rev();
    let shown = all.filter(|a| wanted.is_none_or(|w| a.resource == w)).map(|a| {
        json!({
            "ActivityId": a.id,
            "ServiceNamespace": NAMESPACE,
            "ResourceId": a.resource,
            "ScalableDimension": DIMENSION,
            "Description": a.description,
            "Cause": a.cause,
            "StartTime": epoch(a.start),
            "EndTime": epoch(a.end),
            "StatusCode": a.status,
            "StatusMessage": a.message,
        })
    });
    paged("ScalingActivities", shown.collect(), input)
}

fn paged(member: &str, items: Vec<Value>, input: &Value) -> Answer {
    let (items, next) = page(items, limit(input, "MaxResults", 50), &input["NextToken"], "InvalidNextTokenException")?;
    let mut answer = json!({member: items});
    if let Some(next) = next {
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}
