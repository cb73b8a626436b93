//! What a function behind a URL gets and what its answer means (AWS doc: Invoking Lambda function URLs, payload format
//! version 2.0).

use axum::body::Bytes;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::iam::identity::Caller;
use crate::world::ACCOUNT;

/// Bytes between the begin of a streamed answer and its body (API Gateway doc: response streaming with Lambda: the
/// metadata lies within the first 16 KB).
pub(super) const PRELUDE: usize = 16 * 1024;
/// The content type of an answer that begins with its metadata (aws/aws-lambda-nodejs-runtime-interface-client).
pub(super) const INTEGRATION: &str = "application/vnd.awslambda.http-integration-response";

/// What an event needs beside the request.
#[derive(Debug)]
pub(super) struct About<'a> {
    /// `<url-id>`.
    pub id: &'a str,
    pub region: &'a str,
    /// Decoded from the wire's path, starting with a slash.
    pub path: &'a str,
    pub caller: &'a Caller,
    /// Access key id of a signed request.
    pub key: Option<&'a str>,
    pub request_id: &'a str,
    pub trace: &'a str,
    pub source: &'a str,
    /// Milliseconds since 1970.
    pub now: i64,
}

/// The event of a request.
pub(super) fn event(parts: &Parts, body: &[u8], about: &About<'_>) -> Value {
    let domain = format!("{}.lambda-url.{}.on.aws", about.id, about.region);
    let mut headers = Map::new();
    let mut cookies = Vec::new();
    for name in parts.headers.keys() {
        let values: Vec<String> =
            parts.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
        match name.as_str() {
            "cookie" => cookies.extend(values.iter().flat_map(|v| v.split(';')).map(|c| c.trim().to_owned())),
            "connection" | "transfer-encoding" | "expect" | "te" | "upgrade" | "keep-alive" => {}
            // Header names are in small letters already.
            name => drop(headers.insert(name.to_owned(), json!(values.join(",")))),
        }
    }
    for (name, value) in [
        ("host", domain.as_str()),
        ("x-amzn-trace-id", about.trace),
        ("x-forwarded-for", about.source),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "https"),
    ] {
        headers.insert(name.to_owned(), json!(value));
    }
    let agent = headers.get("user-agent").cloned().unwrap_or(json!(""));
    let query = parts.uri.query().unwrap_or_default();
    let mut context = json!({
        "accountId": "anonymous",
        "apiId": about.id,
        "authentication": null,
        "domainName": domain,
        "domainPrefix": about.id,
        "http": {
            "method": parts.method.as_str(),
            "path": about.path,
            "protocol": "HTTP/1.1",
            "sourceIp": about.source,
            "userAgent": agent,
        },
        "requestId": about.request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": stamp(about.now),
        "timeEpoch": about.now,
    });
    if let Some(key) = about.key {
        context["accountId"] = json!(ACCOUNT);
        context["authorizer"] = json!({"iam": {
            "accessKey": key,
            "accountId": ACCOUNT,
            "callerId": about.caller.id(),
            "cognitoIdentity": null,
            "principalOrgId": null,
            "userArn": about.caller.arn(),
            "userId": about.caller.id(),
        }});
    }
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": about.path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": context,
        "isBase64Encoded": false,
    });
    if !cookies.is_empty() {
        event["cookies"] = json!(cookies);
    }
    if !query.is_empty() {
        let mut all: Map<String, Value> = Map::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match all.get_mut(name.as_ref()).and_then(|v| v.as_str().map(|t| format!("{t},{value}"))) {
                // Several values of one name are one text with commas.
                Some(joined) => all.insert(name.into_owned(), json!(joined)),
                None => all.insert(name.into_owned(), json!(value)),
            };
        }
        event["queryStringParameters"] = Value::Object(all);
    }
    if !body.is_empty() {
        let kind = event["headers"]["content-type"].as_str().unwrap_or_default().to_owned();
        match std::str::from_utf8(body) {
            Ok(text) if is_text(&kind) => event["body"] = json!(text),
            _ => {
                event["body"] = json!(STANDARD.encode(body));
                event["isBase64Encoded"] = json!(true);
            }
        }
    }
    event
}

fn stamp(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap_or_default().strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

/// Content types that reach the function as text; everything else, forms too, comes in base64 (API Gateway doc:
/// payload format 2.0, which function URLs follow).
fn is_text(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.starts_with("text/")
        || ["application/json", "application/javascript", "application/xml"].contains(&kind.as_str())
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
}

/// An HTTP answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a buffered answer means; none where it means nothing and the client gets 502.
pub(super) fn interpret(payload: &Bytes) -> Option<Reply> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    if value.get("statusCode").is_none() {
        // Whatever JSON it is, it is the body.
        let headers = HeaderMap::from_iter([(HeaderName::from_static("content-type"), json_type())]);
        return Some(Reply { status: StatusCode::OK, headers, body: payload.clone() });
    }
    let (status, headers) = head(&value)?;
    let body = match &value["body"] {
        Value::Null => Bytes::new(),
        Value::String(text) if value["isBase64Encoded"] == true => Bytes::from(STANDARD.decode(text).ok()?),
        Value::String(text) => Bytes::from(text.clone()),
        _ => return None,
    };
    Some(Reply { status, headers, body })
}

/// Status and headers of a buffered answer or of a stream's metadata.
pub(super) fn head(value: &Value) -> Option<(StatusCode, HeaderMap)> {
    let status = match &value["statusCode"] {
        Value::Null => 200,
        Value::Number(number) => number.as_u64()?,
        // As API Gateway, URLs take the number as text too.
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    let status = u16::try_from(status).ok().and_then(|s| StatusCode::from_u16(s).ok())?;
    let mut headers = HeaderMap::new();
    for (name, value) in value["headers"].as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        // The connection is the service's own business.
        if !["connection", "content-length", "transfer-encoding", "keep-alive"].contains(&name.as_str()) {
            headers.insert(name, HeaderValue::from_str(&text).ok()?);
        }
    }
    for cookie in value["cookies"].as_array().into_iter().flatten() {
        headers.append("set-cookie", HeaderValue::from_str(cookie.as_str()?).ok()?);
    }
    headers.entry("content-type").or_insert_with(json_type);
    Some((status, headers))
}

fn json_type() -> HeaderValue {
    HeaderValue::from_static("application/json")
}

/// Where the body of a streamed answer begins: after eight bytes of zero.
pub(super) fn delimiter(bytes: &[u8]) -> Option<usize> {
    bytes.windows(8).position(|w| w == [0; 8])
}
