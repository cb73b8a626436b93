//! ComfyUI's REST and WebSocket interface, as much of it as is needed.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::{Value, json};

use crate::aside;
use crate::buffers::Buffer;
use crate::outputs::File;

/// Limit of one short call. Answers were measured at 300 ms and less while ComfyUI samples on a processor.
const CALL: Duration = Duration::from_secs(10);
/// Limit of a picture's transfer.
const TRANSFER: Duration = Duration::from_secs(60);
/// For calls whose limit is the request's own deadline.
const NO_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// How much of an answer is read at a time, in bytes, into a buffer that stays in the processor's cache, as a picture is
/// put into its place from there. Left alone it grows until it does not.
const READ: usize = 128 * 1024;
/// Largest answer that is read, in bytes: a picture of 8192x8192 that does not compress.
const LARGEST: usize = 256 * 1024 * 1024;

/// No usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreachable {
    /// Nobody listens: it is starting or gone.
    #[error("ComfyUI is not there: {0}")]
    Absent(String),
    /// It is there, but the exchange broke or took too long: frozen, or killed in the middle.
    #[error("ComfyUI does not answer: {0}")]
    Silent(String),
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
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
        let client = Client::builder(TokioExecutor::new()).http1_read_buf_exact_size(READ).build(connector);
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
        content_type: Option<&str>,
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, Unreachable> {
        let silent = |cause: String| Unreachable::Silent(cause);
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.authority));
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(body)).map_err(|cause| silent(cause.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|cause| match cause.is_connect() {
                true => Unreachable::Absent(with_causes(&cause)),
                false => silent(with_causes(&cause)),
            })?;
            let (head, body) = response.into_parts();
            let body = whole(body, LARGEST).await.map_err(silent)?;
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(silent(format!("no answer within {} ms", limit.as_millis()))),
        }
    }

    async fn get(&self, path: &str, limit: Duration) -> Result<Answer, Unreachable> {
        self.call(Method::GET, path, None, Bytes::new(), limit).await
    }

    /// A GET whose answer is JSON.
    async fn json<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Result<T, Unreachable> {
        let Answer { status, body, .. } = self.get(path, CALL).await?;
        let parsed = aside::by_size(body.len(), move || serde_json::from_slice(&body).ok()).await.flatten();
        parsed.filter(|_| status.is_success()).ok_or_else(|| Unreachable::Silent(format!("{path} answered {status}")))
    }

    /// Whether it answers; HEAD /prompt is the cheapest question.
    pub(crate) async fn alive(&self, limit: Duration) -> bool {
        self.call(Method::HEAD, "/prompt", None, Bytes::new(), limit)
            .await
            .is_ok_and(|answer| answer.status.is_success())
    }

    /// The URL of the socket on which a client's messages come.
    pub(crate) fn socket_url(&self, client_id: &str) -> String {
        format!("ws://{}/ws?clientId={client_id}", self.authority)
    }

    /// POST /prompt. The answer is judged by the caller, who also sets the time limit: a ComfyUI that is frozen takes
    /// the request when it thaws.
    pub(crate) async fn submit(&self, body: Bytes) -> Result<Answer, Unreachable> {
        self.call(Method::POST, "/prompt", Some("application/json"), body, NO_LIMIT).await
    }

    /// POST /upload/image: a picture for LoadImage, under a name in the input directory.
    pub(crate) async fn upload(&self, name: &str, picture: &[u8]) -> Result<Answer, Unreachable> {
        // No picture contains a text that is as long and random as this.
        let boundary = format!("comfy-serve-{}", uuid::Uuid::new_v4().simple());
        let field = |name: &str, value: &str| {
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let mut body = (field("type", "input") + &field("overwrite", "true")).into_bytes();
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(b"Content-Type: application/octet-stream\r\n\r\n");
        body.extend_from_slice(picture);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let content_type = format!("multipart/form-data; boundary={boundary}");
        self.call(Method::POST, "/upload/image", Some(&content_type), body.into(), CALL).await
    }

    /// How many jobs wait or run, anybody's.
    pub(crate) async fn remaining(&self) -> Result<usize, Unreachable> {
        Ok(self.json::<Info>("/prompt").await?.exec_info.queue_remaining)
    }

    /// The ids of the jobs that wait or run, anybody's. They come with all their workflows.
    pub(crate) async fn queued(&self) -> Result<HashSet<String>, Unreachable> {
        let Listed { queue_running, queue_pending } = self.json("/queue").await?;
        Ok(queue_running.into_iter().chain(queue_pending).map(|job| job.0).collect())
    }

    /// The history entry, without the workflow; none while the job waits or runs.
    pub(crate) async fn history(&self, prompt_id: &str) -> Result<Option<Value>, Unreachable> {
        let mut entries: HashMap<String, Entry> = self.json(&format!("/history/{prompt_id}")).await?;
        Ok(entries.remove(prompt_id).map(|Entry { outputs, status }| json!({"outputs": outputs, "status": status})))
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
        let body = body.to_string().into();
        match self.call(Method::POST, path, Some("application/json"), body, CALL).await {
            Ok(answer) if answer.status.is_success() => {}
            Ok(answer) => tracing::warn!(path, status = answer.status.as_u16(), "ComfyUI refuses"),
            // A ComfyUI that is gone has forgotten everything anyway.
            Err(cause) => tracing::debug!(path, %cause, "not done"),
        }
    }

    /// The bytes of an output file.
    pub(crate) async fn view(&self, file: &File) -> Result<Answer, Unreachable> {
        let (name, folder, kind) = (encode(&file.filename), encode(&file.subfolder), encode(&file.kind));
        let path = format!("/view?filename={name}&subfolder={folder}&type={kind}");
        self.get(&path, TRANSFER).await
    }
}

/// The answer of /prompt.
#[derive(Deserialize)]
struct Info {
    exec_info: ExecInfo,
}

#[derive(Deserialize)]
struct ExecInfo {
    queue_remaining: usize,
}

/// The answer of /queue.
#[derive(Deserialize)]
struct Listed {
    queue_running: Vec<Job>,
    queue_pending: Vec<Job>,
}

/// The id of a job in the queue: `[number, id, workflow, extra data, output nodes]`. The rest, which can be megabytes, is
/// read over.
struct Job(String);

impl<'de> Deserialize<'de> for Job {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Job;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a job in ComfyUI's queue")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Job, A::Error> {
                parts.next_element::<IgnoredAny>()?;
                let id = parts.next_element::<Value>()?.unwrap_or_default();
                while parts.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Job(id.as_str().unwrap_or_default().to_owned()))
            }
        }
        deserializer.deserialize_seq(Parts)
    }
}

/// What matters of a history entry.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    outputs: Value,
    #[serde(default)]
    status: Value,
}

/// A body as one piece, put into its place as it comes: collecting it first would take twice the memory.
async fn whole<B>(mut body: B, most: usize) -> Result<Bytes, String>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::error::Error,
{
    let said = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let too_large = || format!("the answer is longer than {most} bytes");
    if said > most {
        return Err(too_large());
    }
    let mut read = Buffer::with_room(said);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|cause| with_causes(&cause))?.into_data() else { continue };
        if read.len() + data.len() > most {
            return Err(too_large());
        }
        read.extend_from_slice(&data);
    }
    Ok(read.into())
}

/// The error with its causes: the client's own text is often just "client error (Connect)".
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
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

    #[tokio::test]
    async fn bodies_are_read_whole_and_within_a_limit() {
        let frames = |frames: &[&'static [u8]]| {
            let frames: Vec<_> = frames.iter().map(|data| Ok::<_, std::io::Error>(Bytes::from_static(data))).collect();
            axum::body::Body::from_stream(futures::stream::iter(frames))
        };
        let full = || Full::new(Bytes::from_static(b"abc"));
        assert_eq!(whole(frames(&[b"ab", b"", b"c"]), 3).await.as_deref(), Ok(b"abc".as_slice()));
        assert_eq!(whole(full(), 3).await.as_deref(), Ok(b"abc".as_slice()));
        assert!(whole(frames(&[b"ab", b"", b"c"]), 2).await.is_err_and(|why| why.contains("longer than 2")));
        assert!(whole(full(), 2).await.is_err_and(|why| why.contains("longer than 2")));
    }

    #[test]
    fn of_a_queue_only_the_ids_are_kept() {
        let job = |id: Value| json!([3, id, {"1": {"class_type": "A"}}, {"client_id": "x"}, ["1"]]);
        let text = json!({"queue_running": [job(json!("a"))], "queue_pending": [job(json!("b")), job(json!(5)), []]});
        let listed: Listed = serde_json::from_value(text).expect("a queue");
        let ids: Vec<String> = listed.queue_running.into_iter().chain(listed.queue_pending).map(|job| job.0).collect();
        assert_eq!(ids, ["a", "b", "", ""]);
        assert!(serde_json::from_value::<Listed>(json!({"queue_running": [5], "queue_pending": []})).is_err());
    }

    #[test]
    fn queries() {
        assert_eq!(encode("a b/ü&c_01.png"), "a%20b%2F%C3%BC%26c_01.png");
    }
}
