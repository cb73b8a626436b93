//! Workflow files.

use std::sync::LazyLock;

use comfy_workflow::{Fill, Known, Models, Workflow, check, core_classes, fill, load_images, param_from_text};
use serde_json::{Map, Value};

/// Between a workflow and the params that are set in it; no JSON has this byte.
const PARAMS: u8 = 0xff;

static MODELS: LazyLock<Models> = LazyLock::new(|| {
    ["checkpoints/sd_xl_base_1.0.safetensors", "loras/sub/style.safetensors", "vae/ae.safetensors"]
        .into_iter()
        .collect()
});

/// Reads a workflow, checks it, and fills it with what stands behind it.
///
/// # Panics
/// Something is wrong with the crate: that is what is looked for.
pub fn graph(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == PARAMS);
    let (text, params) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let workflow = match Workflow::parse(text) {
        Ok(workflow) => workflow,
        Err(why) => return assert!(!why.to_string().is_empty()),
    };
    let again = Workflow::parse(workflow.to_string().as_bytes());
    assert_eq!(again.as_ref(), Ok(&workflow), "what is written is what was read");
    for known in [Known::default(), Known { classes: Some(core_classes()), models: Some(&MODELS), ..Known::default() }]
    {
        for finding in check(&workflow, &known) {
            assert!(!finding.to_string().contains('\n'), "one line each: {finding:?}");
        }
    }
    load_images(&workflow);
    let given: Option<Map<String, Value>> = serde_json::from_slice(params).ok();
    let text = String::from_utf8_lossy(params);
    let by_text = text.split_once('=').and_then(|(key, value)| {
        let value = param_from_text(&workflow, key, value).ok()?;
        Some(Map::from_iter([(key.to_owned(), value)]))
    });
    for params in [None, given.as_ref(), by_text.as_ref()] {
        let with =
            Fill { positive: "a \"dog\"\nNEGATIVE_PROMPT_PLACEHOLDER", negative: "rain", seed: Some(u64::MAX), params };
        if let Ok(filled) = fill(workflow.clone(), with, || 0) {
            assert_eq!(filled.seed, u64::MAX);
            let again = Workflow::parse(filled.workflow.to_string().as_bytes());
            assert_eq!(again.as_ref(), Ok(&filled.workflow), "it stays a workflow");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::graph;

    /// The target accepts what is shipped, or it would find nothing.
    #[test]
    fn shipped_workflows_and_params_pass() {
        let shipped = include_bytes!("../../workflow_api.json");
        graph(shipped);
        for params in [&b"{\"5.width\": 768}"[..], b"5.width=768", b"\xff\xff", b""] {
            graph(&[shipped, &[super::PARAMS][..], params].concat());
        }
        graph(b"");
    }
}
