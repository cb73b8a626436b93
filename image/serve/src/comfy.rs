//! ComfyUI's REST and WebSocket interface, as much of it as is needed.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::outputs::File;

/// Limit of one short call. Answers were measured at 300 ms and less while ComfyUI samples on a processor.
const CALL: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes: a picture of 8192x8192 that does not compress.
const LARGEST: usize = 256 * 1024 * 1024;

/// The WebSocket of one request.
pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// No usable answer: no connection, a broken one, none in time.
#[derive(Debug, thiserror::Error)]
#[error("ComfyUI: {0}")]
pub(crate) struct Unreachable(String);

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What is known about a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Look {
    /// It ended; its history entry.
    Ended(Value),
    /// It waits or runs.
    Queued,
    /// ComfyUI does not know it.
    Unknown,
}

/// A ComfyUI.
#[derive(Debug, Clone)]
pub(crate) struct Comfy {
    client: Client<HttpConnector, Full<Bytes>>,
    authority: Arc<str>,
}

impl Comfy {
    /// At `http://host:port`.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        let authority = url.strip_prefix("http://").unwrap_or_default().trim_end_matches('/');
        if authority.is_empty() || authority.contains(['/', '?', '#', '@']) {
            return Err(format!("the URL of ComfyUI is \"{url}\"; it must be like http://127.0.0.1:8188"));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Comfy { client, authority: authority.into() })
    }

    /// The port that ComfyUI shall listen on.
    pub(crate) fn port(&self) -> u16 {
        self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(80)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        limit: Duration,
    ) -> Result<Answer, Unreachable> {
        let failed = |cause: String| Unreachable(cause);
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.authority));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.body(Full::new(body)).map_err(|cause| failed(cause.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|cause| failed(cause.to_string()))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(|cause| failed(cause.to_string()))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(failed(format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    /// A GET whose answer is a JSON object.
    async fn object(&self, path: &str) -> Result<Map<String, Value>, Unreachable> {
        let answer = self.call(Method::GET, path, None, CALL).await?;
        match serde_json::from_slice(&answer.body) {
            Ok(Value::Object(object)) if answer.status.is_success() => Ok(object),
            _ => Err(Unreachable(format!("{path} answered {}", answer.status))),
        }
    }

    /// Whether it answers; HEAD /prompt is the cheapest question.
    pub(crate) async fn alive(&self, limit: Duration) -> bool {
        self.call(Method::HEAD, "/prompt", None, limit).await.is_ok_and(|answer| answer.status.is_success())
    }

    /// Opens the socket on which a client's messages come.
    pub(crate) async fn socket(&self, client_id: &str) -> Result<Socket, Unreachable> {
        let url = format!("ws://{}/ws?clientId={client_id}", self.authority);
        match tokio::time::timeout(CALL, tokio_tungstenite::connect_async(url)).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(cause)) => Err(Unreachable(cause.to_string())),
            Err(_) => Err(Unreachable("no WebSocket in time".into())),
        }
    }

    /// POST /prompt. The answer is judged by the caller.
    pub(crate) async fn submit(
        &self,
        workflow: Value,
        prompt_id: &str,
        client_id: &str,
    ) -> Result<Answer, Unreachable> {
        let body = json!({"prompt": workflow, "prompt_id": prompt_id, "client_id": client_id});
        self.call(Method::POST, "/prompt", Some(body), CALL).await
    }

    /// Where a job is. A job moves from the queue to the history between two questions, so the history is asked twice.
    pub(crate) async fn look(&self, prompt_id: &str) -> Result<Look, Unreachable> {
        if let Some(entry) = self.history(prompt_id).await? {
            return Ok(Look::Ended(entry));
        }
        let queue = self.object("/queue").await?;
        let listed = ["queue_running", "queue_pending"]
            .iter()
            .filter_map(|list| queue.get(*list)?.as_array())
            .flatten()
            .any(|job| job.get(1).and_then(Value::as_str) == Some(prompt_id));
        if listed {
            return Ok(Look::Queued);
        }
        Ok(self.history(prompt_id).await?.map_or(Look::Unknown, Look::Ended))
    }

    /// The history entry; none while the job waits or runs.
    pub(crate) async fn history(&self, prompt_id: &str) -> Result<Option<Value>, Unreachable> {
        Ok(self.object(&format!("/history/{prompt_id}")).await?.remove(prompt_id))
    }

    /// Forgets a history entry: ten thousand are kept otherwise, each with its whole workflow.
    pub(crate) async fn forget(&self, prompt_id: &str) {
        self.post("/history", json!({"delete": [prompt_id]})).await;
    }

    /// Stops a job wherever it is, and no other: /interrupt without an id stops whatever runs. First the queue: a
    /// job that starts between the two calls is caught by the second.
    pub(crate) async fn cancel(&self, prompt_id: &str) {
        self.post("/queue", json!({"delete": [prompt_id]})).await;
        self.post("/interrupt", json!({"prompt_id": prompt_id})).await;
    }

    async fn post(&self, path: &str, body: Value) {
        match self.call(Method::POST, path, Some(body), CALL).await {
            Ok(answer) if answer.status.is_success() => {}
            Ok(answer) => tracing::warn!(path, status = answer.status.as_u16(), "ComfyUI refuses"),
            Err(cause) => tracing::warn!(path, %cause, "not done"),
        }
    }

    /// The bytes of an output file.
    pub(crate) async fn view(&self, file: &File) -> Result<Answer, Unreachable> {
        let (name, folder, kind) = (encode(&file.filename), encode(&file.subfolder), encode(&file.kind));
        let path = format!("/view?filename={name}&subfolder={folder}&type={kind}");
        self.call(Method::GET, &path, None, CALL).await
    }
}

/// Percent-encodes everything that is not plainly harmless in a query.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(Comfy::new("http://127.0.0.1:8188/").map(|c| c.port()), Ok(8188));
        assert_eq!(Comfy::new("http://comfyui").map(|c| c.port()), Ok(80));
        for bad in ["", "127.0.0.1:8188", "https://x", "http://", "http://a/b", "http://u@h"] {
            assert!(Comfy::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries() {
        assert_eq!(encode("a b/ü&c_01.png"), "a%20b%2F%C3%BC%26c_01.png");
    }
}
