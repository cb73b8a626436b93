//! Scaling policies.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{DIMENSION, NAMESPACE, Target, invalid, not_found, paged, target};
use crate::input::{pick, strings, text};
use crate::world::{ACCOUNT, Answer, ApiError, Ctx, World, epoch};

/// Most policies of one target (AWS doc: Quotas for Application Auto Scaling).
const MOST: usize = 50;

/// A policy.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Policy {
    created: i64,
    arn: String,
    alarms: Vec<String>,
    /// PolicyType and the configuration.
    settings: Value,
}

pub(super) fn put(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let (resource, name) = (text(input, "ResourceId"), text(input, "PolicyName"));
    let target = target(world, ctx, resource)?;
    let old = target.policies.get(name);
    let kind = input["PolicyType"]
        .as_str()
        .or_else(|| old?.settings["PolicyType"].as_str())
        .unwrap_or("StepScaling")
        .to_owned();
    let (tracking, step) =
        (&input["TargetTrackingScalingPolicyConfiguration"], &input["StepScalingPolicyConfiguration"]);
    let fits = match kind.as_str() {
        "TargetTrackingScaling" => !tracking.is_null() && step.is_null(),
        "StepScaling" => tracking.is_null() && !step.is_null(),
        other => return Err(invalid(format!("The sandbox has no policies of type {other}."))),
    };
    if !fits {
        return Err(invalid(format!("The policy configuration does not match the policy type {kind}.")));
    }
    if kind == "TargetTrackingScaling" {
        check_tracking(target, name, tracking)?;
    }
    if !target.policies.contains_key(name) && target.policies.len() >= MOST {
        return Err(ApiError::new("LimitExceededException", format!("Maximum number of policies is {MOST}.")));
    }
    let policy = target.policies.entry(name.to_owned()).or_insert_with(|| Policy {
        created: ctx.now,
        arn: format!(
            "arn:aws:autoscaling:{}:{ACCOUNT}:scalingPolicy:{}:resource/{NAMESPACE}/{resource}:policyName/{name}",
            ctx.region,
            uuid::Uuid::new_v4()
        ),
        ..Policy::default()
    });
    let members = ["TargetTrackingScalingPolicyConfiguration", "StepScalingPolicyConfiguration"];
    policy.settings = Value::Object(pick(input, &members));
    policy.settings["PolicyType"] = json!(kind);
    if kind == "TargetTrackingScaling" && policy.alarms.is_empty() {
        let alarm = |side| format!("TargetTracking-{resource}-Alarm{side}-{}", uuid::Uuid::new_v4());
        policy.alarms = vec![alarm("High"), alarm("Low")];
    }
    Ok(json!({"PolicyARN": policy.arn, "Alarms": alarms(ctx, policy)}))
}

fn alarms(ctx: &Ctx, policy: &Policy) -> Value {
    let show = |name: &String| json!({"AlarmName": name, "AlarmARN": ctx.arn("cloudwatch", &format!("alarm:{name}"))});
    policy.alarms.iter().map(show).collect()
}

fn check_tracking(target: &Target, name: &str, tracking: &Value) -> Result<(), ApiError> {
    let (predefined, custom) = (&tracking["PredefinedMetricSpecification"], &tracking["CustomizedMetricSpecification"]);
    if predefined.is_null() == custom.is_null() {
        return Err(invalid(
            "Exactly one of PredefinedMetricSpecification and CustomizedMetricSpecification must be specified.",
        ));
    }
    let metric = text(predefined, "PredefinedMetricType");
    if custom.is_null() && !metric.starts_with("SageMakerVariant") {
        return Err(invalid(format!("Predefined metric type {metric} is not supported for {DIMENSION}.")));
    }
    let spec = |t: &Value| (t["PredefinedMetricSpecification"].clone(), t["CustomizedMetricSpecification"].clone());
    let mut others = target.policies.iter().filter(|(other, _)| *other != name);
    if others.any(|(_, p)| spec(&p.settings["TargetTrackingScalingPolicyConfiguration"]) == spec(tracking)) {
        return Err(invalid("Only one TargetTrackingScaling policy for a given metric specification is allowed."));
    }
    Ok(())
}

pub(super) fn delete(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let (resource, name) = (text(input, "ResourceId"), text(input, "PolicyName"));
    let targets = &mut world.region(&ctx.region).scaling.targets;
    match targets.get_mut(resource).and_then(|t| t.policies.remove(name)) {
        Some(_) => Ok(json!({})),
        None => Err(not_found("No scaling policy found", resource, &format!(", policy name: {name}"))),
    }
}

pub(super) fn describe(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let (wanted, names) = (input["ResourceId"].as_str(), strings(&input["PolicyNames"]));
    let mut shown = Vec::new();
    for (resource, target) in &world.region(&ctx.region).scaling.targets {
        for (name, policy) in &target.policies {
            if wanted.is_some_and(|w| w != resource) || !names.is_empty() && !names.contains(name) {
                continue;
            }
            let mut row = json!({
                "PolicyARN": policy.arn,
                "PolicyName": name,
                "ServiceNamespace": NAMESPACE,
                "ResourceId": resource,
                "ScalableDimension": DIMENSION,
                "Alarms": alarms(ctx, policy),
                "CreationTime": epoch(policy.created),
            });
            for (member, value) in policy.settings.as_object().into_iter().flatten() {
                row[member] = value.clone();
            }
            shown.push(row);
        }
    }
    paged("ScalingPolicies", shown, input)
}
