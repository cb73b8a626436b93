//! From a file to a checked [`Config`]: find, read, parse, lay the overlay over it, set what flags and variables say.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;

use super::problem::{Problem, Problems, Source};
use super::tree::{Node, Origin, Path};
use super::{Config, check, parse, rules, schema};
use crate::error::{Error, Result};

/// The name that is looked for.
pub const FILE_NAME: &str = "comfy-deploy.yaml";
/// No config comes near this; a model given by mistake does.
const MAX_BYTES: u64 = 1 << 20;

/// Finds the config file in a directory or the nearest parent that has one.
///
/// # Errors
/// [`crate::error::Kind::Usage`] if there is none.
pub fn find(from: &FilePath) -> Result<PathBuf> {
    if let Some(found) = from.ancestors().map(|dir| dir.join(FILE_NAME)).find(|file| file.is_file()) {
        return Ok(found);
    }
    let error = Error::usage(format!("there is no {FILE_NAME} in {} or a directory above it", from.display()))
        .next("change to the app's directory, or say where the file is: --config FILE");
    let near = ["comfy-deploy.yml", "comfy_deploy.yaml", ".comfy-deploy.yaml"];
    Err(match near.into_iter().find(|name| from.join(name).is_file()) {
        Some(name) => error.why(format!("there is {name}: rename it, or use --config {name}")),
        None => error,
    })
}

/// Reads a config file. `shown` is its name in messages.
///
/// # Errors
/// [`crate::error::Kind::Usage`] if it cannot be read or is not text.
pub fn read(file: &FilePath, shown: &str) -> Result<Arc<Source>> {
    let cannot = |why: String| Error::usage(format!("cannot read the config file {shown}")).why(why);
    let meta = std::fs::metadata(file).map_err(|e| cannot(e.to_string()).next("check the path given with --config"))?;
    if meta.is_dir() {
        return Err(cannot("it is a directory".into())
            .next(format!("--config {}", FilePath::new(shown).join(FILE_NAME).display())));
    }
    if meta.len() > MAX_BYTES {
        return Err(cannot(format!("it has {} bytes; a config has at most {MAX_BYTES}", meta.len()))
            .next("check the path given with --config"));
    }
    let bytes = std::fs::read(file).map_err(|e| cannot(e.to_string()).next("make it readable for this user"))?;
    let text = parse::decode(&bytes).map_err(|why| cannot(why).next("save it again as UTF-8 in the editor"))?;
    Ok(Arc::new(Source { name: shown.to_owned(), text }))
}

/// A value that a flag or variable sets: the keys of its path and the value.
pub type Override = (&'static [&'static str], Node);

/// A config and what it was made of.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config with everything applied.
    pub config: Config,
    /// The tree it was read from, for origins.
    pub tree: Node,
    /// Warnings, and the text they point into.
    pub warnings: Problems,
}

/// Makes the config out of a file's text.
///
/// # Errors
/// [`crate::error::Kind::Usage`] with every problem of the file, its overlays and the overrides, drawn.
pub fn load(source: Arc<Source>, environment: Option<&str>, overrides: Vec<Override>) -> Result<Loaded> {
    let fail = |problems| match Problems::new(Some(source.clone()), problems).into_error() {
        Some(error) => error,
        None => Error::usage(format!("{} cannot be used", source.name)),
    };
    let mut tree = parse::parse(&source.text).map_err(fail)?;
    if tree.is_null() || tree.entries().is_some_and(<[_]>::is_empty) {
        return Err(Error::usage(format!("{} is empty", source.name))
            .why("it needs at least `version: 1` and `app: NAME`")
            .next("write, for example:\n\n  version: 1\n  app: comfy\n  region: eu-central-1"));
    }
    if tree.entries().is_none() {
        let (_, problems) = check::read(&tree, schema::schema(), false);
        return Err(fail(problems));
    }
    let mut problems = Vec::new();
    let overlays = tree.take("environments");
    let overlays = overlays.as_ref().map(|entry| &entry.node);
    problems.extend(check_overlays(overlays));
    let sections = overlays.and_then(Node::entries).unwrap_or_default().iter().map(|entry| &entry.node);
    problems.extend([&tree].into_iter().chain(sections).filter_map(two_models));
    if let Some(name) = environment {
        match overlays.and_then(|all| all.get(name)) {
            Some(over) => lay_over(&mut tree, over.node.clone()),
            None => return Err(unknown_environment(name, overlays, &source.name)),
        }
    }
    for (keys, node) in overrides {
        tree.set(keys, node);
    }
    let (config, more) = read_tree(&tree, environment);
    problems.extend(more);
    dedup(&mut problems);
    match config {
        Some(config) if !problems.iter().any(Problem::is_error) => {
            Ok(Loaded { config, tree, warnings: Problems::new(Some(source), problems) })
        }
        _ => Err(fail(problems)),
    }
}

/// The config in a tree, as far as it is right, and everything that is wrong.
fn read_tree(tree: &Node, environment: Option<&str>) -> (Option<Config>, Vec<Problem>) {
    let (json, mut problems) = check::read(tree, schema::schema(), false);
    let mut json = json.unwrap_or_else(|| Json::Object(serde_json::Map::new()));
    if let Some(object) = json.as_object_mut() {
        // What is missing was reported; the rules below still need something to look at.
        object.entry("version").or_insert(1.into());
        object.entry("app").or_insert("a".into());
        fill_lists(object);
    }
    let config = match serde_json::from_value::<Config>(json) {
        Ok(config) => config,
        // The schema and the types come from one source, so this is the end of a run that has problems already.
        Err(e) if problems.is_empty() => {
            problems.push(Problem::error(Path::default(), format!("the config cannot be used: {e}")));
            return (None, problems);
        }
        Err(_) => return (None, problems),
    };
    let bad: Vec<Path> = problems.iter().map(|p| p.path.clone()).collect();
    let found = rules::rules(&config, environment);
    problems.extend(
        found
            .into_iter()
            .filter(|p| !bad.iter().any(|bad| bad.contains(&p.path) || p.path.contains(bad)))
            .map(|p| rules::locate(tree, p)),
    );
    (Some(config), problems)
}

/// Items whose required keys are wrong cannot be read; they were reported and are left out of the other rules.
fn fill_lists(object: &mut serde_json::Map<String, Json>) {
    let keep = |items: Option<&mut Json>, needed: &[&str]| {
        if let Some(items) = items.and_then(Json::as_array_mut) {
            items.retain(|item| needed.iter().all(|key| item.get(key).is_some()));
        }
    };
    keep(object.get_mut("autoscaling").and_then(|a| a.get_mut("schedule")), &["name", "when"]);
    if let Some(files) = object.get_mut("models").and_then(|m| m.get_mut("files")).and_then(Json::as_array_mut) {
        files.retain(|file| file.is_string() || file.get("source").is_some());
    }
    keep(object.get_mut("comfyui").and_then(|c| c.get_mut("custom_nodes")), &["url", "ref"]);
    if let Some(endpoint) = object.get_mut("endpoint").and_then(Json::as_object_mut)
        && endpoint.get("vpc").is_some_and(|vpc| vpc.get("subnets").is_none() || vpc.get("security_groups").is_none())
    {
        endpoint.remove("vpc");
    }
}

/// A directory and an artifact made elsewhere in one place of the file: which is meant?
fn two_models(tree: &Node) -> Option<Problem> {
    let models = &tree.get("models")?.node;
    models.get("dir")?;
    let uri = models.get("uri").filter(|entry| !entry.node.is_null())?;
    Some(
        Problem::error(Path::of("models.uri"), "`models.dir` and `models.uri` are both set")
            .at(uri.key_origin.clone())
            .label("either this or `dir`")
            .help("Keep `dir` to pack a directory, or `uri` for a model artifact made elsewhere."),
    )
}

/// Lays an overlay over the file. One that names a directory of models means it, whatever artifact the file names.
fn lay_over(tree: &mut Node, over: Node) {
    // `prod:` with nothing below it differs in its name only.
    if over.is_null() {
        return;
    }
    let dir = over.get("models").is_some_and(|models| models.node.get("dir").is_some());
    if dir && let Some(models) = tree.entry_mut("models") {
        models.node.take("uri");
    }
    tree.overlay(over);
}

/// Checks the keys and values of every overlay, chosen or not.
fn check_overlays(overlays: Option<&Node>) -> Vec<Problem> {
    let root = Path::default().key("environments");
    let Some(overlays) = overlays.filter(|node| !node.is_null()) else { return Vec::new() };
    let Some(entries) = overlays.entries() else {
        return vec![
            Problem::error(root, "`environments` must be keys and values")
                .at(overlays.origin.clone())
                .label("this is not a mapping")
                .help("Write the name of each environment, and below it the values that differ."),
        ];
    };
    let mut problems = Vec::new();
    for entry in entries {
        let path = root.key(&entry.key);
        if !check::is_match(rules::ENVIRONMENT_PATTERN, &entry.key) {
            problems.push(
                Problem::error(path.clone(), format!("`{}` cannot be the name of an environment", entry.key))
                    .at(entry.key_origin.clone())
                    .on_key()
                    .label("this name")
                    .help(rules::ENVIRONMENT_ALLOWED),
            );
        }
        if entry.node.is_null() {
            continue;
        }
        let mut overlay = entry.node.clone();
        for key in ["app", "version", "environments"] {
            if let Some(entry) = overlay.take(key) {
                let path = path.key(key);
                problems.push(
                    Problem::error(path.clone(), format!("`{path}` cannot differ by environment"))
                        .at(entry.key_origin)
                        .on_key()
                        .label("not allowed here")
                        .help("It belongs at the top level; the environment's name is added to the app's by itself."),
                );
            }
        }
        problems.extend(check::read_at(&overlay, schema::schema(), true, path).1);
    }
    problems
}

fn unknown_environment(name: &str, overlays: Option<&Node>, file: &str) -> Error {
    let known: Vec<&str> =
        overlays.and_then(Node::entries).unwrap_or_default().iter().map(|entry| entry.key.as_str()).collect();
    let error = Error::usage(format!("{file} has no environment `{name}`"));
    if known.is_empty() {
        return error
            .why("it has no `environments:` at all")
            .next(format!("add it, or leave --env out:\n\n  environments:\n    {name}: {{}}"));
    }
    let error = error.why(format!("known: {}", known.join(", ")));
    match check::nearest(name, known) {
        Some(near) => error.next(format!("did you mean --env {near}?")),
        None => error.next("add it below `environments:`, or choose one of these with --env"),
    }
}

/// The same mistake in a chosen overlay is found there and in the merged tree; the place in the file is one.
fn dedup(problems: &mut Vec<Problem>) {
    let mut seen: Vec<(Option<Origin>, String)> = Vec::new();
    problems.retain(|problem| {
        let key = (problem.origin.clone(), problem.label.clone());
        let repeated = matches!(key.0, Some(Origin::File { .. })) && seen.contains(&key) && key.1 != "here";
        seen.push(key);
        !repeated
    });
}

#[cfg(test)]
mod tests;
