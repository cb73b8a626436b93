use std::fs;
use std::path::Path;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Answers with one result and remembers what was sent.
struct Fake {
    answer: Result<Image, InvokeError>,
    sent: Mutex<Vec<Value>>,
}

impl Fake {
    fn new(answer: Result<Image, InvokeError>) -> Self {
        Fake { answer, sent: Mutex::default() }
    }

    fn jpeg() -> Self {
        Self::new(Ok(Image { content_type: "image/jpeg".into(), body: vec![0xff, 0xd8, 0xff] }))
    }

    fn sent(&self) -> Vec<Value> {
        self.sent.lock().expect("lock").clone()
    }
}

impl Invoke for Fake {
    fn invoke(&self, workflow: Vec<u8>) -> Invoked<'_> {
        self.sent.lock().expect("lock").push(serde_json::from_slice(&workflow).expect("JSON"));
        Box::pin(async { self.answer.clone() })
    }
}

/// The workflows that are shipped, and one that is not a workflow.
fn workflows() -> Workflows {
    let dir = std::env::temp_dir().join(format!(
        "comfy-handler-test-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    fs::create_dir_all(dir.join("directory.json")).expect("mkdir");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in ["workflow_api.json", "flux1-dev-fp8.json", "flux1-schnell-fp8.json"] {
        fs::copy(shipped.join(name), dir.join(name)).expect("shipped");
    }
    fs::write(dir.join("saved.json"), r#"{"nodes":[],"links":[]}"#).expect("written");
    fs::write(dir.join("secret.txt"), "x").expect("written");
    let workflows = Workflows::load(&dir).expect("readable");
    fs::remove_dir_all(&dir).expect("removed");
    workflows
}

fn event(body: &str) -> Value {
    json!({
        "version": "2.0", "rawPath": "/", "headers": {"content-type": "application/json"},
        "requestContext": {"http": {"method": "POST", "path": "/", "protocol": "HTTP/1.1"}, "requestId": "r"},
        "body": body, "isBase64Encoded": false,
    })
}

async fn reply_to(body: &Value, endpoint: &Fake) -> (Reply, Summary) {
    handle(&event(&body.to_string()), &workflows(), endpoint).await
}

fn error_of(reply: &Reply) -> Value {
    assert_eq!(reply.headers["Content-Type"], "application/json");
    assert!(!reply.is_base64_encoded);
    let body: Value = serde_json::from_str(&reply.body).expect("JSON");
    body["error"].clone()
}

#[tokio::test]
async fn a_prompt_becomes_an_image() {
    let endpoint = Fake::jpeg();
    let body = json!({"positive_prompt": "a \"cat\"", "negative_prompt": "a dog", "seed": u64::MAX});
    let (reply, summary) = reply_to(&body, &endpoint).await;
    assert_eq!((reply.status_code, reply.is_base64_encoded), (200, true));
    assert_eq!(reply.headers["Content-Type"], "image/jpeg");
    assert_eq!(reply.headers[SEED_HEADER], u64::MAX.to_string());
    assert_eq!(STANDARD.decode(&reply.body), Ok(vec![0xff, 0xd8, 0xff]));
    let sent = &endpoint.sent()[0];
    assert_eq!(sent["2"]["inputs"]["text"], "a \"cat\"");
    assert_eq!(sent["3"]["inputs"]["text"], "a dog");
    assert_eq!(sent["5"]["inputs"]["seed"].as_u64(), Some(u64::MAX));
    let expected = Summary { workflow: Some("workflow_api.json".into()), status: 200, error: None, bytes: 3 };
    assert_eq!(summary, expected);
    let wire = serde_json::to_value(&reply).expect("serializes");
    assert!(wire["statusCode"] == 200 && wire["isBase64Encoded"] == true, "{wire}");
}

#[tokio::test]
async fn defaults_and_encodings() {
    let endpoint = Fake::jpeg();
    let (reply, _) = reply_to(&json!({"positive_prompt": "x", "negative_prompt": null}), &endpoint).await;
    let seed: u64 = reply.headers[SEED_HEADER].parse().expect("a number");
    assert_eq!(endpoint.sent()[0]["5"]["inputs"]["seed"].as_u64(), Some(seed));
    assert_eq!(endpoint.sent()[0]["3"]["inputs"]["text"], "");

    let mut encoded =
        event(&STANDARD.encode(r#"{"positive_prompt":"é","seed":"7","prompt_file":"flux1-dev-fp8.json"}"#));
    encoded["isBase64Encoded"] = true.into();
    let (reply, _) = handle(&encoded, &workflows(), &endpoint).await;
    assert_eq!((reply.status_code, reply.headers[SEED_HEADER].as_str()), (200, "7"));
    assert_eq!(endpoint.sent()[1]["2"]["inputs"]["text"], "é");
}

#[tokio::test]
async fn bad_requests_do_not_reach_the_endpoint() {
    let endpoint = Fake::jpeg();
    for (body, status, why) in [
        ("", 400, "empty"),
        ("{\"positive_prompt\": \"my secret", 400, "not JSON (line 1"),
        ("[]", 400, "not a JSON object"),
        ("{}", 400, "positive_prompt"),
        (r#"{"positive_prompt":"  "}"#, 400, "positive_prompt"),
        (r#"{"positive_prompt":5}"#, 400, "positive_prompt is not a string"),
        (r#"{"positive_prompt":"x","negative_prompt":[]}"#, 400, "negative_prompt is not a string"),
        (r#"{"positive_prompt":"x","seed":-1}"#, 400, "seed"),
        (r#"{"positive_prompt":"x","seed":1.5}"#, 400, "seed"),
        (r#"{"positive_prompt":"x","seed":"+1"}"#, 400, "seed"),
        (r#"{"positive_prompt":"x","seed":""}"#, 400, "seed"),
        (r#"{"positive_prompt":"x","seed":18446744073709551616}"#, 400, "seed"),
        (r#"{"positive_prompt":"x","prompt_file":"other.json"}"#, 404, "prompt_file"),
        (r#"{"positive_prompt":"x","prompt_file":"../workflows/workflow_api.json"}"#, 404, "prompt_file"),
        (r#"{"positive_prompt":"x","prompt_file":"./workflow_api.json"}"#, 404, "prompt_file"),
        (r#"{"positive_prompt":"x","prompt_file":"/etc/passwd"}"#, 404, "prompt_file"),
        (r#"{"positive_prompt":"x","prompt_file":"secret.txt"}"#, 404, "prompt_file"),
        (r#"{"positive_prompt":"x","prompt_file":"directory.json"}"#, 404, "prompt_file"),
        (r#"{"positive_prompt":"x","prompt_file":"saved.json"}"#, 500, "Export (API)"),
    ] {
        let (reply, summary) = handle(&event(body), &workflows(), &endpoint).await;
        let error = error_of(&reply);
        assert_eq!(reply.status_code, status, "{body}");
        assert!(error["message"].as_str().is_some_and(|m| m.contains(why)), "{body}: {error}");
        assert!(!reply.body.contains("my secret"), "a prompt is repeated: {}", reply.body);
        assert_eq!(error["code"].as_str(), summary.error.as_deref());
    }
    let mut odd = event("%%%");
    odd["isBase64Encoded"] = true.into();
    assert_eq!(handle(&odd, &workflows(), &endpoint).await.0.status_code, 400);
    assert_eq!(handle(&json!({}), &workflows(), &endpoint).await.0.status_code, 400);
    let mut get = event("{}");
    get["requestContext"]["http"]["method"] = "GET".into();
    let (reply, _) = handle(&get, &workflows(), &endpoint).await;
    assert_eq!((reply.status_code, reply.headers["Allow"].as_str()), (405, "POST"));
    assert!(endpoint.sent().is_empty());
}

#[tokio::test]
async fn unknown_names_list_the_known() {
    let (reply, _) = reply_to(&json!({"positive_prompt": "x", "prompt_file": "?"}), &Fake::jpeg()).await;
    let names = ["flux1-dev-fp8.json", "flux1-schnell-fp8.json", "saved.json", "workflow_api.json"];
    assert_eq!(error_of(&reply)["details"], json!({ "available": names }));
}

#[tokio::test]
async fn errors_of_the_endpoint() {
    let model = |status: u16, message: &str| InvokeError::Model { status, message: message.into() };
    let container = r#"{"error":{"code":"invalid_workflow","message":"no model x","details":{"node":"4"}}}"#;
    for (error, status, code) in [
        (model(400, container), 400, "invalid_workflow"),
        (model(500, container), 424, "invalid_workflow"),
        (model(500, "plain text"), 424, "model_error"),
        (model(503, "{}"), 503, "model_error"),
        (model(504, container), 504, "timeout"),
        (model(0, "Your invocation timed out while waiting for a response"), 504, "timeout"),
        (model(0, "connection reset"), 424, "model_error"),
        (InvokeError::Throttled, 429, "throttled"),
        (InvokeError::Unavailable, 503, "unavailable"),
        (InvokeError::Rejected("Endpoint e not found".into()), 503, "endpoint_rejected"),
        (InvokeError::Denied, 500, "denied"),
        (InvokeError::TimedOut, 504, "timeout"),
        (InvokeError::Failed("x".into()), 502, "endpoint_failed"),
    ] {
        let endpoint = Fake::new(Err(error.clone()));
        let (reply, summary) = reply_to(&json!({"positive_prompt": "x"}), &endpoint).await;
        let got = error_of(&reply);
        assert_eq!((reply.status_code, got["code"].as_str()), (status, Some(code)), "{error:?}");
        assert_eq!(summary.status, status);
        assert_eq!(endpoint.sent().len(), 1, "the prompt was sent more than once");
        assert_eq!(
            reply.headers.contains_key("Retry-After"),
            matches!(status, 429 | 503) && code != "endpoint_rejected"
        );
    }
}

#[tokio::test]
async fn what_the_container_said_is_unwrapped() {
    let error = |status, message: &str| Fake::new(Err(InvokeError::Model { status, message: message.into() }));
    let body = json!({"positive_prompt": "x"});
    let said = r#"{"error":{"code":"c","message":"no model x","details":{"node":"4"}}}"#;
    let (reply, _) = reply_to(&body, &error(400, said)).await;
    let details = json!({"original_status_code": 400, "original": {"node": "4"}});
    assert_eq!(error_of(&reply), json!({"code": "c", "message": "no model x", "details": details}));
    let (reply, _) = reply_to(&body, &error(500, "<html>")).await;
    assert_eq!(error_of(&reply)["details"], json!({"original_status_code": 500, "original": "<html>"}));
    let (reply, _) = reply_to(&body, &error(500, r#"{"detail":1}"#)).await;
    assert_eq!(error_of(&reply)["details"]["original"], json!({"detail": 1}));
}

#[tokio::test]
async fn images_that_do_not_fit_and_empty_ones() {
    let image = |n: usize| Fake::new(Ok(Image { content_type: "image/png".into(), body: vec![0; n] }));
    let body = json!({"positive_prompt": "x"});
    assert_eq!(reply_to(&body, &image(4_700_000)).await.0.status_code, 200);
    let (reply, _) = reply_to(&body, &image(4_720_000)).await;
    assert_eq!((reply.status_code, error_of(&reply)["code"].as_str()), (413, Some("image_too_large")));
    assert_eq!(reply_to(&body, &image(0)).await.0.status_code, 502);
}
