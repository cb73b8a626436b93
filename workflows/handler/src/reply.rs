//! The reply in the form that its source understands, and within its limit. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use crate::accept::Format;
use crate::event::Source;
use crate::problem::Problem;

/// Lambda's limit of a buffered reply, in bytes of its whole JSON (what its error message says: 6 MiB and 100).
const LAMBDA_LIMIT: usize = 6_291_556;
/// A load balancer's limit of a function's reply, in bytes of its whole JSON.
const LOAD_BALANCER_LIMIT: usize = 1024 * 1024;
/// API Gateway's limit of a payload, in bytes. Lambda's own limit is met first.
const API_GATEWAY_LIMIT: usize = 10 * 1024 * 1024;
/// Lambda's limit of a streamed reply, in bytes.
const STREAM_LIMIT: usize = 200 * 1024 * 1024;
/// How large a picture becomes in a smaller format, at most, in percent. JPEG of quality 90 is a seventh of a PNG for
/// pictures like photographs, and a third for drawings; WebP may be lossless.
const SMALLER: [(Format, Format, usize); 2] = [(Format::Png, Format::Jpeg, 34), (Format::Png, Format::Webp, 80)];

/// How a Function URL is set up (`InvokeMode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UrlMode {
    /// One JSON document, with the picture in base64.
    #[default]
    Buffered,
    /// The picture as it is, behind a prelude with status and headers.
    Stream,
}

impl UrlMode {
    /// Reads `COMFY_URL_MODE`; absent or empty is buffered, which every URL understands.
    ///
    /// # Errors
    /// It is neither `stream` nor `buffered`.
    pub fn parse(text: Option<&str>) -> Result<Self, String> {
        match text {
            None | Some("" | "buffered") => Ok(UrlMode::Buffered),
            Some("stream") => Ok(UrlMode::Stream),
            Some(other) => Err(format!("COMFY_URL_MODE is {other:?}; it must be stream or buffered")),
        }
    }
}

/// What Lambda gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To be sent as one JSON document.
    Buffered(Buffered),
    /// To be sent as a stream.
    Streamed(Streamed),
}

/// What API Gateway, a load balancer or a buffered Function URL turns into an HTTP response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Buffered {
    /// HTTP status.
    pub status_code: u16,
    /// The status with words, for load balancers alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_description: Option<String>,
    /// HTTP headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<&'static str, String>,
    /// The same for a load balancer with multi-value headers, which would pass over the others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub multi_value_headers: BTreeMap<&'static str, [String; 1]>,
    /// Text, or base64.
    pub body: String,
    /// Whether the body is base64.
    pub is_base64_encoded: bool,
}

/// A reply in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamed {
    /// HTTP status.
    pub status: u16,
    /// HTTP headers.
    pub headers: BTreeMap<&'static str, String>,
    /// All of the body.
    pub body: Bytes,
}

/// What is to be said, in no form yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<&'static str, String>,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Text(String),
    Picture(Bytes),
}

impl Answer {
    pub(crate) fn problem(problem: &Problem) -> Self {
        let mut headers: BTreeMap<_, _> = problem.headers.iter().cloned().collect();
        headers.insert("Content-Type", "application/json".to_owned());
        headers.insert("Cache-Control", "no-store".to_owned());
        Answer { status: problem.status, headers, content: Content::Text(problem.body()) }
    }
}

/// Whether an answer fits into what its source can take.
///
/// # Errors
/// The picture does not. Texts of ours always do.
pub(crate) fn fits(answer: &Answer, source: Source, mode: UrlMode) -> Result<(), Problem> {
    let Content::Picture(bytes) = &answer.content else { return Ok(()) };
    let (total, limit) = match streams(source, mode) {
        true => (bytes.len(), STREAM_LIMIT),
        false => {
            let envelope = serde_json::to_string(&envelope(answer, source)).map_or(0, |json| json.len());
            // Base64 has nothing that JSON would escape.
            (envelope + bytes.len().div_ceil(3) * 4, limit(source))
        }
    };
    if total > limit { Err(too_large(bytes, total, limit, source)) } else { Ok(()) }
}

/// Gives an answer the form its source needs.
pub(crate) fn deliver(answer: Answer, source: Source, mode: UrlMode) -> Reply {
    if streams(source, mode) {
        let Answer { status, headers, content } = answer;
        let body = match content {
            Content::Text(text) => text.into(),
            Content::Picture(bytes) => bytes,
        };
        return Reply::Streamed(Streamed { status, headers, body });
    }
    let mut reply = envelope(&answer, source);
    reply.body = match answer.content {
        Content::Text(text) => text,
        Content::Picture(bytes) => STANDARD.encode(&bytes),
    };
    Reply::Buffered(reply)
}

fn streams(source: Source, mode: UrlMode) -> bool {
    source == Source::FunctionUrl && mode == UrlMode::Stream
}

/// A reply without its body.
fn envelope(answer: &Answer, source: Source) -> Buffered {
    let mut reply = Buffered {
        status_code: answer.status,
        status_description: None,
        headers: answer.headers.clone(),
        multi_value_headers: BTreeMap::new(),
        body: String::new(),
        is_base64_encoded: matches!(answer.content, Content::Picture(_)),
    };
    if let Source::LoadBalancer { multi_value } = source {
        reply.status_description = Some(format!("{} {}", answer.status, words(answer.status)));
        if multi_value {
            let headers = std::mem::take(&mut reply.headers);
            reply.multi_value_headers = headers.into_iter().map(|(name, value)| (name, [value])).collect();
        }
    }
    reply
}

fn limit(source: Source) -> usize {
    match source {
        Source::LoadBalancer { .. } => LOAD_BALANCER_LIMIT,
        Source::HttpApi | Source::RestApi => API_GATEWAY_LIMIT.min(LAMBDA_LIMIT),
        Source::FunctionUrl | Source::Direct => LAMBDA_LIMIT,
    }
}

/// Says what would fit. `total` is the whole reply.
fn too_large(picture: &[u8], total: usize, limit: usize, source: Source) -> Problem {
    let by = match source {
        Source::LoadBalancer { .. } => "a load balancer",
        Source::HttpApi | Source::RestApi => "a function behind API Gateway",
        Source::FunctionUrl | Source::Direct => "a function",
    };
    let format = Format::sniff(picture);
    let fits: Vec<_> = SMALLER
        .iter()
        .filter(|(from, _, percent)| Some(*from) == format && total / 100 * percent <= limit)
        .map(|(_, to, _)| to.name())
        .collect();
    // Bytes grow with the area. A little less than the root, for the last percent is not worth a second try.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a percentage of at most 100"
    )]
    let side = ((limit as f64 / total as f64).sqrt() * 95.0) as u32;
    let advice = match fits.first() {
        Some(smaller) => format!("ask for \"format\": \"{smaller}\", which should fit"),
        None => format!("no other format is sure to be small enough; make it at most {side} % as wide and high"),
    };
    let streamed = match source {
        Source::FunctionUrl if limit != STREAM_LIMIT => "; with url_mode: stream the URL returns up to 200 MB",
        _ => "",
    };
    let message = format!("the picture needs {total} bytes in the reply, {by} can return {limit}; {advice}{streamed}");
    Problem::new(413, "picture_too_large", message).details(json!({
        "bytes": picture.len(), "reply_bytes": total, "limit_bytes": limit,
        "format": format.map(Format::name), "formats_that_fit": fits, "largest_side_percent": side,
    }))
}

/// The reason phrases of the statuses that are used here.
fn words(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        413 => "Payload Too Large",
        424 => "Failed Dependency",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests;
