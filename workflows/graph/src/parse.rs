//! Reading a workflow.

use serde_json::{Map, Value};

/// A workflow in API format.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    nodes: Map<String, Value>,
}

/// Why something is not a workflow in API format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// JSON, but not an object.
    #[error("it is {0}, not a JSON object of nodes")]
    NotAnObject(&'static str),
    /// ComfyUI's own file format.
    #[error(
        "it is a workflow as ComfyUI's editor saves it; the API format is needed: in ComfyUI choose Workflow, Export (API)"
    )]
    UiFormat,
    /// `{}`
    #[error("it has no nodes")]
    Empty,
    /// A member that is not a node.
    #[error("\"{id}\" is not a node: {why}")]
    NotANode {
        /// The node's id.
        id: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Workflow {
    /// Reads JSON text.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        let value = serde_json::from_slice(text).map_err(|cause| ParseError::NotJson(cause.to_string()))?;
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
        if nodes.is_empty() {
            return Err(ParseError::Empty);
        }
        for (id, node) in &nodes {
            let wrong = |why| ParseError::NotANode { id: id.clone(), why };
            let node = node.as_object().ok_or_else(|| wrong("it is not an object"))?;
            if !node.get("class_type").is_some_and(Value::is_string) {
                return Err(wrong("it has no class_type"));
            }
            if !node.get("inputs").is_some_and(Value::is_object) {
                return Err(wrong("it has no inputs"));
            }
        }
        Ok(Workflow { nodes })
    }

    /// The nodes in the order of the file: id and node.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.nodes.iter().map(|(id, node)| (id.as_str(), node))
    }

    /// The JSON again.
    pub fn into_value(self) -> Value {
        Value::Object(self.nodes)
    }

    /// The literal and linked inputs of all nodes.
    pub(crate) fn inputs_mut(&mut self) -> impl Iterator<Item = (&String, &mut Value)> {
        self.nodes
            .values_mut()
            .filter_map(|node| node.get_mut("inputs").and_then(Value::as_object_mut))
            .flat_map(|inputs| inputs.iter_mut())
    }
}

impl std::fmt::Display for Workflow {
    /// As compact JSON.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(&self.nodes).map_err(|_| std::fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_workflow_says_why() {
        for (text, why) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("null", "null"),
            ("[1]", "an array"),
            ("\"x\"", "a string"),
            ("{}", "no nodes"),
            (r#"{"nodes":[],"links":[],"version":0.4}"#, "Export (API)"),
            (r#"{"1":3}"#, "\"1\" is not a node: it is not an object"),
            (r#"{"1":{"inputs":{}}}"#, "no class_type"),
            (r#"{"1":{"class_type":"X"}}"#, "no inputs"),
            (r#"{"1":{"class_type":"X","inputs":[]}}"#, "no inputs"),
        ] {
            let error = Workflow::parse(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn order_and_unknown_members_are_kept() {
        let text = r#"{"9":{"class_type":"A","inputs":{"z":1,"a":["3",0]},"_meta":{"title":"t"}},"3":{"class_type":"B","inputs":{}}}"#;
        let workflow = Workflow::parse(text.as_bytes()).expect("a workflow");
        assert_eq!(workflow.nodes().map(|(id, _)| id).collect::<Vec<_>>(), ["9", "3"]);
        assert_eq!(workflow.to_string(), text);
    }

    #[test]
    fn a_node_may_be_called_nodes() {
        let text = r#"{"nodes":{"class_type":"A","inputs":{}}}"#;
        assert!(Workflow::parse(text.as_bytes()).is_ok());
    }
}
