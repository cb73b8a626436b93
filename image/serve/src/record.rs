//! One line for each request: what happened and how long it took, and nothing of the prompt.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;

use crate::metrics::Metrics;

/// What is in the names of headers whose values are credentials.
const SECRET: [&str; 9] =
    ["authorization", "cookie", "token", "secret", "key", "password", "credential", "signature", "oidc"];

/// What is known of a request's job in ComfyUI from the moment on when it is known, so that it is also told of a request
/// that fails or whose caller goes away.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<(Option<String>, Option<Duration>)>>);

impl Trace {
    /// The job is submitted under this id; the last one counts when there are two.
    pub(crate) fn submitted(&self, prompt_id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(prompt_id.to_owned());
    }

    /// The job runs, after so long in the queue; the first one counts when there are two.
    pub(crate) fn started(&self, queued: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.get_or_insert(queued);
    }

    fn get(&self) -> (Option<String>, Option<Duration>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

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
    pub(crate) trace: Trace,
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
            trace: Trace::default(),
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
        let (prompt_id, queued) = self.trace.get();
        tracing::info!(
            outcome = self.outcome,
            status = self.status,
            duration_ms = took.as_millis() as u64,
            queue_ms = queued.map(|queued| queued.as_millis() as u64),
            request_bytes = self.request_bytes,
            response_bytes = self.response_bytes,
            content_type = self.content_type,
            prompt_id,
            "request"
        );
        let queued = queued.map(|queued| queued.as_secs_f64());
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
