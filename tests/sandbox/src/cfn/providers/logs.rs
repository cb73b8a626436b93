//! AWS::Logs::LogGroup.

use serde_json::{Value, json};

use super::{Change, Failure, Job, as_map, call, custom_name, removed, tags};
use crate::cfn::names;
use crate::world::{Ctx, World};

pub(super) fn create(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<String, Failure> {
    let name = custom_name(job, "LogGroupName").unwrap_or_else(|| names::physical(job.stack_name, job.logical, 512));
    let mut input = json!({ "logGroupName": name, "tags": as_map(&tags(job)) });
    for (property, member) in [("KmsKeyId", "kmsKeyId"), ("LogGroupClass", "logGroupClass")] {
        if let Some(value) = job.properties.get(property) {
            input[member] = value.clone();
        }
    }
    call(world, ctx, "logs", "CreateLogGroup", input)?;
    retention(world, ctx, &name, job.properties.get("RetentionInDays"))?;
    Ok(name)
}

fn retention(world: &mut World, ctx: &Ctx, name: &str, days: Option<&Value>) -> Result<(), Failure> {
    if let Some(days) = days {
        let input = json!({ "logGroupName": name, "retentionInDays": days });
        call(world, ctx, "logs", "PutRetentionPolicy", input)?;
    }
    Ok(())
}

pub(super) fn update(world: &mut World, ctx: &Ctx, change: &Change<'_>) -> Result<(), Failure> {
    if change.differs("RetentionInDays") {
        match change.wanted("RetentionInDays") {
            Some(days) => retention(world, ctx, change.physical, Some(days))?,
            None => {
                let input = json!({ "logGroupName": change.physical });
                call(world, ctx, "logs", "DeleteRetentionPolicy", input)?;
            }
        }
    }
    if let Some((before, after)) = change.tags() {
        let arn = ctx.arn("logs", &format!("log-group:{}", change.physical));
        let gone = removed(&before, &after);
        if !gone.is_empty() {
            call(world, ctx, "logs", "UntagResource", json!({ "resourceArn": arn, "tagKeys": gone }))?;
        }
        call(world, ctx, "logs", "TagResource", json!({ "resourceArn": arn, "tags": as_map(&after) }))?;
    }
    Ok(())
}

pub(super) fn delete(world: &mut World, ctx: &Ctx, physical: &str) -> Result<(), Failure> {
    call(world, ctx, "logs", "DeleteLogGroup", json!({ "logGroupName": physical }))?;
    Ok(())
}
