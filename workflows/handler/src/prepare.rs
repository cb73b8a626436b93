//! From a request and its workflow to what the endpoint gets. Pure.

use std::collections::BTreeSet;

use comfy_workflow::{Fill, ImageInput, Workflow, fill, load_images};
use serde::Serialize;
use serde_json::{Value, json};

use crate::images::Image;
use crate::problem::Problem;
use crate::request::{Request, nearest, shown};

/// SageMaker's limit of a request to a real-time endpoint, in bytes (25 MB; comfy-serve has the same).
const LARGEST_PAYLOAD: usize = 25 * 1024 * 1024;

/// Ready to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) body: Vec<u8>,
    pub(crate) seed: u64,
}

#[derive(Serialize)]
struct WithImages<'a> {
    prompt: Value,
    images: Vec<&'a Image>,
}

/// Fills a workflow in.
pub(crate) fn prepare(workflow: &Workflow, request: &Request) -> Result<Prepared, Problem> {
    let mut params = request.params.clone();
    for (key, name) in assign(workflow, &request.images)? {
        if params.insert(key.clone(), name.into()).is_some() {
            return Err(bad_images(format!("params set {key}, which gets one of the images"), workflow));
        }
    }
    let with = Fill {
        positive: &request.positive_prompt,
        negative: &request.negative_prompt,
        seed: request.seed,
        params: Some(&params),
    };
    let filled = fill(workflow.clone(), with, rand::random).map_err(|error| {
        Problem::new(400, "invalid_params", error.to_string()).details(json!({"problems": error.problems}))
    })?;
    let body = match request.images.is_empty() {
        true => filled.workflow.to_string().into_bytes(),
        false => {
            // The same picture for two nodes travels once.
            let mut names = BTreeSet::new();
            let images: Vec<_> = request.images.iter().filter(|image| names.insert(image.name.as_str())).collect();
            let prompt = filled.workflow.into_value();
            serde_json::to_vec(&WithImages { prompt, images })
                .map_err(|_| Problem::new(500, "not_json", "the filled workflow cannot be written as JSON"))?
        }
    };
    if body.len() > LARGEST_PAYLOAD {
        let message = format!(
            "the filled workflow and its images have {} bytes; SageMaker takes at most {LARGEST_PAYLOAD}",
            body.len()
        );
        return Err(Problem::new(413, "request_too_large", message));
    }
    Ok(Prepared { body, seed: filled.seed })
}

/// Gives each picture to an input, as param and file name: to the named node, or to the next that has none yet.
fn assign<'a>(workflow: &Workflow, images: &'a [Image]) -> Result<Vec<(String, &'a str)>, Problem> {
    if images.is_empty() {
        return Ok(Vec::new());
    }
    let inputs = load_images(workflow);
    let bad = |message: String| Err(bad_images(message, workflow));
    let mut free: Vec<&ImageInput> = inputs.iter().collect();
    let mut placed = Vec::new();
    // Named ones first, whatever their order: they take nobody else's place.
    for image in images {
        let Some(wanted) = image.node.as_deref() else { continue };
        let is_it = |input: &ImageInput| input.node == wanted || input.title.as_deref() == Some(wanted);
        if let Some(at) = free.iter().position(|input| is_it(input)) {
            placed.push((free.remove(at).key(), image.name.as_str()));
        } else if inputs.iter().any(is_it) {
            return bad(format!("node {} gets two pictures", shown(wanted)));
        } else {
            let known = inputs.iter().flat_map(|input| [Some(input.node.as_str()), input.title.as_deref()]).flatten();
            let hint =
                nearest(wanted, known).map(|near| format!("; did you mean {}?", shown(near))).unwrap_or_default();
            return bad(format!("the workflow has no node {} that loads a picture{hint}", shown(wanted)));
        }
    }
    let unnamed: Vec<_> = images.iter().filter(|image| image.node.is_none()).collect();
    if unnamed.len() > free.len() {
        return bad(format!("{} images were sent, and the workflow loads {}", images.len(), inputs.len()));
    }
    let rest = free.iter().zip(unnamed).map(|(input, image)| (input.key(), image.name.as_str()));
    placed.extend(rest);
    Ok(placed)
}

fn bad_images(message: String, workflow: &Workflow) -> Problem {
    let nodes: Vec<_> = load_images(workflow).into_iter().map(|input| input.node).collect();
    Problem::new(400, "invalid_images", message).details(json!({"load_image_nodes": nodes}))
}

#[cfg(test)]
mod tests;
