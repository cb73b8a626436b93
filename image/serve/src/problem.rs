//! Errors as SageMaker passes them on: JSON, at most 2,048 bytes.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// SageMaker cuts the original message of an error here; JSON that is cut cannot be read.
const LIMIT: usize = 2048;
/// Longest message in characters; the rest is for the details.
const LONGEST_MESSAGE: usize = 400;
/// Longest node id and class in characters: real ones are far shorter, but callers invent them.
const LONGEST_NAME: usize = 64;

/// An error for the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// HTTP status: 4xx when the request must change, 5xx when it may succeed as it is.
    pub status: StatusCode,
    /// Stable code.
    pub code: &'static str,
    /// One sentence: what happened, and what to do.
    pub message: String,
    /// The node that the error is about, and its class.
    pub node: Option<(String, String)>,
    /// What ComfyUI said, or null.
    pub details: Value,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Problem { status, code, message: message.into(), node: None, details: Value::Null, retry_after: None }
    }

    pub(crate) fn details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    pub(crate) fn node(mut self, id: &str, class: &str) -> Self {
        self.node = Some((id.to_owned(), class.to_owned()));
        self
    }

    /// Also as `retry_after` in the details: SageMaker strips the header.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        if self.details.is_null() {
            self.details = json!({"retry_after": seconds(wait)});
        }
        self
    }

    /// The caller's request is wrong.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// ComfyUI is starting, gone, or does not answer.
    pub(crate) fn not_ready(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message).retry_after(Duration::from_secs(5))
    }

    /// The job vanished from ComfyUI.
    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "job_lost", message).retry_after(Duration::from_secs(1))
    }

    /// Our own fault or ComfyUI's.
    pub(crate) fn internal(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, message)
    }

    /// The body, at most 2,048 bytes.
    pub fn body(&self) -> String {
        let message: String = self.message.chars().take(LONGEST_MESSAGE).collect();
        let short = |text: &str| text.chars().take(LONGEST_NAME).collect::<String>();
        let id = self.node.as_ref().map(|(id, _)| short(id));
        let class = self.node.as_ref().map(|(_, class)| short(class));
        let render = |message: &str, details: &Value| {
            let (node_id, node_class) = (&id, &class);
            json!({"error": {"code": self.code, "message": message, "node_id": node_id, "node_class": node_class,
                "details": details}})
            .to_string()
        };
        let whole = render(&message, &self.details);
        if whole.len() <= LIMIT {
            return whole;
        }
        // The beginning of the details as text: escapes make it longer than it looks, so it is found by halving.
        let text = self.details.to_string();
        let cut = |chars: usize| render(&message, &json!({"truncated": text.chars().take(chars).collect::<String>()}));
        if let Some(body) = longest(text.chars().count(), cut) {
            return body;
        }
        // A message of nothing but escapes.
        let cut = |chars: usize| render(&message.chars().take(chars).collect::<String>(), &Value::Null);
        longest(LONGEST_MESSAGE, cut).unwrap_or_else(|| render("", &Value::Null))
    }
}

/// In whole seconds, as the header has it.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs().max(1)
}

/// The longest body that fits, given how to make one with so many characters; longer is never shorter.
fn longest(most: usize, cut: impl Fn(usize) -> String) -> Option<String> {
    let (mut fits, mut too_long) = (0, most.min(LIMIT) + 1);
    while too_long - fits > 1 {
        let middle = usize::midpoint(fits, too_long);
        if cut(middle).len() <= LIMIT { fits = middle } else { too_long = middle }
    }
    Some(cut(fits)).filter(|body| body.len() <= LIMIT)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.body();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(problem: &Problem) -> Value {
        let body = problem.body();
        assert!(body.len() <= LIMIT, "{}", body.len());
        serde_json::from_str::<Value>(&body).expect("JSON")["error"].take()
    }

    #[test]
    fn short_ones_are_whole() {
        let problem = Problem::bad_request("invalid_workflow", "no").node("4", "KSampler").details(json!([1]));
        let expected = json!({"code": "invalid_workflow", "message": "no", "node_id": "4", "node_class": "KSampler",
            "details": [1]});
        assert_eq!(parsed(&problem), expected);
        let lost = parsed(&Problem::lost("gone"));
        assert_eq!((&lost["node_id"], &lost["details"]), (&Value::Null, &json!({"retry_after": 1})));
    }

    #[test]
    fn long_ones_are_cut_and_still_json() {
        for text in
            ["x".repeat(5000), "\"\\\n".repeat(2000), "\u{1}".repeat(5000), "é\u{1}".repeat(2000), "🐈".repeat(3000)]
        {
            for message in ["short".to_owned(), text.clone()] {
                let problem = Problem::bad_request("c", message).node(&text, &text);
                let details = parsed(&problem.details(json!({"a": text, "b": [1, 2]})))["details"].take();
                assert!(details.is_null() || details["truncated"].as_str().is_some_and(|t| t.starts_with("{\"a\"")));
            }
        }
        let body = Problem::bad_request("c", "short").details(json!("x".repeat(5000))).body();
        assert!(body.len() > LIMIT - 16, "room is wasted: {}", body.len());
    }

    #[test]
    fn when_to_try_again_is_a_header() {
        let response = Problem::lost("x").retry_after(Duration::from_millis(200)).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert!(!Problem::bad_request("c", "x").into_response().headers().contains_key(header::RETRY_AFTER));
    }
}
