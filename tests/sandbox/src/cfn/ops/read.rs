//! Operations that only look.

use serde_json::{Value, json};

use super::{PAGE, missing, named, page, parameter_list, tag_list, time};
use crate::cfn::{Event, Resource, Stack, flag, invalid, text, texts};
use crate::world::{Answer, Ctx, World};

fn with_next(mut answer: Value, next: Option<String>) -> Value {
    if let Some(next) = next {
        answer["NextToken"] = json!(next);
    }
    answer
}

pub(super) fn stacks(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let state = &world.region(&ctx.region).cfn;
    if let Some(name) = text(input, "StackName") {
        let stack = state.find(name).ok_or_else(|| missing(name))?;
        return Ok(json!({ "Stacks": [describe(stack)] }));
    }
    let mut live: Vec<&Stack> = state.stacks.values().filter(|stack| stack.status != "DELETE_COMPLETE").collect();
    live.sort_by_key(|stack| std::cmp::Reverse((stack.created, stack.id.clone())));
    let (items, next) = page(live, input, PAGE)?;
    let items: Vec<Value> = items.into_iter().map(describe).collect();
    Ok(with_next(json!({ "Stacks": items }), next))
}

fn describe(stack: &Stack) -> Value {
    let outputs: Vec<Value> = stack
        .outputs
        .iter()
        .map(|output| {
            let mut entry = json!({ "OutputKey": output.key, "OutputValue": output.value });
            if let Some(description) = &output.description {
                entry["Description"] = json!(description);
            }
            if let Some(export) = &output.export {
                entry["ExportName"] = json!(export);
            }
            entry
        })
        .collect();
    let mut answer = json!({
        "StackId": stack.id,
        "StackName": stack.name,
        "Parameters": parameter_list(&stack.spec.parameters),
        "CreationTime": time(stack.created),
        "RollbackConfiguration": {},
        "StackStatus": stack.status,
        "DisableRollback": stack.disable_rollback,
        "NotificationARNs": stack.spec.notification_arns,
        "Capabilities": stack.spec.capabilities,
        "Outputs": outputs,
        "Tags": tag_list(&stack.spec.tags),
        "EnableTerminationProtection": stack.protected,
        "DriftInformation": { "StackDriftStatus": "NOT_CHECKED" },
    });
    for (member, value) in [
        ("ChangeSetId", &stack.change_set),
        ("Description", &stack.spec.description),
        ("StackStatusReason", &stack.reason),
        ("RoleARN", &stack.spec.role_arn),
    ] {
        if let Some(value) = value {
            answer[member] = json!(value);
        }
    }
    for (member, value) in [("LastUpdatedTime", stack.updated), ("DeletionTime", stack.deleted)] {
        if let Some(value) = value {
            answer[member] = time(value);
        }
    }
    answer
}

pub(super) fn events(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "StackName").ok_or_else(|| invalid("StackName is required"))?;
    let state = &world.region(&ctx.region).cfn;
    let stack = state.find(name).ok_or_else(|| invalid(format!("Stack [{name}] does not exist")))?;
    let newest_first: Vec<&Event> = stack.events.iter().rev().collect();
    let (items, next) = page(newest_first, input, PAGE)?;
    let items: Vec<Value> = items
        .into_iter()
        .map(|event| {
            let mut entry = json!({
                "StackId": stack.id,
                "EventId": event.id,
                "StackName": stack.name,
                "LogicalResourceId": event.logical,
                "PhysicalResourceId": event.physical,
                "ResourceType": event.kind,
                "Timestamp": time(event.time),
                "ResourceStatus": event.status,
            });
            for (member, value) in [
                ("ResourceStatusReason", &event.reason),
                ("ResourceProperties", &event.properties),
                ("ClientRequestToken", &event.token),
            ] {
                if let Some(value) = value {
                    entry[member] = json!(value);
                }
            }
            entry
        })
        .collect();
    Ok(with_next(json!({ "StackEvents": items }), next))
}

/// What early validation found in a change set. The other kinds of event are in DescribeStackEvents only.
pub(super) fn validation_events(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    if text(input, "ChangeSetName").is_none() {
        return Err(crate::world::ApiError::new(
            "UnknownOperationException",
            "the sandbox answers DescribeEvents for change sets only",
        ));
    }
    let set = super::change_sets::find(world, ctx, input)?;
    let failed_only = input.get("Filters").is_some_and(|filters| flag(filters, "FailedEvents"));
    let mut all = Vec::new();
    if !failed_only {
        all.push(json!({
            "EventId": set.id,
            "StackId": set.stack_id,
            "OperationId": set.id,
            "OperationType": "CREATE_CHANGESET",
            "OperationStatus": match set.status.as_str() {
                "FAILED" => "FAILED",
                "CREATE_COMPLETE" => "SUCCEEDED",
                _ => "IN_PROGRESS",
            },
            "EventType": "STACK_EVENT",
            "Timestamp": time(set.created),
        }));
    }
    for (index, violation) in set.violations.iter().enumerate() {
        all.push(json!({
            "EventId": format!("{}-{index}", set.id),
            "StackId": set.stack_id,
            "OperationId": set.id,
            "OperationType": "CREATE_CHANGESET",
            "EventType": "VALIDATION_ERROR",
            "LogicalResourceId": violation.logical,
            "ResourceType": violation.kind,
            "Timestamp": time(set.due),
            "ValidationFailureMode": "FAIL",
            "ValidationName": violation.name,
            "ValidationStatus": "FAILED",
            "ValidationStatusReason": violation.told,
            "ValidationPath": violation.path,
        }));
    }
    let (items, next) = page(all, input, PAGE)?;
    Ok(with_next(json!({ "OperationEvents": items }), next))
}

fn entry(stack: &Stack, logical: &str, resource: &Resource, time_member: &str) -> Value {
    let mut entry = json!({
        "LogicalResourceId": logical,
        "ResourceType": resource.kind,
        "ResourceStatus": resource.status,
        "DriftInformation": { "StackResourceDriftStatus": "NOT_CHECKED" },
    });
    entry[time_member] = time(resource.time);
    if time_member != "LastUpdatedTimestamp" || stack.name.is_empty() {
        entry["StackName"] = json!(stack.name);
        entry["StackId"] = json!(stack.id);
    }
    if let Some(physical) = &resource.physical {
        entry["PhysicalResourceId"] = json!(physical);
    }
    if let Some(reason) = &resource.reason {
        entry["ResourceStatusReason"] = json!(reason);
    }
    entry
}

pub(super) fn resources(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let wanted = text(input, "LogicalResourceId").map(str::to_owned);
    let physical = text(input, "PhysicalResourceId").map(str::to_owned);
    let stack = match (input.get("StackName"), &physical) {
        (None, Some(physical)) => {
            let state = &world.region(&ctx.region).cfn;
            let owner = state
                .stacks
                .values()
                .find(|stack| stack.resources.values().any(|resource| resource.physical.as_deref() == Some(physical)));
            owner.ok_or_else(|| invalid(format!("Stack for {physical} does not exist")))?
        }
        (None, None) => return Err(invalid("Either StackName or PhysicalResourceId must be specified")),
        _ => &*named(world, ctx, input)?,
    };
    let items: Vec<Value> = stack
        .resources
        .iter()
        .filter(|(logical, _)| wanted.as_ref().is_none_or(|wanted| wanted == *logical))
        .map(|(logical, resource)| entry(stack, logical, resource, "Timestamp"))
        .collect();
    Ok(json!({ "StackResources": items }))
}

pub(super) fn resource(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let logical = text(input, "LogicalResourceId").ok_or_else(|| invalid("LogicalResourceId is required"))?.to_owned();
    let stack = named(world, ctx, input)?;
    let Some(resource) = stack.resources.get(&logical) else {
        return Err(invalid(format!("Resource {logical} does not exist for stack {}", stack.name)));
    };
    let mut detail = entry(stack, &logical, resource, "LastUpdatedTimestamp");
    detail["StackName"] = json!(stack.name);
    detail["StackId"] = json!(stack.id);
    if !resource.metadata.is_null() {
        detail["Metadata"] = json!(resource.metadata.to_string());
    }
    Ok(json!({ "StackResourceDetail": detail }))
}

pub(super) fn list_resources(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let stack = named(world, ctx, input)?;
    let all: Vec<Value> = stack
        .resources
        .iter()
        .map(|(logical, resource)| entry(stack, logical, resource, "LastUpdatedTimestamp"))
        .collect();
    let (items, next) = page(all, input, PAGE)?;
    Ok(with_next(json!({ "StackResourceSummaries": items }), next))
}

pub(super) fn list_stacks(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let wanted = texts(input, "StackStatusFilter");
    let state = &world.region(&ctx.region).cfn;
    let mut found: Vec<&Stack> =
        state.stacks.values().filter(|stack| wanted.is_empty() || wanted.contains(&stack.status)).collect();
    found.sort_by_key(|stack| std::cmp::Reverse((stack.created, stack.id.clone())));
    let (items, next) = page(found, input, PAGE)?;
    let items: Vec<Value> = items
        .into_iter()
        .map(|stack| {
            let mut entry = describe(stack);
            let members = [
                "StackId",
                "StackName",
                "CreationTime",
                "LastUpdatedTime",
                "DeletionTime",
                "StackStatus",
                "StackStatusReason",
                "DriftInformation",
            ];
            if let Some(map) = entry.as_object_mut() {
                map.retain(|member, _| members.contains(&member.as_str()));
            }
            if let Some(description) = &stack.spec.description {
                entry["TemplateDescription"] = json!(description);
            }
            entry
        })
        .collect();
    Ok(with_next(json!({ "StackSummaries": items }), next))
}
