//! Operations that change stacks.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{check_name, disable_rollback, given, missing, named, remember, seen, template_text};
use crate::cfn::engine::{self, Operation};
use crate::cfn::{Fail, Stack, diff, flag, flag_maybe, invalid, list, spec, text, texts};
use crate::world::{Answer, ApiError, Ctx, World};

pub(super) fn new_stack(ctx: &Ctx, name: &str) -> Stack {
    let id = ctx.arn("cloudformation", &format!("stack/{name}/{}", uuid::Uuid::new_v4()));
    Stack { id, name: name.to_owned(), created: ctx.now, ..Stack::default() }
}

pub(super) fn create(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let name = text(input, "StackName").ok_or_else(|| invalid("StackName is required"))?.to_owned();
    check_name(&name)?;
    let token = text(input, "ClientRequestToken");
    if let Some(stack) = world.region(&ctx.region).cfn.find(&name) {
        if seen(stack, token, "CreateStack")? {
            return Ok(json!({ "StackId": stack.id }));
        }
        return Err(ApiError::new("AlreadyExistsException", format!("Stack [{name}] already exists")));
    }
    let body = template_text(world, ctx, input)?
        .ok_or_else(|| invalid("Either Template URL or Template Body must be specified."))?;
    if input.get("DisableRollback").is_some() && input.get("OnFailure").is_some() {
        return Err(invalid("Either OnFailure or DisableRollback can be specified, but not both."));
    }
    let mut stack = new_stack(ctx, &name);
    stack.spec = spec::build(ctx, &name, &stack.id, body, given(input, None)?)?;
    stack.on_failure = text(input, "OnFailure").map(str::to_owned);
    stack.disable_rollback = disable_rollback(input) || stack.on_failure.as_deref() == Some("DO_NOTHING");
    stack.protected = flag(input, "EnableTerminationProtection");
    stack.policy = text(input, "StackPolicyBody").map(str::to_owned);
    remember(&mut stack, token, "CreateStack");
    let operation = Operation {
        token: token.map(str::to_owned),
        disable_rollback: stack.disable_rollback,
        retain_except_on_create: flag(input, "RetainExceptOnCreate"),
        ..Operation::default()
    };
    engine::create(&mut stack, ctx, operation);
    let id = stack.id.clone();
    world.region(&ctx.region).cfn.stacks.insert(id.clone(), stack);
    Ok(json!({ "StackId": id }))
}

/// A stack that stands can be updated; one whose creation failed, or that is busy, cannot.
pub(super) fn check_updatable(stack: &Stack, disable_rollback: bool) -> Result<(), Fail> {
    let updatable = matches!(
        stack.status.as_str(),
        "CREATE_COMPLETE"
            | "UPDATE_COMPLETE"
            | "UPDATE_ROLLBACK_COMPLETE"
            | "IMPORT_COMPLETE"
            | "IMPORT_ROLLBACK_COMPLETE"
    );
    // What failed with rollback disabled may be tried again the same way.
    let retried = matches!(stack.status.as_str(), "CREATE_FAILED" | "UPDATE_FAILED") && disable_rollback;
    if updatable && !stack.in_progress() || retried {
        return Ok(());
    }
    Err(invalid(format!("Stack:{} is in {} state and can not be updated.", stack.id, stack.status)))
}

/// The type of a resource is for ever.
pub(super) fn check_types(stack: &Stack, spec: &spec::Spec) -> Result<(), Fail> {
    let changed: Vec<&str> = spec
        .resources
        .iter()
        .filter(|(logical, wanted)| stack.resources.get(*logical).is_some_and(|old| old.kind != wanted.kind))
        .map(|(logical, _)| logical.as_str())
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(invalid(format!(
        "Update of resource type is not permitted. The new template modifies resource type of the following resources: [{}]",
        changed.join(", ")
    )))
}

pub(super) fn update(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let stack = named(world, ctx, input)?.clone();
    let token = text(input, "ClientRequestToken");
    if seen(&stack, token, "UpdateStack")? {
        return Ok(json!({ "StackId": stack.id }));
    }
    if stack.status == "DELETE_COMPLETE" {
        return Err(missing(&stack.name));
    }
    let disabled = disable_rollback(input);
    check_updatable(&stack, disabled)?;
    let body = match template_text(world, ctx, input)? {
        Some(_) if flag(input, "UsePreviousTemplate") => {
            return Err(invalid("You cannot specify both usePreviousTemplate and Template Body/Template URL."));
        }
        Some(body) => body,
        None if flag(input, "UsePreviousTemplate") => stack.spec.text.clone(),
        None => return Err(invalid("Either Template URL or Template Body must be specified.")),
    };
    let spec = spec::build(ctx, &stack.name, &stack.id, body, given(input, Some(&stack))?)?;
    check_types(&stack, &spec)?;
    if stack.parked.is_none() && diff::compare(&stack, &spec)?.is_empty() {
        return Err(invalid("No updates are to be performed."));
    }
    let stack = named(world, ctx, input)?;
    remember(stack, token, "UpdateStack");
    stack.disable_rollback = disabled;
    if let Some(policy) = text(input, "StackPolicyBody") {
        stack.policy = Some(policy.to_owned());
    }
    let operation = Operation {
        token: token.map(str::to_owned),
        disable_rollback: disabled,
        retain_except_on_create: flag(input, "RetainExceptOnCreate"),
        ..Operation::default()
    };
    engine::update(stack, ctx, spec, operation);
    let id = stack.id.clone();
    super::change_sets::make_obsolete(world, ctx, &id, None);
    Ok(json!({ "StackId": id, "OperationId": ctx.request_id }))
}

pub(super) fn delete(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    // Deleting what is not there is no error.
    let Ok(stack) = named(world, ctx, input) else { return Ok(Value::Null) };
    if stack.status == "DELETE_COMPLETE" {
        return Ok(Value::Null);
    }
    let token = text(input, "ClientRequestToken");
    if seen(stack, token, "DeleteStack")? || stack.status == "DELETE_IN_PROGRESS" {
        return Ok(Value::Null);
    }
    if stack.protected {
        return Err(invalid(format!(
            "Stack [{}] cannot be deleted while TerminationProtection is enabled",
            stack.name
        )));
    }
    // A creation may be stopped by deleting; nothing else that goes on may.
    if stack.in_progress() && stack.status != "CREATE_IN_PROGRESS" {
        return Err(invalid(format!("Stack [{}] cannot be deleted while in status {}", stack.id, stack.status)));
    }
    let retain: BTreeSet<String> = texts(input, "RetainResources").into_iter().collect();
    if !retain.is_empty() && stack.status != "DELETE_FAILED" {
        return Err(invalid(format!(
            "Invalid operation on stack [{}]. Resources can be retained only when the stack is in the DELETE_FAILED state.",
            stack.id
        )));
    }
    if let Some(stranger) = retain.iter().find(|name| !stack.resources.contains_key(*name)) {
        return Err(invalid(format!("The following resources to retain do not exist in the stack: [{stranger}]")));
    }
    remember(stack, token, "DeleteStack");
    let operation = Operation { token: token.map(str::to_owned), retain, ..Operation::default() };
    engine::delete(stack, ctx, operation);
    let id = stack.id.clone();
    super::change_sets::remove_all(world, ctx, &id);
    Ok(Value::Null)
}

pub(super) fn cancel_update(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let stack = named(world, ctx, input)?;
    let token = text(input, "ClientRequestToken");
    if seen(stack, token, "CancelUpdateStack")? {
        return Ok(Value::Null);
    }
    let refused = || invalid("CancelUpdateStack cannot be called from current stack status");
    if stack.status != "UPDATE_IN_PROGRESS" {
        return Err(refused());
    }
    let operation = stack.operation.as_mut().ok_or_else(refused)?;
    operation.cancel = true;
    remember(stack, token, "CancelUpdateStack");
    Ok(Value::Null)
}

pub(super) fn continue_rollback(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let stack = named(world, ctx, input)?;
    let token = text(input, "ClientRequestToken");
    if seen(stack, token, "ContinueUpdateRollback")? {
        return Ok(json!({}));
    }
    if stack.status != "UPDATE_ROLLBACK_FAILED" {
        return Err(invalid(format!(
            "Stack [{}] is in {} state. Only UPDATE_ROLLBACK_FAILED stacks can continue their rollback.",
            stack.id, stack.status
        )));
    }
    let skip: BTreeSet<String> =
        list(input, "ResourcesToSkip").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    for name in &skip {
        // Only what failed in the rollback may be skipped.
        if stack.resources.get(name).is_none_or(|resource| resource.status != "UPDATE_FAILED") {
            return Err(invalid(format!(
                "The following resources to skip are not in UPDATE_FAILED state because of the rollback: [{name}]"
            )));
        }
    }
    remember(stack, token, "ContinueUpdateRollback");
    engine::roll_back(stack, ctx, token.map(str::to_owned), skip);
    Ok(json!({}))
}

pub(super) fn roll_back(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let stack = named(world, ctx, input)?;
    let token = text(input, "ClientRequestToken");
    if !seen(stack, token, "RollbackStack")? {
        if !matches!(stack.status.as_str(), "CREATE_FAILED" | "UPDATE_FAILED") || stack.parked.is_none() {
            return Err(invalid(format!(
                "Stack:{} is in {} state and can not be rolled back.",
                stack.id, stack.status
            )));
        }
        remember(stack, token, "RollbackStack");
        if stack.status == "CREATE_FAILED" {
            // There is no earlier stable state, so the stack goes.
            let operation = Operation { token: token.map(str::to_owned), ..Operation::default() };
            engine::delete(stack, ctx, operation);
        } else {
            engine::roll_back(stack, ctx, token.map(str::to_owned), BTreeSet::new());
        }
    }
    Ok(json!({ "StackId": stack.id, "OperationId": ctx.request_id }))
}

pub(super) fn protect(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let wanted = flag_maybe(input, "EnableTerminationProtection")
        .ok_or_else(|| invalid("EnableTerminationProtection is required"))?;
    let stack = named(world, ctx, input)?;
    if stack.status == "DELETE_COMPLETE" {
        return Err(missing(&stack.id));
    }
    if wanted && stack.status == "DELETE_IN_PROGRESS" {
        return Err(invalid(format!("Stack [{}] is being deleted and cannot be protected", stack.name)));
    }
    stack.protected = wanted;
    Ok(json!({ "StackId": stack.id }))
}

pub(super) fn set_policy(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let body = text(input, "StackPolicyBody")
        .ok_or_else(|| invalid("You must specify either StackPolicyBody or StackPolicyURL"))?;
    let policy: Value =
        serde_json::from_str(body).map_err(|_| invalid("Error validating stack policy: Invalid stack policy"))?;
    if !policy.get("Statement").is_some_and(Value::is_array) {
        return Err(invalid("Error validating stack policy: Invalid stack policy"));
    }
    named(world, ctx, input)?.policy = Some(body.to_owned());
    Ok(Value::Null)
}

pub(super) fn get_policy(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let stack = named(world, ctx, input)?;
    Ok(match &stack.policy {
        Some(body) => json!({ "StackPolicyBody": body }),
        None => json!({}),
    })
}
