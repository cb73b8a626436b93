//! The workflows that are shipped beside this crate.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use comfy_workflow::{Fill, Workflow, fill};

/// File name and content of each.
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
    assert!(all.iter().any(|(name, _)| name == "workflow_api.json"), "the default is not there");
    all
}

#[test]
fn prompts_and_seeds_are_filled_in() {
    for (name, workflow) in shipped() {
        let with = Fill { positive: "<the positive>", negative: "<the negative>", seed: Some(4_242_424_242) };
        let text = fill(workflow, with).workflow.to_string();
        for part in ["<the positive>", "<the negative>", "4242424242"] {
            assert!(text.contains(part), "{name} has no {part}");
        }
        assert!(!text.contains("_PLACEHOLDER"), "{name}");
    }
}

#[test]
fn links_lead_somewhere_and_an_image_is_saved() {
    for (name, workflow) in shipped() {
        let ids: BTreeSet<&str> = workflow.nodes().map(|(id, _)| id).collect();
        let mut saves = false;
        for (id, node) in workflow.nodes() {
            saves |= node["class_type"] == "SaveImage";
            for (input, value) in node["inputs"].as_object().expect("inputs") {
                if let Some(link) = value.as_array() {
                    let to = link[0].as_str().expect("a node id");
                    assert!(ids.contains(to) && to != id && link[1].is_u64(), "{name}: {id}.{input}");
                }
            }
        }
        assert!(saves, "{name} saves no image");
    }
}
