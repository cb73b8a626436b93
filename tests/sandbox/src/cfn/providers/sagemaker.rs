//! AWS::SageMaker::Model, EndpointConfig and Endpoint.

use serde_json::{Map, Value, json};

use super::{Change, Failure, Job, Status, call, custom_name, key_value, removed, tags};
use crate::cfn::names;
use crate::world::{Answer, Ctx, World};

/// The name in a physical id, which is the ARN.
fn name(physical: &str) -> &str {
    physical.rsplit('/').next().unwrap_or(physical)
}

pub(super) fn create(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<String, Failure> {
    let (property, operation, arn) = match job.kind {
        "AWS::SageMaker::Model" => ("ModelName", "CreateModel", "ModelArn"),
        "AWS::SageMaker::EndpointConfig" => ("EndpointConfigName", "CreateEndpointConfig", "EndpointConfigArn"),
        _ => ("EndpointName", "CreateEndpoint", "EndpointArn"),
    };
    let name = custom_name(job, property).unwrap_or_else(|| names::physical(job.stack_name, job.logical, 63));
    let mut input = job.properties.clone();
    if job.kind == "AWS::SageMaker::Endpoint" {
        // These say how an update is done and mean nothing to a new endpoint.
        for property in ["RetainAllVariantProperties", "ExcludeRetainedVariantProperties", "RetainDeploymentConfig"] {
            input.remove(property);
        }
    }
    input.insert(property.to_owned(), json!(name));
    input.insert("Tags".to_owned(), key_value(&tags(job)));
    let made = call(world, ctx, "sagemaker", operation, Value::Object(input))?;
    let fallback = match job.kind {
        "AWS::SageMaker::Model" => format!("model/{name}"),
        "AWS::SageMaker::EndpointConfig" => format!("endpoint-config/{name}"),
        _ => format!("endpoint/{name}"),
    };
    Ok(made.get(arn).and_then(Value::as_str).map_or_else(|| ctx.arn("sagemaker", &fallback), str::to_owned))
}

pub(super) fn update(world: &mut World, ctx: &Ctx, change: &Change<'_>) -> Result<(), Failure> {
    if let Some((before, after)) = change.tags() {
        let arn = change.physical;
        let gone = removed(&before, &after);
        if !gone.is_empty() {
            call(world, ctx, "sagemaker", "DeleteTags", json!({ "ResourceArn": arn, "TagKeys": gone }))?;
        }
        call(world, ctx, "sagemaker", "AddTags", json!({ "ResourceArn": arn, "Tags": key_value(&after) }))?;
    }
    let asked =
        ["EndpointConfigName", "DeploymentConfig", "RetainAllVariantProperties", "ExcludeRetainedVariantProperties"];
    if change.job.kind != "AWS::SageMaker::Endpoint" || !change.any_differs(&asked) {
        return Ok(());
    }
    let mut input = super::pick(change.job.properties, &asked);
    // The CloudFormation property has the API's name and, as there, is about this one update.
    input.extend(super::pick(change.job.properties, &["RetainDeploymentConfig"]));
    input.insert("EndpointName".to_owned(), json!(name(change.physical)));
    call(world, ctx, "sagemaker", "UpdateEndpoint", Value::Object(input)).map(drop).map_err(|error| {
        // It is asked again when the update that goes on is over.
        if error.message.contains("in-progress endpoint") { Failure::Busy(error.message) } else { error.into() }
    })
}

/// A config is given by name, and `Ref` of one gives its ARN.
fn config_name(value: &Value) -> Value {
    json!(name(value.as_str().unwrap_or_default()))
}

pub(super) fn delete(world: &mut World, ctx: &Ctx, kind: &str, physical: &str) -> Result<(), Failure> {
    let (operation, property) = match kind {
        "AWS::SageMaker::Model" => ("DeleteModel", "ModelName"),
        "AWS::SageMaker::EndpointConfig" => ("DeleteEndpointConfig", "EndpointConfigName"),
        _ => ("DeleteEndpoint", "EndpointName"),
    };
    match call(world, ctx, "sagemaker", operation, json!({ property: name(physical) })) {
        Ok(_) => Ok(()),
        // SageMaker answers ValidationException for what is not there.
        Err(error) if error.message.contains("Could not find") => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn describe(world: &mut World, ctx: &Ctx, physical: &str) -> Answer {
    call(world, ctx, "sagemaker", "DescribeEndpoint", json!({ "EndpointName": name(physical) }))
}

/// By what DescribeEndpoint says. An update that SageMaker took back without a reason looks like success: the
/// endpoint is InService, and that is all that is asked.
pub(super) fn endpoint_status(world: &mut World, ctx: &Ctx, physical: &str, properties: &Map<String, Value>) -> Status {
    let live = match describe(world, ctx, physical) {
        Ok(live) => live,
        Err(error) if error.code.contains("Throttl") => return Status::Pending,
        Err(error) => return Status::Failed(error.message),
    };
    let told = live.get("FailureReason").and_then(Value::as_str);
    match live.get("EndpointStatus").and_then(Value::as_str) {
        Some("InService") => {
            let wanted = properties.get("EndpointConfigName").map(config_name);
            match told {
                Some(told) if live.get("EndpointConfigName") != wanted.as_ref() => Status::Failed(told.to_owned()),
                _ => Status::Ready,
            }
        }
        Some("Failed" | "UpdateRollbackFailed" | "OutOfService") => {
            Status::Failed(told.unwrap_or("Endpoint is in Failed state").to_owned())
        }
        _ => Status::Pending,
    }
}

pub(super) fn endpoint_settled(world: &mut World, ctx: &Ctx, physical: &str) -> bool {
    match describe(world, ctx, physical) {
        Ok(live) => !matches!(
            live.get("EndpointStatus").and_then(Value::as_str),
            Some("Creating" | "Updating" | "SystemUpdating" | "RollingBack" | "Deleting")
        ),
        Err(error) => !error.code.contains("Throttl"),
    }
}

pub(super) fn endpoint_gone(world: &mut World, ctx: &Ctx, physical: &str) -> bool {
    describe(world, ctx, physical).is_err_and(|error| !error.code.contains("Throttl"))
}

pub(super) fn attributes(kind: &str, physical: &str) -> Value {
    let name = name(physical);
    match kind {
        "AWS::SageMaker::Model" => json!({ "ModelName": name, "ModelArn": physical }),
        "AWS::SageMaker::EndpointConfig" => json!({ "EndpointConfigName": name, "EndpointConfigArn": physical }),
        _ => json!({ "EndpointName": name, "EndpointArn": physical }),
    }
}
