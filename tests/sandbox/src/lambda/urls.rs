//! Function URLs over HTTP: by AWS's host name, or by a path that needs no name service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures::Stream;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::function::Plan;
use super::invoke::{Call, Outcome, invoke};
use super::runtime_api::Chunk;
use super::{event, trace};
use crate::iam::identity::{self, Caller, Question};
use crate::wire::sigv4;
use crate::world::{ApiError, Shared, World, now_ms};

/// Begin of the path under which every URL answers: `GetFunctionUrlConfig` gives this form, for AWS's own host names
/// resolve to AWS.
pub const PREFIX: &str = "/_function-urls/";
/// Bytes of a request (AWS doc: Lambda quotas, synchronous invocations: 6 MB).
const REQUEST: usize = 6 << 20;
/// Bytes of a stream that are not slowed down, and bytes a second afterwards (AWS doc: Lambda quotas).
const BURST: u64 = 6 << 20;
const RATE: u64 = 2 << 20;

/// The id and the rest of the path, if the request is for a function URL.
pub fn target(parts: &Parts) -> Option<(String, String)> {
    let path = parts.uri.path();
    if let Some(rest) = path.strip_prefix(PREFIX) {
        let (id, rest) = rest.split_once('/').unwrap_or((rest, ""));
        return Some((id.to_owned(), format!("/{rest}")));
    }
    let host = parts.headers.get("host").and_then(|h| h.to_str().ok()).or_else(|| parts.uri.host())?;
    let (id, rest) = host.split_once('.')?;
    rest.starts_with("lambda-url.").then(|| (id.to_owned(), path.to_owned()))
}

/// Answers a request for a function URL.
pub async fn handle(shared: Arc<Shared>, request: Request, id: &str, path: &str) -> Response {
    let request_id = uuid::Uuid::new_v4().to_string();
    let mut response = match answer(shared, request, id, path, &request_id).await {
        Ok(response) => response,
        Err(refusal) => refusal.response(),
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-amzn-requestid", value);
    }
    response
}

/// What the service says itself.
enum Refusal {
    /// Lambda's own words where nothing was signed or nothing allowed: the member has a capital letter
    /// (awsdocs/aws-lambda-developer-guide#494).
    Forbidden,
    /// With the error's code as header.
    Api(ApiError),
    /// The function failed, or its answer means nothing: a text under a JSON content type.
    Function,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Refusal::Api(error)
    }
}

impl Refusal {
    fn response(self) -> Response {
        let (status, code, body) = match self {
            Refusal::Forbidden => {
                let text = "Forbidden. For troubleshooting Function URL authorization issues, see: \
                            https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html";
                (403, "AccessDeniedException".to_owned(), json!({"Message": text}).to_string())
            }
            Refusal::Api(error) => {
                let mut body = json!({"message": error.message});
                if let Some(reason) = error.reason {
                    body = json!({"Reason": reason, "Type": "User", "message": error.message});
                } else if error.code == "ResourceNotFoundException" {
                    body = json!({"Message": null});
                }
                (error.status, error.code, body.to_string())
            }
            Refusal::Function => (502, String::new(), "Internal Server Error".to_owned()),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        if let Some(code) = HeaderValue::from_str(&code).ok().filter(|c| !c.is_empty()) {
            headers.insert("x-amzn-errortype", code);
        }
        response
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request,
    id: &str,
    path: &str,
    request_id: &str,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let found = super::by_url(&shared.world.lock(), id);
    let Some((region, name)) = found else {
        // Not documented: AWS has no other answer for those who may not know more.
        return Err(Refusal::Forbidden);
    };
    let body = axum::body::to_bytes(body, REQUEST).await.map_err(|_| {
        let text = format!("Request must be smaller than {REQUEST} bytes for the InvokeFunction operation");
        ApiError::new("RequestEntityTooLargeException", text).status(413)
    })?;
    let (caller, key, plan, streams) = {
        let mut world = shared.world.lock();
        let now = now_ms();
        if world.tick(now) {
            shared.touch();
        }
        let (auth, mode) = super::url_settings(&world, &region, &name).ok_or(Refusal::Forbidden)?;
        let (caller, key) = if auth == "AWS_IAM" {
            let (caller, key) = signer(&world, &parts, &body, &region, now)?;
            (caller, Some(key))
        } else {
            (Caller::Anonymous, None)
        };
        let plan = super::plan(&mut world, &region, &name)?;
        authorize(&world, &caller, &plan, &auth)?;
        (caller, key, plan, mode == "RESPONSE_STREAM")
    };
    shared.enter("lambda", "InvokeFunctionUrl")?;
    let trace = trace();
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let about = event::About {
        id,
        region: &region,
        path: &decoded,
        caller: &caller,
        key: key.as_deref(),
        request_id,
        trace: &trace,
        source: "127.0.0.1",
        now: now_ms(),
    };
    let payload = Bytes::from(event::event(&parts, &body, &about).to_string());
    if payload.len() > REQUEST {
        // Base64 and JSON make a request larger than it came.
        let text = format!("Request must be smaller than {REQUEST} bytes for the InvokeFunction operation");
        return Err(ApiError::new("RequestEntityTooLargeException", text).status(413).into());
    }
    let call = Call { plan, payload, context: None, request_id: request_id.to_owned(), trace: trace.clone() };
    let mut response = match invoke(&shared, call).await? {
        Outcome::Failed { .. } => return Err(Refusal::Function),
        Outcome::Streamed { body, kind } => streamed(body, kind.as_deref(), streams).await?,
        Outcome::Answered { body, kind, .. } if streams => whole(body, kind.as_deref()),
        Outcome::Answered { body, .. } => {
            let reply = event::interpret(&body).ok_or(Refusal::Function)?;
            built(reply.status, reply.headers, Body::from(reply.body))
        }
    };
    if let Ok(value) = HeaderValue::from_str(&trace) {
        response.headers_mut().insert("x-amzn-trace-id", value);
    }
    Ok(response)
}

/// Who signed the request. Lambda does not take unsigned payloads, so the body always counts (CloudFront doc: Restrict
/// access to an AWS Lambda function URL origin).
fn signer(world: &World, parts: &Parts, body: &[u8], region: &str, now: i64) -> Result<(Caller, String), Refusal> {
    let claim = sigv4::claim(&parts.headers).ok_or(Refusal::Forbidden)??;
    let refused = |code: &str, text: &str| Refusal::from(ApiError::new(code, text).status(403));
    if claim.service != "lambda" {
        return Err(refused("InvalidSignatureException", "Credential should be scoped to correct service: 'lambda'. "));
    }
    if claim.region != region {
        let text = format!("Credential should be scoped to a valid region, not '{}'. ", claim.region);
        return Err(refused("InvalidSignatureException", &text));
    }
    let (caller, secret) = identity::owner(world, &claim.key).ok_or_else(|| {
        refused("UnrecognizedClientException", "The security token included in the request is invalid.")
    })?;
    let session = identity::session(world, &claim.key);
    let given = parts.headers.get("x-amz-security-token").map(HeaderValue::as_bytes);
    if session.map(|s| s.token.as_bytes()) != given {
        return Err(refused("UnrecognizedClientException", "The security token included in the request is invalid."));
    }
    if claim.key == "expired" || session.is_some_and(|s| s.expires <= now) {
        return Err(refused("ExpiredTokenException", "The security token included in the request is expired"));
    }
    sigv4::verify(&claim, parts, &hex::encode(Sha256::digest(body)), &secret, now)?;
    Ok((caller, claim.key))
}

/// Both actions, since October 2025 (AWS doc: Control access to Lambda function URLs).
fn authorize(world: &World, caller: &Caller, plan: &Plan, auth: &str) -> Result<(), Refusal> {
    let context = [("lambda:FunctionUrlAuthType", auth), ("lambda:InvokedViaFunctionUrl", "true")];
    let may = |action| {
        let question = Question { action, resource: &plan.arn, context: &context };
        identity::allowed(world, caller, &plan.policy, question)
    };
    if may("lambda:InvokeFunctionUrl") && may("lambda:InvokeFunction") { Ok(()) } else { Err(Refusal::Forbidden) }
}

fn built(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// An answer that did not come as a stream to a URL that streams: the bytes as they are.
fn whole(body: Bytes, kind: Option<&str>) -> Response {
    let mut headers = HeaderMap::new();
    if let Ok(kind) = HeaderValue::from_str(kind.unwrap_or("application/octet-stream")) {
        headers.insert("content-type", kind);
    }
    built(StatusCode::OK, headers, Body::from(body))
}

async fn streamed(mut body: mpsc::Receiver<Chunk>, kind: Option<&str>, streams: bool) -> Result<Response, Refusal> {
    if !streams {
        // A URL that does not stream waits for everything and takes it for an answer like any other.
        let mut all = Vec::new();
        loop {
            match body.recv().await {
                Some(Chunk::Data(bytes)) => all.extend_from_slice(&bytes),
                Some(Chunk::End) => break,
                Some(Chunk::Failed(..)) | None => return Err(Refusal::Function),
            }
            if all.len() > REQUEST {
                return Err(Refusal::Function);
            }
        }
        let reply = event::interpret(&Bytes::from(all)).ok_or(Refusal::Function)?;
        return Ok(built(reply.status, reply.headers, Body::from(reply.body)));
    }
    let (status, headers, first) = if kind == Some(event::INTEGRATION) {
        let mut head = Vec::new();
        let at = loop {
            match body.recv().await {
                Some(Chunk::Data(bytes)) => head.extend_from_slice(&bytes),
                _ => return Err(Refusal::Function),
            }
            match event::delimiter(&head) {
                Some(at) => break at,
                None if head.len() > event::PRELUDE => return Err(Refusal::Function),
                None => {}
            }
        };
        let value: Value = serde_json::from_slice(&head[..at]).map_err(|_| Refusal::Function)?;
        let (status, headers) = event::head(&value).ok_or(Refusal::Function)?;
        (status, headers, Bytes::from(head.split_off(at + 8)))
    } else {
        let kind = HeaderValue::from_str(kind.unwrap_or("application/octet-stream"));
        let headers = kind.map(|kind| HeaderMap::from_iter([(axum::http::header::CONTENT_TYPE, kind)]));
        (StatusCode::OK, headers.unwrap_or_default(), Bytes::new())
    };
    let paced = Paced { body, first: Some(first).filter(|f| !f.is_empty()), sent: 0, sleep: None, held: None };
    Ok(built(status, headers, Body::from_stream(paced)))
}

/// A body at the pace of a function URL.
struct Paced {
    body: mpsc::Receiver<Chunk>,
    first: Option<Bytes>,
    sent: u64,
    sleep: Option<Pin<Box<Sleep>>>,
    held: Option<Bytes>,
}

impl Stream for Paced {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let cut = || std::io::Error::other("the function's response was cut");
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            if let Some(held) = self.held.take() {
                return Poll::Ready(Some(Ok(held)));
            }
            let bytes = match self.first.take() {
                Some(first) => first,
                None => match ready!(self.body.poll_recv(cx)) {
                    Some(Chunk::Data(bytes)) => bytes,
                    Some(Chunk::End) => return Poll::Ready(None),
                    // The client sees a body without its end.
                    Some(Chunk::Failed(..)) | None => return Poll::Ready(Some(Err(cut()))),
                },
            };
            let slow = (self.sent + bytes.len() as u64).saturating_sub(self.sent.max(BURST));
            self.sent += bytes.len() as u64;
            if slow == 0 {
                return Poll::Ready(Some(Ok(bytes)));
            }
            self.sleep = Some(Box::pin(tokio::time::sleep(Duration::from_secs_f64(slow as f64 / RATE as f64))));
            self.held = Some(bytes);
        }
    }
}
