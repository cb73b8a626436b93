//! The Lambda Runtime API, one listener for each execution environment (AWS doc: Using the Lambda runtime API for
//! custom runtimes).

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

/// Bytes of a buffered response: `Exceeded maximum allowed payload size (6291556 bytes)` (aws/aws-lambda-go#419 and
/// many more).
pub(super) const RESPONSE: usize = 6_291_556;
/// Bytes of a streamed response (API model: CreateFunctionUrlConfig.InvokeMode).
const STREAM: u64 = 200 << 20;

/// One invocation on its way to the runtime.
#[derive(Debug)]
pub(super) struct Job {
    pub id: String,
    pub payload: Bytes,
    /// Milliseconds since 1970.
    pub deadline: i64,
    pub arn: String,
    pub trace: String,
    /// JSON.
    pub context: Option<String>,
    pub reply: oneshot::Sender<Reply>,
}

/// What the runtime said.
#[derive(Debug)]
pub(super) enum Reply {
    Whole {
        kind: Option<String>,
        body: Bytes,
    },
    Stream {
        kind: Option<String>,
        body: mpsc::Receiver<Chunk>,
    },
    Error {
        body: Bytes,
    },
    /// A buffered response over the limit.
    TooLarge,
}

/// A part of a streamed response. A stream that stops without `End` was cut.
#[derive(Debug)]
pub(super) enum Chunk {
    Data(Bytes),
    /// Error type and body.
    Failed(String, String),
    End,
}

/// What an error of the runtime during its start holds.
pub(super) type InitError = (String, Bytes);

#[derive(Debug)]
struct Api {
    jobs: tokio::sync::Mutex<mpsc::Receiver<Job>>,
    current: Mutex<Option<(String, Option<oneshot::Sender<Reply>>)>>,
    waiting: watch::Sender<bool>,
    failed: watch::Sender<Option<InitError>>,
}

/// The sandbox's end of it. Dropping it closes the listener.
#[derive(Debug)]
pub(super) struct Runtime {
    /// `127.0.0.1:port`.
    pub address: String,
    jobs: mpsc::Sender<Job>,
    /// Whether the runtime waits for an invocation.
    pub waiting: watch::Receiver<bool>,
    /// What the runtime reported about its start.
    pub failed: watch::Receiver<Option<InitError>>,
    server: AbortHandle,
}

impl Runtime {
    /// Listens on a free port.
    pub(super) async fn listen() -> std::io::Result<Runtime> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (jobs, receiver) = mpsc::channel(1);
        let (waiting, waits) = watch::channel(false);
        let (failed, fails) = watch::channel(None);
        let api = Api { jobs: tokio::sync::Mutex::new(receiver), current: Mutex::default(), waiting, failed };
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .with_state(Arc::new(api));
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the runtime API ended");
            }
        });
        Ok(Runtime { address, jobs, waiting: waits, failed: fails, server: server.abort_handle() })
    }

    /// Hands over an invocation to a runtime that waits.
    pub(super) async fn give(&self, job: Job) -> bool {
        self.jobs.send(job).await.is_ok()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn next(State(api): State<Arc<Api>>) -> Response {
    let mut jobs = api.jobs.lock().await;
    // The answer to the last one is complete.
    *api.current.lock() = None;
    api.waiting.send_replace(true);
    let waits = Waits(&api.waiting);
    let Some(job) = jobs.recv().await else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    drop(waits);
    *api.current.lock() = Some((job.id.clone(), Some(job.reply)));
    let mut response = Response::new(Body::from(job.payload));
    let headers = response.headers_mut();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put("content-type", "application/json");
    put("lambda-runtime-aws-request-id", &job.id);
    put("lambda-runtime-deadline-ms", &job.deadline.to_string());
    put("lambda-runtime-invoked-function-arn", &job.arn);
    put("lambda-runtime-trace-id", &job.trace);
    if let Some(context) = &job.context {
        put("lambda-runtime-client-context", context);
    }
    response
}

/// Takes the word back when the runtime's request ends, also by the death of the runtime.
struct Waits<'a>(&'a watch::Sender<bool>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// Status, error type and message.
struct Refusal(StatusCode, &'static str, &'static str);

/// The caller of the running invocation, once.
fn caller(api: &Api, id: &str) -> Result<oneshot::Sender<Reply>, Refusal> {
    let mut current = api.current.lock();
    match &mut *current {
        Some((running, reply)) if running == id => reply.take().ok_or(Refusal(
            StatusCode::FORBIDDEN,
            "InvalidStateTransition",
            "The response was already sent",
        )),
        _ => Err(Refusal(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID")),
    }
}

fn refuse(status: StatusCode, kind: &str, text: &str) -> Response {
    (status, Json(json!({"errorMessage": text, "errorType": kind}))).into_response()
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, Json(json!({"status": "OK"}))).into_response()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

async fn response(State(api): State<Arc<Api>>, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let reply = match caller(&api, &id) {
        Ok(reply) => reply,
        Err(Refusal(status, kind, text)) => return refuse(status, kind, text),
    };
    let kind = text(&headers, "content-type");
    if text(&headers, "lambda-runtime-function-response-mode").is_some_and(|m| m.eq_ignore_ascii_case("streaming")) {
        let (chunks, receiver) = mpsc::channel(4);
        let _ = reply.send(Reply::Stream { kind, body: receiver });
        return stream(body, chunks).await;
    }
    match axum::body::to_bytes(body, RESPONSE).await {
        Ok(body) => {
            let _ = reply.send(Reply::Whole { kind, body });
            accepted()
        }
        Err(_) => {
            let _ = reply.send(Reply::TooLarge);
            let text = format!("Exceeded maximum allowed payload size ({RESPONSE} bytes).");
            refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &text)
        }
    }
}

/// Passes a streamed body on. When the client went away, the rest is read and thrown away: the function goes on.
async fn stream(mut body: Body, chunks: mpsc::Sender<Chunk>) -> Response {
    let mut size = 0_u64;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return refuse(StatusCode::BAD_REQUEST, "Runtime.TruncatedResponse", "The response was cut");
        };
        match frame.into_data() {
            Ok(data) => {
                size += data.len() as u64;
                if size > STREAM {
                    let text = format!("Response payload size exceeded maximum allowed payload size ({STREAM} bytes).");
                    let _ = chunks.send(Chunk::Failed("Function.ResponseSizeTooLarge".into(), text.clone())).await;
                    return refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &text);
                }
                let _ = chunks.send(Chunk::Data(data)).await;
            }
            Err(frame) => {
                let Ok(trailers) = frame.into_trailers() else { continue };
                if let Some(kind) = text(&trailers, "lambda-runtime-function-error-type") {
                    let body = text(&trailers, "lambda-runtime-function-error-body").unwrap_or_default();
                    let body = STANDARD.decode(&body).ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or(body);
                    let _ = chunks.send(Chunk::Failed(kind, body)).await;
                    return accepted();
                }
            }
        }
    }
    let _ = chunks.send(Chunk::End).await;
    accepted()
}

async fn error(State(api): State<Arc<Api>>, Path(id): Path<String>, body: Body) -> Response {
    let reply = match caller(&api, &id) {
        Ok(reply) => reply,
        Err(Refusal(status, kind, text)) => return refuse(status, kind, text),
    };
    let body = axum::body::to_bytes(body, RESPONSE).await.unwrap_or_default();
    let _ = reply.send(Reply::Error { body });
    accepted()
}

async fn init_error(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Response {
    let body = axum::body::to_bytes(body, RESPONSE).await.unwrap_or_default();
    let kind = text(&headers, "lambda-runtime-function-error-type").unwrap_or_else(|| "Runtime.Unknown".to_owned());
    api.failed.send_replace(Some((kind, body)));
    accepted()
}
