//! IAM: roles, their policies and tags. Global, as in AWS.

pub mod identity;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::input::{limit, page, strings, tag_list, tags, text, unique_id};
use crate::rules::Rule;
use crate::world::{ACCOUNT, Answer, ApiError, Ctx, World, iso};

/// What IAM refuses.
pub const RULES: &[Rule] = &[
    Rule {
        id: "iam.role-exists",
        source: "API model: CreateRole, EntityAlreadyExistsException",
        text: "A role name is unique in the account, whatever the region.",
    },
    Rule {
        id: "iam.delete-role-inline",
        source: "API model: DeleteRole, DeleteConflictException",
        text: "A role with inline policies cannot be deleted.",
    },
    Rule {
        id: "iam.delete-role-attached",
        source: "API model: DeleteRole, DeleteConflictException",
        text: "A role with attached policies cannot be deleted.",
    },
    Rule {
        id: "iam.trust-policy",
        source: "API model: CreateRole, MalformedPolicyDocumentException; AWS doc: IAM JSON policy elements",
        text: "A trust policy is a policy with principals, only sts:AssumeRole actions and no resources.",
    },
    Rule {
        id: "iam.inline-policy",
        source: "API model: PutRolePolicy, MalformedPolicyDocumentException",
        text: "An identity policy has resources and no principal.",
    },
    Rule {
        id: "iam.inline-size",
        source: "AWS doc: IAM and AWS STS quotas",
        text: "The inline policies of a role have 10,240 characters together, white space not counted.",
    },
    Rule {
        id: "iam.attached-count",
        source: "AWS doc: IAM and AWS STS quotas",
        text: "At most 10 managed policies are attached to a role.",
    },
    Rule {
        id: "iam.attach-unknown",
        source: "API model: AttachRolePolicy, NoSuchEntityException",
        text: "Only AWS's own managed policies exist here.",
    },
];

/// What stays as it is when a policy document is URL-encoded (RFC 3986).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    roles: BTreeMap<String, Role>,
    /// Temporary credentials by access key id. They end with the sandbox.
    #[serde(skip)]
    sessions: BTreeMap<String, identity::Session>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Role {
    path: String,
    id: String,
    created: i64,
    trust: String,
    description: Option<String>,
    max_session: i64,
    boundary: Option<String>,
    inline: BTreeMap<String, String>,
    attached: Vec<String>,
    tags: BTreeMap<String, String>,
}

impl Role {
    fn arn(&self, name: &str) -> String {
        format!("arn:aws:iam::{ACCOUNT}:role{}{name}", self.path)
    }

    fn show(&self, name: &str, with_tags: bool) -> Value {
        let mut role = json!({
            "Path": self.path,
            "RoleName": name,
            "RoleId": self.id,
            "Arn": self.arn(name),
            "CreateDate": iso(self.created),
            "AssumeRolePolicyDocument": encoded(&self.trust),
            "MaxSessionDuration": self.max_session,
        });
        if let Some(text) = &self.description {
            role["Description"] = json!(text);
        }
        if let Some(arn) = &self.boundary {
            role["PermissionsBoundary"] = json!({"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": arn});
        }
        if with_tags && !self.tags.is_empty() {
            role["Tags"] = tag_list(&self.tags);
        }
        role
    }
}

fn encoded(document: &str) -> String {
    utf8_percent_encode(document, UNRESERVED).to_string()
}

/// Whether a role exists and its trust policy lets the service (`sagemaker.amazonaws.com`) assume it.
pub fn trusts(world: &World, arn: &str, service: &str) -> bool {
    let found = world.iam.roles.iter().find(|(name, role)| role.arn(name) == arn);
    found.is_some_and(|(_, role)| policy::trusts(&role.trust, service))
}

/// Whether a role exists and its trust policy lets a caller of this account assume it.
pub fn trusts_caller(world: &World, arn: &str, caller: &identity::Caller) -> bool {
    let found = world.iam.roles.iter().find(|(name, role)| role.arn(name) == arn);
    found.is_some_and(|(_, role)| policy::trusts_principal(&role.trust, &caller.arn()))
}

/// One operation, input and output as in the API's JSON.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    let name = text(input, "RoleName").to_owned();
    let roles = &mut world.iam.roles;
    match operation {
        "CreateRole" => create(roles, ctx, &name, input),
        "ListRoles" => {
            let prefix = input["PathPrefix"].as_str().unwrap_or("/");
            let all = roles.iter().filter(|(_, r)| r.path.starts_with(prefix));
            paged(input, "Roles", all.map(|(name, role)| role.show(name, false)).collect())
        }
        "GetRole" => Ok(json!({"Role": find(roles, &name)?.show(&name, true)})),
        "DeleteRole" => {
            let role = find(roles, &name)?;
            if !role.attached.is_empty() {
                return Err(conflict("Cannot delete entity, must detach all policies first."));
            }
            if !role.inline.is_empty() {
                return Err(conflict("Cannot delete entity, must delete policies first."));
            }
            roles.remove(&name);
            Ok(Value::Null)
        }
        "UpdateRole" => {
            let role = find(roles, &name)?;
            if let Some(text) = input["Description"].as_str() {
                role.description = Some(text.to_owned());
            }
            if let Some(seconds) = input["MaxSessionDuration"].as_i64() {
                role.max_session = seconds;
            }
            Ok(json!({}))
        }
        "UpdateAssumeRolePolicy" => {
            let role = find(roles, &name)?;
            policy::check_trust(text(input, "PolicyDocument"))?;
            role.trust = text(input, "PolicyDocument").to_owned();
            Ok(Value::Null)
        }
        "PutRolePermissionsBoundary" => {
            find(roles, &name)?.boundary = Some(text(input, "PermissionsBoundary").to_owned());
            Ok(Value::Null)
        }
        "DeleteRolePermissionsBoundary" => {
            find(roles, &name)?.boundary = None;
            Ok(Value::Null)
        }
        "PutRolePolicy" => put_policy(find(roles, &name)?, &name, input),
        "GetRolePolicy" => {
            let policy = text(input, "PolicyName");
            match find(roles, &name)?.inline.get(policy) {
                Some(document) => {
                    Ok(json!({"RoleName": name, "PolicyName": policy, "PolicyDocument": encoded(document)}))
                }
                None => Err(no_policy(policy)),
            }
        }
        "DeleteRolePolicy" => {
            let policy = text(input, "PolicyName");
            find(roles, &name)?.inline.remove(policy).map(|_| Value::Null).ok_or_else(|| no_policy(policy))
        }
        "ListRolePolicies" => {
            let names = find(roles, &name)?.inline.keys().map(|k| json!(k)).collect();
            paged(input, "PolicyNames", names)
        }
        "AttachRolePolicy" => attach(find(roles, &name)?, &name, text(input, "PolicyArn")),
        "DetachRolePolicy" => {
            let (role, arn) = (find(roles, &name)?, text(input, "PolicyArn"));
            if !role.attached.iter().any(|a| a == arn) {
                return Err(missing(format!("Policy {arn} was not found.")));
            }
            role.attached.retain(|a| a != arn);
            Ok(Value::Null)
        }
        "ListAttachedRolePolicies" => {
            let shown = |arn: &String| json!({"PolicyName": crate::input::last(arn), "PolicyArn": arn});
            let list = find(roles, &name)?.attached.iter().map(shown).collect();
            paged(input, "AttachedPolicies", list)
        }
        "ListInstanceProfilesForRole" => {
            find(roles, &name)?;
            paged(input, "InstanceProfiles", Vec::new())
        }
        "TagRole" => {
            let role = find(roles, &name)?;
            let mut all = role.tags.clone();
            all.extend(tags(&input["Tags"]));
            if all.len() > 50 {
                let text = "The number of tags has reached the maximum limit.";
                return Err(ApiError::new("LimitExceeded", text).status(409));
            }
            role.tags = all;
            Ok(Value::Null)
        }
        "UntagRole" => {
            let role = find(roles, &name)?;
            for key in strings(&input["TagKeys"]) {
                role.tags.remove(&key);
            }
            Ok(Value::Null)
        }
        "ListRoleTags" => {
            let list = tag_list(&find(roles, &name)?.tags);
            paged(input, "Tags", list.as_array().cloned().unwrap_or_default())
        }
        other => {
            Err(ApiError::new("InvalidAction", format!("Could not find operation {other} for version 2010-05-08")))
        }
    }
}

fn create(roles: &mut BTreeMap<String, Role>, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    // Role names are unique without regard to case.
    if roles.keys().any(|k| k.eq_ignore_ascii_case(name)) {
        let text = format!("Role with name {name} already exists.");
        return Err(ApiError::new("EntityAlreadyExists", text).status(409));
    }
    let trust = text(input, "AssumeRolePolicyDocument");
    policy::check_trust(trust)?;
    let role = Role {
        path: input["Path"].as_str().unwrap_or("/").to_owned(),
        id: unique_id("AROA", 17),
        created: ctx.now,
        trust: trust.to_owned(),
        description: input["Description"].as_str().map(str::to_owned),
        max_session: input["MaxSessionDuration"].as_i64().unwrap_or(3600),
        boundary: input["PermissionsBoundary"].as_str().map(str::to_owned),
        tags: tags(&input["Tags"]),
        ..Role::default()
    };
    let shown = role.show(name, true);
    roles.insert(name.to_owned(), role);
    Ok(json!({"Role": shown}))
}

fn put_policy(role: &mut Role, name: &str, input: &Value) -> Answer {
    let (policy, document) = (text(input, "PolicyName"), text(input, "PolicyDocument"));
    policy::check_identity(document)?;
    let size = |document: &str| document.chars().filter(|c| !c.is_whitespace()).count();
    let others: usize = role.inline.iter().filter(|(k, _)| *k != policy).map(|(_, d)| size(d)).sum();
    if others + size(document) > 10_240 {
        let text = format!("Maximum policy size of 10240 bytes exceeded for role {name}");
        return Err(ApiError::new("LimitExceeded", text).status(409));
    }
    role.inline.insert(policy.to_owned(), document.to_owned());
    Ok(Value::Null)
}

fn attach(role: &mut Role, name: &str, arn: &str) -> Answer {
    if !arn.starts_with("arn:aws:iam::aws:policy/") {
        return Err(missing(format!("Policy {arn} does not exist or is not attachable.")));
    }
    if role.attached.iter().any(|a| a == arn) {
        return Ok(Value::Null);
    }
    if role.attached.len() >= 10 {
        let text = format!("Cannot exceed quota for PoliciesPerRole: 10 ({name})");
        return Err(ApiError::new("LimitExceeded", text).status(409));
    }
    role.attached.push(arn.to_owned());
    Ok(Value::Null)
}

fn find<'a>(roles: &'a mut BTreeMap<String, Role>, name: &str) -> Result<&'a mut Role, ApiError> {
    roles.get_mut(name).ok_or_else(|| missing(format!("The role with name {name} cannot be found.")))
}

fn missing(text: String) -> ApiError {
    ApiError::new("NoSuchEntity", text).status(404)
}

fn no_policy(name: &str) -> ApiError {
    missing(format!("The role policy with name {name} cannot be found."))
}

fn conflict(text: &str) -> ApiError {
    ApiError::new("DeleteConflict", text).status(409)
}

fn paged(input: &Value, member: &str, items: Vec<Value>) -> Answer {
    let (items, next) = page(items, limit(input, "MaxItems", 100), &input["Marker"], "InvalidInput")?;
    let mut answer = json!({member: items, "IsTruncated": next.is_some()});
    if let Some(next) = next {
        answer["Marker"] = json!(next);
    }
    Ok(answer)
}
