//! Which inputs are seeds.

use std::collections::BTreeMap;

use crate::fill::Place;
use crate::parse::Workflow;

/// Inputs that are seeds, by name: KSampler and most others; KSamplerAdvanced, SamplerCustom and RandomNoise.
const SEED_INPUTS: [&str; 2] = ["seed", "noise_seed"];
/// The input of nodes that are nothing but a number, such as PrimitiveInt.
const NUMBER_INPUT: &str = "value";

/// The largest seed that is drawn. Every seed up to it is a whole number in JavaScript too, so that nobody who reads it
/// from a reply and sends it again gets another picture.
pub(crate) const DRAWN_MAX: u64 = (1 << 53) - 1;

pub(crate) fn is_seed(input: &str) -> bool {
    SEED_INPUTS.contains(&input)
}

/// Every number that is a seed, in the order of the file: literal `seed` and `noise_seed` inputs, and the `value` of a
/// node that is linked to such inputs and to no others. A value that something else uses too (steps, a width) is
/// somebody's choice and stays, and so does a seed that another node computes.
pub(crate) fn places(workflow: &Workflow) -> Vec<Place> {
    let mut only_seeds: BTreeMap<&str, bool> = BTreeMap::new();
    for (name, link) in workflow.views().flat_map(|node| node.links()) {
        *only_seeds.entry(link.node).or_insert(true) &= is_seed(name);
    }
    let mut places = Vec::new();
    for node in workflow.views() {
        for (name, value) in node.inputs() {
            // The fixed seeds of some exporters are strings of digits: those are texts and stay. And a fraction is no
            // seed, whatever it is linked to.
            let is_place = (is_seed(name) && value.is_number())
                || (name == NUMBER_INPUT
                    && (value.is_u64() || value.is_i64())
                    && only_seeds.get(node.id()).is_some_and(|only| *only));
            if is_place {
                places.push(Place::new(node.id(), name));
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn found(value: Value) -> Vec<String> {
        let workflow = Workflow::from_value(value).expect("a workflow");
        places(&workflow).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn literals_by_name() {
        let value = json!({
            "3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "model": ["4", 0]}},
            "4": {"class_type": "RandomNoise", "inputs": {"noise_seed": 0}},
            "5": {"class_type": "KSampler", "inputs": {"seed": ["9", 0], "value": 3}},
            "6": {"class_type": "X", "inputs": {"seed": "12", "noise_seed": null}},
        });
        assert_eq!(found(value), ["3.seed", "4.noise_seed"]);
    }

    #[test]
    fn a_number_that_is_linked_to_seeds_only() {
        let graph = |other: &str| {
            json!({
                "1": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
                "2": {"class_type": "KSampler", "inputs": {"seed": ["1", 0]}},
                "3": {"class_type": "RandomNoise", "inputs": {other: ["1", 0]}},
            })
        };
        assert_eq!(found(graph("noise_seed")), ["1.value"]);
        assert_eq!(found(graph("steps")), [""; 0]);
        let fraction = json!({
            "1": {"class_type": "PrimitiveFloat", "inputs": {"value": 7.5}},
            "2": {"class_type": "KSampler", "inputs": {"seed": ["1", 0]}},
        });
        assert_eq!(found(fraction), [""; 0]);
    }
}
