//! The workflows that are shipped beside this crate.

use std::fs;
use std::path::Path;

use comfy_workflow::{Fill, Known, Models, Workflow, check, core_classes, fill, load_images};

/// The models that the shipped workflows name, as their publishers call the files.
const MODELS: [&str; 3] = [
    "checkpoints/sd_xl_base_1.0.safetensors",
    "checkpoints/flux1-dev-fp8.safetensors",
    "checkpoints/flux1-schnell-fp8.safetensors",
];

/// File name and content of each, by name.
fn shipped() -> Vec<(String, Workflow)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let workflow = Workflow::parse(&fs::read(&path).expect("readable"));
            all.push((name.clone(), workflow.unwrap_or_else(|why| panic!("{name}: {why}"))));
        }
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

#[test]
fn there_are_these() {
    let names: Vec<String> = shipped().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["flux1-dev-fp8.json", "flux1-schnell-fp8.json", "sdxl-image-to-image.json", "workflow_api.json"]
    );
}

#[test]
fn nothing_is_wrong_with_them() {
    let models: Models = MODELS.into_iter().collect();
    let known = Known { classes: Some(core_classes()), models: Some(&models), ..Known::default() };
    for (name, workflow) in shipped() {
        let findings: Vec<String> = check(&workflow, &known).iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "{name}:\n{}", findings.join("\n"));
    }
}

#[test]
fn prompts_and_seeds_are_filled_in() {
    for (name, workflow) in shipped() {
        let with = Fill { positive: "<positive>", negative: "<negative>", seed: Some(4_242_424_242), params: None };
        let done = fill(workflow, with, || 0).expect("no params");
        assert_eq!((done.positive.len(), done.negative.len(), done.seeds.len()), (1, 1, 1), "{name}");
        let text = done.workflow.to_string();
        for part in ["<positive>", "<negative>", "4242424242"] {
            assert!(text.contains(part), "{name} has no {part}");
        }
        assert!(!text.contains("_PLACEHOLDER"), "{name}");
    }
}

#[test]
fn every_node_has_a_title_of_its_own() {
    for (name, workflow) in shipped() {
        let mut titles: Vec<&str> = workflow.views().map(|node| node.title().expect("a title")).collect();
        let nodes = titles.len();
        titles.sort_unstable();
        titles.dedup();
        assert_eq!(titles.len(), nodes, "{name}: {titles:?}");
    }
}

#[test]
fn one_of_them_starts_from_a_picture() {
    let images: Vec<(String, String)> = shipped()
        .iter()
        .flat_map(|(name, workflow)| load_images(workflow).into_iter().map(|image| (name.clone(), image.key())))
        .collect();
    assert_eq!(images, [("sdxl-image-to-image.json".to_owned(), "2.image".to_owned())]);
}
