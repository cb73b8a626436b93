//! STS.

use serde_json::{Value, json};

use crate::world::{ACCOUNT, Answer, ApiError, Ctx, World};

/// One operation, input and output as in the API's JSON.
pub fn call(_world: &mut World, _ctx: &Ctx, operation: &str, _input: &Value) -> Answer {
    match operation {
        "GetCallerIdentity" => Ok(
            json!({"Account": ACCOUNT, "UserId": "AIDASANDBOX", "Arn": format!("arn:aws:iam::{ACCOUNT}:user/sandbox")}),
        ),
        other => {
            Err(ApiError::new("InvalidAction", format!("Could not find operation {other} for version 2011-06-15")))
        }
    }
}
