//! Filling in prompts, seeds and further values.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use crate::params::{self, ParamProblem};
use crate::parse::Workflow;
use crate::{placeholder, seed};

/// What to fill in.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fill<'a> {
    /// For the positive placeholders.
    pub positive: &'a str,
    /// For the negative placeholder.
    pub negative: &'a str,
    /// For every seed; drawn if absent.
    pub seed: Option<u64>,
    /// Further values: `"5.width"` or, by the node's title, `"KSampler.steps"` to a number, a text or a boolean.
    pub params: Option<&'a Map<String, Value>>,
}

/// An input of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// Id of the node.
    pub node: String,
    /// Name of the input.
    pub input: String,
}

impl Place {
    pub(crate) fn new(node: &str, input: &str) -> Self {
        Place { node: node.to_owned(), input: input.to_owned() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.input)
    }
}

/// A workflow that can be run, and what was done to it. Places are in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// The workflow.
    pub workflow: Workflow,
    /// The seed that was given or drawn.
    pub seed: u64,
    /// Where it was put; empty if the workflow has no seed, or params set all of them.
    pub seeds: Vec<Place>,
    /// Where the positive prompt was put; empty if the picture does not depend on it.
    pub positive: Vec<Place>,
    /// Where the negative prompt was put.
    pub negative: Vec<Place>,
    /// What params set, in their order.
    pub params: Vec<Place>,
}

/// Params that cannot be set; all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FillError {
    /// At least one.
    pub problems: Vec<ParamProblem>,
}

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for FillError {}

/// Replaces the placeholders in every text input of every node, alone or inside longer text, sets every seed, and sets
/// `params`. Which node classes take prompts is nobody's business here: there are too many, and new ones every month.
///
/// - A prompt that itself contains a placeholder is taken as it is.
/// - Seeds are the literal numbers called `seed` or `noise_seed`, and the `value` of a node (PrimitiveInt) that is linked
///   to such inputs and to nothing else. `random` is called if no seed is given; 53 of its bits are used, so that the
///   seed is exact in JavaScript too.
/// - What `params` name is set to their value and to nothing else: no placeholder in it is replaced, no seed put there.
///   A key is `NODE.INPUT`, where NODE is an id or else a title that only one node has. The value must be of the kind
///   that the workflow has there; a whole number is fine where a fraction stands, and a fraction where a whole number
///   stands if all core nodes take fractions under that name, for ComfyUI exports `7.0` as `7`. Links stay.
///
/// # Errors
/// Every param that cannot be set.
pub fn fill(mut workflow: Workflow, with: Fill<'_>, random: impl FnOnce() -> u64) -> Result<Filled, FillError> {
    let set = params::resolve(&workflow, with.params).map_err(|problems| FillError { problems })?;
    let taken: BTreeSet<&Place> = set.iter().map(|(place, _)| place).collect();
    let mut seeds = seed::places(&workflow);
    seeds.retain(|place| !taken.contains(place));

    let (mut positive, mut negative) = (Vec::new(), Vec::new());
    for (node, name, input) in workflow.inputs_mut() {
        let Value::String(text) = input else { continue };
        let Some(done) = placeholder::replace(text, with.positive, with.negative) else { continue };
        let place = Place::new(node, name);
        if taken.contains(&place) {
            continue;
        }
        *text = done.text;
        if done.positive {
            positive.push(place.clone());
        }
        if done.negative {
            negative.push(place);
        }
    }
    drop(taken);

    let seed = with.seed.unwrap_or_else(|| random() & seed::DRAWN_MAX);
    let values = seeds.iter().map(|place| (place, Value::from(seed)));
    for (place, value) in values.chain(set.iter().map(|(place, value)| (place, (*value).clone()))) {
        if let Some(input) = workflow.input_mut(&place.node, &place.input) {
            *input = value;
        }
    }
    let params = set.into_iter().map(|(place, _)| place).collect();
    Ok(Filled { workflow, seed, seeds, positive, negative, params })
}

#[cfg(test)]
mod tests;
