use super::*;
use proptest::prelude::*;
use serde_json::json;

fn filled(value: Value, with: Fill<'_>) -> (Value, Filled) {
    let workflow = Workflow::from_value(value).expect("a workflow");
    let filled = fill(workflow, with, || u64::MAX).expect("no params");
    (filled.workflow.clone().into_value(), filled)
}

fn with<'a>(positive: &'a str, negative: &'a str) -> Fill<'a> {
    Fill { positive, negative, seed: Some(u64::MAX), params: None }
}

fn names(places: &[Place]) -> Vec<String> {
    places.iter().map(ToString::to_string).collect()
}

#[test]
fn every_text_input_of_every_node() {
    let (got, report) = filled(
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
    assert_eq!(report.seed, u64::MAX);
    assert_eq!(names(&report.seeds), ["3.seed", "4.noise_seed"]);
    assert_eq!(names(&report.positive), ["1.text", "2.clip_l"]);
    assert_eq!(names(&report.negative), ["2.t5xxl"]);
}

#[test]
fn a_missing_seed_is_drawn_and_told() {
    let value = json!({"3": {"class_type": "KSampler", "inputs": {"seed": 1}}});
    let (got, report) = filled(value, Fill::default());
    assert_eq!(report.seed, (1 << 53) - 1);
    assert_eq!(got["3"]["inputs"]["seed"].as_u64(), Some(report.seed));
}

#[test]
fn params_win_over_placeholders_and_seeds() {
    let value = json!({
        "1": {"class_type": "T", "inputs": {"text": "POSITIVE_PROMPT_PLACEHOLDER"}},
        "2": {"class_type": "T", "inputs": {"text": "POSITIVE_PROMPT_PLACEHOLDER", "seed": 1}},
    });
    let params = json!({"2.seed": 5, "2.text": "NEGATIVE_PROMPT_PLACEHOLDER"});
    let (got, report) = filled(value, Fill { params: params.as_object(), ..with("p", "n") });
    assert_eq!(got["1"]["inputs"], json!({"text": "p"}));
    assert_eq!(got["2"]["inputs"], json!({"text": "NEGATIVE_PROMPT_PLACEHOLDER", "seed": 5}));
    assert_eq!(names(&report.positive), ["1.text"]);
    assert_eq!((names(&report.seeds), names(&report.negative)), (vec![], vec![]));
    assert_eq!(names(&report.params), ["2.seed", "2.text"]);
}

#[test]
fn every_wrong_param_is_told_and_none_is_set() {
    let workflow = Workflow::from_value(json!({"1": {"class_type": "T", "inputs": {"steps": 1}}})).expect("a workflow");
    let params = json!({"1.steps": 2, "1.step": 2, "7.steps": 2});
    let error = fill(workflow, Fill { params: params.as_object(), ..Fill::default() }, || 0).expect_err("two problems");
    assert_eq!(error.problems.len(), 2);
    assert!(error.to_string().contains("; "), "{error}");
}

/// Literals, links, lists and objects, as deep as they come.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9f64..1e9).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,4}", inner), 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn any_workflow() -> impl Strategy<Value = String> {
    let inputs = prop::collection::vec(("[a-z_]{1,8}", any_value()), 0..5);
    let node = ("[A-Z][a-z]{0,5}", inputs, any_value()).prop_map(|(class, inputs, meta)| {
        let inputs: Map<String, Value> = inputs.into_iter().collect();
        json!({"zz": null, "class_type": class, "inputs": inputs, "_meta": meta})
    });
    prop::collection::vec(("[a-z0-9:.]{1,4}", node), 1..5)
        .prop_map(|nodes| Value::Object(nodes.into_iter().collect()).to_string())
}

proptest! {
    /// Seeds survive the way through JSON text exactly, over the whole range.
    #[test]
    fn seeds_are_exact(seed: u64) {
        let value = json!({"3": {"class_type": "K", "inputs": {"seed": 0, "noise_seed": 5}}});
        let (_, report) = filled(value, Fill { seed: Some(seed), ..Fill::default() });
        let again = Workflow::parse(report.workflow.to_string().as_bytes()).expect("a workflow").into_value();
        prop_assert_eq!(again["3"]["inputs"]["seed"].as_u64(), Some(seed));
        prop_assert_eq!(again["3"]["inputs"]["noise_seed"].as_u64(), Some(seed));
    }

    /// What is drawn is never a number that JavaScript rounds.
    #[test]
    fn drawn_seeds_are_exact_everywhere(random: u64) {
        let workflow = Workflow::from_value(json!({"3": {"class_type": "K", "inputs": {}}})).expect("a workflow");
        let seed = fill(workflow, Fill::default(), || random).expect("no params").seed;
        prop_assert_eq!(seed as f64 as u64, seed);
        prop_assert!(seed < 1 << 53);
    }

    /// Without placeholder and seed there is nothing to do: order, unknown members and every byte stay.
    #[test]
    fn the_rest_is_untouched(text in any_workflow()) {
        let workflow = Workflow::parse(text.as_bytes()).expect("a workflow");
        let done = fill(workflow, with("p", "n"), || 0).expect("no params");
        if done.seeds.is_empty() {
            prop_assert_eq!(done.workflow.to_string(), text);
        }
    }

    /// Filling again with the same seed changes nothing more.
    #[test]
    fn once_is_enough(text in any_workflow(), seed: u64) {
        let fill_in = |workflow| fill(workflow, Fill { seed: Some(seed), ..with("p", "n") }, || 0).expect("no params");
        let once = fill_in(Workflow::parse(text.as_bytes()).expect("a workflow"));
        let twice = fill_in(once.workflow.clone());
        prop_assert_eq!(once.workflow.to_string(), twice.workflow.to_string());
        prop_assert_eq!(once.seeds, twice.seeds);
    }

    /// A caller's params cannot make it panic, or change what they do not name.
    #[test]
    fn params_change_only_what_they_name(text in any_workflow(), key in "[a-z0-9:.]{0,4}\\.?[a-z_]{0,4}", value in any_value()) {
        let workflow = Workflow::parse(text.as_bytes()).expect("a workflow");
        let params: Map<String, Value> = [(key, value.clone())].into_iter().collect();
        if let Ok(done) = fill(workflow.clone(), Fill { params: Some(&params), seed: Some(0), ..Fill::default() }, || 0) {
            let place = &done.params[0];
            for (before, after) in workflow.views().zip(done.workflow.views()) {
                for (name, now) in after.inputs() {
                    let here = Place::new(after.id(), name);
                    if here == *place {
                        prop_assert_eq!(now, &value);
                    } else if !done.seeds.contains(&here) {
                        prop_assert_eq!(Some(now), before.inputs().get(name));
                    }
                }
            }
        }
    }
}
