//! The function in front of the endpoint: takes a prompt, fills a packaged workflow, asks the endpoint, returns the
//! picture.
//!
//! One request, followed: an [`event`](Source) says who asks and carries a body; the body becomes a request, checked field
//! by field; the request and its workflow become what the endpoint gets; [`Invoke`] sends it; the picture, or what went
//! wrong, becomes a [`Reply`] in the form that whoever asked understands. [`Handler`] is the whole of it and knows neither
//! Lambda nor the SDK; `main` wires it to both. Nothing of a prompt is ever logged.

mod accept;
mod endpoint;
mod event;
mod images;
mod invoke;
mod prepare;
mod problem;
mod reply;
mod request;
#[cfg(test)]
mod testing;
mod workflows;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

pub use accept::Format;
pub use endpoint::{Endpoint, Environment, Retries};
pub use event::Source;
pub use invoke::{Call, Invoke, InvokeError, Invoked, Picture};
pub use reply::{Buffered, Content, Reply, Streamed, UrlMode};
pub use workflows::Workflows;

use event::Event;
use prepare::prepare;
use problem::Problem;
use reply::{Answer, deliver, form};
use request::{Request, nearest, shown};

/// Header of the reply with the seed that was used.
pub const SEED_HEADER: &str = "X-Comfy-Seed";
/// Header of the reply with ComfyUI's id of the prompt.
pub const PROMPT_ID_HEADER: &str = "X-Comfy-Prompt-Id";
/// Header of the reply with the milliseconds that the picture took: as the container says, else as seen from here.
pub const DURATION_HEADER: &str = "X-Comfy-Duration-Ms";
/// SageMaker gives a container 60 seconds; the rest is for the connection, so that its answer wins over our own limit.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(65);
/// Longest id of a prompt that is passed on; ComfyUI's have 36 characters.
const LONGEST_ID: usize = 64;

/// What may be logged about a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Name of the workflow, if it is one of ours.
    pub workflow: Option<String>,
    /// HTTP status of the reply.
    pub status: u16,
    /// Our error code, or the container's.
    pub error: Option<String>,
    /// Bytes of the picture.
    pub bytes: usize,
}

/// The function.
#[derive(Debug)]
pub struct Handler<E> {
    workflows: Workflows,
    endpoint: E,
    url_mode: UrlMode,
}

impl<E: Invoke> Handler<E> {
    /// Puts the parts together.
    pub fn new(workflows: Workflows, endpoint: E, url_mode: UrlMode) -> Self {
        Handler { workflows, endpoint, url_mode }
    }

    /// Answers one event, given as JSON. `budget` is how long the endpoint is waited for, at most
    /// [`OPERATION_TIMEOUT`].
    pub async fn handle(&self, event: &str, budget: Duration) -> (Reply, Summary) {
        let mut summary = Summary::default();
        let (source, event) = Event::read(event);
        let answered = match event {
            Ok(event) => self.answer(event, budget, &mut summary).await,
            Err(problem) => Err(problem),
        };
        let status = answered.as_ref().map_or(0, |answer| answer.status);
        match answered.and_then(|answer| deliver(answer, source, self.url_mode)) {
            Ok(reply) => {
                summary.status = status;
                (reply, summary)
            }
            Err(problem) => {
                summary.status = problem.status;
                let reply = form(Answer::problem(&problem), source, self.url_mode);
                summary.error = Some(problem.code);
                (reply, summary)
            }
        }
    }

    /// Answers a request that did not come through Lambda, and to which none of its limits of size apply.
    pub async fn answer_here(&self, body: serde_json::Map<String, serde_json::Value>, budget: Duration) -> Streamed {
        let event = Event { source: Source::Direct, accept: None, body };
        let answer = self.answer(event, budget, &mut Summary::default()).await;
        let Answer { status, headers, content } = answer.unwrap_or_else(|problem| Answer::problem(&problem));
        let body = match content {
            Content::Text(text) => text.into(),
            Content::Picture(picture) => picture,
        };
        Streamed { status, headers, body }
    }

    async fn answer(&self, event: Event, budget: Duration, summary: &mut Summary) -> Result<Answer, Problem> {
        let request = Request::of(event)?;
        let Some((name, workflow)) = self.workflows.get(&request.prompt_file) else {
            return Err(self.unknown(&request.prompt_file));
        };
        summary.workflow = Some(name.to_owned());
        let workflow = workflow.as_ref().map_err(|why| {
            Problem::new(500, "invalid_workflow", format!("the packaged workflow {name} cannot be used: {why}"))
        })?;
        let prepared = prepare(workflow, &request)?;
        // No format and no specific Accept is what the container takes for JPEG.
        let accept = request.format.map_or("*/*", Format::content_type);
        let begun = Instant::now();
        let call = Call { body: prepared.body, accept, budget: budget.min(OPERATION_TIMEOUT) };
        let picture = self.endpoint.invoke(call).await?;
        let seen = begun.elapsed().as_millis();
        if picture.body.is_empty() {
            return Err(Problem::new(502, "no_picture", "the endpoint answered without a picture"));
        }
        summary.bytes = picture.body.len();
        let duration = picture.attribute("duration_ms").and_then(|ms| ms.parse().ok()).unwrap_or(seen);
        let mut headers = BTreeMap::from([
            ("Content-Type", content_type(&picture)),
            // The reply depends on a prompt, and on a seed that may be random.
            ("Cache-Control", "no-store".to_owned()),
            (SEED_HEADER, prepared.seed.to_string()),
            (DURATION_HEADER, duration.to_string()),
        ]);
        let id = picture.attribute("prompt_id").filter(|id| !id.is_empty() && id.len() <= LONGEST_ID);
        if let Some(id) = id.filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')) {
            headers.insert(PROMPT_ID_HEADER, id.to_owned());
        }
        Ok(Answer { status: 200, headers, content: Content::Picture(picture.body) })
    }

    fn unknown(&self, name: &str) -> Problem {
        let known: Vec<_> = self.workflows.names().collect();
        let hint =
            nearest(name, known.iter().copied()).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Problem::new(404, "unknown_workflow", format!("there is no prompt_file {}{hint}", shown(name)))
            .details(json!({"available": known}))
    }
}

/// As the endpoint says; else by the bytes.
fn content_type(picture: &Picture) -> String {
    let said = picture.content_type.as_str();
    let usable =
        !said.is_empty() && said.bytes().all(|b| (b' '..=b'~').contains(&b)) && said != "application/octet-stream";
    match usable {
        true => said.to_owned(),
        false => Format::sniff(&picture.body).map_or("application/octet-stream", Format::content_type).to_owned(),
    }
}

#[cfg(test)]
mod tests;
