//! The workflows that are packaged with the function: ComfyUI's API format, one file each.

use std::path::Path;

use crate::error::{Error, Result};
use crate::local::workflows;

/// The workflow that a request runs if it names none.
pub const DEFAULT_WORKFLOW: &str = "workflow_api.json";

/// One workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    /// File name.
    pub name: String,
    /// Its text, as it is.
    pub text: String,
}

/// The workflows of a directory (`*.json` in it, not below), sorted by name and checked to be in API format.
///
/// # Errors
/// A missing directory, a missing default workflow, a file that is not a workflow in API format.
pub fn workflows(dir: &Path) -> Result<Vec<Workflow>> {
    let mut found = Vec::new();
    for file in workflows::files(dir)? {
        let name = workflows::name(&file)?.to_owned();
        let bytes = workflows::read(&file)?;
        workflows::parse(&file, &bytes)?;
        // What was read as JSON is UTF-8.
        let text =
            String::from_utf8(bytes).map_err(|e| Error::failed(format!("cannot read {name}")).why(e.to_string()))?;
        found.push(Workflow { name, text });
    }
    if !found.iter().any(|w| w.name == DEFAULT_WORKFLOW) {
        return Err(Error::usage(format!("there is no {DEFAULT_WORKFLOW} in {}", dir.display()))
            .why("it is what a request runs if it names no other")
            .next(workflows::EXPORT));
    }
    Ok(found)
}
