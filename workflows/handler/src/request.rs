//! Reading the event.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::reply::Problem;

/// The workflow that runs when none is named.
const DEFAULT_PROMPT_FILE: &str = "workflow_api.json";

/// What the caller wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) positive_prompt: String,
    pub(crate) negative_prompt: String,
    pub(crate) prompt_file: String,
    pub(crate) seed: Option<u64>,
}

impl Request {
    /// Reads a Function URL event, payload format 2.0.
    pub(crate) fn from_event(event: &Value) -> Result<Self, Problem> {
        let method = event.pointer("/requestContext/http/method").and_then(Value::as_str);
        if let Some(method) = method.filter(|method| !method.eq_ignore_ascii_case("POST")) {
            return Err(Problem::new(405, "method_not_allowed", format!("{method} is not allowed; use POST"))
                .header("Allow", "POST"));
        }
        let bad = |message: &str| Problem::new(400, "invalid_request", message);
        let body = event.get("body").and_then(Value::as_str).unwrap_or_default();
        let decoded;
        let bytes = if event.get("isBase64Encoded").and_then(Value::as_bool).unwrap_or(false) {
            decoded = STANDARD.decode(body).map_err(|_| bad("the body is not base64, though it is marked so"))?;
            decoded.as_slice()
        } else {
            body.as_bytes()
        };
        if bytes.is_empty() {
            return Err(bad("the body is empty; send JSON with positive_prompt"));
        }
        // The parser's message may quote the text, and with it a prompt: only the place is told.
        let body = match serde_json::from_slice(bytes) {
            Ok(Value::Object(body)) => body,
            Ok(_) => return Err(bad("the body is not a JSON object")),
            Err(cause) => {
                let place = format!("the body is not JSON (line {}, column {})", cause.line(), cause.column());
                return Err(bad(&place));
            }
        };
        let positive_prompt = text(&body, "positive_prompt")?.unwrap_or_default();
        if positive_prompt.trim().is_empty() {
            return Err(bad("positive_prompt is missing or empty"));
        }
        Ok(Request {
            positive_prompt,
            negative_prompt: text(&body, "negative_prompt")?.unwrap_or_default(),
            prompt_file: text(&body, "prompt_file")?.unwrap_or_else(|| DEFAULT_PROMPT_FILE.into()),
            seed: seed(&body)?,
        })
    }
}

fn text(body: &Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Problem::new(400, "invalid_request", format!("{name} is not a string"))),
    }
}

/// A whole number, or one as a string: JavaScript cannot write all of them as numbers.
fn seed(body: &Map<String, Value>) -> Result<Option<u64>, Problem> {
    let seed = match body.get("seed") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        Some(_) => None,
    };
    seed.map(Some).ok_or_else(|| {
        Problem::new(400, "invalid_request", "seed is not a whole number from 0 to 18446744073709551615")
    })
}
