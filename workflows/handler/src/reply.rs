//! Replies of a Function URL, payload format 2.0.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use crate::SEED_HEADER;
use crate::invoke::{Image, InvokeError};

/// Lambda's limit of a buffered reply, in bytes of its JSON: 6 MiB and 100 bytes of envelope.
const LAMBDA_REPLY_LIMIT: usize = 6 * 1024 * 1024;
/// Set aside for the members around the body.
const ENVELOPE: usize = 1024;

/// What Lambda turns into an HTTP response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// HTTP status.
    pub status_code: u16,
    /// HTTP headers.
    pub headers: BTreeMap<String, String>,
    /// Text, or base64.
    pub body: String,
    /// Whether the body is base64.
    pub is_base64_encoded: bool,
}

impl Reply {
    /// 200 with the image.
    pub(crate) fn image(image: &Image, seed: u64) -> Result<Self, Problem> {
        if image.body.len().div_ceil(3) * 4 + ENVELOPE > LAMBDA_REPLY_LIMIT {
            let message = "the image is larger than a function can return; make it smaller, or use a workflow whose \
                           image compresses better";
            return Err(Problem::new(413, "image_too_large", message).details(json!({ "bytes": image.body.len() })));
        }
        let headers = [
            ("Content-Type".to_owned(), image.content_type.clone()),
            // The reply depends on a seed that may be random, and on a prompt.
            ("Cache-Control".to_owned(), "no-store".to_owned()),
            (SEED_HEADER.to_owned(), seed.to_string()),
        ];
        Ok(Reply {
            status_code: 200,
            headers: headers.into(),
            body: STANDARD.encode(&image.body),
            is_base64_encoded: true,
        })
    }
}

/// An error for the caller.
#[derive(Debug, PartialEq)]
pub(crate) struct Problem {
    status: u16,
    pub(crate) code: String,
    message: String,
    /// Boxed: the result types that carry a problem would be large otherwise.
    details: Box<Value>,
    headers: BTreeMap<String, String>,
}

impl Problem {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        Problem { status, code, message, details: Box::default(), headers: BTreeMap::new() }
    }

    pub(crate) fn details(mut self, details: Value) -> Self {
        *self.details = details;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    pub(crate) fn into_reply(self) -> Reply {
        let mut headers = self.headers;
        headers.insert("Content-Type".into(), "application/json".into());
        let error = json!({ "code": self.code, "message": self.message, "details": self.details });
        Reply {
            status_code: self.status,
            headers,
            body: json!({ "error": error }).to_string(),
            is_base64_encoded: false,
        }
    }
}

impl From<InvokeError> for Problem {
    fn from(error: InvokeError) -> Self {
        match error {
            InvokeError::Model { status, message } => model(status, &message),
            InvokeError::Throttled => Problem::new(429, "throttled", "too many requests").header("Retry-After", "5"),
            InvokeError::Unavailable => {
                Problem::new(503, "unavailable", "the endpoint cannot take requests now").header("Retry-After", "15")
            }
            InvokeError::Rejected(message) => Problem::new(503, "endpoint_rejected", message),
            InvokeError::Denied => Problem::new(
                500,
                "denied",
                "the function's role may not invoke the endpoint (sagemaker:InvokeEndpoint)",
            ),
            InvokeError::TimedOut => Problem::new(504, "timeout", "the endpoint did not answer in time"),
            InvokeError::Failed(message) => Problem::new(502, "endpoint_failed", message),
        }
    }
}

/// Takes SageMaker's wrapping off: what the container said is what the caller needs.
fn model(status: u16, message: &str) -> Problem {
    // Without an answer of the container there is no status; the message says "timed out".
    if status == 504 || (status == 0 && message.to_ascii_lowercase().contains("timed out")) {
        return Problem::new(504, "timeout", "the image was not ready within the 60 seconds that SageMaker allows");
    }
    let body: Option<Value> = serde_json::from_str(message).ok();
    let said = |name: &str| body.as_ref().and_then(|b| b.pointer(&format!("/error/{name}")).cloned());
    let text = |name: &str| said(name).and_then(|v| v.as_str().map(str::to_owned));
    // The caller can do something about these; everything else is the container's fault.
    let passed_on = match status {
        400 | 404 | 413 | 422 | 429 | 503 => status,
        _ => 424,
    };
    let mut details = json!({ "original_status_code": status });
    match (said("details"), &body) {
        (Some(inner), _) if !inner.is_null() => details["original"] = inner,
        (None, Some(whole)) => details["original"] = whole.clone(),
        (None, None) => details["original"] = message.into(),
        _ => {}
    }
    let code = text("code").unwrap_or_else(|| "model_error".into());
    let message = text("message").unwrap_or_else(|| "the container could not make the image".into());
    let problem = Problem::new(passed_on, &code, message).details(details);
    if passed_on == 429 || passed_on == 503 { problem.header("Retry-After", "15") } else { problem }
}
