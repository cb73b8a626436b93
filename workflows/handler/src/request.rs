//! Reading what the caller wants out of a body. Pure.

use serde_json::{Map, Value};

use crate::accept::{Format, from_accept};
use crate::event::Event;
use crate::images::{self, Image};
use crate::problem::Problem;

/// The workflow that runs when none is named.
pub(crate) const DEFAULT_PROMPT_FILE: &str = "workflow_api.json";

/// Every member a body may have.
const FIELDS: [&str; 7] = ["positive_prompt", "negative_prompt", "prompt_file", "seed", "params", "format", "images"];
/// Longest name of a file on Linux, in bytes.
const LONGEST_NAME: usize = 255;
/// How alike a name must be to be suggested (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

/// What the caller wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) positive_prompt: String,
    pub(crate) negative_prompt: String,
    pub(crate) prompt_file: String,
    pub(crate) seed: Option<u64>,
    pub(crate) params: Map<String, Value>,
    /// None: what `*/*` means, JPEG.
    pub(crate) format: Option<Format>,
    pub(crate) images: Vec<Image>,
}

impl Request {
    /// Reads an event.
    pub(crate) fn of(event: Event) -> Result<Self, Problem> {
        let Event { accept, mut body, .. } = event;
        if let Some(unknown) = body.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(unknown_field(unknown));
        }
        let positive_prompt = text(&mut body, "positive_prompt")?.unwrap_or_default();
        if positive_prompt.trim().is_empty() {
            return Err(Problem::invalid("positive_prompt is missing or empty"));
        }
        let format =
            match text(&mut body, "format")? {
                // The body is the more deliberate of the two.
                Some(name) => Some(Format::by_name(&name).ok_or_else(|| {
                    Problem::invalid(format!("format is none of jpeg, png and webp: {}", shown(&name)))
                })?),
                None => accept.as_deref().map_or(Ok(None), from_accept)?,
            };
        let params = match body.remove("params") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Err(Problem::invalid("params is not an object like {\"5.width\": 768}")),
        };
        Ok(Request {
            positive_prompt,
            negative_prompt: text(&mut body, "negative_prompt")?.unwrap_or_default(),
            prompt_file: prompt_file(text(&mut body, "prompt_file")?)?,
            seed: seed(body.get("seed"))?,
            params,
            format,
            images: images::read(body.remove("images"))?,
        })
    }
}

/// The nearest of some names, if one is near.
pub(crate) fn nearest<'a>(name: &str, among: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a whole page, and comparing one takes time by its length.
    if name.len() > LONGEST_NAME {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let scored = among.into_iter().map(|known| (strsim::jaro_winkler(&name, &known.to_ascii_lowercase()), known));
    scored.filter(|(score, _)| *score >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

/// A caller's text as it may stand in a message: short, in one line, quoted.
pub(crate) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

fn unknown_field(name: &str) -> Problem {
    let hint = nearest(name, FIELDS).map(|known| format!("; did you mean {known}?")).unwrap_or_default();
    Problem::new(400, "unknown_field", format!("there is no field {}{hint}", shown(name)))
        .details(serde_json::json!({"known": FIELDS}))
}

fn text(body: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match body.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Problem::invalid(format!("{name} is not a string"))),
    }
}

/// A plain name. Whether there is such a workflow is decided by the set that was read at the start, so that no path
/// is ever made of a request; this only tells a mistake from a name that is not known.
fn prompt_file(name: Option<String>) -> Result<String, Problem> {
    let Some(name) = name else { return Ok(DEFAULT_PROMPT_FILE.to_owned()) };
    let odd = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    if name.is_empty() || name.len() > LONGEST_NAME || name.starts_with('.') || name.contains(odd) {
        return Err(Problem::new(
            400,
            "invalid_prompt_file",
            "prompt_file is the name of a packaged workflow like workflow_api.json, without any path",
        ));
    }
    Ok(name)
}

/// A JSON number: a string may come from anywhere, and one that is not checked by the caller is a mistake.
fn seed(seed: Option<&Value>) -> Result<Option<u64>, Problem> {
    match seed {
        None | Some(Value::Null) => Ok(None),
        Some(number) => number.as_u64().map(Some).ok_or_else(|| {
            Problem::invalid("seed is not a whole JSON number from 0 to 18446744073709551615 (without quotes)")
        }),
    }
}

#[cfg(test)]
mod tests;
