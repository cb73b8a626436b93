//! Pictures that the caller sends for the LoadImage nodes of a workflow. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::accept::Format;
use crate::problem::Problem;

/// More than any workflow loads; each is decoded and hashed.
const MOST: usize = 16;
/// Hex digits of the content hash in a name.
const NAME_DIGITS: usize = 24;

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Image {
    /// File name in ComfyUI's input directory. It is made of the content, so that requests that run side by side never
    /// take each other's picture, and the same picture is found in ComfyUI's cache.
    pub(crate) name: String,
    /// Base64.
    pub(crate) data: String,
    /// Id or title of the node that gets it; otherwise the next one in the order of the workflow.
    #[serde(skip)]
    pub(crate) node: Option<String>,
}

/// Reads `images`: a list of base64 texts (data URLs are taken too) or of `{"data", "node"}`.
pub(crate) fn read(images: Option<Value>) -> Result<Vec<Image>, Problem> {
    let list = match images {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(invalid("images is not a list of base64 texts or of {\"data\", \"node\"}")),
    };
    if list.len() > MOST {
        return Err(invalid(format!("images has {} pictures; at most {MOST} are taken", list.len())));
    }
    list.into_iter().enumerate().map(|(index, item)| one(index, item)).collect()
}

fn one(index: usize, item: Value) -> Result<Image, Problem> {
    let at = |why: &str| invalid(format!("images[{index}] {why}"));
    let (text, node) = match item {
        Value::String(text) => (text, None),
        Value::Object(mut item) => {
            if item.keys().any(|name| name != "data" && name != "node") {
                return Err(at("has members other than data and node"));
            }
            let node = match item.remove("node") {
                None | Some(Value::Null) => None,
                Some(Value::String(node)) => Some(node),
                Some(_) => return Err(at("has a node that is not a string")),
            };
            match item.remove("data") {
                Some(Value::String(text)) => (text, node),
                _ => return Err(at("has no data, or data that is not a string")),
            }
        }
        _ => return Err(at("is neither a base64 text nor an object with data")),
    };
    let data = match text.trim().strip_prefix("data:") {
        Some(url) => {
            url.split_once(";base64,").map(|(_, data)| data).ok_or_else(|| at("is a data URL without base64"))?
        }
        None => text.trim(),
    };
    let bytes = STANDARD.decode(data).map_err(|_| at("is not base64 (standard alphabet, with padding)"))?;
    let format = Format::sniff(&bytes).ok_or_else(|| at("is not a JPEG, PNG or WebP picture"))?;
    let mut digits = hex::encode(Sha256::digest(&bytes));
    digits.truncate(NAME_DIGITS);
    Ok(Image { name: format!("{digits}.{}", format.name()), data: data.to_owned(), node })
}

fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(400, "invalid_images", message)
}
