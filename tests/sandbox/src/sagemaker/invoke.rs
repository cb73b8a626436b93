//! InvokeEndpoint: what SageMaker Runtime lets through to a container and back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::Response;
use http_body_util::Full;
use rand::RngExt;
use serde_json::json;

use super::instances::Taken;
use super::{Noun, Status};
use crate::iam::identity::{self, Question};
use crate::wire::auth::{self, Scope};
use crate::world::{ACCOUNT, ApiError, Ctx, Shared, now_ms};

/// Bytes of a request and of an answer (SageMaker FAQ and quotas: 25 MB for real-time endpoints since 2024; the API
/// model's BodyBlob still says 6,291,456).
const PAYLOAD: usize = 25 << 20;
/// How long a container has (API model: InvokeEndpoint).
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of ModelError's OriginalMessage (API model: Message).
const MESSAGE: usize = 2048;
/// Characters of a header (API model: Header, CustomAttributesHeader).
const HEADER: usize = 1024;

/// Request headers that reach the container, and answer headers that come back. Everything else is stripped (API
/// model: InvokeEndpoint).
const THERE: [&str; 3] = ["content-type", "accept", CUSTOM];
const BACK: [&str; 2] = ["content-type", CUSTOM];
const CUSTOM: &str = "x-amzn-sagemaker-custom-attributes";

/// The endpoint's name, if the request is an InvokeEndpoint.
pub fn target(parts: &Parts) -> Option<String> {
    let name = parts.uri.path().strip_prefix("/endpoints/")?.strip_suffix("/invocations")?;
    (parts.method == "POST" && !name.is_empty() && !name.contains('/')).then(|| name.to_owned())
}

/// Answers one.
pub async fn handle(
    shared: Arc<Shared>,
    scope: &Scope,
    endpoint: &str,
    parts: &Parts,
    body: Bytes,
    request_id: &str,
) -> Response {
    let mut response = match answer(&shared, scope, endpoint, parts, body).await {
        Ok(response) => response,
        Err(refusal) => refusal.response(&scope.region, endpoint),
    };
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-amzn-requestid", value);
    }
    response
}

/// Why there is no answer of the container.
enum Refusal {
    Api(ApiError),
    /// The container's status (0 where it gave none) and its words; none where they were too long to load.
    Model(u16, Option<String>),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Refusal::Api(error)
    }
}

impl Refusal {
    fn response(self, region: &str, endpoint: &str) -> Response {
        let (status, code, body) = match self {
            Refusal::Api(error) => (error.status, error.code, json!({"Message": error.message})),
            Refusal::Model(status, text) => {
                let group = format!("/aws/sagemaker/Endpoints/{endpoint}");
                let text = text.map(|t| cut(t, MESSAGE));
                // As in every second report of it (aws/amazon-sagemaker-examples#1809, #4324).
                let side = if (400..500).contains(&status) { "client" } else { "server" };
                let said = match &text {
                    Some(text) => format!(" with message \"{text}\""),
                    None => " and could not load the entire response body".to_owned(),
                };
                let message = format!(
                    "Received {side} error ({status}) from primary{said}. See \
                     https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group} \
                     in account {ACCOUNT} for more information."
                );
                let body = json!({
                    "ErrorCode": if side == "client" { "CLIENT_ERROR_FROM_MODEL" } else { "INTERNAL_FAILURE_FROM_MODEL" },
                    "LogStreamArn": format!("arn:aws:logs:{region}:{ACCOUNT}:log-group:{group}"),
                    "Message": message,
                    "OriginalMessage": text.unwrap_or_default(),
                    "OriginalStatusCode": status,
                });
                (424, "ModelError".to_owned(), body)
            }
        };
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        if let Ok(code) = HeaderValue::from_str(&code) {
            headers.insert("x-amzn-errortype", code);
        }
        response
    }
}

/// At most so many bytes, whole characters.
fn cut(mut text: String, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::new("ValidationError", text)
}

async fn answer(
    shared: &Arc<Shared>,
    scope: &Scope,
    endpoint: &str,
    parts: &Parts,
    body: Bytes,
) -> Result<Response, Refusal> {
    let (variant, least) = admit(shared, scope, endpoint, parts)?;
    shared.enter("sagemaker", "InvokeEndpoint")?;
    if body.len() > PAYLOAD {
        return Err(invalid(format!(
            "1 validation error detected: Value at 'body' failed to satisfy constraint: Member must have length less than \
             or equal to {PAYLOAD}"
        ))
        .into());
    }
    let Some(serving) = shared.live.fleet.serving() else {
        let text = "This sandbox simulates its endpoints: no container runs behind them. Start it without \
                    --simulate-endpoints.";
        return Err(ApiError::new("ServiceUnavailable", text).status(503).into());
    };
    let taken = shared.live.fleet.take(&scope.region, endpoint, &variant, least).ok_or_else(|| {
        // The sandbox was started again and its instances are not up yet.
        ApiError::new("ServiceUnavailable", "The service is unavailable. Try your call again.").status(503)
    })?;
    let mut request = Request::post("/invocations").header("host", taken.place.address().to_string());
    for name in THERE {
        if let Some(value) = parts.headers.get(name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Full::new(body)).map_err(|error| invalid(error.to_string()))?;
    let limit = serving.invocation.unwrap_or(LIMIT);
    ask(taken, request, limit, endpoint, &variant).await
}

async fn ask(
    taken: Taken,
    request: Request<Full<Bytes>>,
    limit: Duration,
    endpoint: &str,
    variant: &str,
) -> Result<Response, Refusal> {
    let sent = tokio::time::timeout(limit, crate::http::send(taken.place.clone(), request, PAYLOAD)).await;
    let answer = match sent {
        // RamVegiraju/SageMaker-Deployment#3.
        Err(_) => {
            let text = "Your invocation timed out while waiting for a response from container primary. Review the latency \
                        metrics for each container in Amazon CloudWatch, resolve the issue, and try again.";
            return Err(Refusal::Model(0, Some(text.to_owned())));
        }
        // aws/amazon-sagemaker-examples#4324: also what is too long.
        Ok(Err(crate::http::Error::Body(error))) => {
            tracing::debug!(%error, "the container's answer");
            return Err(Refusal::Model(500, None));
        }
        // aws/amazon-sagemaker-examples#2815.
        Ok(Err(error)) => {
            tracing::debug!(%error, "the container's answer");
            return Err(Refusal::Model(
                0,
                Some(format!(
                    "Amazon SageMaker could not get a response from the {endpoint} endpoint. This can occur when CPU or \
                     memory utilization is high. To check your utilization, see Amazon CloudWatch. To fix this problem, \
                     use an instance type with more CPU capacity or memory."
                )),
            ));
        }
        Ok(Ok(answer)) => answer,
    };
    let (head, body) = answer.into_parts();
    if !head.status.is_success() {
        return Err(Refusal::Model(head.status.as_u16(), Some(String::from_utf8_lossy(&body).into_owned())));
    }
    let mut response = Response::new(Body::from(body));
    for name in BACK {
        if let Some(value) = head.headers.get(name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    if let Ok(value) = HeaderValue::from_str(variant) {
        response.headers_mut().insert("x-amzn-invoked-production-variant", value);
    }
    Ok(response)
}

/// Checks the caller and the request, and chooses the variant. True if its least busy instance is to be taken.
fn admit(shared: &Shared, scope: &Scope, name: &str, parts: &Parts) -> Result<(String, bool), ApiError> {
    let mut world = shared.world.lock();
    let now = now_ms();
    if world.tick(now) {
        shared.touch();
    }
    let caller = auth::caller(&world, &scope.key, "sagemaker", "InvokeEndpoint", now)?;
    let ctx = Ctx { region: scope.region.clone(), request_id: String::new(), now };
    let resource = Noun::Endpoint.arn(&ctx, name);
    let question = Question { action: "sagemaker:InvokeEndpoint", resource: &resource, context: &[] };
    if !identity::allowed(&world, &caller, &[], question) {
        return Err(ApiError::new(
            "AccessDeniedException",
            format!(
                "User: {} is not authorized to perform: sagemaker:InvokeEndpoint on resource: {resource} because no \
                 identity-based policy allows the sagemaker:InvokeEndpoint action",
                caller.arn()
            ),
        )
        .status(403));
    }
    for header in THERE {
        let given = parts.headers.get(header);
        if let Some(value) = given.filter(|v| v.len() > HEADER || !v.as_bytes().is_ascii()) {
            return Err(invalid(format!(
                "1 validation error detected: Value of {} bytes at '{header}' failed to satisfy constraint: Member must \
                 have length less than or equal to {HEADER}",
                value.len()
            )));
        }
    }
    // An endpoint that never was in service is unknown to the runtime (aws/amazon-sagemaker-examples#293, #559).
    let unknown = || invalid(format!("Endpoint {name} of account {ACCOUNT} not found."));
    let endpoint = world.region(&scope.region).sagemaker.endpoints.get(name).ok_or_else(unknown)?;
    if !matches!(endpoint.status, Status::InService | Status::Updating | Status::RollingBack) {
        return Err(unknown());
    }
    let wanted = parts.headers.get("x-amzn-sagemaker-target-variant").and_then(|v| v.to_str().ok());
    let chosen = match wanted {
        Some(wanted) => {
            endpoint.variants.iter().find(|v| v.name == wanted).ok_or_else(|| {
                invalid(format!("Variant {wanted} of endpoint {name} of account {ACCOUNT} not found."))
            })?
        }
        None => {
            let weights: BTreeMap<&str, f64> = endpoint.variants.iter().map(|v| (v.name.as_str(), v.weight)).collect();
            let chosen = weighted(&weights, rand::rng().random_range(0.0..1.0)).to_owned();
            endpoint.variants.iter().find(|v| v.name == chosen).ok_or_else(unknown)?
        }
    };
    let strategy = chosen.routing.as_ref().and_then(|r| r["RoutingStrategy"].as_str());
    Ok((chosen.name.clone(), strategy == Some("LEAST_OUTSTANDING_REQUESTS")))
}

/// The name whose part of the weights' sum holds `at`, which is from 0 to 1.
fn weighted<'a>(weights: &BTreeMap<&'a str, f64>, at: f64) -> &'a str {
    let mut left = at * weights.values().sum::<f64>();
    for (name, weight) in weights {
        if left < *weight {
            return name;
        }
        left -= weight;
    }
    // All weights are zero, or the sum was rounded.
    weights.keys().next_back().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(cut("aé".repeat(3), 5), "aéa");
        assert_eq!(cut("short".into(), 2048), "short");
    }

    #[test]
    fn weights_share_the_requests() {
        let weights = BTreeMap::from([("a", 1.0), ("b", 3.0)]);
        assert_eq!([0.0, 0.24, 0.26, 0.99, 1.0].map(|at| weighted(&weights, at)), ["a", "a", "b", "b", "b"]);
        assert_eq!(weighted(&BTreeMap::from([("only", 0.0)]), 0.5), "only");
    }
}
