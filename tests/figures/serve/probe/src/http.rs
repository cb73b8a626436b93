//! An HTTP client that keeps connections, and what it counts.

use std::collections::BTreeMap;
use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::time::Instant;

/// A status and a body.
pub(crate) type Answer = Result<(u16, Bytes), Box<dyn Error>>;

/// The client.
#[derive(Debug, Clone)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Http(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// One exchange, to the end of the answer's body.
    pub(crate) async fn call(&self, method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.0.request(request.body(Full::new(body))?).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

/// What came of many exchanges.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    us: Vec<u64>,
    /// 0 stands for no answer.
    statuses: BTreeMap<u16, u64>,
    pub(crate) last: Bytes,
}

impl Tally {
    /// Notes an exchange that ended now.
    pub(crate) fn note(&mut self, begun: Instant, answer: Answer) {
        self.us.push(begun.elapsed().as_micros() as u64);
        let (status, body) = answer.unwrap_or_default();
        *self.statuses.entry(status).or_default() += 1;
        self.last = body;
    }

    /// Both together.
    pub(crate) fn with(mut self, other: Tally) -> Tally {
        self.us.extend(other.us);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        if !other.last.is_empty() {
            self.last = other.last;
        }
        self
    }

    /// For the script that reads it.
    pub(crate) fn json(&self) -> serde_json::Value {
        let statuses: BTreeMap<String, u64> =
            self.statuses.iter().map(|(status, n)| (status.to_string(), *n)).collect();
        json!({"us": self.us, "statuses": statuses, "bytes": self.last.len()})
    }
}
