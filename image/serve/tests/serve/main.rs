//! The server in front of a stand-in that replays what ComfyUI 0.3.64 was recorded to say.

mod fake;
mod process;

use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use comfy_serve::{State, router};
use fake::{Fake, Mode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::{Value, json};

fn png() -> (&'static str, Vec<u8>) {
    let mut png = Cursor::new(Vec::new());
    let picture = DynamicImage::ImageRgb8(RgbImage::from_pixel(32, 32, image::Rgb([200, 30, 30])));
    picture.write_to(&mut png, ImageFormat::Png).expect("encodes");
    ("image/png", png.into_inner())
}

/// The server in front of a URL.
async fn serve(comfyui: &str, deadline: Duration) -> SocketAddr {
    let state = State::new(comfyui, 90, deadline).expect("a URL");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(Arc::clone(&state).probe());
    tokio::spawn(async move { axum::serve(listener, router(state)).await });
    address
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn content_type(&self) -> &str {
        self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    fn error(&self) -> Value {
        assert_eq!(self.content_type(), "application/json");
        assert!(self.body.len() <= 2048, "SageMaker would cut it");
        serde_json::from_slice::<Value>(&self.body).expect("JSON")["error"].clone()
    }
}

async fn send(to: SocketAddr, method: Method, path: &str, accept: Option<&str>, body: impl Into<Bytes>) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("http://{to}{path}"));
    if let Some(accept) = accept {
        request = request.header(header::ACCEPT, accept);
    }
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request.body(Full::new(body.into())).expect("a request")).await.expect("an answer");
    let (head, body) = response.into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.expect("a body").to_bytes() }
}

async fn invoke(to: SocketAddr, accept: Option<&str>, body: &Value) -> Answer {
    send(to, Method::POST, "/invocations", accept, body.to_string()).await
}

const LONG: Duration = Duration::from_secs(30);

/// Repeats a question until it is answered with yes.
async fn soon(mut question: impl FnMut() -> bool) -> bool {
    for _ in 0..200 {
        if question() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[tokio::test]
async fn a_workflow_becomes_a_picture_and_leaves_nothing_behind() {
    let (fake, url) = Fake::start(Mode::Replay, "save_image_ok", png()).await;
    let server = serve(&url, LONG).await;
    let workflow = fake.workflow();
    for (accept, content_type, format) in [
        (Some("*/*"), "image/jpeg", ImageFormat::Jpeg),
        (Some("image/jpeg"), "image/jpeg", ImageFormat::Jpeg),
        (Some("image/png"), "image/png", ImageFormat::Png),
        (None, "image/png", ImageFormat::Png),
    ] {
        let answer = invoke(server, accept, &workflow).await;
        assert_eq!((answer.status, answer.content_type()), (StatusCode::OK, content_type));
        let picture = image::load_from_memory_with_format(&answer.body, format).expect("a picture");
        assert_eq!((picture.width(), picture.height()), (32, 32));
    }
    let seen = fake.seen.lock().expect("lock");
    assert_eq!(seen.workflows, vec![workflow; 4]);
    assert!(seen.history.is_empty(), "the history grows");
    assert!(seen.interrupted.is_empty());
    for ids in [&seen.client_ids, &seen.prompt_ids] {
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), 4, "an id was used twice");
    }
}

#[tokio::test]
async fn previews_on_the_socket_do_not_disturb() {
    let (fake, url) = Fake::start(Mode::Replay, "progress_and_previews_plain", png()).await;
    let server = serve(&url, LONG).await;
    let begun = Instant::now();
    assert_eq!(invoke(server, None, &fake.workflow()).await.status, StatusCode::OK);
    assert!(begun.elapsed() < Duration::from_millis(900), "the end was found by polling, not on the socket");
}

#[tokio::test]
async fn the_first_of_a_batch_previews_and_other_formats() {
    for (fixture, name, kind) in
        [("batch_of_3", "batch_00001_.png", "output"), ("preview_image_ok", "ComfyUI_temp_vrztk_00001_.png", "temp")]
    {
        let (fake, url) = Fake::start(Mode::Replay, fixture, png()).await;
        let server = serve(&url, LONG).await;
        assert_eq!(invoke(server, None, &fake.workflow()).await.status, StatusCode::OK);
        let seen = fake.seen.lock().expect("lock");
        assert_eq!((seen.viewed[0]["filename"].as_str(), seen.viewed[0]["type"].as_str()), (name, kind));
    }
    let webp = ("image/webp", b"RIFF....WEBP".to_vec());
    let (fake, url) = Fake::start(Mode::Replay, "animated_webp", webp.clone()).await;
    let answer = invoke(serve(&url, LONG).await, Some("*/*"), &fake.workflow()).await;
    assert_eq!((answer.content_type(), answer.body.to_vec()), webp);
}

#[tokio::test]
async fn without_a_socket_the_history_tells_the_end() {
    for mode in [Mode::NoSocket, Mode::Drops] {
        let (fake, url) = Fake::start(mode, "save_image_ok", png()).await;
        let answer = invoke(serve(&url, LONG).await, None, &fake.workflow()).await;
        assert_eq!(answer.status, StatusCode::OK, "{mode:?}");
    }
}

#[tokio::test]
async fn errors_while_running_are_errors_even_with_outputs() {
    let (fake, url) = Fake::start(Mode::Replay, "exec_error_partial_outputs", png()).await;
    let answer = invoke(serve(&url, LONG).await, Some("*/*"), &fake.workflow()).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    let error = answer.error();
    assert_eq!(
        (error["code"].as_str(), error["message"].as_str()),
        (Some("execution_failed"), Some("node 2 (TestFail): boom"))
    );
    assert!(!error.to_string().contains("traceback") && !error.to_string().contains("/opt"), "{error}");
    let seen = fake.seen.lock().expect("lock");
    assert!(seen.viewed.is_empty() && seen.history.is_empty());
}

#[tokio::test]
async fn what_comfyui_does_not_take_is_a_400_with_its_reasons() {
    let (fake, url) = Fake::start(Mode::Replay, "err_value_not_in_list_ckpt", png()).await;
    let answer = invoke(serve(&url, LONG).await, None, &fake.workflow()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let error = answer.error();
    assert_eq!(error["code"], "invalid_workflow");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("missing.safetensors")), "{error}");
    assert_eq!(error["details"]["node_errors"]["1"]["errors"][0]["type"], "value_not_in_list");
    assert!(!error.to_string().contains("extra_info"), "{error}");
}

#[tokio::test]
async fn bodies_that_are_no_workflow_do_not_reach_comfyui() {
    let (fake, url) = Fake::start(Mode::Replay, "save_image_ok", png()).await;
    let server = serve(&url, LONG).await;
    for body in ["", "{", "null", "[]", "{}", "\u{0}", r#"{"nodes":[],"links":[]}"#, r#"{"1":{"inputs":{}}}"#] {
        let answer = send(server, Method::POST, "/invocations", None, body.to_owned()).await;
        assert_eq!(
            (answer.status, answer.error()["code"].as_str()),
            (StatusCode::BAD_REQUEST, Some("invalid_workflow"))
        );
    }
    let answer = send(server, Method::POST, "/invocations", None, vec![b' '; 25 * 1024 * 1024 + 1]).await;
    assert_eq!((answer.status, answer.error()["code"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("too_large")));
    assert!(fake.seen.lock().expect("lock").workflows.is_empty());
    assert_eq!(send(server, Method::GET, "/other", None, "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(send(server, Method::GET, "/invocations", None, "").await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_deadline_cancels_the_job_and_no_other() {
    let (fake, url) = Fake::start(Mode::Stuck, "save_image_ok", png()).await;
    let server = serve(&url, Duration::from_millis(400)).await;
    fake.seen.lock().expect("lock").running.insert("somebody-elses".into());
    let answer = invoke(server, None, &fake.workflow()).await;
    assert_eq!((answer.status, answer.error()["code"].as_str()), (StatusCode::GATEWAY_TIMEOUT, Some("timeout")));
    let id = fake.seen.lock().expect("lock").prompt_ids[0].clone();
    assert!(soon(|| fake.seen.lock().expect("lock").interrupted.contains(&id)).await, "the job runs on");
    assert!(soon(|| fake.seen.lock().expect("lock").history.is_empty()).await, "its history stays");
    assert!(fake.seen.lock().expect("lock").running.contains("somebody-elses"));
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_job() {
    let (fake, url) = Fake::start(Mode::Stuck, "save_image_ok", png()).await;
    let server = serve(&url, LONG).await;
    let workflow = fake.workflow();
    let gone = tokio::time::timeout(Duration::from_millis(400), invoke(server, None, &workflow)).await;
    assert!(gone.is_err());
    assert!(soon(|| !fake.seen.lock().expect("lock").interrupted.is_empty()).await, "the job runs on");
}

#[tokio::test]
async fn a_job_that_comfyui_forgot_is_found_out() {
    let (fake, url) = Fake::start(Mode::Forgets, "save_image_ok", png()).await;
    let answer = invoke(serve(&url, LONG).await, None, &fake.workflow()).await;
    assert_eq!((answer.status, answer.error()["code"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("job_lost")));
}

#[tokio::test]
async fn ping_follows_comfyui() {
    let port =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
    let server = serve(&format!("http://127.0.0.1:{port}"), LONG).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(send(server, Method::GET, "/ping", None, "").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let workflow = json!({"1": {"class_type": "X", "inputs": {}}});
    let answer = invoke(server, None, &workflow).await;
    assert_eq!(answer.error()["code"], "comfyui_unreachable");

    let (_fake, url) = Fake::start(Mode::Stuck, "save_image_ok", png()).await;
    let server = serve(&url, LONG).await;
    let mut healthy = false;
    for _ in 0..100 {
        healthy = send(server, Method::GET, "/ping", None, "").await.status == StatusCode::OK;
        if healthy {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(healthy, "ComfyUI answers and /ping does not say so");
}
