//! Change sets.

use serde_json::{Value, json};

use super::stacks::{check_types, check_updatable, new_stack};
use super::{
    PAGE, check_name, disable_rollback, given, page, parameter_list, remember, seen, tag_list, template_text, time,
};
use crate::cfn::diff::PENDING_SECONDS;
use crate::cfn::engine::{self, Operation};
use crate::cfn::{ChangeSet, Fail, flag, invalid, spec, text};
use crate::world::{Answer, ApiError, Ctx, World};

pub(super) fn create(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let stack_name = text(input, "StackName").ok_or_else(|| invalid("StackName is required"))?.to_owned();
    let name = text(input, "ChangeSetName").ok_or_else(|| invalid("ChangeSetName is required"))?.to_owned();
    check_change_set_name(&name)?;
    let kind = text(input, "ChangeSetType").unwrap_or("UPDATE");
    let known =
        world.region(&ctx.region).cfn.find(&stack_name).filter(|stack| stack.status != "DELETE_COMPLETE").cloned();
    let reviewed = known.as_ref().is_some_and(|stack| stack.status == "REVIEW_IN_PROGRESS");
    match (kind, &known) {
        ("IMPORT", _) => {
            return Err(invalid("The sandbox makes no change sets of type IMPORT; use ImportExistingResources"));
        }
        ("CREATE", Some(stack)) if !reviewed => {
            return Err(invalid(format!(
                "Stack [{}] already exists and cannot be created again with the changeSet [{name}].",
                stack.name
            )));
        }
        ("CREATE", _) => {}
        ("UPDATE", None) => return Err(invalid(format!("Stack [{stack_name}] does not exist"))),
        ("UPDATE", Some(stack)) if reviewed => {
            return Err(invalid(format!("Stack:{} is in REVIEW_IN_PROGRESS state and can not be updated.", stack.id)));
        }
        ("UPDATE", Some(stack)) => check_updatable(stack, true)?,
        (other, _) => {
            return Err(invalid(format!(
                "1 validation error detected: Value '{other}' at 'changeSetType' failed to satisfy constraint: Member must satisfy enum value set: [CREATE, UPDATE, IMPORT]"
            )));
        }
    }
    if known.is_none() {
        check_name(&stack_name)?;
    }
    let token = text(input, "ClientToken").map(str::to_owned);
    if let Some(stack) = &known {
        let state = &world.region(&ctx.region).cfn;
        if let Some(other) = state.change_sets.values().find(|set| set.stack_id == stack.id && set.name == name) {
            if token.is_some() && other.client_token == token {
                return Ok(json!({ "Id": other.id, "StackId": stack.id }));
            }
            return Err(ApiError::new("AlreadyExistsException", format!("ChangeSet {} already exists", other.id)));
        }
    }
    let previous = known.as_ref().filter(|_| !reviewed);
    let body = match template_text(world, ctx, input)? {
        Some(_) if flag(input, "UsePreviousTemplate") => {
            return Err(invalid("You cannot specify both usePreviousTemplate and Template Body/Template URL."));
        }
        Some(body) => body,
        None if flag(input, "UsePreviousTemplate") => match previous {
            Some(stack) => stack.spec.text.clone(),
            None => return Err(invalid("Cannot use previous template for a stack that does not exist")),
        },
        None => return Err(invalid("Either Template URL or Template Body must be specified.")),
    };
    let mut stack = known.clone().unwrap_or_else(|| new_stack(ctx, &stack_name));
    let spec = spec::build(ctx, &stack.name, &stack.id, body, given(input, previous)?)?;
    check_types(&stack, &spec)?;
    if known.is_none() {
        stack.turn(ctx.now, "REVIEW_IN_PROGRESS", Some("User Initiated".to_owned()), None);
    }
    let set = ChangeSet {
        id: ctx.arn("cloudformation", &format!("changeSet/{name}/{}", uuid::Uuid::new_v4())),
        name,
        stack_id: stack.id.clone(),
        stack_name: stack.name.clone(),
        kind: kind.to_owned(),
        description: text(input, "Description").map(str::to_owned),
        created: ctx.now,
        due: ctx.now + world.millis(PENDING_SECONDS),
        status: "CREATE_PENDING".to_owned(),
        execution: "UNAVAILABLE".to_owned(),
        spec,
        import_existing: flag(input, "ImportExistingResources"),
        on_failure: text(input, "OnStackFailure").map(str::to_owned),
        client_token: token,
        disable_validation: flag(input, "DisableValidation"),
        ..ChangeSet::default()
    };
    let answer = json!({ "Id": set.id, "StackId": stack.id });
    let state = &mut world.region(&ctx.region).cfn;
    state.change_sets.insert(set.id.clone(), set);
    state.stacks.insert(stack.id.clone(), stack);
    Ok(answer)
}

fn check_change_set_name(name: &str) -> Result<(), Fail> {
    let starts = name.starts_with(|letter: char| letter.is_ascii_alphabetic());
    if starts && name.len() <= 128 && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-') {
        return Ok(());
    }
    Err(invalid(format!(
        "1 validation error detected: Value '{name}' at 'changeSetName' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*"
    )))
}

/// The change set that `ChangeSetName`, with `StackName` unless it is an ARN, names.
pub(super) fn find<'a>(world: &'a mut World, ctx: &Ctx, input: &Value) -> Result<&'a mut ChangeSet, Fail> {
    let name = text(input, "ChangeSetName").ok_or_else(|| invalid("ChangeSetName is required"))?.to_owned();
    let stack_name = text(input, "StackName").map(str::to_owned);
    let state = &mut world.region(&ctx.region).cfn;
    let missing = || ApiError::new("ChangeSetNotFound", format!("ChangeSet [{name}] does not exist")).status(404);
    if name.starts_with("arn:") {
        return state.change_sets.get_mut(&name).ok_or_else(missing);
    }
    let stack_name = stack_name
        .ok_or_else(|| invalid("StackName must be specified if ChangeSetName is not specified as an ARN."))?;
    let stack_id = match state.find(&stack_name) {
        Some(stack) => stack.id.clone(),
        None => return Err(invalid(format!("Stack [{stack_name}] does not exist"))),
    };
    state.change_sets.values_mut().find(|set| set.stack_id == stack_id && set.name == name).ok_or_else(missing)
}

pub(super) fn describe(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let values = flag(input, "IncludePropertyValues");
    let set = find(world, ctx, input)?;
    let (changes, next) = page(set.changes.clone(), input, PAGE)?;
    let changes: Vec<Value> =
        changes.into_iter().map(|change| if values { change } else { without_values(change) }).collect();
    let mut answer = json!({
        "ChangeSetName": set.name,
        "ChangeSetId": set.id,
        "StackId": set.stack_id,
        "StackName": set.stack_name,
        "Parameters": parameter_list(&set.spec.parameters),
        "CreationTime": time(set.created),
        "ExecutionStatus": set.execution,
        "Status": set.status,
        "NotificationARNs": set.spec.notification_arns,
        "RollbackConfiguration": {},
        "Capabilities": set.spec.capabilities,
        "Tags": tag_list(&set.spec.tags),
        "Changes": changes,
        "IncludeNestedStacks": false,
        "ImportExistingResources": set.import_existing,
    });
    for (member, value) in [
        ("Description", &set.description),
        ("StatusReason", &set.reason),
        ("OnStackFailure", &set.on_failure),
        ("NextToken", &next),
    ] {
        if let Some(value) = value {
            answer[member] = json!(value);
        }
    }
    Ok(answer)
}

fn without_values(mut change: Value) -> Value {
    if let Some(resource) = change.get_mut("ResourceChange").and_then(Value::as_object_mut) {
        resource.remove("BeforeContext");
        resource.remove("AfterContext");
        for detail in resource.get_mut("Details").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(target) = detail.get_mut("Target").and_then(Value::as_object_mut) {
                for member in ["Path", "BeforeValue", "AfterValue", "AttributeChangeType"] {
                    target.remove(member);
                }
            }
        }
    }
    change
}

pub(super) fn execute(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let token = text(input, "ClientRequestToken").map(str::to_owned);
    let token = token.as_deref();
    let set = find(world, ctx, input)?.clone();
    let state = &mut world.region(&ctx.region).cfn;
    let stack = state
        .stacks
        .get_mut(&set.stack_id)
        .ok_or_else(|| invalid(format!("Stack [{}] does not exist", set.stack_name)))?;
    let what = format!("ExecuteChangeSet {}", set.id);
    if seen(stack, token, &what)? {
        return Ok(json!({}));
    }
    let refuse = |told: String| Err(ApiError::new("InvalidChangeSetStatus", told));
    if set.execution != "AVAILABLE" {
        return refuse(format!(
            "ChangeSet [{}] cannot be executed in its current execution status of [{}]",
            set.id, set.execution
        ));
    }
    if set.status != "CREATE_COMPLETE" {
        return refuse(format!("ChangeSet [{}] cannot be executed in its current status of [{}]", set.id, set.status));
    }
    let disabled = disable_rollback(input) || set.on_failure.as_deref() == Some("DO_NOTHING");
    if set.on_failure.is_some() && input.get("DisableRollback").is_some() {
        return Err(invalid(
            "Either OnStackFailure of the change set or DisableRollback can be specified, but not both.",
        ));
    }
    if set.kind == "UPDATE" {
        check_updatable(stack, disabled)?;
    }
    remember(stack, token, &what);
    stack.disable_rollback = disabled;
    stack.on_failure.clone_from(&set.on_failure);
    stack.change_set = Some(set.id.clone());
    let operation = Operation {
        token: token.map(str::to_owned),
        disable_rollback: disabled,
        imports: set.imports.clone(),
        retain_except_on_create: flag(input, "RetainExceptOnCreate"),
        ..Operation::default()
    };
    if set.kind == "CREATE" {
        stack.spec = set.spec.clone();
        engine::create(stack, ctx, operation);
    } else {
        engine::update(stack, ctx, set.spec.clone(), operation);
    }
    make_obsolete(world, ctx, &set.stack_id, Some(&set.id));
    Ok(json!({}))
}

/// A stack that moves on makes its other change sets useless; the one executed is done with too.
pub(super) fn make_obsolete(world: &mut World, ctx: &Ctx, stack_id: &str, executed: Option<&str>) {
    for set in world.region(&ctx.region).cfn.change_sets.values_mut().filter(|set| set.stack_id == stack_id) {
        if Some(set.id.as_str()) == executed {
            set.execution = "EXECUTE_COMPLETE".to_owned();
        } else if set.execution == "AVAILABLE" {
            set.execution = "OBSOLETE".to_owned();
        } else if set.status.starts_with("CREATE_") {
            set.status = "FAILED".to_owned();
            set.reason = Some("The stack changed while the change set was created.".to_owned());
        }
    }
}

/// With a stack go its change sets.
pub(super) fn remove_all(world: &mut World, ctx: &Ctx, stack_id: &str) {
    world.region(&ctx.region).cfn.change_sets.retain(|_, set| set.stack_id != stack_id);
}

pub(super) fn delete(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let id = match find(world, ctx, input) {
        Ok(set) if set.status == "CREATE_IN_PROGRESS" => {
            return Err(ApiError::new(
                "InvalidChangeSetStatus",
                format!("ChangeSet [{}] cannot be deleted in its current status of [CREATE_IN_PROGRESS]", set.id),
            ));
        }
        Ok(set) => set.id.clone(),
        // Deleting one that is gone is no error.
        Err(error) if error.code == "ChangeSetNotFound" => return Ok(json!({})),
        Err(error) => return Err(error),
    };
    world.region(&ctx.region).cfn.change_sets.remove(&id);
    Ok(json!({}))
}

pub(super) fn list_all(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "StackName").ok_or_else(|| invalid("StackName is required"))?;
    let state = &world.region(&ctx.region).cfn;
    let stack = state.find(name).ok_or_else(|| invalid(format!("Stack [{name}] does not exist")))?;
    let mut sets: Vec<&ChangeSet> = state.change_sets.values().filter(|set| set.stack_id == stack.id).collect();
    sets.sort_by_key(|set| (set.created, set.id.clone()));
    let all: Vec<Value> = sets
        .into_iter()
        .map(|set| {
            let mut entry = json!({
                "StackId": set.stack_id,
                "StackName": set.stack_name,
                "ChangeSetId": set.id,
                "ChangeSetName": set.name,
                "ExecutionStatus": set.execution,
                "Status": set.status,
                "CreationTime": time(set.created),
                "IncludeNestedStacks": false,
                "ImportExistingResources": set.import_existing,
            });
            for (member, value) in [("StatusReason", &set.reason), ("Description", &set.description)] {
                if let Some(value) = value {
                    entry[member] = json!(value);
                }
            }
            entry
        })
        .collect();
    let (items, next) = page(all, input, PAGE)?;
    let mut answer = json!({ "Summaries": items });
    if let Some(next) = next {
        answer["NextToken"] = json!(next);
    }
    Ok(answer)
}
