//! POST /invocations: from a request to an answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::accept::{NotAcceptable, hopeless};
use crate::app::App;
use crate::aside;
use crate::health::Busy;
use crate::job::Done;
use crate::kept::Content;
use crate::problem::Problem;
use crate::prompt::Prompt;
use crate::record::{self, Record};
use crate::reply::{self, Wish};
use crate::request::{self, Options};
use crate::upload::upload;

/// How long the rest of a refused body is read: a caller that is cut off while it sends may never see the answer.
const DRAIN: Duration = Duration::from_secs(5);

/// Answers a request, whatever happens.
pub(crate) async fn invoke(app: Arc<App>, request: Request) -> Response {
    let mut record = Record::new(Arc::clone(&app.metrics));
    if app.debug_header {
        tracing::info!("headers:\n{}", record::headers(request.headers()));
    }
    let (head, mut body) = request.into_parts();
    let deadline = app.timeout;
    let answer = match tokio::time::timeout(deadline, answer(&app, &head.headers, &mut body, &mut record)).await {
        Ok(answer) => answer,
        // Dropping the work took the job out of ComfyUI.
        Err(_) if record.received => Err(late(deadline)),
        // There is no time left to read the rest.
        Err(_) => {
            drop(std::mem::take(&mut body));
            Err(slow(deadline))
        }
    };
    match answer {
        Ok((headers, content)) => {
            (record.outcome, record.status) = ("ok", 200);
            record.response_bytes = content.bytes.len();
            record.content_type = content.content_type;
            let sent = Sent { bytes: content.bytes, _busy: app.health.answer() };
            (headers, Bytes::from_owner(sent)).into_response()
        }
        Err(problem) => {
            // Large bodies are read to their end before a refusal.
            let _ = tokio::time::timeout(DRAIN, drain(&mut body, app.max_body)).await;
            (record.outcome, record.status) = (problem.code, problem.status.as_u16());
            record.response_bytes = problem.body().len();
            problem.into_response()
        }
    }
}

/// An answer's bytes, counted until the last of them was given to the kernel: only then they are dropped.
struct Sent {
    bytes: Bytes,
    _busy: Busy,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn late(deadline: Duration) -> Problem {
    let message = format!(
        "the picture was not ready within {} s, and the job was cancelled; use fewer steps, a smaller picture, or a \
         faster instance",
        deadline.as_secs_f64()
    );
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
}

/// The caller's own fault, so that nobody can raise an alarm for server errors by sending slowly.
fn slow(deadline: Duration) -> Problem {
    let message = format!("the body did not come within {} s", deadline.as_secs_f64());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
}

/// A place among the jobs under way.
struct Admission {
    _place: OwnedSemaphorePermit,
    _busy: Busy,
}

fn admit(app: &App) -> Result<Admission, Problem> {
    let place = Arc::clone(&app.places).try_acquire_owned().map_err(|_| {
        let message = format!("{} requests wait or run already; try again later", app.max_queue);
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "queue_full", message).retry_after(app.pace.next())
    })?;
    Ok(Admission { _place: place, _busy: app.health.job() })
}

async fn answer(
    app: &App,
    headers: &HeaderMap,
    body: &mut Body,
    record: &mut Record,
) -> Result<(HeaderMap, Content), Problem> {
    let accept = joined(headers);
    if hopeless(accept.as_deref()) {
        let why = NotAcceptable::whatever_comes(accept.as_deref().unwrap_or_default());
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", why.to_string()));
    }
    let wish = Wish { accept, options: Options::parse(headers)?, quality: app.jpeg_quality };
    let _admission = admit(app)?;
    let body = read(headers, body, app.max_body).await?;
    (record.request_bytes, record.received) = (body.len(), true);
    let bytes = body.len();
    let request = aside::by_size(bytes, move || request::parse(&body)).await.ok_or_else(|| crashed("reading"))??;
    let (submission, _uploads) = upload(&app.jobs, request).await?;
    let prompt = Prompt::new(submission, bytes).await?;
    let (mut done, turn) = app.jobs.run(&prompt, wish.options.all, &record.trace).await?;
    let outputs = std::mem::take(&mut done.outputs);
    let prompt_id = done.prompt_id.clone();
    let encoding = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let content = reply::encode(&outputs, &prompt_id, &wish);
        (content, outputs)
    });
    let (content, outputs) = encoding.await.map_err(|_| crashed("converting"))?;
    let (content, took) = (content?, record.elapsed());
    app.pace.note(took.saturating_sub(done.queued.unwrap_or_default()));
    let done = Done { outputs, ..done };
    Ok((reply::headers(&done, prompt.seed.as_deref(), &content.content_type, took), content))
}

fn crashed(doing: &str) -> Problem {
    Problem::internal("crashed", format!("{doing} crashed; this is a defect of comfy-serve"))
}

/// The Accept header; several lines mean the same as one with commas.
fn joined(headers: &HeaderMap) -> Option<String> {
    let lines: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

async fn read(headers: &HeaderMap, body: &mut Body, most: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let message = format!("the request is larger than {} MB; send smaller pictures", most / 1_000_000);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|said| said > most) {
        return Err(too_large());
    }
    let mut read = BytesMut::with_capacity(said.unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|cause| Problem::bad_request("unreadable", format!("the body cannot be read: {cause}")))?;
        if let Ok(data) = frame.into_data() {
            if read.len() + data.len() > most {
                return Err(too_large());
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(read.freeze())
}

async fn drain(body: &mut Body, most: usize) {
    let mut left = most.saturating_mul(4);
    while let Some(Ok(frame)) = body.frame().await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(read);
        if left == 0 {
            return;
        }
    }
}
