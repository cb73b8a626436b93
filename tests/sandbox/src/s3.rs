//! S3.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::world::{Answer, ApiError, Ctx, Shared, World};

/// The service's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {}

/// One operation, input and output as in the API's JSON.
pub fn call(_world: &mut World, _ctx: &Ctx, operation: &str, _input: &Value) -> Answer {
    Err(ApiError::new("UnknownOperationException", format!("the sandbox has no S3 operation {operation}")))
}

/// One request of the S3 protocol, over HTTP.
pub async fn handle(_shared: Arc<Shared>, _request: Request) -> Response {
    (StatusCode::NOT_IMPLEMENTED, "the sandbox does not speak S3").into_response()
}
