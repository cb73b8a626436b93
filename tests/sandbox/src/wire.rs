//! From an HTTP request to a service's `call` and back: which service, which protocol, who asks.

pub mod auth;
pub mod eventstream;
pub mod query;
pub mod rest;
pub mod sigv4;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::models;
use crate::world::{self, ApiError, Ctx, Shared};
use auth::Scope;

/// The largest request body of any API but S3 and the registry; Lambda's zip files come inside JSON.
const BODY_LIMIT: usize = 80 << 20;

/// How a service talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// JSON with X-Amz-Target.
    Json,
    /// Form fields in, XML out.
    Query,
    /// Lambda's routes.
    Rest,
    /// S3's own.
    S3,
}

fn protocol(service: &str) -> Option<Protocol> {
    Some(match service {
        "sagemaker" | "application-autoscaling" | "logs" | "servicequotas" | "ecr" => Protocol::Json,
        "cloudformation" | "iam" | "sts" => Protocol::Query,
        "lambda" => Protocol::Rest,
        "s3" => Protocol::S3,
        _ => return None,
    })
}

/// The prefix of X-Amz-Target.
fn target_prefix(service: &str) -> &'static str {
    match service {
        "sagemaker" => "SageMaker.",
        "application-autoscaling" => "AnyScaleFrontendService.",
        "logs" => "Logs_20140328.",
        "servicequotas" => "ServiceQuotasV20190624.",
        _ => "AmazonEC2ContainerRegistry_V20150921.",
    }
}

/// Answers any request but the sandbox's own `/_sandbox/`.
pub async fn handle(shared: Arc<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let scope = auth::scope(&parts);
    let path = parts.uri.path();
    let reads = matches!(parts.method.as_str(), "GET" | "HEAD" | "OPTIONS");
    let request_id = uuid::Uuid::new_v4().to_string();
    let Some(scope) = scope else {
        if path == "/v2" || path.starts_with("/v2/") {
            let response = crate::ecr::registry(shared.clone(), Request::from_parts(parts, body)).await;
            if !reads {
                shared.touch();
            }
            return response;
        }
        if parts.headers.contains_key("x-amz-target") {
            let error = ApiError::new("MissingAuthenticationTokenException", "Missing Authentication Token");
            return json_error(&error.status(403), &request_id, "1.1");
        }
        if is_form(&parts) {
            let error = ApiError::new("MissingAuthenticationToken", "Request is missing Authentication Token");
            return xml(403, query::error("sts", &error, &request_id), &request_id);
        }
        // Anonymous S3: its policies decide.
        let response = crate::s3::handle(shared.clone(), Request::from_parts(parts, body)).await;
        if !reads {
            shared.touch();
        }
        return response;
    };
    match protocol(&scope.service) {
        Some(Protocol::S3) => {
            // Before the signature: s3s has a word of its own for keys that it does not know.
            let known = auth::caller(&shared.world.lock(), &scope.key, "s3", "", world::now_ms());
            if let Err(error) = known {
                return s3_error(&error, &request_id);
            }
            let response = crate::s3::handle(shared.clone(), Request::from_parts(parts, body)).await;
            if !reads {
                shared.touch();
            }
            response
        }
        Some(protocol) => match axum::body::to_bytes(body, BODY_LIMIT).await {
            Ok(bytes)
                if let Some(name) =
                    crate::sagemaker::invoke_target(&parts).filter(|_| scope.service == "sagemaker") =>
            {
                crate::sagemaker::handle_invoke(shared, &scope, &name, &parts, bytes, &request_id).await
            }
            Ok(bytes) => match crate::lambda::invoke_target(&parts).filter(|_| protocol == Protocol::Rest) {
                Some(target) => {
                    let ran = crate::lambda::handle_invoke(shared, &scope, target, &parts, bytes, &request_id).await;
                    let mut response = ran.unwrap_or_else(|error| rest_error(&error, &request_id));
                    if let Ok(value) = HeaderValue::from_str(&request_id) {
                        response.headers_mut().insert("x-amzn-requestid", value);
                    }
                    response
                }
                None => api(&shared, protocol, &scope, &parts, &bytes, request_id),
            },
            Err(error) => {
                let text = format!("the request body could not be read or is over {BODY_LIMIT} bytes: {error}");
                json_error(&ApiError::new("RequestEntityTooLargeException", text).status(413), &request_id, "1.1")
            }
        },
        None => {
            let text = format!("the sandbox has no service {}", scope.service);
            json_error(&ApiError::new("UnknownService", text), &request_id, "1.1")
        }
    }
}

fn is_form(parts: &Parts) -> bool {
    let kind = parts.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
    parts.method == "POST" && kind.starts_with("application/x-www-form-urlencoded")
}

fn api(
    shared: &Shared,
    protocol: Protocol,
    scope: &Scope,
    parts: &Parts,
    body: &Bytes,
    request_id: String,
) -> Response {
    let service = scope.service.as_str();
    let ctx = Ctx { region: scope.region.clone(), request_id, now: world::now_ms() };
    match protocol {
        Protocol::Json => {
            let version = json_version(parts);
            let result = json_request(service, parts, body).and_then(|(operation, input)| {
                run(shared, scope, &ctx, &operation, &input)
                    .map(|output| if output.is_null() { None } else { Some(output) })
            });
            match result {
                // Operations without an output answer with an empty body.
                Ok(None) => respond(200, &format!("application/x-amz-json-{version}"), Body::empty(), &ctx.request_id),
                Ok(Some(output)) => respond(
                    200,
                    &format!("application/x-amz-json-{version}"),
                    Body::from(output.to_string()),
                    &ctx.request_id,
                ),
                Err(error) => json_error(&error, &ctx.request_id, version),
            }
        }
        Protocol::Query => {
            let mut input = if parts.method == "GET" {
                query::parse(parts.uri.query().unwrap_or_default().as_bytes())
            } else {
                query::parse(body)
            };
            let operation = match input.as_object_mut() {
                Some(map) => {
                    map.remove("Version");
                    // A pre-signed request carries its signature beside its parameters.
                    map.retain(|name, _| !name.starts_with("X-Amz-"));
                    map.remove("Action").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
                }
                None => String::new(),
            };
            let result = if operation.is_empty() {
                Err(ApiError::new("MissingAction", "The request must contain the parameter Action"))
            } else {
                models::coerce(service, &operation, &mut input);
                run(shared, scope, &ctx, &operation, &input)
            };
            match result {
                Ok(output) => xml(200, query::answer(service, &operation, &output, &ctx.request_id), &ctx.request_id),
                Err(error) => xml(error.status, query::error(service, &error, &ctx.request_id), &ctx.request_id),
            }
        }
        Protocol::Rest | Protocol::S3 => {
            let result = rest_request(parts, body)
                .and_then(|(operation, status, input)| Ok((status, run(shared, scope, &ctx, operation, &input)?)));
            match result {
                Ok((status, output)) => {
                    let body =
                        if status == 204 || output.is_null() { Body::empty() } else { Body::from(output.to_string()) };
                    respond(status, "application/json", body, &ctx.request_id)
                }
                Err(error) => rest_error(&error, &ctx.request_id),
            }
        }
    }
}

/// Credentials, ordered faults, then the service.
fn run(shared: &Shared, scope: &Scope, ctx: &Ctx, operation: &str, input: &Value) -> world::Answer {
    let caller = auth::caller(&shared.world.lock(), &scope.key, &scope.service, operation, ctx.now)?;
    shared.enter(&scope.service, operation)?;
    let mut world = shared.world.lock();
    if !auth::may(&world, &caller, &scope.service, operation) {
        return Err(auth::denied(&caller, &scope.service, operation));
    }
    // What is due by now has happened before this request sees the world.
    if world.tick(ctx.now) {
        shared.touch();
    }
    let answer = world::call(&mut world, ctx, &scope.service, operation, input);
    if !is_read(operation) {
        shared.touch();
    }
    answer
}

/// Operations of these names never change the state.
fn is_read(operation: &str) -> bool {
    ["Describe", "List", "Get", "Filter", "Validate", "BatchGet", "BatchCheck"].iter().any(|p| operation.starts_with(p))
}

fn json_version(parts: &Parts) -> &'static str {
    match parts.headers.get("content-type").map(HeaderValue::as_bytes) {
        Some(b"application/x-amz-json-1.0") => "1.0",
        _ => "1.1",
    }
}

fn json_request(service: &str, parts: &Parts, body: &Bytes) -> Result<(String, Value), ApiError> {
    let target = parts.headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let Some(operation) = target.strip_prefix(target_prefix(service)).filter(|o| !o.is_empty()) else {
        return Err(ApiError::new("UnknownOperationException", format!("X-Amz-Target {target:?} names no operation")));
    };
    Ok((operation.to_owned(), json_body(body)?))
}

fn json_body(body: &Bytes) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Ok(json!({}));
    }
    match serde_json::from_slice(body) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(ApiError::new("SerializationException", "The request body is not a JSON object")),
        Err(error) => Err(ApiError::new("SerializationException", error.to_string())),
    }
}

fn rest_request(parts: &Parts, body: &Bytes) -> Result<(&'static str, u16, Value), ApiError> {
    let Some(matched) = rest::route(&parts.method, parts.uri.path(), parts.uri.query()) else {
        let text = format!("the sandbox has no Lambda operation at {} {}", parts.method, parts.uri.path());
        return Err(ApiError::new("UnknownOperationException", text).status(404));
    };
    let mut input = match json_body(body)? {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    input.extend(matched.input);
    let mut input = Value::Object(input);
    models::coerce("lambda", matched.operation, &mut input);
    Ok((matched.operation, matched.status, input))
}

fn respond(status: u16, kind: &str, body: Body, request_id: &str) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(kind) {
        headers.insert("content-type", value);
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert("x-amzn-requestid", value);
    }
    response
}

fn xml(status: u16, text: String, request_id: &str) -> Response {
    respond(status, "text/xml", Body::from(text), request_id)
}

fn json_error(error: &ApiError, request_id: &str, version: &str) -> Response {
    let body = json!({"__type": error.code, "message": error.message}).to_string();
    respond(error.status, &format!("application/x-amz-json-{version}"), Body::from(body), request_id)
}

fn rest_error(error: &ApiError, request_id: &str) -> Response {
    // The model spells the member differently from shape to shape.
    let member = match error.code.as_str() {
        "ResourceNotFoundException" | "ServiceException" => "Message",
        _ => "message",
    };
    let kind = if error.status >= 500 { "Service" } else { "User" };
    let mut body = json!({"Type": kind});
    body[member] = json!(error.message);
    if let Some(reason) = &error.reason {
        body["Reason"] = json!(reason);
    }
    let mut response = respond(error.status, "application/json", Body::from(body.to_string()), request_id);
    if let Ok(code) = HeaderValue::from_str(&error.code) {
        response.headers_mut().insert("x-amzn-errortype", code);
    }
    response
}

fn s3_error(error: &ApiError, request_id: &str) -> Response {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>");
    query::escape(&mut text, &error.code);
    text.push_str("</Code><Message>");
    query::escape(&mut text, &error.message);
    text.push_str(&format!("</Message><RequestId>{request_id}</RequestId></Error>"));
    respond(error.status, "application/xml", Body::from(text), request_id)
}
