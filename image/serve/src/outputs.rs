//! Which of a job's outputs is the answer. Pure.

use serde_json::{Map, Value};

/// A file that ComfyUI wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) filename: String,
    pub(crate) subfolder: String,
    /// `output` or `temp`.
    pub(crate) kind: String,
}

/// The first image: saved ones before previews, then by the node's place in the workflow, then by index. ComfyUI runs
/// output nodes in an order that differs from process to process, so the order of `outputs` means nothing.
pub(crate) fn pick<'a>(outputs: &Map<String, Value>, nodes: impl Iterator<Item = &'a str>) -> Option<File> {
    let files: Vec<File> = nodes
        .filter_map(|id| outputs.get(id)?.get("images")?.as_array())
        .flatten()
        .filter_map(|file| {
            let text = |key: &str| file.get(key).and_then(Value::as_str).map(str::to_owned);
            Some(File {
                filename: text("filename")?,
                subfolder: text("subfolder").unwrap_or_default(),
                kind: text("type").unwrap_or_else(|| "output".into()),
            })
        })
        .collect();
    files.iter().find(|file| file.kind == "output").or(files.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn picked(outputs: &Value, nodes: &[&str]) -> Option<String> {
        pick(outputs.as_object().expect("an object"), nodes.iter().copied()).map(|file| file.filename)
    }

    #[test]
    fn by_rule() {
        let image = |name: &str, kind: &str| json!({"filename": name, "subfolder": "", "type": kind});
        let outputs = json!({
            "9": {"images": [image("preview", "temp")]},
            "5": {"images": [image("b0", "output"), image("b1", "output")]},
            "2": {"images": [image("a0", "output")]},
            "7": {"text": ["hello"]},
        });
        assert_eq!(picked(&outputs, &["9", "2", "5"]).as_deref(), Some("a0"));
        assert_eq!(picked(&outputs, &["9", "5", "2"]).as_deref(), Some("b0"));
        assert_eq!(picked(&outputs, &["7", "9"]).as_deref(), Some("preview"));
        assert_eq!(picked(&outputs, &["7"]), None);
        assert_eq!(picked(&json!({}), &["7"]), None);
        assert_eq!(picked(&json!({"1": {"images": [{"type": "output"}, 5]}}), &["1"]), None);
    }
}
