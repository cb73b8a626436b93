//! Values that a caller sets by name.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Number, Value};

use crate::fill::Place;
use crate::nearest::{nearest, quote, suggestion};
use crate::node::{Link, Node};
use crate::parse::Workflow;

/// Names under which every core node takes fractions, one a line, sorted; made by `core-classes.py`.
const FLOAT_INPUTS: &str = include_str!("../float-inputs.txt");
/// So many ids or names are listed in a message.
const LISTED: usize = 8;

/// A param that cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ParamProblem {
    /// As the caller wrote it.
    pub key: String,
    /// Why, and what to do.
    pub message: String,
    /// The key that was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for ParamProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "param {}: {}", quote(&self.key), self.message)?;
        f.write_str(&suggestion(self.nearest.as_deref()))
    }
}

impl ParamProblem {
    fn new(key: &str, message: impl Into<String>) -> Self {
        ParamProblem { key: key.to_owned(), message: message.into(), nearest: None }
    }
}

/// Where each param goes, or everything that is wrong with them.
pub(crate) fn resolve<'a>(
    workflow: &Workflow,
    params: Option<&'a Map<String, Value>>,
) -> Result<Vec<(Place, &'a Value)>, Vec<ParamProblem>> {
    let (mut set, mut seen, mut problems) = (Vec::new(), BTreeSet::new(), Vec::new());
    for (key, value) in params.into_iter().flatten() {
        let found = find(workflow, key).and_then(|(node, input, literal)| {
            fits(node, input, literal, value).map_err(|message| ParamProblem::new(key, message))?;
            Ok(Place::new(node.id(), input))
        });
        match found {
            Ok(place) if !seen.insert(place.clone()) => {
                problems.push(ParamProblem::new(key, format!("{place} is set twice, by id and by title")));
            }
            Ok(place) => set.push((place, value)),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(set) } else { Err(problems) }
}

/// The value that a text stands for, by what the workflow has there: the text itself for a text, else a number or a
/// boolean. For `--param 5.width=768`.
///
/// # Errors
/// No such input, or the text is no such value.
pub fn param_from_text(workflow: &Workflow, key: &str, text: &str) -> Result<Value, ParamProblem> {
    let (node, input, literal) = find(workflow, key)?;
    let value = match literal {
        Value::String(_) => Value::from(text),
        _ => match text.parse::<Number>() {
            Ok(number) => Value::Number(number),
            Err(_) => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
        },
    };
    fits(node, input, literal, &value).map_err(|message| ParamProblem::new(key, message))?;
    Ok(value)
}

/// `NODE.INPUT`: ids win over titles, and dots may be part of both sides.
fn find<'a, 'k>(workflow: &'a Workflow, key: &'k str) -> Result<(Node<'a>, &'k str, &'a Value), ParamProblem> {
    let splits: Vec<(&str, &str)> = key
        .rmatch_indices('.')
        .map(|(at, _)| (&key[..at], &key[at + 1..]))
        .filter(|(node, input)| !node.is_empty() && !input.is_empty())
        .collect();
    if splits.is_empty() {
        return Err(ParamProblem::new(key, "write it as NODE.INPUT, such as 5.width; NODE is an id or a title"));
    }
    let titled = |title: &str| workflow.views().filter(|node| node.title() == Some(title)).collect::<Vec<_>>();
    let candidates = || {
        let by_id = splits.iter().filter_map(|(id, input)| Some((vec![workflow.node(id)?], *input)));
        by_id.chain(splits.iter().map(|(title, input)| (titled(title), *input)).filter(|(nodes, _)| !nodes.is_empty()))
    };
    for (nodes, input) in candidates() {
        if let [node] = nodes[..]
            && let Some(value) = node.inputs().get(input)
        {
            return Ok((node, input, value));
        }
    }
    // Not found: the first reading that names a node says most.
    let Some((nodes, input)) = candidates().next() else {
        let (wanted, input) = splits[0];
        let known = workflow.views().filter(|node| node.inputs().contains_key(input));
        let near = nearest(wanted, known.flat_map(|node| [Some(node.id()), node.title()].into_iter().flatten()));
        let message = format!("no node has the id or title {}", quote(wanted));
        return Err(ParamProblem {
            nearest: near.map(|name| format!("{name}.{input}")),
            ..ParamProblem::new(key, message)
        });
    };
    let [node] = nodes[..] else {
        let ids = listed(nodes.iter().map(Node::id));
        return Err(ParamProblem::new(key, format!("{} nodes have this title ({ids}); use an id", nodes.len())));
    };
    let named = &key[..key.len() - input.len()];
    let near = nearest(input, node.inputs().keys().map(String::as_str)).map(|near| format!("{named}{near}"));
    let has = match node.inputs().is_empty() {
        true => "no inputs".to_owned(),
        false => listed(node.inputs().keys().map(String::as_str)),
    };
    let message =
        format!("node {} ({}) has no input {} in the workflow; it has {has}", node.id(), node.class(), quote(input));
    Err(ParamProblem { nearest: near, ..ParamProblem::new(key, message) })
}

/// Whether a value can stand where the workflow has `literal`, or why not.
fn fits(node: Node<'_>, input: &str, literal: &Value, value: &Value) -> Result<(), String> {
    if let Some(link) = Link::of(literal) {
        return Err(format!(
            "it is linked to node {}, and links cannot be overwritten; set a value of that node, or export the workflow with a value here",
            link.node
        ));
    }
    if !(value.is_string() || value.is_number() || value.is_boolean()) {
        return Err(format!("{} cannot be set; only a number, a text or a boolean can", kind(value)));
    }
    let fits = match (literal, value) {
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) | (Value::Null, _) => true,
        (Value::Number(old), Value::Number(new)) => old.is_f64() || !new.is_f64() || takes_fractions(input),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    if let (Value::Number(_), Value::Number(_)) = (literal, value) {
        return Err(format!(
            "it must be a whole number, as node {} ({}) has {literal} there; if the node takes fractions, write {literal}.0 in the workflow",
            node.id(),
            node.class()
        ));
    }
    Err(format!("it must be {}, as in the workflow, and is {}", kind(literal), kind(value)))
}

fn takes_fractions(input: &str) -> bool {
    FLOAT_INPUTS.lines().any(|name| name == input)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown = names.iter().take(LISTED).map(|name| name.escape_debug().to_string()).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
