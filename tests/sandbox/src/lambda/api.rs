//! The operations that run a function: Invoke and InvokeWithResponseStream.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream;
use serde_json::{Value, json};

use super::function::Plan;
use super::invoke::{Call, Outcome, invoke};
use super::runtime_api::Chunk;
use crate::iam::identity::{self, Question};
use crate::wire::auth::{self, Scope};
use crate::wire::eventstream;
use crate::world::{ApiError, Shared, now_ms};

/// Bytes of a request's payload, and of one for InvocationType Event (API model: InvocationRequest.Payload).
const SYNCHRONOUS: usize = 6 << 20;
const ASYNCHRONOUS: usize = 1 << 20;
/// AWS seconds before the second and the third attempt of an asynchronous invocation (AWS doc: How Lambda handles
/// errors and retries with asynchronous invocation).
const RETRIES: [f64; 2] = [60.0, 120.0];

/// An operation and the function it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// API name.
    pub operation: &'static str,
    function: String,
}

/// Whether a request is for one of these operations (API model: Invoke, InvokeWithResponseStream).
pub fn target(parts: &Parts) -> Option<Target> {
    let path = parts.uri.path();
    let middle = |start: &str, end: &str| Some(path.strip_prefix(start)?.strip_suffix(end)?.to_owned());
    let (operation, name) = match middle("/2015-03-31/functions/", "/invocations") {
        Some(name) => ("Invoke", name),
        None => ("InvokeWithResponseStream", middle("/2021-11-15/functions/", "/response-streaming-invocations")?),
    };
    if parts.method != "POST" || name.is_empty() || name.contains('/') {
        return None;
    }
    let function = percent_encoding::percent_decode_str(&name).decode_utf8().ok()?.into_owned();
    Some(Target { operation, function })
}

/// Runs the function.
pub async fn handle(
    shared: Arc<Shared>,
    scope: &Scope,
    target: Target,
    parts: &Parts,
    body: Bytes,
    request_id: &str,
) -> Result<Response, ApiError> {
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok());
    let plan = admitted(&shared, scope, &target)?;
    shared.enter("lambda", target.operation)?;
    let kind = header("x-amz-invocation-type").unwrap_or("RequestResponse");
    let most = if kind == "Event" { ASYNCHRONOUS } else { SYNCHRONOUS };
    if body.len() > most {
        let text = format!("Request must be smaller than {most} bytes for the InvokeFunction operation");
        return Err(ApiError::new("RequestTooLargeException", text).status(413));
    }
    let payload = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&payload) {
        let text = format!("Could not parse request body into json: {error}");
        return Err(ApiError::new("InvalidRequestContentException", text));
    }
    let context = match header("x-amz-client-context") {
        None => None,
        Some(text) => {
            let decoded = STANDARD.decode(text).ok().and_then(|b| serde_json::from_slice::<Value>(&b).ok());
            let value = decoded.ok_or_else(|| {
                ApiError::new(
                    "InvalidRequestContentException",
                    "Client context must be a valid Base64-encoded JSON object.",
                )
            })?;
            Some(value.to_string())
        }
    };
    let call = Call {
        plan,
        payload,
        context,
        request_id: request_id.to_owned(),
        trace: header("x-amzn-trace-id").map_or_else(super::trace, str::to_owned),
    };
    let tail = header("x-amz-log-type") == Some("Tail");
    match (kind, target.operation) {
        ("DryRun", _) => Ok(answer(204, Body::empty(), &[])),
        ("RequestResponse", "Invoke") => buffered(invoke(&shared, call).await?, tail).await,
        ("RequestResponse", _) => Ok(streaming(invoke(&shared, call).await?, tail)),
        ("Event", "Invoke") => {
            later(shared, call);
            Ok(answer(202, Body::empty(), &[]))
        }
        (other, _) => {
            let text = format!("Value '{other}' at 'invocationType' failed to satisfy constraint");
            Err(ApiError::new("InvalidParameterValueException", text))
        }
    }
}

fn admitted(shared: &Shared, scope: &Scope, target: &Target) -> Result<Plan, ApiError> {
    let mut world = shared.world.lock();
    let now = now_ms();
    if world.tick(now) {
        shared.touch();
    }
    let caller = auth::caller(&world, &scope.key, "lambda", target.operation, now)?;
    let plan = super::plan(&mut world, &scope.region, super::function_name(&target.function))?;
    let question = Question { action: "lambda:InvokeFunction", resource: &plan.arn, context: &[] };
    if !identity::allowed(&world, &caller, &plan.policy, question) {
        return Err(ApiError::new(
            "AccessDeniedException",
            format!(
                "User: {} is not authorized to perform: lambda:InvokeFunction on resource: {} because no identity-based \
                 policy allows the lambda:InvokeFunction action",
                caller.arn(),
                plan.arn
            ),
        )
        .status(403));
    }
    Ok(plan)
}

/// The answer comes now, the function runs afterwards, three times at most.
fn later(shared: Arc<Shared>, call: Call) {
    tokio::spawn(async move {
        let Call { plan, payload, context, request_id, trace } = call;
        let mut waits = RETRIES.iter();
        loop {
            let again = Call {
                plan: plan.clone(),
                payload: payload.clone(),
                context: context.clone(),
                request_id: request_id.clone(),
                trace: trace.clone(),
            };
            if let Ok(Outcome::Answered { .. } | Outcome::Streamed { .. }) = invoke(&shared, again).await {
                return;
            }
            let Some(seconds) = waits.next() else { return };
            let millis = shared.world.lock().millis(*seconds);
            tokio::time::sleep(Duration::from_millis(u64::try_from(millis).unwrap_or_default())).await;
        }
    });
}

fn answer(status: u16, body: Body, headers: &[(&'static str, &str)]) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers.iter().chain(&[("x-amz-executed-version", "$LATEST")]) {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

async fn buffered(outcome: Outcome, tail: bool) -> Result<Response, ApiError> {
    let (body, log, failed) = match outcome {
        Outcome::Answered { body, log, .. } => (body, log, false),
        Outcome::Failed { body, log } => (body, log, true),
        // A function that streams anyway is waited for.
        Outcome::Streamed { mut body, .. } => {
            let (mut all, mut failed) = (Vec::new(), false);
            loop {
                match body.recv().await {
                    Some(Chunk::Data(bytes)) => all.extend_from_slice(&bytes),
                    Some(Chunk::End) => break,
                    Some(Chunk::Failed(kind, text)) => {
                        all = json!({"errorType": kind, "errorMessage": text}).to_string().into_bytes();
                        failed = true;
                        break;
                    }
                    None => {
                        failed = true;
                        break;
                    }
                }
            }
            (Bytes::from(all), String::new(), failed)
        }
    };
    let log = STANDARD.encode(log);
    let mut headers = vec![("content-type", "application/json")];
    if failed {
        headers.push(("x-amz-function-error", "Unhandled"));
    }
    if tail {
        headers.push(("x-amz-log-result", &log));
    }
    Ok(answer(200, Body::from(body), &headers))
}

fn chunk(bytes: &[u8]) -> Bytes {
    Bytes::from(eventstream::event("PayloadChunk", "application/octet-stream", bytes))
}

fn complete(error: Option<(&str, &str)>, log: Option<&str>) -> Bytes {
    let mut members = json!({});
    if let Some((code, details)) = error {
        members = json!({"ErrorCode": code, "ErrorDetails": details});
    }
    if let Some(log) = log {
        members["LogResult"] = json!(STANDARD.encode(log));
    }
    Bytes::from(eventstream::event("InvokeComplete", "application/json", members.to_string().as_bytes()))
}

fn streaming(outcome: Outcome, tail: bool) -> Response {
    let shown = |log: &str| Some(log.to_owned()).filter(|_| tail);
    let body = match outcome {
        Outcome::Answered { body, log, .. } => {
            let log = shown(&log);
            Body::from([chunk(&body), complete(None, log.as_deref())].concat())
        }
        Outcome::Failed { body, log } => {
            let value: Value = serde_json::from_slice(&body).unwrap_or_default();
            let kind = value["errorType"].as_str().unwrap_or("Unhandled").to_owned();
            let log = shown(&log);
            Body::from(complete(Some((&kind, &String::from_utf8_lossy(&body))), log.as_deref()))
        }
        Outcome::Streamed { body, .. } => Body::from_stream(stream::unfold(Some(body), |body| async move {
            let mut body = body?;
            let (bytes, more) = match body.recv().await {
                Some(Chunk::Data(bytes)) => (chunk(&bytes), Some(body)),
                Some(Chunk::End) => (complete(None, None), None),
                Some(Chunk::Failed(kind, text)) => (complete(Some((&kind, &text)), None), None),
                None => (complete(Some(("Runtime.TruncatedResponse", "The response was cut")), None), None),
            };
            Some((Ok::<_, std::convert::Infallible>(bytes), more))
        })),
    };
    answer(200, body, &[("content-type", "application/vnd.amazon.eventstream")])
}
