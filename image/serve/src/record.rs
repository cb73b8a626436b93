//! One line for each request: what happened and how long it took, and nothing of the prompt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;

use crate::metrics::Metrics;

/// What is in the names of headers whose values are credentials.
const SECRET: [&str; 9] =
    ["authorization", "cookie", "token", "secret", "key", "password", "credential", "signature", "oidc"];

/// What is known of a request. Written when it is dropped, so that a request whose caller went away has its line too.
#[derive(Debug)]
pub(crate) struct Record {
    begun: Instant,
    metrics: Arc<Metrics>,
    /// In one word.
    pub(crate) outcome: &'static str,
    pub(crate) status: u16,
    /// The whole body came.
    pub(crate) received: bool,
    pub(crate) request_bytes: usize,
    pub(crate) response_bytes: usize,
    pub(crate) content_type: String,
    pub(crate) prompt_id: Option<String>,
    pub(crate) queued: Option<Duration>,
}

impl Record {
    /// Of a request that has just arrived.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Record {
            begun: Instant::now(),
            metrics,
            outcome: "client_gone",
            // As nginx writes it; nobody gets it.
            status: 499,
            received: false,
            request_bytes: 0,
            response_bytes: 0,
            content_type: String::new(),
            prompt_id: None,
            queued: None,
        }
    }

    /// Since the arrival.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        tracing::info!(
            outcome = self.outcome,
            status = self.status,
            duration_ms = took.as_millis() as u64,
            queue_ms = self.queued.map(|queued| queued.as_millis() as u64),
            request_bytes = self.request_bytes,
            response_bytes = self.response_bytes,
            content_type = self.content_type,
            prompt_id = self.prompt_id,
            "request"
        );
        let queued = self.queued.map(|queued| queued.as_secs_f64());
        self.metrics.answered(self.outcome, self.status, took.as_secs_f64(), queued, self.response_bytes as u64);
    }
}

/// The headers as text, for debugging; credentials are masked.
pub(crate) fn headers(headers: &HeaderMap) -> String {
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| match SECRET.iter().any(|secret| name.as_str().contains(secret)) {
            true => format!("{name}: ***"),
            false => format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())),
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn credentials_are_masked() {
        let mut map = HeaderMap::new();
        let secrets =
            ["authorization", "cookie", "proxy-authorization", "x-amz-security-token", "x-amzn-oidc-data", "x-api-key"];
        map.append("accept", HeaderValue::from_static("*/*"));
        for name in secrets {
            map.append(name, HeaderValue::from_static("s3cret"));
        }
        map.append("x-odd", HeaderValue::from_bytes(b"\xff").expect("allowed"));
        let masked = secrets.map(|name| format!("{name}: ***")).join("\n");
        assert_eq!(headers(&map), format!("accept: */*\n{masked}\nx-odd: \u{fffd}"));
    }
}
