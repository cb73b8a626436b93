//! What a request asks for: the workflow, pictures that come with it, and options. Pure.

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use comfy_workflow::Workflow;
use serde_json::{Map, Value};

use crate::job::Submission;
use crate::problem::Problem;

/// The one header besides Content-Type and Accept that SageMaker passes on, in both directions.
pub(crate) const ATTRIBUTES: &str = "x-amzn-sagemaker-custom-attributes";
/// Longest name of a picture, in bytes: file systems take 255, and a prefix is added.
const LONGEST_NAME: usize = 150;
/// What the page sends beside the prompt that a job may need.
const PASSED_ON: [&str; 2] = ["extra_data", "partial_execution_targets"];

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A request's body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) submission: Submission,
    pub(crate) images: Vec<Image>,
}

/// A picture for LoadImage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// As the workflow names it.
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
}

/// Reads a body: a workflow in API format, or an envelope with the workflow in its `prompt`.
pub(crate) fn parse(body: &[u8]) -> Result<Request, Problem> {
    let value: Value = serde_json::from_slice(body).map_err(|cause| {
        let message = match body.is_empty() {
            true => "the body is empty; send a workflow in API format".to_owned(),
            false => format!("the body is not JSON: {cause}"),
        };
        Problem::bad_request("not_json", message)
    })?;
    let workflow = |value| {
        Workflow::from_value(value).map_err(|why| {
            let message = format!("the body is not a workflow in API format: {why}");
            Problem::bad_request("invalid_workflow", message)
        })
    };
    match value {
        Value::Object(mut envelope) if is_envelope(&envelope) => {
            let images = images(envelope.remove("images"))?;
            let extra = passed_on(&mut envelope)?;
            let workflow = workflow(envelope.remove("prompt").unwrap_or_default())?;
            Ok(Request { submission: Submission { workflow, extra }, images })
        }
        value => {
            Ok(Request { submission: Submission { workflow: workflow(value)?, extra: Map::new() }, images: Vec::new() })
        }
    }
}

/// A member `prompt` that is not a node with that id.
fn is_envelope(body: &Map<String, Value>) -> bool {
    body.get("prompt").is_some_and(|prompt| prompt.get("class_type").is_none_or(|class| !class.is_string()))
}

/// What goes to ComfyUI beside the workflow. Of other types than these ComfyUI makes an error of its own, without a reason.
fn passed_on(envelope: &mut Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    let texts = |list: &Vec<Value>| list.iter().all(Value::is_string);
    let mut extra = Map::new();
    for key in PASSED_ON {
        let Some(value) = envelope.remove(key).filter(|value| !value.is_null()) else { continue };
        let (fits, expected) = match key {
            "extra_data" => (value.is_object(), "an object"),
            _ => (value.as_array().is_some_and(texts), "a list of node ids"),
        };
        if !fits {
            return Err(Problem::bad_request("invalid_workflow", format!("{key} must be {expected}")));
        }
        extra.insert(key.to_owned(), value);
    }
    Ok(extra)
}

fn images(value: Option<Value>) -> Result<Vec<Image>, Problem> {
    let wrong = |at: usize, why: &str| Problem::bad_request("invalid_image", format!("images[{at}] {why}"));
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => {
            let message = "images must be a list of {\"name\", \"data\"}";
            return Err(Problem::bad_request("invalid_image", message));
        }
    };
    let mut images: Vec<Image> = Vec::with_capacity(list.len());
    for (at, image) in list.iter().enumerate() {
        let text = |key: &str| image.get(key).and_then(Value::as_str);
        let name = text("name").ok_or_else(|| wrong(at, "has no name"))?;
        let odd = |c: char| c.is_control() || "/\\\"".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || name.starts_with('.') || name.contains(odd) {
            return Err(wrong(at, "has a name that is not a plain file name, like in.png"));
        }
        if images.iter().any(|other| other.name == name) {
            return Err(wrong(at, "has the name of another one"));
        }
        let data = text("data").ok_or_else(|| wrong(at, "has no data"))?;
        // As browsers make it: data:image/png;base64,...
        let data =
            data.strip_prefix("data:").and_then(|data| data.split_once("base64,")).map_or(data, |(_, data)| data);
        let bytes = BASE64.decode(data.trim()).map_err(|cause| wrong(at, &format!("is not base64: {cause}")))?;
        if bytes.is_empty() {
            return Err(wrong(at, "is empty"));
        }
        images.push(Image { name: name.to_owned(), bytes: bytes.into() });
    }
    Ok(images)
}

/// The workflow with a picture's name replaced by the one that it was stored under; how many inputs named it.
pub(crate) fn rename(workflow: &mut Value, from: &str, to: &str) -> usize {
    let nodes = workflow.as_object_mut().into_iter().flat_map(Map::values_mut);
    let inputs = nodes.filter_map(|node| node.get_mut("inputs")?.as_object_mut()).flat_map(Map::values_mut);
    let mut renamed = 0;
    for input in inputs.filter(|input| input.as_str() == Some(from)) {
        *input = to.into();
        renamed += 1;
    }
    renamed
}

/// The first seed of a workflow, as it is written there.
pub(crate) fn seed(workflow: &Workflow) -> Option<String> {
    workflow.nodes().find_map(|(_, node)| {
        let inputs = node.get("inputs")?;
        let seed = inputs.get("seed").or_else(|| inputs.get("noise_seed"))?;
        seed.is_number().then(|| seed.to_string())
    })
}

/// What a caller can choose, in the custom attributes (`output=all;metadata=keep`) or, for local use, in X-Comfy-
/// headers of the same names. Attributes of other names are somebody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Options {
    /// Every output and not just the first.
    pub(crate) all: bool,
    /// Texts in pictures stay; ComfyUI writes the workflow there, if it was started so.
    pub(crate) keep_metadata: bool,
    /// Of JPEG and lossy WebP, 0 to 95.
    pub(crate) quality: Option<u8>,
}

impl Options {
    /// Reads the headers.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut options = Options::default();
        for name in ["output", "metadata", "quality"] {
            let header = headers.get(format!("x-comfy-{name}"));
            if let Some(value) = header.and_then(|value| value.to_str().ok()) {
                options.set(name, value)?;
            }
        }
        for attributes in headers.get_all(ATTRIBUTES).iter().filter_map(|value| value.to_str().ok()) {
            for (name, value) in attributes.split([';', ',']).filter_map(|pair| pair.split_once('=')) {
                options.set(&name.trim().to_ascii_lowercase(), value)?;
            }
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let value = value.trim().to_ascii_lowercase();
        let wrong = |expected: &str| {
            let value: String = value.chars().take(40).collect();
            Problem::bad_request("invalid_option", format!("the option {name} is \"{value}\"; it must be {expected}"))
        };
        match (name, value.as_str()) {
            ("output", "all") => self.all = true,
            ("output", "first") => self.all = false,
            ("output", _) => return Err(wrong("first or all")),
            ("metadata", "keep") => self.keep_metadata = true,
            ("metadata", "strip") => self.keep_metadata = false,
            ("metadata", _) => return Err(wrong("strip or keep")),
            ("quality", _) => {
                let quality = value.parse().ok().filter(|quality| *quality <= 95);
                self.quality = Some(quality.ok_or_else(|| wrong("a whole number from 0 to 95"))?);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
