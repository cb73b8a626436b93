use super::*;
use crate::classes::core_classes;
use serde_json::{Value, json};

/// A workflow that has nothing wrong with it.
fn good() -> Value {
    json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base.safetensors"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "POSITIVE_PROMPT_PLACEHOLDER", "clip": ["1", 1]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {"class_type": "KSampler", "inputs": {"seed": 0, "steps": 2, "cfg": 7, "sampler_name": "euler",
            "scheduler": "simple", "denoise": 1, "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0],
            "latent_image": ["3", 0]}},
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["5", 0]}},
    })
}

fn models() -> Models {
    ["checkpoints/base.safetensors", "checkpoints/sub/other.safetensors", "clip/t5.safetensors", "loras/README.md"]
        .into_iter()
        .collect()
}

fn found_with(value: Value, change: impl FnOnce(&mut Known<'_>)) -> Vec<String> {
    let models = models();
    let mut known = Known { classes: Some(core_classes()), models: Some(&models), ..Known::default() };
    change(&mut known);
    let workflow = Workflow::from_value(value).expect("a workflow");
    check(&workflow, &known).iter().map(ToString::to_string).collect()
}

/// What is found after one input of the good workflow was set.
fn found(place: &str, value: Value) -> Vec<String> {
    let (node, input) = place.split_once('.').expect("NODE.INPUT");
    let mut workflow = good();
    workflow[node]["inputs"][input] = value;
    found_with(workflow, |_| {})
}

#[test]
fn nothing_is_wrong_with_the_good_one() {
    assert_eq!(found_with(good(), |_| {}), [""; 0]);
    assert_eq!(found_with(good(), |known| *known = Known::default()), [""; 0]);
}

#[test]
fn links() {
    for (place, value, message) in [
        (
            "5.samples",
            json!(["77", 0]),
            r#"error: node 5 (VAEDecode), samples: it is linked to node "77", which is not there"#,
        ),
        (
            "5.samples",
            json!(["4"]),
            r#"error: node 5 (VAEDecode), samples: "[\"4\"]" is not a link; a link is ["node id", output]"#,
        ),
        (
            "5.vae",
            json!(["1", 3]),
            r#"error: node 5 (VAEDecode), vae: it is linked to output 3 of node "1" (CheckpointLoaderSimple), which has the outputs 0 (MODEL) to 2 (VAE)"#,
        ),
        (
            "5.vae",
            json!(["1", 0]),
            r#"error: node 5 (VAEDecode), vae: it takes VAE, and output 0 of node "1" (CheckpointLoaderSimple) is MODEL; its output 2 is VAE"#,
        ),
        ("5.vae", json!("ae"), r#"error: node 5 (VAEDecode), vae: it takes VAE from another node, and has "\"ae\"""#),
    ] {
        assert_eq!(found(place, value), [message]);
    }
}

#[test]
fn values() {
    for (place, value, message) in [
        ("4.steps", json!(0), "error: node 4 (KSampler), steps: 0 is too small; the smallest is 1"),
        ("4.cfg", json!(100.5), "error: node 4 (KSampler), cfg: 100.5 is too big; the biggest is 100"),
        ("4.steps", json!("many"), r#"error: node 4 (KSampler), steps: it takes a whole number, and has "\"many\"""#),
        (
            "4.sampler_name",
            json!("eular"),
            r#"error: node 4 (KSampler), sampler_name: "eular" is not one of the 42 choices of ComfyUI 0.3.64; did you mean "euler"?"#,
        ),
        (
            "4.step",
            json!(3),
            r#"warning: node 4 (KSampler), step: KSampler has no such input, and ComfyUI ignores it; did you mean "steps"?"#,
        ),
    ] {
        let mut workflow = good();
        let (node, input) = place.split_once('.').expect("NODE.INPUT");
        if input == "step" {
            workflow[node]["inputs"].as_object_mut().expect("inputs").remove("steps");
        }
        workflow[node]["inputs"][input] = value;
        assert_eq!(found_with(workflow, |_| {}).last().map(String::as_str), Some(message));
    }
    let mut workflow = good();
    workflow["4"]["inputs"].as_object_mut().expect("inputs").remove("steps");
    assert_eq!(found_with(workflow, |_| {}), ["error: node 4 (KSampler), steps: it is required, and not there"]);
    // What ComfyUI's exports have beyond the class's inputs.
    for (place, value) in
        [("6.upload", json!("image")), ("4.control_after_generate", json!("fixed")), ("4.cfg", json!("7"))]
    {
        assert_eq!(found(place, value), [""; 0], "{place}");
    }
}

#[test]
fn model_files() {
    for (name, message) in [
        (
            "bas.safetensors",
            r#"the models have no "bas.safetensors" in checkpoints; checkpoints has base.safetensors, sub/other.safetensors; did you mean "base.safetensors"?"#,
        ),
        ("other.safetensors", r#"did you mean "sub/other.safetensors"?"#),
        (
            "sub\\other.safetensors",
            r#"is a path as on Windows; the container runs Linux, so write it with /; did you mean "sub/other.safetensors"?"#,
        ),
        (
            "t5.safetensors",
            r#"the models have no "t5.safetensors" in checkpoints, but in text_encoders; move it to checkpoints"#,
        ),
    ] {
        let got = found("1.ckpt_name", json!(name));
        assert!(got.len() == 1 && got[0].ends_with(message), "{got:?}");
    }
    let mut workflow = good();
    workflow["7"] = json!({"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "lora_name": "x.safetensors", "strength_model": 1}});
    workflow["4"]["inputs"]["model"] = json!(["7", 0]);
    let got = found_with(workflow.clone(), |_| {});
    assert_eq!(
        got,
        [
            r#"error: node 7 (LoraLoaderModelOnly), lora_name: the models have no "x.safetensors" in loras; loras is empty"#
        ]
    );
    assert_eq!(found_with(workflow, |known| known.models = None), [""; 0]);
}

#[test]
fn model_files_of_custom_nodes() {
    let mut workflow = good();
    workflow["7"] = json!({"class_type": "FancyLoader", "inputs": {
        "one": "base.safetensors", "two": "sub/othr.safetensors", "text": "see base.txt", "link": ["1", 0]}});
    let got = found_with(workflow, |known| known.custom_nodes = true);
    assert_eq!(
        got[1..],
        [
            r#"warning: node 7 (FancyLoader), two: no folder of the models has "sub/othr.safetensors"; did you mean "sub/other.safetensors"?"#
        ]
    );
}

#[test]
fn folders_by_their_old_names_and_what_loaders_list() {
    let models: Models = [
        "unet/a.sft",
        "clip/b.SAFETENSORS",
        "t2i_adapter/c.pth",
        "diffusers/d/model_index.json",
        "diffusers/d/vae/x.safetensors",
        "configs/e.yaml",
        "checkpoints/readme.md",
        "top.safetensors",
    ]
    .into_iter()
    .collect();
    for (folder, names) in [
        ("diffusion_models", vec!["a.sft"]),
        ("text_encoders", vec!["b.SAFETENSORS"]),
        ("controlnet", vec!["c.pth"]),
        ("diffusers", vec!["d"]),
        ("configs", vec!["e.yaml"]),
        ("checkpoints", vec![]),
    ] {
        assert_eq!(models.names(folder).collect::<Vec<_>>(), names, "{folder}");
    }
}

#[test]
fn classes() {
    let mut workflow = good();
    workflow["6"]["class_type"] = json!("SaveImag");
    assert_eq!(
        found_with(workflow.clone(), |_| {}),
        [
            "warning: no node of ComfyUI saves or shows anything; unless a custom node does, add a SaveImage node",
            r#"warning: node 6 (SaveImag): "SaveImag" is not a class of ComfyUI 0.3.64; if a custom node provides it, add that to comfyui.custom_nodes; did you mean "SaveImage"?"#,
        ]
    );
    let softer = found_with(workflow.clone(), |known| known.custom_nodes = true);
    assert!(
        softer[1].starts_with("note: node 6 (SaveImag): \"SaveImag\" is not a class of ComfyUI itself"),
        "{softer:?}"
    );
    workflow["6"]["class_type"] = json!("OpenAIDalle3");
    assert!(found_with(workflow, |_| {}).iter().any(|line| line.contains("calls an outside service")));
}

#[test]
fn the_whole_workflow() {
    let mut workflow = good();
    workflow.as_object_mut().expect("nodes").remove("6");
    workflow["2"]["inputs"]["text"] = json!("a dog");
    let got = found_with(workflow, |_| {});
    assert_eq!(got[0], "error: no node saves or shows anything; add a SaveImage node");
    assert!(got[1].starts_with("warning: no text has the placeholder POSITIVE_PROMPT_PLACEHOLDER"), "{got:?}");
    assert_eq!(got.len(), 2);
}

#[test]
fn circles() {
    let mut workflow = good();
    workflow["3"] = json!({"class_type": "VAEEncode", "inputs": {"pixels": ["5", 0], "vae": ["1", 2]}});
    assert_eq!(
        found_with(workflow, |_| {}),
        ["error: node 3 (VAEEncode): nodes need each other in a circle: 4 <- 3 <- 5 <- 4".to_owned()].map(|line| line
            .replace("4 <- 3 <- 5 <- 4", "3 <- 5 <- 4 <- 3")
            .replace("node 3 (VAEEncode)", "node 4 (KSampler)"))
    );
    let own = found("5.samples", json!(["5", 0]));
    assert!(own.iter().any(|line| line.contains("in a circle: 5 <- 5")), "{own:?}");
}

#[test]
fn a_long_chain_and_a_long_circle() {
    let chain = |last: &str| {
        let mut nodes: serde_json::Map<String, Value> = (0..20_000)
            .map(|n| {
                (n.to_string(), json!({"class_type": "ImageInvert", "inputs": {"image": [(n + 1).to_string(), 0]}}))
            })
            .collect();
        nodes["19999"]["inputs"]["image"] = json!([last, 0]);
        nodes.insert("s".into(), json!({"class_type": "SaveImage", "inputs": {"filename_prefix": "POSITIVE_PROMPT_PLACEHOLDER", "images": ["0", 0]}}));
        nodes.insert(
            "e".into(),
            json!({"class_type": "EmptyImage", "inputs": {"width": 1, "height": 1, "batch_size": 1, "color": 0}}),
        );
        Value::Object(nodes)
    };
    assert_eq!(found_with(chain("e"), |_| {}), [""; 0]);
    let circle = found_with(chain("0"), |_| {});
    assert!(circle.len() == 1 && circle[0].ends_with("11 <- ... <- 0"), "{circle:?}");
}

#[test]
fn what_no_output_needs_is_a_warning() {
    let mut workflow = good();
    workflow["9"] = json!({"class_type": "VAEDecode", "inputs": {"samples": ["77", 0], "vae": ["1", 2]}});
    assert_eq!(
        found_with(workflow, |_| {}),
        [r#"warning: node 9 (VAEDecode), samples: it is linked to node "77", which is not there"#]
    );
}

#[test]
fn another_version_may_have_more() {
    let mut workflow = good();
    workflow["4"]["inputs"]["sampler_name"] = json!("newest");
    workflow["5"]["inputs"]["samples"] = json!(["77", 0]);
    let got = found_with(workflow, |known| known.other_version = true);
    assert!(got[0].starts_with("warning: node 4") && got[1].starts_with("error: node 5"), "{got:?}");
}

#[test]
fn findings_are_in_the_order_of_the_file() {
    let mut workflow = good();
    for (input, value) in [("seed", json!(-1)), ("cfg", json!(-1)), ("model", json!(["77", 0])), ("denoise", json!(9))]
    {
        workflow["4"]["inputs"][input] = value;
    }
    workflow["4"]["inputs"].as_object_mut().expect("inputs").remove("steps");
    let models = models();
    let known = Known { classes: Some(core_classes()), models: Some(&models), ..Known::default() };
    let findings = check(&Workflow::from_value(workflow.clone()).expect("a workflow"), &known);
    let mut inputs: Vec<&str> = findings.iter().filter_map(|finding| finding.input.as_deref()).collect();
    assert_eq!(inputs.remove(0), "steps");
    let keys: Vec<&String> = workflow["4"]["inputs"].as_object().expect("inputs").keys().collect();
    assert!(
        inputs.len() == 4 && inputs.is_sorted_by_key(|input| keys.iter().position(|key| key == input)),
        "{inputs:?}"
    );
}

#[test]
fn names_for_programs() {
    let kinds = [Kind::MalformedLink, Kind::LiteralForLink, Kind::NoOutputNode, Kind::MissingModel, Kind::NoSuchChoice];
    for kind in kinds {
        assert_eq!(serde_json::to_value(kind).expect("a name"), kind.as_str());
    }
    for severity in [Severity::Note, Severity::Warning, Severity::Error] {
        assert_eq!(serde_json::to_value(severity).expect("a name"), severity.as_str());
    }
}
