//! What came back: a picture, or why there is none, with what to do and the exit code.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::cloud::Answer;
use crate::error::{Error, Kind, ServiceError};

/// Tries in all for what the app says may be had later.
pub const ATTEMPTS: u32 = 4;
/// The longest wait between two of them: who is told to come back later than that is told so.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// When nothing says how long.
const USUAL_WAIT: Duration = Duration::from_secs(5);
/// Node errors that are shown.
const NODES_SHOWN: usize = 8;

/// Who was asked, for messages.
#[derive(Debug, Clone)]
pub struct Whom {
    /// ARN of the function, or of the endpoint if it was called directly.
    pub arn: String,
    /// Whether the endpoint was called directly.
    pub direct: bool,
}

/// A picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The bytes.
    pub body: Bytes,
    /// `image/jpeg` and so on.
    pub content_type: String,
    /// The seed that was used.
    pub seed: Option<u64>,
    /// ComfyUI's id of the prompt.
    pub prompt_id: Option<String>,
    /// Milliseconds that ComfyUI took.
    pub duration_ms: Option<u64>,
}

/// Why there is no picture.
#[derive(Debug)]
pub struct Trouble {
    /// For the user.
    pub error: Error,
    /// The same request may be sent again after this time: nothing was run for it.
    pub again: Option<Duration>,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble { error, again: None }
    }
}

/// Reads an answer.
///
/// # Errors
/// There is no picture in it.
pub fn read(answer: Answer, whom: &Whom) -> Result<Picture, Trouble> {
    let header = |name: &str| answer.headers.get(name).map(String::as_str);
    let number = |name: &str| header(name).and_then(|text| text.parse().ok());
    let content_type = header("content-type").unwrap_or_default().to_owned();
    if answer.status == 200 && !content_type.starts_with("application/json") && !answer.body.is_empty() {
        return Ok(Picture {
            content_type,
            seed: number("x-comfy-seed"),
            prompt_id: header("x-comfy-prompt-id").map(str::to_owned),
            duration_ms: number("x-comfy-duration-ms"),
            body: answer.body,
        });
    }
    let again = match answer.status {
        429 | 503 => {
            let wait = number("retry-after").map_or(USUAL_WAIT, Duration::from_secs);
            (wait <= LONGEST_WAIT).then_some(wait)
        }
        _ => None,
    };
    Err(Trouble { error: explain(&answer, whom), again })
}

/// From a status and a body to an error.
fn explain(answer: &Answer, whom: &Whom) -> Error {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let said = &body["error"];
    let Some(code) = said["code"].as_str() else { return from_lambda(answer, &body, whom) };
    let message = said["message"].as_str().unwrap_or("it gives no reason").to_owned();
    let details = &said["details"];
    let seconds = answer.headers.get("retry-after").map_or("some".to_owned(), Clone::clone);
    let again = || format!("run the same command again in {seconds} seconds; `comfy-deploy status` shows the endpoint");
    let (kind, what, next) = match (answer.status, code) {
        (404, _) => (
            Kind::Usage,
            "the app has no such workflow",
            "`comfy-deploy workflow ls` lists those on this machine; `comfy-deploy up` deploys new ones".to_owned(),
        ),
        (400 | 405 | 406, _) => {
            (Kind::Usage, "the request is not accepted", "correct it; see `comfy-deploy invoke --help`".to_owned())
        }
        (413, "picture_too_large") => {
            (Kind::Failed, "the picture is too large to be sent", "choose a smaller --format".to_owned())
        }
        (413, _) => (Kind::Usage, "the request is too large", "send smaller pictures".to_owned()),
        (424, _) => (
            Kind::Failed,
            "ComfyUI could not make the picture",
            "`comfy-deploy workflow check` finds most of this before anything is deployed".to_owned(),
        ),
        (429, _) => (Kind::Quota, "the app has too much to do", again()),
        (503, "endpoint_not_ready") => (Kind::Failed, "the endpoint is not in service", again()),
        (503, _) => (Kind::Quota, "the app cannot take requests now", again()),
        (504, _) => (
            Kind::Failed,
            "the picture was not ready in time",
            "use fewer steps or a smaller picture (--param), or a faster endpoint.instance_type".to_owned(),
        ),
        (502, "denied") if whom.direct => (
            Kind::Access,
            "the endpoint may not be called",
            format!("allow sagemaker:InvokeEndpoint on {}, or leave --direct out", whom.arn),
        ),
        (502, "denied") => (
            Kind::Access,
            "the function may not call the endpoint",
            "`comfy-deploy up` repairs the role it made; a lambda.role_arn of your own needs sagemaker:InvokeEndpoint"
                .to_owned(),
        ),
        (500, "invalid_workflow") => (
            Kind::Usage,
            "the workflow cannot be used",
            "`comfy-deploy workflow check` says what is wrong with it; then `comfy-deploy up`".to_owned(),
        ),
        _ => (
            Kind::Failed,
            "the app failed",
            "`comfy-deploy status` shows whether it is healthy; its logs say more".to_owned(),
        ),
    };
    // The handler speaks of the role that it usually has.
    let message = if whom.direct && code == "denied" { "SageMaker denies the call".to_owned() } else { message };
    let service = ServiceError {
        operation: if whom.direct { "sagemaker:InvokeEndpoint" } else { "lambda:InvokeFunctionUrl" }.to_owned(),
        code: code.to_owned(),
        message,
        request_id: answer.headers.get("x-amzn-requestid").cloned(),
        status: Some(answer.status),
    };
    let error = Error::service(what, service).kind_is(kind).next(next);
    reasons(details).into_iter().fold(error, Error::why)
}

/// What the details say to a person: nodes, and what there would have been.
fn reasons(details: &Value) -> Vec<String> {
    let mut reasons = Vec::new();
    let nodes = [&details["original"]["node_errors"], &details["node_errors"]].into_iter().find_map(Value::as_object);
    for (id, node) in nodes.into_iter().flatten().take(NODES_SHOWN) {
        let class = node["class_type"].as_str().or_else(|| node["node_class"].as_str()).unwrap_or("?");
        let errors = node["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let texts: Vec<String> = errors
            .iter()
            .map(|error| match (error["message"].as_str(), error["details"].as_str()) {
                (Some(message), Some(details)) if !details.is_empty() => format!("{message}: {details}"),
                (Some(message), _) => message.to_owned(),
                (None, _) => error.as_str().map_or_else(|| error.to_string(), str::to_owned),
            })
            .collect();
        reasons.push(format!("node {id} ({class}): {}", texts.join("; ")));
    }
    if reasons.is_empty()
        && let Some(id) = details["node_id"].as_str()
    {
        reasons.push(format!("node {id} ({})", details["node_class"].as_str().unwrap_or("?")));
    }
    let list = |value: &Value| -> Option<String> {
        let texts: Vec<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    };
    reasons.extend(list(&details["available"]).map(|names| format!("there are: {names}")));
    reasons.extend(list(&details["load_image_nodes"]).map(|ids| format!("nodes that load a picture: {ids}")));
    for problem in details["problems"].as_array().into_iter().flatten().take(NODES_SHOWN) {
        if let (Some(key), Some(message)) = (problem["key"].as_str(), problem["message"].as_str()) {
            let near = problem["nearest"].as_str().map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
            reasons.push(format!("param {key}: {message}{near}"));
        }
    }
    reasons
}

/// Lambda itself answered: the function was not reached, or broke.
fn from_lambda(answer: &Answer, body: &Value, whom: &Whom) -> Error {
    let said = ["message", "Message"].into_iter().find_map(|name| body[name].as_str());
    let text = String::from_utf8_lossy(&answer.body);
    let message = said.unwrap_or_else(|| text.trim()).chars().take(500).collect();
    let code = answer.headers.get("x-amzn-errortype").and_then(|code| code.split(':').next());
    let code = code.map_or_else(|| answer.status.to_string(), str::to_owned);
    let (kind, what, next) = match (answer.status, code.as_str()) {
        (403, "ExpiredTokenException") => {
            (Kind::Access, "the credentials have expired", "renew them, then run the same command again".to_owned())
        }
        (403, "InvalidSignatureException" | "SignatureDoesNotMatch" | "UnrecognizedClientException") => (
            Kind::Access,
            "the Function URL does not accept the signature",
            "check the credentials (`aws sts get-caller-identity`), the region and this machine's clock".to_owned(),
        ),
        (401 | 403, _) => (
            Kind::Access,
            "the Function URL may not be called with these credentials",
            format!(
                "the caller needs lambda:InvokeFunctionUrl and lambda:InvokeFunction on {}; `comfy-deploy status` prints the policy",
                whom.arn
            ),
        ),
        (404, _) => (
            Kind::Failed,
            "there is no such Function URL any more",
            "`comfy-deploy up` brings the app back to what the config says".to_owned(),
        ),
        (413, _) => (Kind::Usage, "the request is too large", "send smaller pictures".to_owned()),
        (429, _) => (
            Kind::Quota,
            "the function has no free execution",
            "run the same command again later, or raise lambda.reserved_concurrency".to_owned(),
        ),
        _ => (
            Kind::Failed,
            "the function failed",
            "its log says why: aws logs tail --follow, with the log group that the stack's output FunctionLogGroup names".to_owned(),
        ),
    };
    let service = ServiceError {
        operation: "lambda:InvokeFunctionUrl".to_owned(),
        code,
        message,
        request_id: answer.headers.get("x-amzn-requestid").cloned(),
        status: Some(answer.status),
    };
    Error::service(what, service).kind_is(kind).next(next)
}

#[cfg(test)]
mod tests;
