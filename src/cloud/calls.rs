//! The port to what the app serves: its Function URL, and the endpoint behind it.

use async_trait::async_trait;
use bytes::Bytes;
use comfy_handler::Workflows;
use serde_json::{Map as Object, Value};

use super::Map;
use crate::error::Result;

/// A POST to a Function URL.
#[derive(Debug, Clone)]
pub struct UrlCall {
    /// The URL.
    pub url: String,
    /// Whether it is signed (AWS_IAM).
    pub sign: bool,
    /// A JSON object.
    pub body: Bytes,
}

/// What came back, whatever its status.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Map,
    /// The body.
    pub body: Bytes,
}

/// Function URL and endpoint.
#[async_trait]
pub trait Calls: Send + Sync {
    /// Sends a request once. An error means that no answer came.
    async fn url(&self, call: &UrlCall) -> Result<Answer>;
    /// Does here what the function does with the request `body`, and calls the endpoint with these credentials.
    async fn endpoint(&self, name: &str, workflows: Workflows, body: Object<String, Value>) -> Result<Answer>;
}
