//! `config show`: the settings in force as YAML, each with what decided it.

use serde_json::Value as Json;

use crate::config::tree::{Node, Origin, Path, Value};
use crate::error::{Error, Result};

use super::Settings;

/// Where a value came from, in words: `--region`, `COMFY_DEPLOY_REGION`, `comfy-deploy.yaml:3`.
pub(super) fn spoken(origin: &Origin, source: Option<&crate::config::problem::Source>) -> String {
    match (origin, source) {
        (Origin::File { start, .. }, Some(source)) => format!("{}:{}", source.name, source.line(*start)),
        (Origin::File { .. }, None) => "file".into(),
        (Origin::Flag(name) | Origin::Variable(name), _) => (*name).to_owned(),
        (Origin::Memory, _) => "default".into(),
    }
}

/// The origin of every leaf of a tree.
pub(super) fn leaves(tree: &Node, path: Path, out: &mut Vec<(String, Origin)>) {
    match &tree.value {
        Value::Map(entries) => entries.iter().for_each(|e| leaves(&e.node, path.key(&e.key), out)),
        Value::List(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(n, item)| leaves(item, path.index(n), out));
        }
        _ => out.push((path.to_string(), tree.origin.clone())),
    }
}

impl Settings {
    /// The settings in force as JSON: the config with everything applied, and what is decided beside it.
    ///
    /// # Errors
    /// Only if the config cannot be written as JSON, which is a defect.
    pub fn to_json(&self) -> Result<Json> {
        let mut json = serde_json::to_value(&self.config)
            .map_err(|e| Error::failed("the config cannot be written as JSON").why(e.to_string()))?;
        if let Some(object) = json.as_object_mut() {
            object.remove("environments");
            object.insert("region".into(), self.region.clone().into());
        }
        Ok(json)
    }

    /// What decided a value of `config show`, as in `comfy-deploy.yaml:3`, `--region` or `default`.
    pub fn origin(&self, path: &str) -> &str {
        self.origins.iter().find(|(known, _)| known == path).map_or("default", |(_, origin)| origin)
    }

    /// The settings in force as lines of YAML, with `# origin` behind each value if wanted.
    ///
    /// # Errors
    /// Only if the config cannot be written as JSON, which is a defect.
    pub fn show(&self, origins: bool) -> Result<String> {
        let mut lines = Vec::new();
        yaml(&self.to_json()?, Path::default(), 0, &mut lines);
        let width = lines.iter().map(|(text, _)| text.chars().count()).filter(|w| *w <= 60).max().unwrap_or(0);
        let mut out = String::new();
        for (text, path) in lines {
            match path.filter(|_| origins) {
                Some(path) => out.push_str(&format!("{text:width$}  # {}", self.origin(&path.to_string()))),
                None => out.push_str(&text),
            }
            out.push('\n');
        }
        Ok(out)
    }
}

/// Lines of block YAML, and for lines that end in a value its path.
fn yaml(value: &Json, path: Path, depth: usize, lines: &mut Vec<(String, Option<Path>)>) {
    let pad = "  ".repeat(depth);
    match value {
        Json::Object(map) => {
            for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                let below = path.key(key);
                let key = scalar(key);
                match value {
                    Json::Object(inner) if !inner.is_empty() => {
                        lines.push((format!("{pad}{key}:"), None));
                        yaml(value, below, depth + 1, lines);
                    }
                    Json::Array(items) if !items.is_empty() => {
                        lines.push((format!("{pad}{key}:"), None));
                        yaml(value, below, depth + 1, lines);
                    }
                    Json::Object(_) => lines.push((format!("{pad}{key}: {{}}"), Some(below))),
                    Json::Array(_) => lines.push((format!("{pad}{key}: []"), Some(below))),
                    value => lines.push((format!("{pad}{key}: {}", leaf(value)), Some(below))),
                }
            }
        }
        Json::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                let below = path.index(n);
                if item.is_object() {
                    let first = lines.len();
                    yaml(item, below, depth + 1, lines);
                    if let Some((text, _)) = lines.get_mut(first) {
                        text.replace_range(pad.len()..pad.len() + 2, "- ");
                    }
                } else {
                    lines.push((format!("{pad}- {}", leaf(item)), Some(below)));
                }
            }
        }
        value => lines.push((format!("{pad}{}", leaf(value)), Some(path))),
    }
}

fn leaf(value: &Json) -> String {
    match value {
        Json::String(text) => scalar(text),
        Json::Number(n) => {
            n.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15).map_or_else(|| n.to_string(), |f| f.to_string())
        }
        value => value.to_string(),
    }
}

/// Text as YAML: plain where every reader takes it for text, quoted elsewhere.
fn scalar(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./@+".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.' || c == '_');
    let text_to_all = crate::config::scalar::reading(text) == crate::config::scalar::Reading::Text;
    let inner_colon = text.contains(": ") || text.ends_with(':');
    if starts && text_to_all && !inner_colon && text.chars().all(|c| safe(c) || c == ':') {
        text.to_owned()
    } else {
        // JSON strings are YAML's double-quoted scalars.
        Json::String(text.to_owned()).to_string()
    }
}
