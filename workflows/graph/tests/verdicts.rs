//! The checks against what a real ComfyUI refused: tests/data/record-verdicts.py says how it was asked.

use std::fs;
use std::path::Path;

use comfy_workflow::{Kind, Known, Models, Severity, Workflow, check, core_classes};
use serde_json::{Map, Value};

/// Literals that are not compared. The choices of the first two are declared in ComfyUI's new way, and it looks at them
/// when the node runs; the last one names a file that is uploaded with the request.
const UNCHECKED: [&str; 3] = ["17.model_name", "3.upscale_method", "2.image"];

/// The marker files that ComfyUI had, which its list of classes is made with too.
fn models() -> Models {
    let folders = ["checkpoints", "controlnet", "diffusion_models", "loras", "text_encoders", "upscale_models", "vae"];
    folders.iter().map(|folder| format!("{folder}/comfy-deploy-marker-{folder}.safetensors")).collect()
}

fn base(name: &str) -> Value {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read(here.join("tests/data").join(name)).or_else(|_| fs::read(here.join("..").join(name)));
    let mut workflow: Value = serde_json::from_slice(&text.expect("readable")).expect("JSON");
    for node in workflow.as_object_mut().expect("nodes").values_mut() {
        if let Some(checkpoint) = node["inputs"].get_mut("ckpt_name") {
            *checkpoint = "comfy-deploy-marker-checkpoints.safetensors".into();
        }
    }
    workflow
}

/// `@` in a link stands for the node itself.
fn value_for(node: &str, value: &Value) -> Value {
    match value {
        Value::Array(parts) => parts.iter().map(|part| if part == "@" { node.into() } else { part.clone() }).collect(),
        other => other.clone(),
    }
}

#[test]
fn what_comfyui_refuses_is_an_error_and_nothing_else_is() {
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/verdicts.json")).expect("readable");
    let recorded: Value = serde_json::from_slice(&text).expect("JSON");
    let values = recorded["values"].as_array().expect("values");
    let models = models();
    let known = Known { classes: Some(core_classes()), models: Some(&models), ..Known::default() };
    let (mut cases, mut wrong) = (0, Vec::new());
    for (name, inputs) in recorded["verdicts"].as_object().expect("bases") {
        let base = base(name);
        for (place, verdicts) in inputs.as_object().expect("inputs") {
            let (node, input) = place.split_once('.').expect("NODE.INPUT");
            let verdicts = verdicts.as_str().expect("letters");
            assert_eq!(verdicts.len(), values.len() + 1, "{name} {place}");
            for (verdict, value) in verdicts.chars().zip([None].into_iter().chain(values.iter().map(Some))) {
                let mut workflow = base.clone();
                let inputs: &mut Map<_, _> = workflow[node]["inputs"].as_object_mut().expect("inputs");
                match value {
                    None => inputs.shift_remove(input),
                    Some(value) => inputs.insert(input.to_owned(), value_for(node, value)),
                };
                let findings = check(&Workflow::from_value(workflow).expect("a workflow"), &known);
                let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
                // ComfyUI takes a literal for a model or a picture, and fails when it runs.
                let refused = errors.into_iter().any(|finding| finding.kind != Kind::LiteralForLink);
                cases += 1;
                let run_time_only = UNCHECKED.contains(&place.as_str()) && !value.is_some_and(Value::is_array);
                if refused != (verdict == 'x') && !run_time_only {
                    let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
                    wrong.push(format!("{name} {place} = {value:?}: ComfyUI {verdict}, found {findings:?}"));
                }
            }
        }
    }
    assert!(cases > 3000, "{cases} cases");
    assert!(wrong.is_empty(), "{} of {cases} differ:\n{}", wrong.len(), wrong.join("\n"));
}
