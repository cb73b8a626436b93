//! Errors for the caller: `{"error":{"code","message","details"}}` with a status that says whose turn it is.

use serde_json::{Value, json};

use crate::invoke::InvokeError;

/// Seconds after which a throttled caller may come again.
const RETRY_THROTTLED: u64 = 5;
/// The same for an endpoint that is busy: a picture takes about that long.
const RETRY_BUSY: u64 = 15;
/// The same for an endpoint that is being changed: instances take minutes.
const RETRY_NOT_READY: u64 = 60;
/// What SageMaker gives a container, in seconds.
const SAGEMAKER_LIMIT: u64 = 60;

/// An error for the caller.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    /// Boxed: the result types that carry a problem would be large otherwise.
    pub(crate) details: Box<Value>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Problem {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        Problem { status, code, message, details: Box::default(), headers: Vec::new() }
    }

    /// The caller's mistake.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", message)
    }

    pub(crate) fn details(mut self, details: Value) -> Self {
        *self.details = details;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    fn retry_after(self, seconds: u64) -> Self {
        self.header("Retry-After", seconds)
    }

    /// The body.
    pub(crate) fn body(&self) -> String {
        json!({"error": {"code": self.code, "message": self.message, "details": self.details}}).to_string()
    }
}

impl From<InvokeError> for Problem {
    fn from(error: InvokeError) -> Self {
        match error {
            InvokeError::Model { status, message } => model(status, &message),
            InvokeError::Throttled => {
                Problem::new(429, "throttled", "SageMaker throttles calls of the endpoint; send fewer at once")
                    .retry_after(RETRY_THROTTLED)
            }
            InvokeError::Unavailable => {
                Problem::new(503, "unavailable", "the endpoint cannot take requests now").retry_after(RETRY_BUSY)
            }
            InvokeError::NotReady(message) => {
                Problem::new(503, "endpoint_not_ready", format!("the endpoint is not in service: {message}"))
                    .retry_after(RETRY_NOT_READY)
            }
            InvokeError::TooLarge => Problem::new(
                413,
                "request_too_large",
                "the request is larger than the endpoint takes; send fewer or smaller images",
            ),
            InvokeError::Rejected(message) => {
                Problem::new(502, "endpoint_rejected", format!("SageMaker does not take the request: {message}"))
            }
            InvokeError::Denied => Problem::new(
                502,
                "denied",
                "the function's role may not invoke the endpoint; it needs sagemaker:InvokeEndpoint",
            ),
            InvokeError::TimedOut { seconds } => timeout(seconds),
            InvokeError::Unreachable(message) => {
                Problem::new(503, "unreachable", format!("SageMaker cannot be reached: {message}"))
                    .retry_after(RETRY_BUSY)
            }
            InvokeError::Failed(message) => Problem::new(502, "endpoint_failed", message),
        }
    }
}

/// Nothing came in time. `seconds` is what the function itself waited; SageMaker's own limit when it gave up first.
fn timeout(seconds: u64) -> Problem {
    let advice = "use fewer steps, a smaller picture, or a faster instance type";
    let message = match seconds < SAGEMAKER_LIMIT {
        // Then it is not the picture alone: the function ends before SageMaker does.
        true => format!(
            "the picture was not ready within {seconds} seconds, when the function itself had to end; \
             raise the function's timeout (70 seconds or more), or {advice}"
        ),
        false => {
            format!("the picture was not ready within the {SAGEMAKER_LIMIT} seconds that SageMaker allows; {advice}")
        }
    };
    Problem::new(504, "timeout", message).details(json!({"limit_seconds": seconds.min(SAGEMAKER_LIMIT)}))
}

/// Takes SageMaker's wrapping off: what the container said is what the caller needs.
fn model(status: u16, message: &str) -> Problem {
    // Without an answer of the container there is no status; the message says "timed out".
    if status == 504 || (status == 0 && message.to_ascii_lowercase().contains("timed out")) {
        return timeout(SAGEMAKER_LIMIT);
    }
    let body: Value = serde_json::from_str(message).unwrap_or_default();
    let said = &body["error"];
    let text = |name: &str| said[name].as_str().filter(|text| !text.is_empty());
    let code = text("code").unwrap_or("model_error");
    let status_for_caller = match status {
        // The one thing that the caller alone is to blame for.
        400 if matches!(code, "invalid_image" | "unused_image") => 400,
        // Statuses that mean the same for the caller.
        406 | 413 | 429 | 503 => status,
        // Refused or failed by ComfyUI, in words of the container that ComfyUI runs in.
        _ if text("message").is_some() => 424,
        400 | 422 => 424,
        _ => 502,
    };
    let mut details = json!({"original_status_code": status});
    for name in ["node_id", "node_class"] {
        if !said[name].is_null() {
            details[name] = said[name].clone();
        }
    }
    let original = if said.is_object() { &said["details"] } else { &body };
    match (original, said.is_object()) {
        (Value::Null, true) => {}
        // Not JSON at all.
        (Value::Null, false) => details["original"] = message.into(),
        (original, _) => details["original"] = original.clone(),
    }
    let message = text("message").unwrap_or("the container could not make the picture");
    let problem = Problem::new(status_for_caller, code, message).details(details);
    match status_for_caller {
        429 | 503 => {
            let wait = original["retry_after"].as_u64().filter(|seconds| (1..=3600).contains(seconds));
            // What the container's own Retry-After says stays at SageMaker. A job that was lost can be had again at once.
            let usual = if matches!(code, "job_lost" | "interrupted") { 1 } else { RETRY_BUSY };
            problem.retry_after(wait.unwrap_or(usual))
        }
        _ => problem,
    }
}

#[cfg(test)]
mod tests;
