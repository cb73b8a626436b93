//! The reply in the form that its source understands, and within its limit. Pure.

use std::collections::BTreeMap;

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
/// How large a picture becomes in a smaller format, at most, in percent. JPEG and lossy WebP of quality 90 are a seventh
/// of a PNG for pictures like photographs, and a third for drawings.
const SMALLER: [(Format, Format, usize); 3] =
    [(Format::Png, Format::Jpeg, 34), (Format::Png, Format::Webp, 34), (Format::Jpeg, Format::Webp, 85)];

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buffered {
    /// HTTP status.
    pub status_code: u16,
    /// The status with words, for load balancers alone.
    pub status_description: Option<String>,
    /// HTTP headers.
    pub headers: BTreeMap<&'static str, String>,
    /// The same for a load balancer with multi-value headers, which would pass over the others.
    pub multi_value_headers: BTreeMap<&'static str, [String; 1]>,
    /// The body.
    pub content: Content,
}

/// All members but the body, as Lambda spells them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_description: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: &'a BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    multi_value_headers: &'a BTreeMap<&'static str, [String; 1]>,
    is_base64_encoded: bool,
}

/// Between the envelope and the body, and behind it.
const BODY: (&str, &str) = (",\"body\":", "}");

impl Buffered {
    /// The JSON document. A picture is encoded straight into it: base64 has nothing that JSON would escape, and megabytes
    /// need not be looked at again for that.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = self.envelope();
        // Without its last brace the envelope takes one more member.
        json.pop();
        match &self.content {
            Content::Text(text) => {
                json.extend_from_slice(BODY.0.as_bytes());
                json.extend_from_slice(serde_json::Value::from(text.as_str()).to_string().as_bytes());
            }
            Content::Picture(bytes) => {
                json.reserve_exact(base64_len(bytes) + BODY.0.len() + BODY.1.len() + 2);
                json.extend_from_slice(BODY.0.as_bytes());
                json.push(b'"');
                base64_simd::STANDARD.encode_append(bytes, &mut json);
                json.push(b'"');
            }
        }
        json.extend_from_slice(BODY.1.as_bytes());
        json
    }

    /// Bytes of the document.
    fn length(&self) -> usize {
        let body = match &self.content {
            Content::Text(text) => serde_json::Value::from(text.as_str()).to_string().len(),
            Content::Picture(bytes) => base64_len(bytes) + 2,
        };
        self.envelope().len() - 1 + BODY.0.len() + body + BODY.1.len()
    }

    fn envelope(&self) -> Vec<u8> {
        let envelope = Envelope {
            status_code: self.status_code,
            status_description: self.status_description.as_deref(),
            headers: &self.headers,
            multi_value_headers: &self.multi_value_headers,
            is_base64_encoded: matches!(self.content, Content::Picture(_)),
        };
        // Numbers, texts and maps of texts can always be written.
        serde_json::to_vec(&envelope).unwrap_or_else(|_| b"{}".to_vec())
    }
}

/// Length in base64, with padding.
fn base64_len(bytes: &[u8]) -> usize {
    bytes.len().div_ceil(3) * 4
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<&'static str, String>,
    pub(crate) content: Content,
}

/// A body, before it is encoded for anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// JSON of ours.
    Text(String),
    /// What the endpoint made.
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

/// Gives an answer the form its source needs, if a picture in it fits.
///
/// # Errors
/// It does not.
pub(crate) fn deliver(answer: Answer, source: Source, mode: UrlMode) -> Result<Reply, Problem> {
    let reply = form(answer, source, mode);
    let (picture, length, limit) = match &reply {
        Reply::Streamed(reply) => (&reply.body, reply.body.len(), STREAM_LIMIT),
        Reply::Buffered(buffered) => match &buffered.content {
            Content::Picture(picture) => (picture, buffered.length(), limit(source)),
            Content::Text(_) => return Ok(reply),
        },
    };
    if length > limit { Err(too_large(picture, length, limit, source)) } else { Ok(reply) }
}

/// Gives an answer the form its source needs.
pub(crate) fn form(answer: Answer, source: Source, mode: UrlMode) -> Reply {
    let Answer { status, headers, content } = answer;
    if source == Source::FunctionUrl && mode == UrlMode::Stream {
        let body = match content {
            Content::Text(text) => text.into(),
            Content::Picture(bytes) => bytes,
        };
        return Reply::Streamed(Streamed { status, headers, body });
    }
    let mut reply = Buffered {
        status_code: status,
        status_description: None,
        headers,
        multi_value_headers: BTreeMap::new(),
        content,
    };
    if let Source::LoadBalancer { multi_value } = source {
        reply.status_description = Some(format!("{status} {}", words(status)));
        if multi_value {
            let headers = std::mem::take(&mut reply.headers);
            reply.multi_value_headers = headers.into_iter().map(|(name, value)| (name, [value])).collect();
        }
    }
    Reply::Buffered(reply)
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
