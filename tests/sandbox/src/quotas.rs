//! Service Quotas.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::world::{Answer, ApiError, Ctx, World};

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {}

/// One operation, input and output as in the API's JSON.
pub fn call(_world: &mut World, _ctx: &Ctx, operation: &str, _input: &Value) -> Answer {
    Err(ApiError::new("UnknownOperationException", format!("the sandbox has no Service Quotas operation {operation}")))
}

/// Sets quotas for a test. `wanted` is `{"region": "us-east-1", "quotas": {"L-...": 4}}`.
pub fn set(_world: &mut World, wanted: &Value) -> Result<(), String> {
    Err(format!("not a list of quotas: {wanted}"))
}
