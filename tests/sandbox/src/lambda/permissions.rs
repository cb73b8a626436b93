//! A function's resource policy.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::function::Function;
use super::{arn, conflict, invalid, missing};
use crate::input::text;
use crate::world::{Answer, Ctx};

pub(super) fn add(function: &mut Function, ctx: &Ctx, name: &str, input: &Value) -> Answer {
    let (id, action) = (text(input, "StatementId"), text(input, "Action"));
    if function.policy.iter().any(|(known, _)| known == id) {
        return Err(conflict(format!(
            "The statement id ({id}) provided already exists. Please provide a new statement id, or remove the existing statement."
        )));
    }
    if !input["FunctionUrlAuthType"].is_null() && action != "lambda:InvokeFunctionUrl" {
        return Err(invalid("FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action"));
    }
    if input["InvokedViaFunctionUrl"] == true && action != "lambda:InvokeFunction" {
        return Err(invalid("InvokedViaFunctionUrl is only supported for lambda:InvokeFunction action"));
    }
    let principal = text(input, "Principal");
    let shown = match principal {
        "*" => json!("*"),
        p if p.ends_with(".amazonaws.com") => json!({"Service": p}),
        p if p.len() == 12 && p.bytes().all(|b| b.is_ascii_digit()) => json!({"AWS": format!("arn:aws:iam::{p}:root")}),
        p if p.starts_with("arn:") => json!({"AWS": p}),
        _ => return Err(invalid("The provided principal was invalid. Please check the principal and try again.")),
    };
    let mut statement = json!({
        "Sid": id,
        "Effect": "Allow",
        "Principal": shown,
        "Action": action,
        "Resource": arn(ctx, name),
    });
    let mut conditions = Map::new();
    let mut condition = |operator: &str, key: &str, value: Value| {
        let block = conditions.entry(operator).or_insert(json!({}));
        block[key] = value;
    };
    for (member, operator, key) in [
        ("FunctionUrlAuthType", "StringEquals", "lambda:FunctionUrlAuthType"),
        ("SourceAccount", "StringEquals", "AWS:SourceAccount"),
        ("PrincipalOrgID", "StringEquals", "aws:PrincipalOrgID"),
        ("SourceArn", "ArnLike", "AWS:SourceArn"),
    ] {
        if !input[member].is_null() {
            condition(operator, key, input[member].clone());
        }
    }
    if input["InvokedViaFunctionUrl"] == true {
        condition("Bool", "lambda:InvokedViaFunctionUrl", json!("true"));
    }
    if !conditions.is_empty() {
        statement["Condition"] = Value::Object(conditions);
    }
    function.policy.push((id.to_owned(), statement.clone()));
    Ok(json!({"Statement": statement.to_string()}))
}

pub(super) fn remove(function: &mut Function, input: &Value) -> Answer {
    let id = text(input, "StatementId");
    let before = function.policy.len();
    function.policy.retain(|(known, _)| known != id);
    if function.policy.len() == before {
        return Err(missing(format!("Statement {id} is not found in resource policy.")));
    }
    Ok(Value::Null)
}

pub(super) fn get(function: &mut Function) -> Answer {
    if function.policy.is_empty() {
        return Err(missing("The resource you requested does not exist."));
    }
    let statements: Vec<&Value> = function.policy.iter().map(|(_, s)| s).collect();
    let policy = json!({"Version": "2012-10-17", "Id": "default", "Statement": statements}).to_string();
    // Equal policies have equal revisions.
    let revision = hex::encode(&Sha256::digest(policy.as_bytes())[..16]);
    Ok(json!({"Policy": policy, "RevisionId": revision}))
}
