//! `workflow`: check, list, fill. Looks at files alone; no call is made.

use std::path::{Path, PathBuf};

use comfy_workflow::{Fill, Filled, Place, Severity, Workflow, core_classes, fill, load_images, param_from_text};
use serde_json::{Map, Value, json};

use super::{Done, with_ambient};
use crate::cli::{Cli, WorkflowAction, WorkflowArgs};
use crate::error::{Error, Kind, Result};
use crate::local::function::DEFAULT_WORKFLOW;
use crate::local::workflows::{self, Checked, Surroundings};
use crate::settings::{self, App};
use crate::ui::Ui;

/// Runs it.
///
/// # Errors
/// What keeps it from looking; what is wrong with a workflow is the result.
pub fn run(cli: &Cli, args: &WorkflowArgs, ui: &Ui) -> Result<Done> {
    let app = with_ambient(|ambient| settings::app(cli, ambient))?;
    if let Some(app) = &app {
        app.warnings.list.iter().for_each(|problem| ui.warn(&app.warnings.one_line(problem)));
    }
    match &args.action {
        WorkflowAction::Check { files, strict } => check(app.as_ref(), files, *strict, ui),
        WorkflowAction::Ls => ls(app.as_ref(), ui),
        WorkflowAction::Fill { file, positive, negative, seed, params } => {
            let workflow = workflows::parse(file, &workflows::read(&find(app.as_ref(), file))?)?;
            let params = typed(&workflow, params)?;
            let with = Fill { positive, negative, seed: *seed, params: Some(&params) };
            let filled =
                fill(workflow, with, rand::random).map_err(|e| not_set(e.problems.iter().map(ToString::to_string)))?;
            Ok(filled_in(&filled, !positive.is_empty(), ui))
        }
    }
}

fn check(app: Option<&App>, files: &[PathBuf], strict: bool, ui: &Ui) -> Result<Done> {
    let surroundings = surroundings(app, ui)?;
    let checked = match files {
        [] => all(app, &surroundings)?,
        files => files.iter().map(|file| Checked::file(file, file, &surroundings)).collect::<Result<_>>()?,
    };
    let count = |severity| checked.iter().map(|one| one.count(severity)).sum::<usize>();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let mut text = String::new();
    for one in &checked {
        text += &format!("{}: {}\n", one.file, one.state());
        if let Err(why) = &one.workflow {
            text += &format!("  error: {why}\n");
        }
        for finding in &one.findings {
            text += &format!("  {finding}\n");
        }
    }
    if checked.is_empty() {
        text += "There are no workflows.\n";
    }
    let classes = core_classes();
    let data = json!({
        "workflows": checked.iter().map(as_data).collect::<Vec<_>>(),
        "errors": errors,
        "warnings": warnings,
        "classes": {"comfyui": classes.comfyui, "commit": classes.commit, "date": classes.date},
    });
    let mut done = Done::new(text, data);
    if errors > 0 || (strict && warnings > 0) {
        done.exit_code = Kind::Usage.exit_code();
    }
    Ok(done)
}

fn as_data(checked: &Checked) -> Value {
    json!({
        "file": checked.file,
        "error": checked.workflow.as_ref().err().map(ToString::to_string),
        "findings": checked.findings,
    })
}

fn ls(app: Option<&App>, ui: &Ui) -> Result<Done> {
    let checked = all(app, &surroundings(app, ui)?)?;
    let (mut rows, mut data) = (Vec::new(), Vec::new());
    for one in &checked {
        let name = workflows::name(Path::new(&one.file))?;
        let (mut nodes, mut images, mut models) = (0, Vec::new(), Vec::new());
        if let Ok(workflow) = &one.workflow {
            nodes = workflow.nodes().count();
            images = load_images(workflow);
            models = core_classes().model_files(workflow);
        }
        let files: Vec<&str> = models.iter().map(|(_, file)| file.as_str()).collect();
        let starts_from: Vec<String> = images.iter().map(|image| image.key()).collect();
        rows.push(vec![
            if name == DEFAULT_WORKFLOW { format!("{name} (default)") } else { name.to_owned() },
            nodes.to_string(),
            starts_from.join("\n"),
            files.join("\n"),
            one.state(),
        ]);
        data.push(json!({
            "name": name,
            "default": name == DEFAULT_WORKFLOW,
            "nodes": nodes,
            "images": images,
            "models": models.iter().map(|(folder, file)| json!({"folder": folder, "name": file})).collect::<Vec<_>>(),
            "errors": one.count(Severity::Error),
            "warnings": one.count(Severity::Warning),
        }));
    }
    let text = match rows.is_empty() {
        true => "There are no workflows.".to_owned(),
        false => ui.table(&["name", "nodes", "pictures in", "models", "state"], &rows),
    };
    Ok(Done::new(text, json!({"workflows": data})))
}

/// The workflow as text, what was done as data, and as talk what a reader of the text cannot see.
fn filled_in(filled: &Filled, prompt_given: bool, ui: &Ui) -> Done {
    if filled.positive.is_empty() && prompt_given {
        ui.warn("the workflow has no POSITIVE_PROMPT_PLACEHOLDER, so the prompt is not in it");
    }
    if filled.seeds.is_empty() {
        ui.warn("the workflow has no seed to set");
    } else {
        let places: Vec<String> = filled.seeds.iter().map(Place::to_string).collect();
        ui.talk(&format!("seed {} at {}", filled.seed, places.join(", ")));
    }
    let data = json!({
        "seed": filled.seed,
        "seeds": filled.seeds,
        "positive": filled.positive,
        "negative": filled.negative,
        "params": filled.params,
        "workflow": filled.workflow.clone().into_value(),
    });
    Done::new(format!("{:#}\n", filled.workflow), data)
}

/// `NODE.INPUT=VALUE` as values of the workflow's own kinds; every wrong one is told.
pub(super) fn typed(workflow: &Workflow, params: &[String]) -> Result<Map<String, Value>> {
    let (mut values, mut problems) = (Map::new(), Vec::new());
    for param in params {
        match param.split_once('=') {
            None => problems.push(format!("param {param:?}: write it as NODE.INPUT=VALUE")),
            Some((key, _)) if values.contains_key(key) => problems.push(format!("param {key:?} is given twice")),
            Some((key, text)) => match param_from_text(workflow, key, text) {
                Ok(value) => drop(values.insert(key.to_owned(), value)),
                Err(problem) => problems.push(problem.to_string()),
            },
        }
    }
    if problems.is_empty() { Ok(values) } else { Err(not_set(problems.into_iter())) }
}

fn not_set(problems: impl Iterator<Item = String>) -> Error {
    problems.fold(Error::usage("the workflow cannot be filled"), |error, problem| error.why(problem))
}

/// Every workflow of the app, checked.
fn all(app: Option<&App>, surroundings: &Surroundings) -> Result<Vec<Checked>> {
    let app = app.ok_or_else(|| {
        Error::usage("there is no comfy-deploy.yaml here or above, so there is no workflows directory")
            .next("change to the app's directory, or name files: comfy-deploy workflow check FILE")
    })?;
    workflows::check_all(&app.root, &app.config, surroundings)
}

/// A file of this name here, else one of the app's workflows.
fn find(app: Option<&App>, file: &Path) -> PathBuf {
    let ours = app.map(|app| app.root.join(&app.config.workflows).join(file));
    match ours {
        Some(ours) if !file.exists() && ours.is_file() => ours,
        _ => file.to_owned(),
    }
}

fn surroundings(app: Option<&App>, ui: &Ui) -> Result<Surroundings> {
    let Some(app) = app else {
        ui.warn("there is no comfy-deploy.yaml here or above, so model files are not checked");
        return Ok(Surroundings::default());
    };
    if app.config.models.uri.is_some() {
        ui.detail(1, "models.uri is set, so model files are not checked");
    }
    // A directory that is not there yet is no reason to keep the other findings back.
    let models = workflows::models(&app.root, &app.config).unwrap_or_else(|e| {
        ui.warn(&format!("model files are not checked: {e}"));
        None
    });
    Ok(Surroundings::of(&app.config, models))
}
