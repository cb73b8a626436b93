//! From a request and its workflow to what the endpoint gets. Pure.

use std::collections::BTreeSet;

use comfy_workflow::{Fill, Workflow, fill};
use serde::Serialize;
use serde_json::{Value, json};

use crate::images::Image;
use crate::problem::Problem;
use crate::request::{Request, nearest, shown};

/// SageMaker's limit of a request to a real-time endpoint, in bytes (25 MB; comfy-serve has the same).
const LARGEST_PAYLOAD: usize = 25 * 1024 * 1024;
/// Node classes whose input `image` is the name of a file in ComfyUI's input directory.
const LOADERS: [&str; 2] = ["LoadImage", "LoadImageMask"];

/// Ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) body: Vec<u8>,
    pub(crate) seed: u64,
}

#[derive(Serialize)]
struct WithImages<'a> {
    prompt: &'a Value,
    images: Vec<&'a Image>,
}

/// Fills a workflow in.
pub(crate) fn prepare(workflow: &Workflow, request: &Request) -> Result<Prepared, Problem> {
    let with = Fill { positive: &request.positive_prompt, negative: &request.negative_prompt, seed: request.seed };
    let filled = fill(workflow.clone(), with);
    let seed = filled.seed;
    let mut prompt = filled.workflow.into_value();
    assign(&mut prompt, &request.images)?;
    let body = match request.images.is_empty() {
        true => serde_json::to_vec(&prompt),
        false => {
            // The same picture for two nodes travels once.
            let mut names = BTreeSet::new();
            let images = request.images.iter().filter(|image| names.insert(image.name.as_str())).collect();
            serde_json::to_vec(&WithImages { prompt: &prompt, images })
        }
    };
    let body = body.map_err(|_| Problem::new(500, "not_json", "the filled workflow cannot be written as JSON"))?;
    if body.len() > LARGEST_PAYLOAD {
        let message = format!(
            "the filled workflow and its images have {} bytes; SageMaker takes at most {LARGEST_PAYLOAD}",
            body.len()
        );
        return Err(Problem::new(413, "request_too_large", message));
    }
    Ok(Prepared { body, seed })
}

/// Gives each picture to its node: the named one, or the next that loads a picture and has none yet.
fn assign(prompt: &mut Value, images: &[Image]) -> Result<(), Problem> {
    if images.is_empty() {
        return Ok(());
    }
    let loaders = loaders(prompt);
    let ids: Vec<_> = loaders.iter().map(|loader| loader.id.as_str()).collect();
    let bad = |message: String| Problem::new(400, "invalid_images", message).details(json!({"load_image_nodes": ids}));
    let mut free: Vec<&str> = ids.clone();
    let mut placed = Vec::new();
    // Named ones first, whatever their order: they take nobody else's place.
    for image in images.iter().filter(|image| image.node.is_some()) {
        let wanted = image.node.as_deref().unwrap_or_default();
        let found = loaders.iter().find(|loader| loader.id == wanted || loader.title.as_deref() == Some(wanted));
        let Some(loader) = found else {
            let known = loaders.iter().flat_map(|loader| [Some(loader.id.as_str()), loader.title.as_deref()]).flatten();
            let hint =
                nearest(wanted, known).map(|near| format!("; did you mean {}?", shown(near))).unwrap_or_default();
            return Err(bad(format!("the workflow has no node {} that loads a picture{hint}", shown(wanted))));
        };
        let Some(at) = free.iter().position(|id| *id == loader.id) else {
            return Err(bad(format!("node {} gets two pictures", shown(wanted))));
        };
        placed.push((free.remove(at), image));
    }
    let mut rest = free.into_iter();
    for image in images.iter().filter(|image| image.node.is_none()) {
        let Some(id) = rest.next() else {
            let (sent, taken) = (images.len(), ids.len());
            return Err(bad(format!("{sent} images were sent, and the workflow loads {taken}")));
        };
        placed.push((id, image));
    }
    for (id, image) in placed {
        prompt[id]["inputs"]["image"] = image.name.as_str().into();
    }
    Ok(())
}

/// A node that loads a picture by name.
struct Loader {
    id: String,
    title: Option<String>,
}

fn loaders(prompt: &Value) -> Vec<Loader> {
    let nodes = prompt.as_object().into_iter().flatten();
    let loading = nodes.filter(|(_, node)| {
        // One whose picture comes over a link gets none from the caller.
        LOADERS.iter().any(|class| node["class_type"] == **class) && node["inputs"]["image"].is_string()
    });
    loading
        .map(|(id, node)| Loader { id: id.clone(), title: node["_meta"]["title"].as_str().map(str::to_owned) })
        .collect()
}

#[cfg(test)]
mod tests;
