//! The program between a stand-in for Lambda's runtime API and one for the endpoint.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

struct World {
    events: Mutex<VecDeque<Value>>,
    replies: UnboundedSender<Value>,
    /// Path, headers and body of each call of the endpoint.
    invoked: Mutex<Vec<(String, HeaderMap, Value)>>,
}

type Shared = State<Arc<World>>;

async fn next(State(world): Shared) -> Response {
    let event = world.events.lock().expect("lock").pop_front();
    match event {
        Some(event) => {
            let headers = [
                ("lambda-runtime-aws-request-id", "request-1"),
                ("lambda-runtime-deadline-ms", "4102444800000"),
                ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-west-1:123456789012:function:app-lambda"),
            ];
            (headers, event.to_string()).into_response()
        }
        None => std::future::pending().await,
    }
}

async fn reply(State(world): Shared, body: Bytes) -> StatusCode {
    let _ = world.replies.send(serde_json::from_slice(&body).expect("JSON"));
    StatusCode::ACCEPTED
}

/// An endpoint that makes an image of the first prompt and fails all others in its container.
async fn invoke(State(world): Shared, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let workflow: Value = serde_json::from_slice(&body).expect("JSON");
    let mut invoked = world.invoked.lock().expect("lock");
    invoked.push((name, headers, workflow));
    if invoked.len() == 1 {
        return ([("content-type", "image/jpeg")], vec![0xff, 0xd8]).into_response();
    }
    let original = json!({"error": {"code": "execution_failed", "message": "node 5: boom", "details": null}});
    let body = json!({"Message": "Received server error (500)", "OriginalStatusCode": 500,
        "OriginalMessage": original.to_string(), "LogStreamArn": "arn"});
    let headers = [("x-amzn-errortype", "ModelError"), ("content-type", "application/json")];
    (StatusCode::FAILED_DEPENDENCY, headers, body.to_string()).into_response()
}

fn event(prompt: &str) -> Value {
    json!({
        "version": "2.0", "requestContext": {"http": {"method": "POST", "path": "/"}}, "isBase64Encoded": false,
        "body": json!({"positive_prompt": prompt, "seed": 7}).to_string(),
    })
}

#[tokio::test]
async fn events_in_replies_out_and_no_prompt_in_the_log() {
    let (replies, mut received) = unbounded_channel();
    let events = Mutex::new(VecDeque::from([event("my secret cat"), event("my secret dog"), json!({"body": "{"})]));
    let world = Arc::new(World { events, replies, invoked: Mutex::default() });
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(reply))
        .route("/endpoints/{name}/invocations", post(invoke))
        .with_state(Arc::clone(&world));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });

    // The package's layout: the workflows in a directory beside the program.
    let root = std::env::temp_dir().join(format!("comfy-handler-process-{}", std::process::id()));
    std::fs::create_dir_all(root.join("workflows")).expect("mkdir");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../workflow_api.json");
    std::fs::copy(shipped, root.join("workflows/workflow_api.json")).expect("copied");
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_comfy-handler"))
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", &address)
        .env("AWS_LAMBDA_FUNCTION_NAME", "app-lambda")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "s")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", "g")
        .env("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", format!("http://{address}"))
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "sandbox")
        .env("AWS_SECRET_ACCESS_KEY", "sandbox")
        .env("RUST_LOG", "trace")
        .env("LAMBDA_TASK_ROOT", &root)
        .env("ENDPOINT_NAME", "app")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");

    let mut replies = Vec::new();
    for _ in 0..3 {
        let reply = tokio::time::timeout(Duration::from_secs(30), received.recv()).await.expect("a reply in time");
        replies.push(reply.expect("a reply"));
    }
    let [image, failed, bad] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!((&image["statusCode"], &image["headers"]["X-Comfy-Seed"]), (&json!(200), &json!("7")));
    assert_eq!((&image["isBase64Encoded"], &image["body"]), (&json!(true), &json!(STANDARD.encode([0xff, 0xd8]))));
    assert_eq!(failed["statusCode"], 424);
    let error: Value = serde_json::from_str(failed["body"].as_str().expect("a text")).expect("JSON");
    assert_eq!(
        (&error["error"]["code"], &error["error"]["message"]),
        (&json!("execution_failed"), &json!("node 5: boom"))
    );
    assert_eq!(bad["statusCode"], 400);

    {
        let invoked = world.invoked.lock().expect("lock");
        assert_eq!(invoked.len(), 2, "a prompt was sent twice");
        let (name, headers, workflow) = &invoked[0];
        assert_eq!(
            (name.as_str(), &headers["accept"], &headers["content-type"]),
            ("app", &"*/*".parse().expect("a value"), &"application/json".parse().expect("a value"))
        );
        assert_eq!(workflow["2"]["inputs"]["text"], "my secret cat");
    }
    let pid = child.id().expect("it runs").to_string();
    let killed = std::process::Command::new("sh").args(["-c", &format!("kill {pid}")]).status().expect("runs");
    assert!(killed.success());
    let output = child.wait_with_output().await.expect("its output");
    std::fs::remove_dir_all(&root).expect("removed");
    let log = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(log.matches("\"request\":\"request-1\"").count(), 3, "{log}");
    assert!(!log.contains("my secret"), "a prompt is in the log: {log}");
}
