//! What Lambda hands over: who asks, how they want the answer, and the body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::problem::Problem;

/// Lambda takes no larger event of a synchronous call, in bytes (Lambda quotas: 6 MB).
pub(crate) const LARGEST_BODY: usize = 6 * 1024 * 1024;

/// Who sent an event; each wants its reply in its own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A Function URL (payload format 2.0).
    FunctionUrl,
    /// API Gateway, HTTP API with payload format 2.0.
    HttpApi,
    /// API Gateway, REST API with proxy integration, or HTTP API with payload format 1.0.
    RestApi,
    /// An Application Load Balancer.
    LoadBalancer {
        /// The target group has multi-value headers on: the reply must have them too.
        multi_value: bool,
    },
    /// Invoke of the Lambda API; the event is the body itself, or an event without an origin.
    Direct,
}

/// An event, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) source: Source,
    /// The Accept header. Several count as one, as HTTP says.
    pub(crate) accept: Option<String>,
    pub(crate) body: Map<String, Value>,
}

impl Event {
    /// Finds out where an event is from, and reads it. The source is known even when the rest cannot be read.
    pub(crate) fn read(event: &str) -> (Source, Result<Self, Problem>) {
        match parse(event.as_bytes(), "event") {
            Ok(event) => {
                let source = source(&event);
                (source, Self::of(source, event))
            }
            Err(problem) => (Source::Direct, Err(problem)),
        }
    }

    fn of(source: Source, mut event: Map<String, Value>) -> Result<Self, Problem> {
        if source == Source::Direct && !event.contains_key("body") {
            return Ok(Event { source, accept: None, body: event });
        }
        let context = event.get("requestContext");
        let method = event.get("httpMethod").or_else(|| context?.pointer("/http/method")).and_then(Value::as_str);
        if let Some(method) = method.filter(|method| !method.eq_ignore_ascii_case("POST")) {
            let shown: String = method.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
            let message = format!("{shown} is not allowed; send the request with POST");
            return Err(Problem::new(405, "method_not_allowed", message).header("Allow", "POST"));
        }
        let accept = accept(&event);
        let text = match event.remove("body") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(_) => return Err(Problem::invalid("the body of the event is not a text")),
        };
        let encoded = matches!(event.get("isBase64Encoded"), Some(Value::Bool(true)));
        // Base64 is a third longer than what it stands for.
        if text.len() > LARGEST_BODY / 3 * 4 + 4 || !encoded && text.len() > LARGEST_BODY {
            let message = format!("the body has {} bytes; a function takes at most {LARGEST_BODY}", text.len());
            return Err(Problem::new(413, "body_too_large", message));
        }
        let bytes = match encoded {
            true => STANDARD
                .decode(text.trim())
                .map_err(|_| Problem::invalid("the body is not base64, though it is marked so"))?,
            false => text.into_bytes(),
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Problem::invalid("the body is empty; send a JSON object with positive_prompt"));
        }
        Ok(Event { source, accept, body: parse(&bytes, "body")? })
    }
}

/// Reads a JSON object.
fn parse(bytes: &[u8], what: &str) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Problem::invalid(format!("the {what} is not a JSON object; send one with positive_prompt"))),
        // The parser's own message may quote the text, and with it a prompt: only the place is told.
        Err(cause) => Err(Problem::invalid(format!(
            "the {what} is not JSON that can be read (line {}, column {})",
            cause.line(),
            cause.column()
        ))),
    }
}

fn source(event: &Map<String, Value>) -> Source {
    let Some(Value::Object(context)) = event.get("requestContext") else { return Source::Direct };
    if context.contains_key("elb") {
        return Source::LoadBalancer { multi_value: event.contains_key("multiValueHeaders") };
    }
    if !context.contains_key("http") {
        return Source::RestApi;
    }
    // Both have payload format 2.0. A URL's domain cannot be changed, an HTTP API's can: so the URL is what is recognised.
    match context.get("domainName").and_then(Value::as_str) {
        Some(domain) if domain.contains(".lambda-url.") => Source::FunctionUrl,
        _ => Source::HttpApi,
    }
}

/// The Accept header, from either form of headers; names are in any case.
fn accept(event: &Map<String, Value>) -> Option<String> {
    let find = |member: &str| {
        let headers = event.get(member)?.as_object()?;
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("accept")).map(|(_, value)| value)
    };
    match find("multiValueHeaders").or_else(|| find("headers"))? {
        Value::String(one) => Some(one.clone()),
        Value::Array(many) => {
            let texts: Vec<_> = many.iter().filter_map(Value::as_str).collect();
            Some(texts.join(", "))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
