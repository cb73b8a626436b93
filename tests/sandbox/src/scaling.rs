//! Application Auto Scaling.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::world::{Answer, ApiError, Ctx, World};

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {}

/// One operation, input and output as in the API's JSON.
pub fn call(_world: &mut World, _ctx: &Ctx, operation: &str, _input: &Value) -> Answer {
    Err(ApiError::new(
        "UnknownOperationException",
        format!("the sandbox has no Application Auto Scaling operation {operation}"),
    ))
}

/// Moves what takes time. True if anything moved.
pub fn tick(_world: &mut World, _now: i64) -> bool {
    false
}

/// Names of an endpoint's variants that are registered as scalable targets.
pub fn registered_variants(_world: &World, _region: &str, _endpoint: &str) -> Vec<String> {
    Vec::new()
}

/// Removes the scalable targets of an endpoint.
pub fn forget_endpoint(_world: &mut World, _region: &str, _endpoint: &str) {}
