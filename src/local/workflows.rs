//! The app's workflows on disk, and what is wrong with them.

use std::path::{Path, PathBuf};

use comfy_workflow::{Finding, Known, Models, ParseError, Severity, Workflow, check, core_classes};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::local::function::DEFAULT_WORKFLOW;
use crate::local::models;

/// How to get a workflow in API format.
pub const EXPORT: &str = "in ComfyUI open it and choose Workflow > Export (API), then save that file here";

/// What the app runs its workflows with.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The files of the model artifact, if they are on this machine.
    pub models: Option<Models>,
    /// Whether there are node classes that nobody knows here.
    pub custom_nodes: bool,
    /// Whether ComfyUI is another one than the built-in list of classes is of.
    pub other_version: bool,
}

impl Surroundings {
    /// By the config. A prebuilt image may have any ComfyUI and any custom nodes.
    pub fn of(config: &Config, models: Option<Models>) -> Self {
        let prebuilt = config.image.uri.is_some();
        Surroundings {
            models,
            custom_nodes: prebuilt || !config.comfyui.custom_nodes.is_empty(),
            other_version: prebuilt || config.comfyui.git_ref != core_classes().commit,
        }
    }

    /// For the check.
    pub fn known(&self) -> Known<'_> {
        Known {
            classes: Some(core_classes()),
            other_version: self.other_version,
            custom_nodes: self.custom_nodes,
            models: self.models.as_ref(),
        }
    }
}

/// The app's model files by folder; `None` if they are not on this machine (`models.uri`). Blocking, reads names only.
///
/// # Errors
/// What is wrong with the directory.
pub fn models(root: &Path, config: &Config) -> Result<Option<Models>> {
    if config.models.uri.is_some() {
        return Ok(None);
    }
    let paths = models::paths(&root.join(&config.models.dir), &config.models.files)?;
    Ok(Some(paths.into_iter().collect()))
}

/// The workflow that new instances warm up with; none if that is off, or nothing is said and there is no default one.
///
/// # Errors
/// `models.warmup` names a file that is not there.
pub fn warmup(root: &Path, config: &Config) -> Result<Option<PathBuf>> {
    let dir = root.join(&config.workflows);
    match config.models.warmup.as_deref() {
        Some("off") => Ok(None),
        Some(name) => {
            let file = if name.ends_with(".json") { dir.join(name) } else { dir.join(format!("{name}.json")) };
            if !file.is_file() {
                return Err(Error::usage(format!("models.warmup: there is no workflow {}", file.display()))
                    .next("name a file of the workflows directory, or set models.warmup: off"));
            }
            Ok(Some(file))
        }
        None => Ok(Some(dir.join(DEFAULT_WORKFLOW)).filter(|file| file.is_file())),
    }
}

/// A workflow that was checked.
#[derive(Debug)]
pub struct Checked {
    /// The file, from the app's directory or as the user wrote it.
    pub file: String,
    /// The workflow, or why it is none.
    pub workflow: Result<Workflow, ParseError>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// Checks a file. `shown` is its name in messages. Blocking.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file(file: &Path, shown: &Path, surroundings: &Surroundings) -> Result<Self> {
        let workflow = Workflow::parse(&read(file)?);
        let findings = workflow.as_ref().map(|workflow| check(workflow, &surroundings.known())).unwrap_or_default();
        Ok(Checked { file: shown.display().to_string(), workflow, findings })
    }

    /// How many findings are of this severity; not being a workflow is one error.
    pub fn count(&self, severity: Severity) -> usize {
        let found = self.findings.iter().filter(|finding| finding.severity == severity).count();
        found + usize::from(severity == Severity::Error && self.workflow.is_err())
    }

    /// `good`, or `2 errors, 1 note`.
    pub fn state(&self) -> String {
        let counts: Vec<String> = [Severity::Error, Severity::Warning, Severity::Note]
            .into_iter()
            .filter_map(|severity| match self.count(severity) {
                0 => None,
                1 => Some(format!("1 {}", severity.as_str())),
                many => Some(format!("{many} {}s", severity.as_str())),
            })
            .collect();
        if counts.is_empty() { "good".into() } else { counts.join(", ") }
    }

    /// One line for somebody who is about to deploy, if there is more than notes.
    pub fn warning(&self) -> Option<String> {
        let worst = self.findings.iter().filter(|finding| finding.severity > Severity::Note);
        let worst = worst.reduce(|worst, finding| if finding.severity > worst.severity { finding } else { worst })?;
        Some(format!(
            "workflow {}: {}, such as {worst} (`comfy-deploy workflow check` shows all)",
            self.file,
            self.state()
        ))
    }
}

/// Checks every workflow of the app, whose directory is `root`.
///
/// # Errors
/// See [`files`] and [`Checked::file`].
pub fn check_all(root: &Path, config: &Config, surroundings: &Surroundings) -> Result<Vec<Checked>> {
    let dir = Path::new(&config.workflows);
    let one = |file: &PathBuf| Checked::file(file, &dir.join(name(file)?), surroundings);
    files(&root.join(dir))?.iter().map(one).collect()
}

/// The workflows of a directory: `*.json` in it, not below, not hidden, sorted by name.
///
/// # Errors
/// The directory is missing or cannot be read.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::usage(format!("there is no workflows directory {}", dir.display()))
            .next("create it with a workflow_api.json in it, or set workflows to another directory"),
        _ => Error::io("read", dir, &e).next("set workflows to a directory that can be read"),
    })?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io("read", dir, &e))?.path();
        let hidden = path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|e| e == "json") && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The file's name, by which requests name the workflow.
///
/// # Errors
/// It is not UTF-8.
pub fn name(file: &Path) -> Result<&str> {
    let name = file.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| Error::usage(format!("{file:?} has a name that is not UTF-8")).next("rename it"))
}

/// Reads a file.
///
/// # Errors
/// It cannot be read.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::usage(format!("there is no file {}", file.display()))
            .next("`comfy-deploy workflow ls` lists the app's workflows"),
        _ => Error::io("read", file, &e).next("make it readable, or remove it from the workflows"),
    })
}

/// Takes a file's text for a workflow.
///
/// # Errors
/// Why it is none, and what to do.
pub fn parse(file: &Path, text: &[u8]) -> Result<Workflow> {
    Workflow::parse(text).map_err(|why| {
        Error::usage(format!("{} is not a workflow in API format", file.display()))
            .next(advice(&why))
            .why(why.to_string())
    })
}

/// What to do about a file that is no workflow.
pub fn advice(why: &ParseError) -> &'static str {
    match why {
        ParseError::NotText(_)
        | ParseError::NotJson { .. }
        | ParseError::DuplicateKey { .. }
        | ParseError::TooDeep { .. } => "correct the file, or export it again: in ComfyUI, Workflow > Export (API)",
        ParseError::UiFormat => "save what it exports in the place of this file",
        ParseError::Request => "save the value of \"prompt\" alone in the place of this file",
        _ => EXPORT,
    }
}

#[cfg(test)]
mod tests;
