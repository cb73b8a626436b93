//! One workflow through ComfyUI: submit, wait, fetch, clean up.

use std::time::Duration;

use axum::http::{StatusCode, header};
use bytes::Bytes;
use comfy_workflow::Workflow;
use futures::StreamExt;
use serde_json::{Map, Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::comfy::{Answer, Comfy, Look, Socket, Unreachable};
use crate::outputs::pick;
use crate::problem::Problem;

/// How often the history is asked while the socket is silent.
const POLL: Duration = Duration::from_secs(1);
/// How long after the message of its end the history entry may take: 784 ms were measured after a start.
const ENTRY_LIMIT: Duration = Duration::from_secs(5);
/// Between two questions for that entry.
const ENTRY_POLL: Duration = Duration::from_millis(20);
/// Failed questions in a row after which ComfyUI counts as gone.
const GIVE_UP_AFTER: u32 = 3;

/// The answer to a request, as ComfyUI wrote it.
pub(crate) struct Output {
    pub(crate) content_type: String,
    pub(crate) bytes: Bytes,
}

impl From<Unreachable> for Problem {
    fn from(cause: Unreachable) -> Self {
        tracing::warn!("{cause}");
        Problem::unreachable()
    }
}

/// Runs a workflow. When the future is dropped (the caller went away) or the deadline passes, the job is cancelled.
pub(crate) async fn run(comfy: &Comfy, workflow: Workflow, deadline: Duration) -> Result<Output, Problem> {
    // Both fresh: an id of our own finds the job even when the answer is lost, and a client id that was used before
    // may be deaf.
    let prompt_id = uuid::Uuid::new_v4().to_string();
    let client_id = uuid::Uuid::new_v4().to_string();
    let mut job = Job { comfy: comfy.clone(), prompt_id, ended: false };
    match tokio::time::timeout(deadline, job.run(workflow, &client_id)).await {
        Ok(result) => result,
        Err(_) => Err(Problem::timeout()),
    }
}

struct Job {
    comfy: Comfy,
    prompt_id: String,
    /// Nothing of it is in ComfyUI's queue any more, or never was.
    ended: bool,
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (comfy, prompt_id) = (self.comfy.clone(), self.prompt_id.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                comfy.cancel(&prompt_id).await;
                // An interrupted job leaves an entry, a deleted one does not; a node may take a while to notice.
                for _ in 0..30 {
                    tokio::time::sleep(POLL).await;
                    match comfy.look(&prompt_id).await {
                        Ok(Look::Queued) => {}
                        Ok(Look::Ended(_)) => return comfy.forget(&prompt_id).await,
                        Ok(Look::Unknown) | Err(_) => return,
                    }
                }
            });
        }
    }
}

impl Job {
    async fn run(&mut self, workflow: Workflow, client_id: &str) -> Result<Output, Problem> {
        let nodes: Vec<String> = workflow.nodes().map(|(id, _)| id.to_owned()).collect();
        // Opened first: messages can come before the answer to the POST. Without it the history still tells the end.
        let socket = self.comfy.socket(client_id).await.ok();
        let answer = self.comfy.submit(workflow.into_value(), &self.prompt_id, client_id).await?;
        if answer.status != StatusCode::OK {
            self.ended = true;
            return Err(refused(&answer));
        }
        let entry = self.wait(socket).await?;
        self.ended = true;
        let result = self.fetch(&entry, &nodes).await;
        self.comfy.forget(&self.prompt_id).await;
        result
    }

    /// Until the job has a history entry.
    async fn wait(&mut self, mut socket: Option<Socket>) -> Result<Value, Problem> {
        let (mut failures, mut unknown) = (0, 0);
        let mut poll = tokio::time::interval_at(tokio::time::Instant::now() + POLL, POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = ended(&mut socket, &self.prompt_id) => match ended {
                    true => return self.entry().await,
                    // Not opened again: the history is asked anyway, and jobs are short.
                    false => socket = None,
                },
                _ = poll.tick() => match self.comfy.look(&self.prompt_id).await {
                    Ok(Look::Ended(entry)) => return Ok(entry),
                    Ok(Look::Queued) => (failures, unknown) = (0, 0),
                    Ok(Look::Unknown) => {
                        unknown += 1;
                        if unknown == 2 {
                            self.ended = true;
                            return Err(lost());
                        }
                    }
                    Err(cause) => {
                        failures += 1;
                        if failures == GIVE_UP_AFTER {
                            return Err(cause.into());
                        }
                    }
                },
            }
        }
    }

    /// The entry of a job whose end was told.
    async fn entry(&mut self) -> Result<Value, Problem> {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < ENTRY_LIMIT {
            if let Some(entry) = self.comfy.history(&self.prompt_id).await? {
                return Ok(entry);
            }
            tokio::time::sleep(ENTRY_POLL).await;
        }
        self.ended = true;
        Err(lost())
    }

    async fn fetch(&self, entry: &Value, nodes: &[String]) -> Result<Output, Problem> {
        // The status first: an error can come with outputs, stale or partial ones.
        if entry.pointer("/status/status_str").and_then(Value::as_str) != Some("success") {
            return Err(failed(entry));
        }
        let none = Map::new();
        let outputs = entry.get("outputs").and_then(Value::as_object).unwrap_or(&none);
        let Some(file) = pick(outputs, nodes.iter().map(String::as_str)) else {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "no_image",
                "the workflow made no image; add a SaveImage node",
            ));
        };
        let answer = self.comfy.view(&file).await?;
        if answer.status != StatusCode::OK {
            let message = format!("the image was made, but reading it ended with {}", answer.status);
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "image_unreadable", message));
        }
        let content_type = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Ok(Output { content_type: content_type.unwrap_or("application/octet-stream").to_owned(), bytes: answer.body })
    }
}

/// Reads messages until the job's last one (true) or until the socket is of no use (false). Safe to be dropped and
/// called again: a message is either taken whole or not at all.
async fn ended(socket: &mut Option<Socket>, prompt_id: &str) -> bool {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) if is_last(&text, prompt_id) => return true,
            // Previews and other people's news.
            Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
            Some(Ok(_)) => {}
        }
    }
}

/// `executing` without a node is sent after everything else; `execution_success` comes before the history has it.
fn is_last(text: &str, prompt_id: &str) -> bool {
    // Most messages are progress: not worth parsing.
    if !text.contains("executing") {
        return false;
    }
    let message: Value = serde_json::from_str(text).unwrap_or_default();
    message.get("type").and_then(Value::as_str) == Some("executing")
        && message.pointer("/data/node") == Some(&Value::Null)
        && message.pointer("/data/prompt_id").and_then(Value::as_str) == Some(prompt_id)
}

fn lost() -> Problem {
    let message = "ComfyUI does not know the job any more; it was restarted or the job was deleted";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "job_lost", message)
}

/// Only what helps: `extra_info` holds whole lists of models and the inputs as received, tracebacks our paths.
fn brief(error: &Value) -> Value {
    json!({"type": error.get("type"), "message": error.get("message"), "details": error.get("details")})
}

/// What ComfyUI says to a workflow that it does not take.
fn refused(answer: &Answer) -> Problem {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        StatusCode::BAD_REQUEST => {}
        StatusCode::PAYLOAD_TOO_LARGE => {
            return Problem::new(answer.status, "too_large", "the workflow is larger than ComfyUI takes");
        }
        status => {
            let message = format!("ComfyUI answered {status} to the workflow");
            return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "comfyui_error", message);
        }
    }
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    let error = body.get("error").cloned().unwrap_or_default();
    let mut message = text(error.get("message"));
    if message.is_empty() {
        message = "ComfyUI does not take the workflow".into();
    }
    let mut nodes = Map::new();
    for (id, node) in body.get("node_errors").and_then(Value::as_object).into_iter().flatten() {
        let errors: Vec<&Value> = node.get("errors").and_then(Value::as_array).into_iter().flatten().collect();
        // The message of the whole is often just "failed validation": the first node says what it is.
        if nodes.is_empty()
            && let Some(first) = errors.first()
        {
            let (class, what) = (text(node.get("class_type")), text(first.get("message")));
            let details: String = text(first.get("details")).chars().take(120).collect();
            message = format!("{message}: node {id} ({class}): {what}: {details}");
        }
        let errors: Vec<Value> = errors.into_iter().map(brief).collect();
        nodes.insert(id.clone(), json!({"class_type": node.get("class_type"), "errors": errors}));
    }
    Problem::invalid(message).details(json!({"error": brief(&error), "node_errors": nodes}))
}

/// Why a job did not succeed.
fn failed(entry: &Value) -> Problem {
    let messages = entry.pointer("/status/messages").and_then(Value::as_array);
    let find = |kind: &str| {
        messages.into_iter().flatten().find(|m| m.get(0).and_then(Value::as_str) == Some(kind)).and_then(|m| m.get(1))
    };
    if let Some(error) = find("execution_error") {
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().trim();
        let code = match text("exception_type") {
            kind if kind.contains("OutOfMemory") => "out_of_memory",
            _ => "execution_failed",
        };
        let message = format!("node {} ({}): {}", text("node_id"), text("node_type"), text("exception_message"));
        let details = ["node_id", "node_type", "exception_type"].map(|key| (key.to_owned(), text(key).into()));
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, code, message)
            .details(Value::Object(details.into_iter().collect()));
    }
    if find("execution_interrupted").is_some() {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "interrupted", "the job was interrupted");
    }
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "execution_failed", "the job ended without success")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message() {
        for (text, last) in [
            (r#"{"type":"executing","data":{"node":null,"prompt_id":"p"}}"#, true),
            (r#"{"type":"executing","data":{"node":"3","prompt_id":"p"}}"#, false),
            (r#"{"type":"executing","data":{"node":null,"prompt_id":"other"}}"#, false),
            // After a reconnect the current node comes without an id.
            (r#"{"type":"executing","data":{"node":null}}"#, false),
            (r#"{"type":"executing","data":{"prompt_id":"p"}}"#, false),
            (r#"{"type":"execution_success","data":{"prompt_id":"p"}}"#, false),
            ("executing", false),
        ] {
            assert_eq!(is_last(text, "p"), last, "{text}");
        }
    }

    #[test]
    fn errors_of_other_kinds() {
        let entry = |messages: Value| json!({"status": {"status_str": "error", "messages": messages}});
        let oom = entry(json!([["execution_error", {"exception_type": "torch.OutOfMemoryError", "node_id": "3"}]]));
        assert_eq!(failed(&oom).code, "out_of_memory");
        let interrupted = entry(json!([["execution_start", {}], ["execution_interrupted", {}]]));
        assert_eq!((failed(&interrupted).code, failed(&interrupted).status.as_u16()), ("interrupted", 503));
        assert_eq!(failed(&json!({})).code, "execution_failed");
    }
}
