//! The function behind the Function URL: takes a prompt, fills a packaged workflow, asks the endpoint, returns the image.
//!
//! [`handle`] is the whole of it and knows neither Lambda nor the SDK; `main` wires it to both. Nothing of a prompt is
//! ever logged.

mod endpoint;
mod invoke;
mod reply;
mod request;
mod workflows;

use std::time::Duration;

use comfy_workflow::{Fill, fill};
use serde_json::{Value, json};

pub use endpoint::Endpoint;
pub use invoke::{Image, Invoke, InvokeError, Invoked};
pub use reply::Reply;
pub use workflows::Workflows;

use reply::Problem;
use request::Request;

/// Header of the reply with the seed that was used.
pub const SEED_HEADER: &str = "X-Comfy-Seed";
/// SageMaker gives a container 60 seconds; the rest is for the connection, so that its answer wins over our own limit.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(65);

/// What may be logged about a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Name of the workflow, if it is one of ours.
    pub workflow: Option<String>,
    /// HTTP status of the reply.
    pub status: u16,
    /// Our error code.
    pub error: Option<String>,
    /// Bytes of the image.
    pub bytes: usize,
}

/// Answers one Function URL event (payload format 2.0).
pub async fn handle(event: &Value, workflows: &Workflows, endpoint: &dyn Invoke) -> (Reply, Summary) {
    let mut summary = Summary::default();
    let reply = match answer(event, workflows, endpoint, &mut summary).await {
        Ok(reply) => reply,
        Err(problem) => {
            summary.error = Some(problem.code.clone());
            problem.into_reply()
        }
    };
    summary.status = reply.status_code;
    (reply, summary)
}

async fn answer(
    event: &Value,
    workflows: &Workflows,
    endpoint: &dyn Invoke,
    summary: &mut Summary,
) -> Result<Reply, Problem> {
    let request = Request::from_event(event)?;
    let workflow = match workflows.get(&request.prompt_file) {
        Some(Ok(workflow)) => workflow.clone(),
        Some(Err(why)) => {
            let message = format!("the packaged workflow {} cannot be used: {why}", request.prompt_file);
            return Err(Problem::new(500, "invalid_workflow", message));
        }
        None => {
            let available: Vec<_> = workflows.names().collect();
            return Err(Problem::new(404, "unknown_workflow", "there is no such prompt_file")
                .details(json!({ "available": available })));
        }
    };
    summary.workflow = Some(request.prompt_file.clone());
    let with = Fill {
        positive: &request.positive_prompt,
        negative: &request.negative_prompt,
        seed: request.seed,
        params: None,
    };
    let filled =
        fill(workflow, with, rand::random).map_err(|why| Problem::new(400, "invalid_params", why.to_string()))?;
    let image = endpoint.invoke(filled.workflow.to_string().into_bytes()).await.map_err(Problem::from)?;
    if image.body.is_empty() {
        return Err(Problem::new(502, "no_image", "the endpoint answered without an image"));
    }
    summary.bytes = image.body.len();
    Reply::image(&image, filled.seed)
}

#[cfg(test)]
mod tests;
