//! What ComfyUI's refusals and failures mean for the caller. Pure.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::comfy::Answer;
use crate::problem::Problem;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default().trim()
}

/// Only what helps: `extra_info` holds whole lists of models and the inputs as received, tracebacks our paths.
fn brief(error: &Value) -> Value {
    json!({"type": error.get("type"), "message": error.get("message"), "details": error.get("details")})
}

/// An exception says less than a check that failed, and is often a consequence of one.
fn importance(error: &Value) -> u8 {
    match text(error, "type") {
        "exception_during_validation" | "exception_during_inner_validation" => 1,
        "dependent_output_invalid" => 2,
        _ => 0,
    }
}

/// The answer to a workflow that ComfyUI does not take.
pub(crate) fn refused(answer: &Answer) -> Problem {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        StatusCode::BAD_REQUEST => {}
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message =
                "the workflow is larger than ComfyUI takes; send a smaller one, or raise ComfyUI's --max-upload-size";
            return Problem::new(answer.status, "too_large", message);
        }
        status => return Problem::internal("comfyui_error", format!("ComfyUI answered {status} to the workflow")),
    }
    let error = body.get("error").cloned().unwrap_or_default();
    let mut nodes: Vec<(&String, &Value, Vec<&Value>)> = Vec::new();
    for (id, node) in body.get("node_errors").and_then(Value::as_object).into_iter().flatten() {
        let mut errors: Vec<&Value> = node.get("errors").and_then(Value::as_array).into_iter().flatten().collect();
        errors.sort_by_key(|error| importance(error));
        nodes.push((id, node, errors));
    }
    // The most important first: of a long list only the beginning reaches the caller.
    nodes.sort_by_key(|(_, _, errors)| errors.first().map_or(u8::MAX, |error| importance(error)));
    let mut message = match text(&error, "message") {
        "" => "ComfyUI does not take the workflow".to_owned(),
        said => said.to_owned(),
    };
    let mut problem = Problem::bad_request("invalid_workflow", "");
    if let Some((id, node, errors)) = nodes.first() {
        // The message of the whole is often just "failed validation": the node says what it is.
        let class = text(node, "class_type");
        problem = problem.node(id, class);
        if let Some(first) = errors.first() {
            let details: String = text(first, "details").chars().take(160).collect();
            message = format!("{message}: node {id} ({class}): {}: {details}", text(first, "message"));
        }
    } else {
        match (text(&error, "type"), text(&error, "details")) {
            // The only refusal without any reason.
            ("prompt_outputs_failed_validation", "") => {
                message.push_str(": ComfyUI names no node; look for a cycle of links")
            }
            ("prompt_no_outputs", _) => message.push_str(": add a node that saves, like SaveImage"),
            (_, "") => {}
            (_, details) => message.push_str(&format!(": {}", details.chars().take(160).collect::<String>())),
        }
    }
    let node_errors: Map<String, Value> = nodes
        .into_iter()
        .map(|(id, node, errors)| {
            let errors: Vec<Value> = errors.into_iter().map(brief).collect();
            (id.clone(), json!({"class_type": node.get("class_type"), "errors": errors}))
        })
        .collect();
    problem.message = message;
    problem.details(json!({"error": brief(&error), "node_errors": node_errors}))
}

/// A node raised while it ran: the data of `execution_error`. The prompt caused it, so it is a 4xx: callers must not
/// be able to raise the alarm for server errors.
pub(crate) fn failed(error: &Value) -> Problem {
    let (id, class, kind) = (text(error, "node_id"), text(error, "node_type"), text(error, "exception_type"));
    let (code, advice) = match kind.contains("OutOfMemory") {
        true => ("out_of_memory", "; use a smaller picture or batch, or a larger instance"),
        false => ("execution_failed", ""),
    };
    let said: String = text(error, "exception_message").chars().take(300).collect();
    let message = format!("node {id} ({class}) failed: {said}{advice}");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
        .node(id, class)
        .details(json!({"exception_type": kind, "exception_message": text(error, "exception_message")}))
}

/// Somebody stopped the job.
pub(crate) fn interrupted() -> Problem {
    let message = "the job was interrupted in ComfyUI by somebody else; send it again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "interrupted", message).retry_after(std::time::Duration::from_secs(1))
}

/// The problem in a history entry; none when the job succeeded. The status decides: an error can come with outputs,
/// stale or partial ones.
pub(crate) fn of_entry(entry: &Value) -> Option<Problem> {
    if entry.pointer("/status/status_str").and_then(Value::as_str) == Some("success") {
        return None;
    }
    let messages = entry.pointer("/status/messages").and_then(Value::as_array);
    let find = |kind: &str| {
        messages.into_iter().flatten().find(|m| m.get(0).and_then(Value::as_str) == Some(kind)).and_then(|m| m.get(1))
    };
    if let Some(error) = find("execution_error") {
        return Some(failed(error));
    }
    if find("execution_interrupted").is_some() {
        return Some(interrupted());
    }
    Some(Problem::internal("execution_failed", "the job ended without success, and ComfyUI does not say why"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;

    fn answer(status: u16, body: &Value) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, headers: HeaderMap::new(), body: body.to_string().into() }
    }

    #[test]
    fn the_most_important_node_comes_first() {
        let node = |kind: &str, message: &str, details: &str| {
            let extra = json!({"traceback": ["/opt/secret"], "received_value": "x"});
            json!({"class_type": "K", "dependent_outputs": ["9"],
                "errors": [{"type": kind, "message": message, "details": details, "extra_info": extra}]})
        };
        let body = json!({
            "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation",
                "details": ""},
            "node_errors": {
                "3": node("exception_during_validation", "Exception", "'77'"),
                "4": node("value_not_in_list", "Value not in list", "ckpt_name: 'a' not in ['b']"),
            },
        });
        let problem = refused(&answer(400, &body));
        assert_eq!((problem.status.as_u16(), problem.code), (400, "invalid_workflow"));
        assert_eq!(problem.node, Some(("4".into(), "K".into())));
        assert!(problem.message.contains("node 4 (K): Value not in list: ckpt_name: 'a' not in ['b']"));
        let body = problem.body();
        assert!(body.find("\"4\":{").expect("listed") < body.find("\"3\":{").expect("listed"));
        assert!(!body.contains("secret") && !body.contains("received"));
    }

    #[test]
    fn refusals_without_a_node() {
        let error = |kind: &str, details: &str| {
            let error = json!({"type": kind, "message": "M", "details": details});
            refused(&answer(400, &json!({"error": error, "node_errors": {}}))).message
        };
        assert!(error("prompt_outputs_failed_validation", "").contains("cycle"));
        assert!(error("prompt_no_outputs", "").contains("SaveImage"));
        assert_eq!(error("invalid_prompt", "Node ID '#2'"), "M: Node ID '#2'");
        assert_eq!(refused(&answer(400, &json!("?"))).message, "ComfyUI does not take the workflow");
        assert_eq!(refused(&answer(413, &json!(null))).code, "too_large");
        let broken = refused(&answer(500, &json!(null)));
        assert_eq!((broken.status.as_u16(), broken.code), (500, "comfyui_error"));
    }

    #[test]
    fn failures_are_the_prompts_fault() {
        let error = json!({"node_id": "2", "node_type": "T", "exception_type": "ValueError",
            "exception_message": "boom\n", "traceback": ["/opt/secret"], "current_inputs": {"image": ["tensor"]}});
        let problem = failed(&error);
        assert_eq!((problem.status.as_u16(), problem.code), (422, "execution_failed"));
        assert_eq!(problem.message, "node 2 (T) failed: boom");
        assert!(!problem.body().contains("secret") && !problem.body().contains("tensor"));
        let memory = failed(&json!({"exception_type": "torch.OutOfMemoryError"}));
        assert_eq!((memory.status.as_u16(), memory.code), (422, "out_of_memory"));
    }

    #[test]
    fn entries() {
        let entry = |status: &str, messages: Value| json!({"status": {"status_str": status, "messages": messages}});
        assert_eq!(of_entry(&entry("success", json!([]))), None);
        let error = entry("error", json!([["execution_start", {}], ["execution_error", {"node_id": "3"}]]));
        assert_eq!(of_entry(&error).map(|p| p.code), Some("execution_failed"));
        let stopped = entry("error", json!([["execution_interrupted", {}]]));
        assert_eq!(of_entry(&stopped).map(|p| p.status.as_u16()), Some(503));
        assert_eq!(of_entry(&json!({})).map(|p| p.status.as_u16()), Some(500));
    }
}
