//! STS.

use serde_json::{Value, json};

use crate::iam::{self, identity};
use crate::input::text;
use crate::world::{ACCOUNT, Answer, ApiError, Ctx, World, iso};

/// One operation, input and output as in the API's JSON.
pub fn call(world: &mut World, ctx: &Ctx, operation: &str, input: &Value) -> Answer {
    match operation {
        "GetCallerIdentity" => Ok(
            json!({"Account": ACCOUNT, "UserId": "AIDASANDBOX", "Arn": format!("arn:aws:iam::{ACCOUNT}:user/sandbox")}),
        ),
        "AssumeRole" => assume_role(world, ctx, input),
        other => {
            Err(ApiError::new("InvalidAction", format!("Could not find operation {other} for version 2011-06-15")))
        }
    }
}

fn assume_role(world: &mut World, ctx: &Ctx, input: &Value) -> Answer {
    let (role, name) = (text(input, "RoleArn"), text(input, "RoleSessionName"));
    let user = identity::Caller::User("sandbox".to_owned());
    let refused = || {
        let text = format!("User: {} is not authorized to perform: sts:AssumeRole on resource: {role}", user.arn());
        ApiError::new("AccessDenied", text).status(403)
    };
    if !iam::trusts_caller(world, role, &user) {
        return Err(refused());
    }
    // An hour unless asked otherwise (API model: AssumeRole.DurationSeconds).
    let seconds = input["DurationSeconds"].as_i64().unwrap_or(3600);
    let session = identity::assume(world, role, name, ctx.now, seconds * 1000).ok_or_else(refused)?;
    let caller = identity::owner(world, &session.key).map(|(caller, _)| caller);
    Ok(json!({
        "Credentials": {
            "AccessKeyId": session.key,
            "SecretAccessKey": session.secret,
            "SessionToken": session.token,
            "Expiration": iso(session.expires),
        },
        "AssumedRoleUser": {
            "AssumedRoleId": caller.as_ref().map(identity::Caller::id),
            "Arn": caller.as_ref().map(identity::Caller::arn),
        },
    }))
}
