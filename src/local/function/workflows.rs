//! The workflows that are packaged with the function: ComfyUI's API format, one file each.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// The workflow that a request runs if it names none.
pub const DEFAULT_WORKFLOW: &str = "workflow_api.json";

const EXPORT: &str = "in ComfyUI open it and choose Workflow > Export (API), then save that file here";

/// One workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    /// File name.
    pub name: String,
    /// Its text, as it is.
    pub text: String,
}

/// The workflows of a directory (`*.json` in it, not below), sorted by name and checked.
///
/// # Errors
/// A missing directory, a missing default workflow, a file that is not a workflow in API format.
pub fn workflows(dir: &Path) -> Result<Vec<Workflow>> {
    let entries = std::fs::read_dir(dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::usage(format!("there is no workflows directory {}", dir.display()))
            .next(format!("create it with a {DEFAULT_WORKFLOW} in it, or set workflows to another directory")),
        _ => Error::io("read", dir, &e).next("set workflows to a directory that can be read"),
    })?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io("read", dir, &e))?.path();
        let hidden = path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|e| e != "json") || path.is_dir() {
            continue;
        }
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
            return Err(Error::usage(format!("{path:?} has a name that is not UTF-8")).next("rename it"));
        };
        let bytes = std::fs::read(&path)
            .map_err(|e| Error::io("read", &path, &e).next("make it readable, or remove it from the workflows"))?;
        let text = check(&bytes).map_err(|(why, next)| {
            Error::usage(format!("{} is not a workflow in API format", path.display())).why(why).next(next)
        })?;
        found.push(Workflow { name: name.to_owned(), text });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if !found.iter().any(|w| w.name == DEFAULT_WORKFLOW) {
        return Err(Error::usage(format!("there is no {DEFAULT_WORKFLOW} in {}", dir.display()))
            .why("it is what a request runs if it names no other")
            .next(EXPORT));
    }
    Ok(found)
}

/// The text, or why it is no workflow and what to do.
fn check(bytes: &[u8]) -> Result<String, (String, &'static str)> {
    let text = std::str::from_utf8(bytes).map_err(|_| ("it is not UTF-8".to_owned(), EXPORT))?;
    let value: Value = serde_json::from_str(text).map_err(|e| (format!("it is not JSON: {e}"), "correct the file"))?;
    let Value::Object(nodes) = value else {
        return Err(("it is JSON, but not an object of nodes".into(), EXPORT));
    };
    // What ComfyUI's plain "Save" writes: how the graph looks, not how it runs.
    if nodes.get("nodes").is_some_and(Value::is_array) {
        return Err(("it is in the format of ComfyUI's editor".into(), EXPORT));
    }
    if nodes.is_empty() {
        return Err(("it has no nodes".into(), EXPORT));
    }
    match nodes.iter().find(|(_, node)| !node.get("class_type").is_some_and(Value::is_string)) {
        Some((id, _)) => Err((format!("node {id:?} has no class_type"), EXPORT)),
        None => Ok(text.to_owned()),
    }
}
