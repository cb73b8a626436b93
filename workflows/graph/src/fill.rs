//! Filling in prompts and seeds.

use serde_json::Value;

use crate::parse::Workflow;

/// Stand for the positive prompt. The first is the spelling of workflows that exist already.
pub const POSITIVE_PLACEHOLDERS: [&str; 2] = ["POSITIVE_PROMT_PLACEHOLDER", "POSITIVE_PROMPT_PLACEHOLDER"];
/// Stands for the negative prompt.
pub const NEGATIVE_PLACEHOLDER: &str = "NEGATIVE_PROMPT_PLACEHOLDER";
/// Inputs that are seeds, by name: KSampler and most others; KSamplerAdvanced, SamplerCustom and RandomNoise.
const SEED_INPUTS: [&str; 2] = ["seed", "noise_seed"];

/// What to fill in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fill<'a> {
    /// For the positive placeholders.
    pub positive: &'a str,
    /// For the negative placeholder.
    pub negative: &'a str,
    /// For every literal seed; a random one if absent.
    pub seed: Option<u64>,
}

/// A workflow that can be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// The workflow.
    pub workflow: Workflow,
    /// The seed that is in it.
    pub seed: u64,
}

/// Replaces the placeholders in every text input of every node, alone or inside longer text, and sets every literal
/// seed. Which node classes take prompts is nobody's business here: there are too many, and new ones every month.
///
/// A prompt that itself contains a placeholder is taken as it is.
pub fn fill(mut workflow: Workflow, with: Fill<'_>) -> Filled {
    let seed = with.seed.unwrap_or_else(rand::random);
    for (name, input) in workflow.inputs_mut() {
        match input {
            Value::String(text) => {
                if let Some(filled) = replace(text, with) {
                    *text = filled;
                }
            }
            // A link is an array; a seed that another node makes stays linked. The fixed seeds of some
            // exporters are strings of digits, which ComfyUI converts: those are texts to us and stay.
            Value::Number(_) if SEED_INPUTS.contains(&name.as_str()) => *input = seed.into(),
            _ => {}
        }
    }
    Filled { workflow, seed }
}

/// One pass from left to right, so that what was filled in is not looked at again.
fn replace(text: &str, with: Fill<'_>) -> Option<String> {
    let [misspelt, spelt] = POSITIVE_PLACEHOLDERS;
    let table = [(misspelt, with.positive), (spelt, with.positive), (NEGATIVE_PLACEHOLDER, with.negative)];
    let mut rest = text;
    let mut filled: Option<String> = None;
    while let Some((at, placeholder, value)) =
        table.iter().filter_map(|(p, v)| rest.find(p).map(|at| (at, *p, *v))).min_by_key(|(at, ..)| *at)
    {
        let to = filled.get_or_insert_default();
        to.push_str(&rest[..at]);
        to.push_str(value);
        rest = &rest[at + placeholder.len()..];
    }
    filled.map(|mut filled| {
        filled.push_str(rest);
        filled
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn filled(value: Value, with: Fill<'_>) -> (Value, u64) {
        let filled = fill(Workflow::from_value(value).expect("a workflow"), with);
        (filled.workflow.into_value(), filled.seed)
    }

    fn with<'a>(positive: &'a str, negative: &'a str) -> Fill<'a> {
        Fill { positive, negative, seed: Some(u64::MAX) }
    }

    #[test]
    fn every_text_input_of_every_node() {
        let (got, seed) = filled(
            json!({
                "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "POSITIVE_PROMT_PLACEHOLDER", "clip": ["4", 1]}},
                "2": {"class_type": "CLIPTextEncodeFlux", "inputs": {
                    "clip_l": "photo of POSITIVE_PROMPT_PLACEHOLDER, sharp", "t5xxl": "not NEGATIVE_PROMPT_PLACEHOLDER"}},
                "3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "cfg": 7.5}},
                "4": {"class_type": "RandomNoise", "inputs": {"noise_seed": 0}},
                "5": {"class_type": "KSampler", "inputs": {"seed": ["9", 0]}},
                "6": {"class_type": "X", "inputs": {}, "_meta": {"title": "POSITIVE_PROMPT_PLACEHOLDER"}},
            }),
            with("a cat", "a dog"),
        );
        assert_eq!(seed, u64::MAX);
        assert_eq!(
            got,
            json!({
                "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
                "2": {"class_type": "CLIPTextEncodeFlux", "inputs": {
                    "clip_l": "photo of a cat, sharp", "t5xxl": "not a dog"}},
                "3": {"class_type": "KSampler", "inputs": {"seed": u64::MAX, "steps": 20, "cfg": 7.5}},
                "4": {"class_type": "RandomNoise", "inputs": {"noise_seed": u64::MAX}},
                "5": {"class_type": "KSampler", "inputs": {"seed": ["9", 0]}},
                "6": {"class_type": "X", "inputs": {}, "_meta": {"title": "POSITIVE_PROMPT_PLACEHOLDER"}},
            })
        );
    }

    #[test]
    fn a_missing_seed_is_drawn_and_told() {
        let value = json!({"3": {"class_type": "KSampler", "inputs": {"seed": 1}}});
        let (first, one) = filled(value.clone(), Fill::default());
        let (_, two) = filled(value, Fill::default());
        assert_eq!(first["3"]["inputs"]["seed"].as_u64(), Some(one));
        assert_ne!(one, two);
    }

    #[test]
    fn prompts_with_placeholders_and_quotes_are_taken_as_they_are() {
        let value = json!({"1": {"class_type": "T", "inputs": {
            "text": "POSITIVE_PROMPT_PLACEHOLDER|NEGATIVE_PROMPT_PLACEHOLDER|POSITIVE_PROMT_PLACEHOLDER"}}});
        let positive = "NEGATIVE_PROMPT_PLACEHOLDER \"quoted\"\n\\";
        let (got, _) = filled(value, with(positive, "POSITIVE_PROMPT_PLACEHOLDER"));
        assert_eq!(got["1"]["inputs"]["text"], format!("{positive}|POSITIVE_PROMPT_PLACEHOLDER|{positive}"));
    }

    proptest! {
        /// Seeds survive the way through JSON text exactly, over the whole range.
        #[test]
        fn seeds_are_exact(seed: u64) {
            let value = json!({"3": {"class_type": "K", "inputs": {"seed": 0, "noise_seed": 5}}});
            let filled = fill(Workflow::from_value(value).expect("a workflow"), Fill { seed: Some(seed), ..Fill::default() });
            let again = Workflow::parse(filled.workflow.to_string().as_bytes()).expect("a workflow").into_value();
            prop_assert_eq!(again["3"]["inputs"]["seed"].as_u64(), Some(seed));
            prop_assert_eq!(again["3"]["inputs"]["noise_seed"].as_u64(), Some(seed));
        }

        /// Text around placeholders stays, and each occurrence is replaced once.
        #[test]
        fn filling_is_concatenation(
            pieces in prop::collection::vec("[a-z \"{}\u{e9}]{0,8}", 1..5),
            kinds in prop::collection::vec(0usize..3, 4),
            positive in ".{0,12}",
            negative in ".{0,12}",
        ) {
            let (mut text, mut expected) = (pieces[0].clone(), pieces[0].clone());
            for (piece, kind) in pieces[1..].iter().zip(kinds) {
                let (placeholder, value) = [
                    (POSITIVE_PLACEHOLDERS[0], &positive),
                    (POSITIVE_PLACEHOLDERS[1], &positive),
                    (NEGATIVE_PLACEHOLDER, &negative),
                ][kind];
                text += placeholder;
                text += piece;
                expected += value;
                expected += piece;
            }
            let (got, _) = filled(json!({"1": {"class_type": "T", "inputs": {"text": text}}}), with(&positive, &negative));
            prop_assert_eq!(got["1"]["inputs"]["text"].as_str(), Some(expected.as_str()));
        }

        /// Whatever is no text and no seed stays as it is.
        #[test]
        fn the_rest_is_untouched(steps: i64, cfg in -1e6f64..1e6, on: bool, text in "[a-z_ ]{0,20}") {
            let value = json!({"1": {"class_type": "T", "inputs": {
                "steps": steps, "cfg": cfg, "on": on, "text": text, "link": ["seed", 0], "none": null,
                "list": ["POSITIVE_PROMPT_PLACEHOLDER", 0]}}});
            let (got, _) = filled(value.clone(), with("p", "n"));
            prop_assert_eq!(got, value);
        }
    }
}
