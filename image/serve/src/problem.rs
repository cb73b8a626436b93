//! Errors as SageMaker passes them on: JSON, at most 2,048 bytes.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// SageMaker cuts the original message of an error here; JSON that is cut cannot be read.
const LIMIT: usize = 2048;
/// Longest message in characters; the rest is for the details.
const LONGEST_MESSAGE: usize = 300;

/// An error for the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable code.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What ComfyUI said, or null.
    pub details: Value,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Problem { status, code, message: message.into(), details: Value::Null }
    }

    pub(crate) fn details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_workflow", message)
    }

    pub(crate) fn unreachable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "comfyui_unreachable", "ComfyUI does not answer")
    }

    pub(crate) fn timeout() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "the image was not ready in time; the job was cancelled")
    }

    /// The body, at most 2,048 bytes.
    pub fn body(&self) -> String {
        let message: String = self.message.chars().take(LONGEST_MESSAGE).collect();
        let render =
            |details: &Value| json!({"error": {"code": self.code, "message": message, "details": details}}).to_string();
        let whole = render(&self.details);
        if whole.len() <= LIMIT {
            return whole;
        }
        // The beginning of the details as text: escapes make it longer than it looks, so it is found by halving.
        let text = self.details.to_string();
        let cut = |chars: usize| render(&json!({"truncated": text.chars().take(chars).collect::<String>()}));
        let (mut fits, mut too_long) = (0, text.chars().count().min(LIMIT) + 1);
        while too_long - fits > 1 {
            let middle = usize::midpoint(fits, too_long);
            if cut(middle).len() <= LIMIT { fits = middle } else { too_long = middle }
        }
        let shortened = cut(fits);
        if shortened.len() <= LIMIT { shortened } else { render(&Value::Null) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, [(header::CONTENT_TYPE, "application/json")], self.body()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ones_are_whole() {
        let problem = Problem::invalid("no").details(json!({"node": "4"}));
        let body: Value = serde_json::from_str(&problem.body()).expect("JSON");
        assert_eq!(body, json!({"error": {"code": "invalid_workflow", "message": "no", "details": {"node": "4"}}}));
    }

    #[test]
    fn long_ones_are_cut_and_still_json() {
        for text in ["x".repeat(5000), "\"\\\n".repeat(2000), "é\u{1}".repeat(2000), "🐈".repeat(3000)] {
            for message in ["short".to_owned(), text.clone()] {
                let body = Problem::invalid(message).details(json!({"a": text, "b": [1, 2]})).body();
                assert!(body.len() <= LIMIT, "{}", body.len());
                let value: Value = serde_json::from_str(&body).expect("JSON");
                let details = &value["error"]["details"];
                assert!(details.is_null() || details["truncated"].as_str().is_some_and(|t| t.starts_with("{\"a\"")));
            }
        }
        let body = Problem::invalid("short").details(json!("x".repeat(5000))).body();
        assert!(body.len() > LIMIT - 16, "room is wasted: {}", body.len());
    }
}
