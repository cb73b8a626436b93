//! Reading a workflow.

use serde_json::{Map, Value};

use crate::json::{self, At, DEPTH_MAX, Flaw};
use crate::nearest::quote;
use crate::node::Node;

/// A workflow in API format: at least one node, each with a class and inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    nodes: Map<String, Value>,
}

/// Why something is not a workflow in API format. Lines and columns count from 1, columns in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Not even text.
    #[error("it is not JSON: it is {0}")]
    NotText(&'static str),
    /// Text, but not JSON.
    #[error("it is not JSON: {why} at line {line}, column {column}")]
    NotJson {
        /// What was found.
        why: String,
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
    /// Which of the two values counts is up to the reader, so ComfyUI may run something else than what was checked.
    #[error("it has the key {} twice in one object, the second time at line {line}, column {column}", quote(key))]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where the second one is.
        line: usize,
        /// Where the second one is.
        column: usize,
    },
    /// More levels than any workflow has.
    #[error("it is nested more than {DEPTH_MAX} levels deep at line {line}, column {column}")]
    TooDeep {
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
    /// JSON, but not an object.
    #[error("it is {0}, not a JSON object of nodes")]
    NotAnObject(&'static str),
    /// ComfyUI's own file format.
    #[error(
        "it is a workflow as ComfyUI's editor saves it; the API format is needed: open it in ComfyUI and choose Workflow > Export (API)"
    )]
    UiFormat,
    /// The body of a request to ComfyUI.
    #[error("it is a whole request to ComfyUI; the workflow alone is needed, which is the value of its \"prompt\"")]
    Request,
    /// `{}`
    #[error("it has no nodes")]
    Empty,
    /// A member that is not a node.
    #[error("{} is not a node: {why}", quote(id))]
    NotANode {
        /// The node's id.
        id: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Workflow {
    /// Reads JSON text. A byte order mark before it is skipped.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let value = json::read(decode(text)?).map_err(|(flaw, At { line, column })| match flaw {
            Flaw::Syntax(why) => ParseError::NotJson { why, line, column },
            Flaw::DuplicateKey(key) => ParseError::DuplicateKey { key, line, column },
            Flaw::TooDeep => ParseError::TooDeep { line, column },
        })?;
        Self::from_value(value)
    }

    /// Takes parsed JSON.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn from_value(value: Value) -> Result<Self, ParseError> {
        let nodes = match value {
            Value::Object(nodes) => nodes,
            Value::Null => return Err(ParseError::NotAnObject("null")),
            Value::Bool(_) => return Err(ParseError::NotAnObject("a boolean")),
            Value::Number(_) => return Err(ParseError::NotAnObject("a number")),
            Value::String(_) => return Err(ParseError::NotAnObject("a string")),
            Value::Array(_) => return Err(ParseError::NotAnObject("an array")),
        };
        // Node ids of the API format are never the name of an array.
        if nodes.get("nodes").is_some_and(Value::is_array) {
            return Err(ParseError::UiFormat);
        }
        if nodes.get("prompt").is_some_and(|inner| inner.is_object() && Node::new("prompt", inner).is_none()) {
            return Err(ParseError::Request);
        }
        if nodes.is_empty() {
            return Err(ParseError::Empty);
        }
        for (id, node) in &nodes {
            let wrong = |why| ParseError::NotANode { id: id.clone(), why };
            let node = node.as_object().ok_or_else(|| wrong("it is not an object"))?;
            match node.get("class_type") {
                None => return Err(wrong("it has no class_type")),
                Some(class) if !class.is_string() => return Err(wrong("its class_type is not a string")),
                Some(_) => {}
            }
            match node.get("inputs") {
                None => return Err(wrong("it has no inputs")),
                Some(inputs) if !inputs.is_object() => return Err(wrong("its inputs are not an object")),
                Some(_) => {}
            }
        }
        Ok(Workflow { nodes })
    }

    /// The nodes in the order of the file: id and node.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.nodes.iter().map(|(id, node)| (id.as_str(), node))
    }

    /// The nodes in the order of the file, taken apart.
    pub fn views(&self) -> impl Iterator<Item = Node<'_>> {
        self.nodes.iter().filter_map(|(id, node)| Node::new(id, node))
    }

    /// One node.
    pub fn node(&self, id: &str) -> Option<Node<'_>> {
        let (id, node) = self.nodes.get_key_value(id)?;
        Node::new(id, node)
    }

    /// The JSON again.
    pub fn into_value(self) -> Value {
        Value::Object(self.nodes)
    }

    /// One input of one node.
    pub(crate) fn input_mut(&mut self, id: &str, input: &str) -> Option<&mut Value> {
        self.nodes.get_mut(id)?.get_mut("inputs")?.as_object_mut()?.get_mut(input)
    }

    /// The literal and linked inputs of all nodes: id, name, value.
    pub(crate) fn inputs_mut(&mut self) -> impl Iterator<Item = (&str, &str, &mut Value)> {
        self.nodes
            .iter_mut()
            .filter_map(|(id, node)| Some((id.as_str(), node.get_mut("inputs")?.as_object_mut()?)))
            .flat_map(|(id, inputs)| inputs.iter_mut().map(move |(name, value)| (id, name.as_str(), value)))
    }
}

impl std::fmt::Display for Workflow {
    /// As compact JSON; with `{:#}` indented by two.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = if f.alternate() { serde_json::to_string_pretty } else { serde_json::to_string };
        f.write_str(&text(&self.nodes).map_err(|_| std::fmt::Error)?)
    }
}

/// UTF-8, as every JSON file has to be.
fn decode(bytes: &[u8]) -> Result<&str, ParseError> {
    let bytes = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => rest,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Err(ParseError::NotText("UTF-16; save it as UTF-8")),
        // What is dragged into ComfyUI is often the picture that has the workflow in it.
        [0x89, b'P', b'N', b'G', ..] => return Err(ParseError::NotText("a PNG picture")),
        [b'R', b'I', b'F', b'F', ..] => return Err(ParseError::NotText("a WebP picture")),
        [0xff, 0xd8, 0xff, ..] => return Err(ParseError::NotText("a JPEG picture")),
        [] => return Err(ParseError::NotText("empty")),
        _ => bytes,
    };
    std::str::from_utf8(bytes).map_err(|cause| {
        let before = &bytes[..cause.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        ParseError::NotJson { why: "a byte that is not UTF-8".into(), line, column }
    })
}

#[cfg(test)]
mod tests;
