//! The program between a stand-in for Lambda's runtime API and one for the endpoint.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Deadlines of events, in milliseconds since 1970: the year 2100, and long ago.
const IN_TIME: &str = "4102444800000";
const TOO_LATE: &str = "1";

/// One reply as the program posted it: `response` or `error`, headers and body.
type Posted = (String, HeaderMap, Bytes);

struct World {
    /// Deadline and text.
    events: Mutex<VecDeque<(&'static str, String)>>,
    replies: UnboundedSender<Posted>,
    /// Path, headers and body of each call of the endpoint.
    invoked: Mutex<Vec<(String, HeaderMap, Value)>>,
    picture: Vec<u8>,
}

type Shared = State<Arc<World>>;

async fn next(State(world): Shared) -> Response {
    let event = world.events.lock().expect("lock").pop_front();
    match event {
        Some((deadline, event)) => {
            let headers = [
                ("lambda-runtime-aws-request-id", "request-1"),
                ("lambda-runtime-deadline-ms", deadline),
                ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-west-1:123456789012:function:app-lambda"),
            ];
            (headers, event).into_response()
        }
        None => std::future::pending().await,
    }
}

async fn reply(
    State(world): Shared,
    Path((_, kind)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let _ = world.replies.send((kind, headers, body));
    StatusCode::ACCEPTED
}

/// An endpoint that makes an image of each prompt but those that say boom, which fail in its container.
async fn invoke(State(world): Shared, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let workflow: Value = serde_json::from_slice(&body).expect("JSON");
    let fails = workflow["2"]["inputs"]["text"].as_str().is_some_and(|text| text.contains("boom"));
    world.invoked.lock().expect("lock").push((name, headers, workflow));
    if !fails {
        let attributes = ("x-amzn-sagemaker-custom-attributes", "prompt_id=p-1;seed=7;queue_ms=1;duration_ms=42");
        return ([("content-type", "image/jpeg"), attributes], world.picture.clone()).into_response();
    }
    let original = json!({"error": {"code": "execution_failed", "message": "node 5 failed", "node_id": "5"}});
    let body = json!({"Message": "Received server error (500)", "OriginalStatusCode": 500,
        "OriginalMessage": original.to_string(), "LogStreamArn": "arn"});
    let headers = [("x-amzn-errortype", "ModelError"), ("content-type", "application/json")];
    (StatusCode::FAILED_DEPENDENCY, headers, body.to_string()).into_response()
}

/// The program, running, with some events to take.
struct Program {
    world: Arc<World>,
    replies: UnboundedReceiver<Posted>,
    child: tokio::process::Child,
    root: PathBuf,
}

impl Program {
    async fn start(name: &str, mode: &str, picture: Vec<u8>, events: Vec<(&'static str, String)>) -> Self {
        let (sender, replies) = unbounded_channel();
        let world =
            Arc::new(World { events: Mutex::new(events.into()), replies: sender, invoked: Mutex::default(), picture });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{kind}", post(reply))
            .route("/endpoints/{name}/invocations", post(invoke))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&world));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });

        // The package's layout: the workflows in a directory beside the program.
        let root = std::env::temp_dir().join(format!("comfy-handler-{name}-{}", std::process::id()));
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
            .env("COMFY_URL_MODE", mode)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        Program { world, replies, child, root }
    }

    async fn reply(&mut self) -> Posted {
        let reply = tokio::time::timeout(Duration::from_secs(30), self.replies.recv()).await;
        reply.expect("a reply in time").expect("a reply")
    }

    /// A reply that is one JSON document.
    async fn document(&mut self) -> Value {
        let (kind, _, body) = self.reply().await;
        assert_eq!(kind, "response");
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Stops the program and returns what it wrote.
    async fn log(mut self) -> String {
        self.child.start_kill().expect("killed");
        let output = self.child.wait_with_output().await.expect("its output");
        std::fs::remove_dir_all(&self.root).expect("removed");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

fn event(prompt: &str) -> String {
    let mut event: Value = serde_json::from_str(include_str!("events/function-url.json")).expect("JSON");
    event["body"] = json!({"positive_prompt": prompt, "seed": 7}).to_string().into();
    event.to_string()
}

fn error_of(reply: &Value) -> Value {
    let body: Value = serde_json::from_str(reply["body"].as_str().expect("a text")).expect("JSON");
    body["error"].clone()
}

#[tokio::test]
async fn events_in_replies_out_and_no_prompt_in_the_log() {
    let events = vec![
        (IN_TIME, event("my secret cat")),
        (IN_TIME, event("my secret boom")),
        (IN_TIME, json!({"body": "{\"positive_prompt\": \"my secret"}).to_string()),
        (IN_TIME, "[".repeat(5_000) + &"]".repeat(5_000)),
        (TOO_LATE, event("my secret mouse")),
        (IN_TIME, json!({"positive_prompt": "my secret bird", "seed": 7}).to_string()),
    ];
    let mut program = Program::start("buffered", "", vec![0xff, 0xd8], events).await;

    let picture = program.document().await;
    assert_eq!((&picture["statusCode"], &picture["headers"]["X-Comfy-Seed"]), (&json!(200), &json!("7")));
    assert_eq!(picture["headers"]["X-Comfy-Duration-Ms"], "42");
    assert_eq!((&picture["isBase64Encoded"], &picture["body"]), (&json!(true), &json!(STANDARD.encode([0xff, 0xd8]))));
    let failed = program.document().await;
    let error = error_of(&failed);
    assert_eq!((&failed["statusCode"], &error["code"]), (&json!(424), &json!("execution_failed")));
    assert_eq!((&error["message"], &error["details"]["node_id"]), (&json!("node 5 failed"), &json!("5")));
    assert_eq!(program.document().await["statusCode"], 400);
    assert_eq!(program.document().await["statusCode"], 400, "too deep for a parser that must not overflow its stack");
    let late = program.document().await;
    assert_eq!((&late["statusCode"], &error_of(&late)["code"]), (&json!(504), &json!("timeout")));
    assert_eq!(program.document().await["statusCode"], 200);

    {
        let invoked = program.world.invoked.lock().expect("lock");
        let prompts: Vec<_> = invoked.iter().map(|(_, _, workflow)| &workflow["2"]["inputs"]["text"]).collect();
        assert_eq!(prompts, ["my secret cat", "my secret boom", "my secret bird"], "each once, and none too late");
        let (name, headers, _) = &invoked[0];
        assert_eq!(
            (name.as_str(), &headers["accept"], &headers["content-type"]),
            ("app", &"*/*".parse().expect("a value"), &"application/json".parse().expect("a value"))
        );
    }
    let log = program.log().await;
    assert_eq!(log.matches("\"request\":\"request-1\"").count(), 6, "{log}");
    assert!(!log.contains("my secret"), "a prompt is in the log: {log}");
}

#[tokio::test]
async fn a_streaming_url_gets_the_bytes_behind_a_prelude() {
    // More than a buffered reply could carry.
    let picture: Vec<u8> = (0..8_000_000_u32).flat_map(|n| n.to_le_bytes()).take(8_000_000).collect();
    let direct = json!({"positive_prompt": "x", "seed": 7}).to_string();
    let events = vec![(IN_TIME, event("x")), (IN_TIME, event("boom")), (IN_TIME, direct)];
    let mut program = Program::start("stream", "stream", picture.clone(), events).await;

    for (status, content_type) in [(200, "image/jpeg"), (424, "application/json")] {
        let (kind, headers, body) = program.reply().await;
        assert_eq!(
            (kind.as_str(), &headers["lambda-runtime-function-response-mode"]),
            ("response", &"streaming".parse().expect("a value"))
        );
        assert_eq!(headers["content-type"], "application/vnd.awslambda.http-integration-response");
        let end = body.windows(8).position(|window| window == [0; 8]).expect("the end of the prelude");
        let prelude: Value = serde_json::from_slice(&body[..end]).expect("JSON");
        assert_eq!(
            (&prelude["statusCode"], &prelude["headers"]["content-type"]),
            (&json!(status), &json!(content_type))
        );
        if status == 200 {
            assert_eq!(prelude["headers"]["x-comfy-seed"], "7");
            assert_eq!(prelude["headers"]["x-comfy-prompt-id"], "p-1");
            assert!(body[end + 8..] == picture, "the picture was changed on its way");
        } else {
            let body: Value = serde_json::from_slice(&body[end + 8..]).expect("JSON");
            assert_eq!(body["error"]["code"], "execution_failed");
        }
    }
    let direct = program.document().await;
    assert_eq!((&direct["statusCode"], &error_of(&direct)["code"]), (&json!(413), &json!("picture_too_large")));
    program.log().await;
}
