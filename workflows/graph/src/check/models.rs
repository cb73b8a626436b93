//! Model files: what the app has, and what loaders name.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, Kind, Severity};
use crate::classes::InputType;
use crate::nearest::{nearest, quote};
use crate::node::Node;

/// Names of a file as ComfyUI's loaders list it (0.3.64).
const EXTENSIONS: [&str; 8] = ["ckpt", "pt", "pt2", "bin", "pth", "safetensors", "pkl", "sft"];
/// What makes a directory of `diffusers` a model.
const DIFFUSERS_INDEX: &str = "model_index.json";
/// So many names are listed when none is near.
const LISTED: usize = 5;

/// Model files by folder, under the names that loaders use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Models(BTreeMap<String, BTreeSet<String>>);

impl Models {
    /// Takes a path in the models directory, with `/`: `checkpoints/sub/model.safetensors` is `sub/model.safetensors` of
    /// `checkpoints`. Folders go by their current names (`unet` is `diffusion_models`, `clip` is `text_encoders`,
    /// `t2i_adapter` is `controlnet`). What no loader lists is left out.
    pub fn add(&mut self, path: &str) {
        let Some((folder, name)) = path.split_once('/') else { return };
        let folder = current(folder);
        let name = match folder {
            "diffusers" => name.strip_suffix(DIFFUSERS_INDEX).and_then(|dir| dir.strip_suffix('/')),
            "configs" => Some(name).filter(|name| has_extension(name, &["yaml"])),
            _ => Some(name).filter(|name| has_extension(name, &EXTENSIONS)),
        };
        if let Some(name) = name {
            self.0.entry(folder.to_owned()).or_default().insert(name.to_owned());
        }
    }

    /// The names of a folder, sorted.
    pub fn names(&self, folder: &str) -> impl Iterator<Item = &str> {
        self.0.get(current(folder)).into_iter().flatten().map(String::as_str)
    }

    fn has(&self, folder: &str, name: &str) -> bool {
        self.0.get(folder).is_some_and(|names| names.contains(name))
    }

    /// The folders that have a file of this name.
    fn elsewhere(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(_, names)| names.contains(name)).map(|(folder, _)| folder.as_str())
    }
}

impl<S: AsRef<str>> FromIterator<S> for Models {
    fn from_iter<I: IntoIterator<Item = S>>(paths: I) -> Self {
        let mut models = Models::default();
        paths.into_iter().for_each(|path| models.add(path.as_ref()));
        models
    }
}

fn current(folder: &str) -> &str {
    match folder {
        "unet" => "diffusion_models",
        "clip" => "text_encoders",
        "t2i_adapter" => "controlnet",
        _ => folder,
    }
}

/// In any case, as ComfyUI compares them.
fn has_extension(name: &str, extensions: &[&str]) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| extensions.iter().any(|known| known.eq_ignore_ascii_case(end)))
}

impl Check<'_> {
    pub(super) fn models(&mut self, node: Node<'_>) {
        let (Some(classes), Some(models)) = (self.known.classes, self.known.models) else { return };
        let Some(class) = classes.get(node.class()) else { return self.models_of_unknown(node, models) };
        for (name, value) in node.inputs() {
            let (Some(input), Some(file)) = (class.inputs.get(name), value.as_str()) else { continue };
            let InputType::Model { folder, also } = &input.kind else { continue };
            if also.iter().any(|other| other == file) || models.has(folder, file) {
                continue;
            }
            let message = self.missing(folder, file);
            let names: BTreeSet<&str> = models.names(folder).chain(also.iter().map(String::as_str)).collect();
            // A file in another directory is the same file, however long the path is.
            let base = |path: &str| path.rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase();
            let same = names.iter().copied().find(|known| base(known) == base(file));
            let near =
                same.or_else(|| nearest(file, names).filter(|_| models.elsewhere(file).is_none())).map(str::to_owned);
            self.find(Severity::Error, Kind::MissingModel, node, Some(name), message).nearest = near;
        }
    }

    /// Which folder a custom node reads is not known; that the file is in none of them is.
    fn models_of_unknown(&mut self, node: Node<'_>, models: &Models) {
        for (name, value) in node.inputs() {
            let Some(file) = value.as_str().filter(|file| has_extension(file, &EXTENSIONS)) else { continue };
            if models.elsewhere(file).is_none() {
                let message = format!("no folder of the models has {}", quote(file));
                let near = nearest(file, models.0.values().flatten().map(String::as_str)).map(str::to_owned);
                self.find(Severity::Warning, Kind::MissingModel, node, Some(name), message).nearest = near;
            }
        }
    }

    fn missing(&self, folder: &str, file: &str) -> String {
        let Some(models) = self.known.models else { return String::new() };
        let file_shown = quote(file);
        if let Some(other) = models.elsewhere(file) {
            return format!("the models have no {file_shown} in {folder}, but in {other}; move it to {folder}");
        }
        if file.contains('\\') && models.has(folder, &file.replace('\\', "/")) {
            return format!("{file_shown} is a path as on Windows; the container runs Linux, so write it with /");
        }
        let names: Vec<&str> = models.names(folder).collect();
        let has = match names.len() {
            0 => format!("{folder} is empty"),
            1..=LISTED => format!("{folder} has {}", names.join(", ")),
            many => format!("{folder} has {} and {} more", names[..LISTED].join(", "), many - LISTED),
        };
        format!("the models have no {file_shown} in {folder}; {has}")
    }
}
