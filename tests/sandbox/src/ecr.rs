//! ECR.

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
    Err(ApiError::new("UnknownOperationException", format!("the sandbox has no ECR operation {operation}")))
}

/// One request to the registry's data plane, `/v2/...`.
pub async fn registry(_shared: Arc<Shared>, _request: Request) -> Response {
    (StatusCode::NOT_IMPLEMENTED, "the sandbox does not speak the registry protocol").into_response()
}

/// Media type and digest of the manifest that an image reference (`host/repo:tag` or `host/repo@sha256:...`) names
/// in this account's registry of the region; None if there is none.
pub fn manifest_of(_world: &World, _region: &str, _image_uri: &str) -> Option<(String, String)> {
    None
}
