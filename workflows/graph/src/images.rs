//! Pictures that a workflow starts from.

use crate::parse::Workflow;

/// The classes that read a picture from ComfyUI's input directory.
const CLASSES: [&str; 2] = ["LoadImage", "LoadImageMask"];
/// Their input with the file's name.
const INPUT: &str = "image";

/// An input that wants the name of an uploaded picture.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImageInput {
    /// Id of the node.
    pub node: String,
    /// What the node is called in ComfyUI, if the file says so.
    pub title: Option<String>,
    /// Name of the input.
    pub input: String,
    /// The file name that is in it now. It is the author's: no container has that file.
    pub value: String,
}

impl ImageInput {
    /// The key of [`Fill::params`](crate::Fill::params) that sets it.
    pub fn key(&self) -> String {
        format!("{}.{}", self.node, self.input)
    }
}

/// Every picture that a workflow loads, in the order of the file: the first image of a request belongs to the first of
/// these, and so on.
pub fn load_images(workflow: &Workflow) -> Vec<ImageInput> {
    workflow
        .views()
        .filter(|node| CLASSES.contains(&node.class()))
        .filter_map(|node| {
            let value = node.inputs().get(INPUT)?.as_str()?;
            Some(ImageInput {
                node: node.id().to_owned(),
                title: node.title().map(str::to_owned),
                input: INPUT.to_owned(),
                value: value.to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn literal_names_in_the_order_of_the_file() {
        let workflow = Workflow::from_value(json!({
            "9": {"class_type": "LoadImage", "inputs": {"image": "b.png"}, "_meta": {"title": "Start"}},
            "3": {"class_type": "LoadImageMask", "inputs": {"image": "a.png", "channel": "alpha"}},
            "4": {"class_type": "LoadImage", "inputs": {"image": ["9", 0]}},
            "5": {"class_type": "SaveImage", "inputs": {"image": "x"}},
        }));
        let found = load_images(&workflow.expect("a workflow"));
        let keys: Vec<_> = found.iter().map(|image| (image.key(), image.title.as_deref())).collect();
        assert_eq!(keys, [("9.image".to_owned(), Some("Start")), ("3.image".to_owned(), None)]);
    }
}
