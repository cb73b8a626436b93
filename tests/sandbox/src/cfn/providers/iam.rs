//! AWS::IAM::Role and AWS::IAM::Policy.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Change, Failure, Job, call, custom_name, document, key_value, removed, tags};
use crate::cfn::names;
use crate::world::{ACCOUNT, Ctx, World};

pub(super) fn create(world: &mut World, ctx: &Ctx, job: &Job<'_>) -> Result<String, Failure> {
    if job.kind == "AWS::IAM::Policy" {
        let physical = names::physical(job.stack_name, job.logical, 128);
        put_on_roles(world, ctx, job.properties)?;
        return Ok(physical);
    }
    let name = custom_name(job, "RoleName").unwrap_or_else(|| names::physical(job.stack_name, job.logical, 64));
    let trust = job.properties.get("AssumeRolePolicyDocument").map(document).unwrap_or_default();
    let mut input = json!({ "RoleName": name, "AssumeRolePolicyDocument": trust, "Tags": key_value(&tags(job)) });
    for property in ["Description", "MaxSessionDuration", "Path", "PermissionsBoundary"] {
        if let Some(value) = job.properties.get(property) {
            input[property] = value.clone();
        }
    }
    call(world, ctx, "iam", "CreateRole", input)?;
    let inner = attach(world, ctx, &name, &Map::new(), job.properties);
    if let Err(failure) = inner {
        // A create handler leaves nothing behind: the stack never learns this role's name.
        delete_role(world, ctx, &name)?;
        return Err(failure);
    }
    Ok(name)
}

fn roles(properties: &Map<String, Value>) -> BTreeSet<String> {
    list(properties, "Roles").filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list<'a>(properties: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    properties.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn put_on_roles(world: &mut World, ctx: &Ctx, properties: &Map<String, Value>) -> Result<(), Failure> {
    for role in roles(properties) {
        let text = properties.get("PolicyDocument").map(document).unwrap_or_default();
        let input = json!({ "RoleName": role, "PolicyName": properties.get("PolicyName"), "PolicyDocument": text });
        call(world, ctx, "iam", "PutRolePolicy", input)?;
    }
    Ok(())
}

/// Brings inline and managed policies of a role from old to new.
fn attach(
    world: &mut World,
    ctx: &Ctx,
    role: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
) -> Result<(), Failure> {
    for policy in list(new, "Policies").filter(|policy| !list(old, "Policies").any(|other| other == *policy)) {
        let text = policy.get("PolicyDocument").map(document).unwrap_or_default();
        let input = json!({ "RoleName": role, "PolicyName": policy.get("PolicyName"), "PolicyDocument": text });
        call(world, ctx, "iam", "PutRolePolicy", input)?;
    }
    let named = |properties: &Map<String, Value>| -> BTreeSet<String> {
        list(properties, "Policies").filter_map(|p| p.get("PolicyName")?.as_str().map(str::to_owned)).collect()
    };
    for name in named(old).difference(&named(new)) {
        gone_is_fine(call(world, ctx, "iam", "DeleteRolePolicy", json!({ "RoleName": role, "PolicyName": name })))?;
    }
    let managed = |properties: &Map<String, Value>| -> BTreeSet<String> {
        list(properties, "ManagedPolicyArns").filter_map(Value::as_str).map(str::to_owned).collect()
    };
    for arn in managed(new).difference(&managed(old)) {
        call(world, ctx, "iam", "AttachRolePolicy", json!({ "RoleName": role, "PolicyArn": arn }))?;
    }
    for arn in managed(old).difference(&managed(new)) {
        gone_is_fine(call(world, ctx, "iam", "DetachRolePolicy", json!({ "RoleName": role, "PolicyArn": arn })))?;
    }
    Ok(())
}

fn gone_is_fine(answer: crate::world::Answer) -> Result<(), Failure> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.code.starts_with("NoSuchEntity") => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn update(world: &mut World, ctx: &Ctx, change: &Change<'_>) -> Result<(), Failure> {
    let new = change.job.properties;
    if change.job.kind == "AWS::IAM::Policy" {
        let renamed = change.differs("PolicyName");
        put_on_roles(world, ctx, new)?;
        for role in roles(change.old).iter().filter(|role| renamed || !roles(new).contains(*role)) {
            let input = json!({ "RoleName": role, "PolicyName": change.old.get("PolicyName") });
            gone_is_fine(call(world, ctx, "iam", "DeleteRolePolicy", input))?;
        }
        return Ok(());
    }
    let role = change.physical;
    if change.differs("AssumeRolePolicyDocument") {
        let text = change.wanted("AssumeRolePolicyDocument").map(document).unwrap_or_default();
        call(world, ctx, "iam", "UpdateAssumeRolePolicy", json!({ "RoleName": role, "PolicyDocument": text }))?;
    }
    if change.any_differs(&["Description", "MaxSessionDuration"]) {
        let mut input = json!({ "RoleName": role, "Description": change.wanted("Description").cloned().unwrap_or_else(|| json!("")) });
        if let Some(seconds) = change.wanted("MaxSessionDuration") {
            input["MaxSessionDuration"] = seconds.clone();
        }
        call(world, ctx, "iam", "UpdateRole", input)?;
    }
    if change.differs("PermissionsBoundary") {
        match change.wanted("PermissionsBoundary") {
            Some(arn) => {
                let input = json!({ "RoleName": role, "PermissionsBoundary": arn });
                call(world, ctx, "iam", "PutRolePermissionsBoundary", input)?;
            }
            None => {
                gone_is_fine(call(world, ctx, "iam", "DeleteRolePermissionsBoundary", json!({ "RoleName": role })))?;
            }
        }
    }
    attach(world, ctx, role, change.old, new)?;
    if let Some((before, after)) = change.tags() {
        let gone = removed(&before, &after);
        if !gone.is_empty() {
            call(world, ctx, "iam", "UntagRole", json!({ "RoleName": role, "TagKeys": gone }))?;
        }
        call(world, ctx, "iam", "TagRole", json!({ "RoleName": role, "Tags": key_value(&after) }))?;
    }
    Ok(())
}

pub(super) fn delete(
    world: &mut World,
    ctx: &Ctx,
    kind: &str,
    physical: &str,
    properties: &Map<String, Value>,
) -> Result<(), Failure> {
    if kind == "AWS::IAM::Policy" {
        for role in roles(properties) {
            let input = json!({ "RoleName": role, "PolicyName": properties.get("PolicyName") });
            gone_is_fine(call(world, ctx, "iam", "DeleteRolePolicy", input))?;
        }
        return Ok(());
    }
    // Only what the template put there is taken off: a policy that somebody added makes the delete fail.
    attach(world, ctx, physical, properties, &Map::new()).or_else(|failure| match failure {
        Failure::Handler { code: "NotFound", .. } => Ok(()),
        other => Err(other),
    })?;
    delete_role(world, ctx, physical)
}

fn delete_role(world: &mut World, ctx: &Ctx, role: &str) -> Result<(), Failure> {
    call(world, ctx, "iam", "DeleteRole", json!({ "RoleName": role }))?;
    Ok(())
}

pub(super) fn attributes(world: &mut World, ctx: &Ctx, kind: &str, physical: &str) -> Value {
    if kind == "AWS::IAM::Policy" {
        return json!({ "Id": physical });
    }
    let found = call(world, ctx, "iam", "GetRole", json!({ "RoleName": physical })).unwrap_or_default();
    let role = &found["Role"];
    let arn = role["Arn"].as_str().map_or_else(|| format!("arn:aws:iam::{ACCOUNT}:role/{physical}"), str::to_owned);
    json!({ "Arn": arn, "RoleId": role["RoleId"] })
}
