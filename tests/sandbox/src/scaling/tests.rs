//! One test or more for each rule, named after it.

use serde_json::{Value, json};

use crate::testing::{at, endpoint, refusal, world};
use crate::world::{Answer, World, call};

const RESOURCE: &str = "endpoint/e/variant/AllTraffic";

/// The three members that every request has.
fn with(mut input: Value) -> Value {
    input["ServiceNamespace"] = json!("sagemaker");
    input["ScalableDimension"] = json!("sagemaker:variant:DesiredInstanceCount");
    if input["ResourceId"].is_null() {
        input["ResourceId"] = json!(RESOURCE);
    }
    input
}

fn aas(world: &mut World, seconds: i64, operation: &str, input: Value) -> Answer {
    world.tick(at(seconds).now);
    call(world, &at(seconds), "application-autoscaling", operation, &with(input))
}

fn registered() -> World {
    let mut world = world();
    endpoint(&mut world);
    aas(&mut world, 300, "RegisterScalableTarget", json!({"MinCapacity": 1, "MaxCapacity": 3})).unwrap();
    world
}

fn count(world: &mut World, seconds: i64) -> Value {
    world.tick(at(seconds).now);
    let shown = call(world, &at(seconds), "sagemaker", "DescribeEndpoint", &json!({"EndpointName": "e"})).unwrap();
    shown["ProductionVariants"][0]["CurrentInstanceCount"].clone()
}

fn tracking(metric: &str) -> Value {
    json!({
        "PolicyName": "p",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": 1.0,
            "PredefinedMetricSpecification": {"PredefinedMetricType": metric},
        },
    })
}

const METRIC: &str = "SageMakerVariantConcurrentRequestsPerModelHighResolution";

#[test]
fn variant_exists() {
    let mut world = registered();
    for resource in ["endpoint/e/variant/Other", "endpoint/f/variant/AllTraffic", "endpoint/e"] {
        let input = json!({"ResourceId": resource, "MinCapacity": 1, "MaxCapacity": 1});
        assert!(refusal(aas(&mut world, 300, "RegisterScalableTarget", input)).starts_with("ValidationException: "));
    }
}

#[test]
fn bounds_and_bounds_required() {
    let mut world = world();
    endpoint(&mut world);
    let refused = refusal(aas(&mut world, 300, "RegisterScalableTarget", json!({"MinCapacity": 2, "MaxCapacity": 1})));
    assert_eq!(refused, "ValidationException: Maximum capacity cannot be less than minimum capacity");
    let refused = refusal(aas(&mut world, 300, "RegisterScalableTarget", json!({"MinCapacity": 2})));
    assert!(refused.contains("are required"), "{refused}");
    aas(&mut world, 300, "RegisterScalableTarget", json!({"MinCapacity": 1, "MaxCapacity": 2})).unwrap();
    // A registered one may be given one bound.
    aas(&mut world, 300, "RegisterScalableTarget", json!({"MaxCapacity": 4})).unwrap();
}

#[test]
fn target_required() {
    let mut world = world();
    endpoint(&mut world);
    let wanted = "ObjectNotFoundException: No scalable target registered for service namespace: sagemaker, resource ID: \
                  endpoint/e/variant/AllTraffic, scalable dimension: sagemaker:variant:DesiredInstanceCount";
    assert_eq!(refusal(aas(&mut world, 300, "PutScalingPolicy", tracking(METRIC))), wanted);
    let action =
        json!({"ScheduledActionName": "s", "Schedule": "rate(1 day)", "ScalableTargetAction": {"MinCapacity": 1}});
    assert_eq!(refusal(aas(&mut world, 300, "PutScheduledAction", action)), wanted);
}

#[test]
fn metric_and_one_metric() {
    let mut world = registered();
    let refused = refusal(aas(&mut world, 300, "PutScalingPolicy", tracking("ECSServiceAverageCPUUtilization")));
    assert!(refused.contains("is not supported"), "{refused}");
    let mut none = tracking(METRIC);
    none["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"] = Value::Null;
    assert!(refusal(aas(&mut world, 300, "PutScalingPolicy", none)).contains("Exactly one"));
    let made = aas(&mut world, 300, "PutScalingPolicy", tracking(METRIC)).unwrap();
    assert_eq!(made["Alarms"].as_array().unwrap().len(), 2);
    // The same policy again is an update, a second one with its metric is not.
    assert_eq!(aas(&mut world, 300, "PutScalingPolicy", tracking(METRIC)).unwrap()["PolicyARN"], made["PolicyARN"]);
    let mut second = tracking(METRIC);
    second["PolicyName"] = json!("q");
    assert!(refusal(aas(&mut world, 300, "PutScalingPolicy", second)).contains("Only one"));
}

#[test]
fn policy_type() {
    let mut world = registered();
    let mut step = tracking(METRIC);
    step["PolicyType"] = json!("StepScaling");
    assert!(refusal(aas(&mut world, 300, "PutScalingPolicy", step)).contains("does not match"));
}

#[test]
fn schedule_timezone_and_action_bounds() {
    let mut world = registered();
    let mut put = |schedule: &str, zone: &str, action: Value| {
        let input =
            json!({"ScheduledActionName": "s", "Schedule": schedule, "Timezone": zone, "ScalableTargetAction": action});
        aas(&mut world, 300, "PutScheduledAction", input)
    };
    let good = "cron(0 8 ? * MON-FRI *)";
    assert!(refusal(put("cron(0 8 * * *)", "UTC", json!({"MinCapacity": 1}))).contains("is not valid"));
    assert!(refusal(put(good, "Europe/Nowhere", json!({"MinCapacity": 1}))).contains("Timezone"));
    assert!(refusal(put(good, "UTC", json!({}))).contains("Either MinCapacity or MaxCapacity"));
    assert!(refusal(put(good, "UTC", json!({"MinCapacity": 3, "MaxCapacity": 2}))).contains("Maximum capacity"));
    assert!(refusal(put(good, "UTC", json!({"MaxCapacity": 0}))).contains("Maximum capacity"));
    put(good, "Europe/Berlin", json!({"MinCapacity": 0, "MaxCapacity": 0})).unwrap();
}

#[test]
fn capacity_moves_into_the_range_and_is_an_activity() {
    let mut world = registered();
    aas(&mut world, 300, "RegisterScalableTarget", json!({"MinCapacity": 2})).unwrap();
    assert_eq!(count(&mut world, 301), 1);
    assert_eq!(count(&mut world, 420), 2);
    let seen = call(
        &mut world,
        &at(420),
        "application-autoscaling",
        "DescribeScalingActivities",
        &json!({"ServiceNamespace": "sagemaker"}),
    )
    .unwrap();
    assert_eq!(seen["ScalingActivities"].as_array().unwrap().len(), 1);
    assert_eq!(seen["ScalingActivities"][0]["StatusCode"], "Successful");
}

#[test]
fn a_scheduled_action_fires_once_at_its_minute_and_is_gone() {
    let mut world = registered();
    let input = json!({
        "ScheduledActionName": "s",
        "Schedule": "at(2026-01-01T00:10:00)",
        "ScalableTargetAction": {"MinCapacity": 3},
    });
    aas(&mut world, 300, "PutScheduledAction", input).unwrap();
    let bounds = |world: &mut World, seconds: i64| {
        let shown = aas(world, seconds, "DescribeScalableTargets", json!({"ResourceId": null}));
        let shown = shown
            .or_else(|_| {
                call(
                    world,
                    &at(seconds),
                    "application-autoscaling",
                    "DescribeScalableTargets",
                    &json!({"ServiceNamespace": "sagemaker"}),
                )
            })
            .unwrap();
        shown["ScalableTargets"][0]["MinCapacity"].clone()
    };
    assert_eq!(bounds(&mut world, 599), 1);
    assert_eq!(bounds(&mut world, 600), 3);
    assert_eq!(count(&mut world, 720), 3);
    let left = call(
        &mut world,
        &at(720),
        "application-autoscaling",
        "DescribeScheduledActions",
        &json!({"ServiceNamespace": "sagemaker"}),
    );
    assert_eq!(left.unwrap()["ScheduledActions"], json!([]));
}

#[test]
fn deregistering_takes_policies_and_schedules_along() {
    let mut world = registered();
    aas(&mut world, 300, "PutScalingPolicy", tracking(METRIC)).unwrap();
    aas(&mut world, 300, "DeregisterScalableTarget", json!({})).unwrap();
    assert!(
        refusal(aas(&mut world, 300, "DeregisterScalableTarget", json!({}))).starts_with("ObjectNotFoundException")
    );
    aas(&mut world, 300, "RegisterScalableTarget", json!({"MinCapacity": 1, "MaxCapacity": 3})).unwrap();
    let left = call(
        &mut world,
        &at(300),
        "application-autoscaling",
        "DescribeScalingPolicies",
        &json!({"ServiceNamespace": "sagemaker"}),
    );
    assert_eq!(left.unwrap()["ScalingPolicies"], json!([]));
}

#[test]
fn deleting_the_endpoint_deregisters_it() {
    let mut world = registered();
    call(&mut world, &at(300), "sagemaker", "DeleteEndpoint", &json!({"EndpointName": "e"})).unwrap();
    assert!(
        refusal(aas(&mut world, 300, "DeregisterScalableTarget", json!({}))).starts_with("ObjectNotFoundException")
    );
}
