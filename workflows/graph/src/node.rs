//! A node of a workflow, and its links.

use serde_json::{Map, Value};

/// One node.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    id: &'a str,
    class: &'a str,
    title: Option<&'a str>,
    inputs: &'a Map<String, Value>,
}

impl<'a> Node<'a> {
    /// `None` if it is no node.
    pub(crate) fn new(id: &'a str, value: &'a Value) -> Option<Self> {
        let class = value.get("class_type")?.as_str()?;
        let inputs = value.get("inputs")?.as_object()?;
        let title = value.get("_meta").and_then(|meta| meta.get("title")).and_then(Value::as_str);
        Some(Node { id, class, title, inputs })
    }

    /// Its id. Mostly digits; nodes out of a subgraph have a colon in it.
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// Its class, such as `KSampler`.
    pub fn class(&self) -> &'a str {
        self.class
    }

    /// What it is called in ComfyUI, if the file says so.
    pub fn title(&self) -> Option<&'a str> {
        self.title
    }

    /// Its inputs in the order of the file.
    pub fn inputs(&self) -> &'a Map<String, Value> {
        self.inputs
    }

    /// Its well-formed links, by the name of the input.
    pub fn links(&self) -> impl Iterator<Item = (&'a str, Link<'a>)> + use<'a> {
        self.inputs.iter().filter_map(|(name, value)| Some((name.as_str(), Link::of(value)?)))
    }
}

/// An output of another node that is the value of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link<'a> {
    /// Id of the other node.
    pub node: &'a str,
    /// Which of its outputs, from 0.
    pub slot: u64,
}

impl<'a> Link<'a> {
    /// Reads `["id", slot]`. Whatever is no such thing is a literal, or a broken link if it is an array.
    pub fn of(value: &'a Value) -> Option<Self> {
        match value.as_array()?.as_slice() {
            [Value::String(node), slot] => Some(Link { node, slot: slot.as_u64()? }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn links_and_what_is_none() {
        let link = json!(["12:5", 1]);
        assert_eq!(Link::of(&link), Some(Link { node: "12:5", slot: 1 }));
        for other in [json!(["4"]), json!(["4", -1]), json!(["4", 1.5]), json!([4, 0]), json!(["4", 0, 0]), json!("4")]
        {
            assert_eq!(Link::of(&other), None, "{other}");
        }
    }
}
