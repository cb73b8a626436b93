use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::testing::{EVENTS, event, sample, workflows};

mod mutations;

const JPEG: [u8; 4] = [0xff, 0xd8, 0xff, 0xe0];
const BUDGET: Duration = Duration::from_secs(65);

/// Answers with one result and remembers what was sent.
struct Fake {
    answer: Result<Picture, InvokeError>,
    sent: Mutex<Vec<Call>>,
}

impl Fake {
    fn new(answer: Result<Picture, InvokeError>) -> Self {
        Fake { answer, sent: Mutex::default() }
    }

    fn jpeg() -> Self {
        Self::picture("image/jpeg", &JPEG, "prompt_id=0a-1;seed=9;queue_ms=1;duration_ms=1234")
    }

    fn picture(content_type: &str, bytes: &[u8], attributes: &str) -> Self {
        let body = Bytes::copy_from_slice(bytes);
        Self::new(Ok(Picture { content_type: content_type.into(), body, attributes: attributes.into() }))
    }

    fn sent(&self) -> Vec<Call> {
        self.sent.lock().expect("lock").clone()
    }
}

impl Invoke for &Fake {
    fn invoke(&self, call: Call) -> Invoked<'_> {
        self.sent.lock().expect("lock").push(call);
        Box::pin(async { self.answer.clone() })
    }
}

async fn handle(event: &Value, endpoint: &Fake, mode: UrlMode) -> (Reply, Summary) {
    Handler::new(workflows(), endpoint, mode).handle(&event.to_string(), BUDGET).await
}

fn buffered(reply: Reply) -> Buffered {
    match reply {
        Reply::Buffered(reply) => reply,
        Reply::Streamed(_) => panic!("streamed"),
    }
}

fn error_of(reply: Reply) -> Value {
    let Content::Text(text) = buffered(reply).content else { panic!("a picture") };
    let body: Value = serde_json::from_str(&text).expect("JSON");
    body["error"].clone()
}

fn prompt_of(call: &Call) -> Value {
    serde_json::from_slice(&call.body).expect("JSON")
}

#[tokio::test]
async fn a_prompt_becomes_a_picture_for_every_source() {
    for (name, _) in EVENTS {
        let endpoint = Fake::jpeg();
        let (reply, summary) = handle(&sample(name), &endpoint, UrlMode::Buffered).await;
        let reply = buffered(reply);
        assert_eq!((reply.status_code, &reply.content), (200, &Content::Picture(JPEG.to_vec().into())), "{name}");
        let of =
            |header: &str| reply.headers.get(header).or(reply.multi_value_headers.get(header).map(|[value]| value));
        let got = ["Content-Type", SEED_HEADER, PROMPT_ID_HEADER, DURATION_HEADER, "Cache-Control"]
            .map(|header| of(header).map_or("", String::as_str));
        assert_eq!(got, ["image/jpeg", "7", "0a-1", "1234", "no-store"], "{name}");
        let [call] = &endpoint.sent()[..] else { panic!("{name}: sent more than once") };
        assert_eq!((call.accept, call.budget), ("*/*", BUDGET));
        let prompt = prompt_of(call);
        assert_eq!(
            (&prompt["2"]["inputs"]["text"], &prompt["5"]["inputs"]["seed"]),
            (&json!("a happy dog on a hill"), &json!(7))
        );
        let expected = Summary { workflow: Some("workflow_api.json".into()), status: 200, error: None, bytes: 4 };
        assert_eq!(summary, expected);
    }
}

#[tokio::test]
async fn a_streaming_url_gets_the_picture_as_it_is_and_errors_as_json() {
    let endpoint = Fake::jpeg();
    let (reply, _) = handle(&sample("function-url"), &endpoint, UrlMode::Stream).await;
    let Reply::Streamed(reply) = reply else { panic!("buffered") };
    assert_eq!((reply.status, &reply.body[..], reply.headers[SEED_HEADER].as_str()), (200, &JPEG[..], "7"));
    let (reply, summary) = handle(&event("function-url", "{}"), &endpoint, UrlMode::Stream).await;
    let Reply::Streamed(reply) = reply else { panic!("buffered") };
    let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!((reply.status, body["error"]["code"].as_str()), (400, Some("invalid_request")));
    assert_eq!((reply.headers["Content-Type"].as_str(), summary.status), ("application/json", 400));
}

#[tokio::test]
async fn without_lambda_a_picture_may_have_any_size() {
    // More than a reply through Lambda may have in any mode.
    let large = vec![0xff; 201 << 20];
    let endpoint = Fake::picture("image/png", &large, "");
    let handler = Handler::new(workflows(), &endpoint, UrlMode::Buffered);
    let body = json!({"positive_prompt": "x", "seed": 7});
    let reply = handler.answer_here(body.as_object().expect("an object").clone(), BUDGET).await;
    assert_eq!((reply.status, reply.body.len(), reply.headers[SEED_HEADER].as_str()), (200, large.len(), "7"));

    let reply = handler.answer_here(serde_json::Map::new(), BUDGET).await;
    let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!((reply.status, body["error"]["code"].as_str()), (400, Some("invalid_request")));
}

#[tokio::test]
async fn formats_are_asked_for() {
    for (body, accept, expected) in [
        (r#"{"positive_prompt":"x"}"#, "image/webp", "image/webp"),
        (r#"{"positive_prompt":"x"}"#, "text/html, */*", "*/*"),
        (r#"{"positive_prompt":"x","format":"png"}"#, "image/webp", "image/png"),
        (r#"{"positive_prompt":"x","format":"jpg"}"#, "*/*", "image/jpeg"),
    ] {
        let endpoint = Fake::jpeg();
        let mut event = event("function-url", body);
        event["headers"]["accept"] = accept.into();
        assert_eq!(handle(&event, &endpoint, UrlMode::Buffered).await.1.status, 200);
        assert_eq!(endpoint.sent()[0].accept, expected, "{body} {accept}");
    }
}

#[tokio::test]
async fn a_missing_seed_is_drawn_and_told() {
    let endpoint = Fake::jpeg();
    let mut seeds = Vec::new();
    for at in 0..2 {
        let (reply, _) =
            handle(&event("function-url", r#"{"positive_prompt":"x"}"#), &endpoint, UrlMode::Buffered).await;
        let seed: u64 = buffered(reply).headers[SEED_HEADER].parse().expect("a number");
        assert_eq!(prompt_of(&endpoint.sent()[at])["5"]["inputs"]["seed"].as_u64(), Some(seed));
        seeds.push(seed);
    }
    assert_ne!(seeds[0], seeds[1]);
}

#[tokio::test]
async fn other_workflows_by_name_with_and_without_the_ending() {
    let image = STANDARD.encode(b"\x89PNG\r\n\x1a\n");
    for name in ["two-images", "two-images.json"] {
        let endpoint = Fake::jpeg();
        let body = json!({"positive_prompt": "x", "prompt_file": name, "images": [image]});
        let (_, summary) = handle(&body, &endpoint, UrlMode::Buffered).await;
        assert_eq!((summary.status, summary.workflow.as_deref()), (200, Some("two-images.json")));
        let sent = prompt_of(&endpoint.sent()[0]);
        assert_eq!(sent["images"][0]["name"], sent["prompt"]["4"]["inputs"]["image"]);
    }
}

#[tokio::test]
async fn unknown_workflows_list_the_known() {
    let endpoint = Fake::jpeg();
    let body = json!({"positive_prompt": "x", "prompt_file": "flux1-dev-fp16.json"});
    let (reply, summary) = handle(&body, &endpoint, UrlMode::Buffered).await;
    let error = error_of(reply);
    assert_eq!((summary.status, error["code"].as_str()), (404, Some("unknown_workflow")));
    assert!(
        error["message"].as_str().is_some_and(|text| text.ends_with("did you mean flux1-dev-fp8.json?")),
        "{error}"
    );
    let names = ["flux1-dev-fp8.json", "saved.json", "two-images.json", "workflow_api.json"];
    assert_eq!(error["details"], json!({ "available": names }));
    let body = json!({"positive_prompt": "x", "prompt_file": "saved.json"});
    assert_eq!(handle(&body, &endpoint, UrlMode::Buffered).await.1.status, 500);
    assert!(endpoint.sent().is_empty());
}

#[tokio::test]
async fn what_is_said_of_a_picture_is_not_trusted() {
    for (content_type, bytes, attributes, expected) in [
        ("", &JPEG[..], "prompt_id=a\r\nX: y;duration_ms=-4", ["image/jpeg", ""]),
        ("application/octet-stream", b"RIFF\0\0\0\0WEBP", "prompt_id=", ["image/webp", ""]),
        ("video/mp4", b"....", " Prompt_Id = b ;;=;x", ["video/mp4", "b"]),
        ("image/x\ny", b"....", "a=b,prompt_id=c", ["application/octet-stream", "c"]),
    ] {
        let endpoint = Fake::picture(content_type, bytes, attributes);
        let (reply, _) = handle(&sample("direct"), &endpoint, UrlMode::Buffered).await;
        let headers = buffered(reply).headers;
        let got = ["Content-Type", PROMPT_ID_HEADER].map(|name| headers.get(name).map_or("", String::as_str));
        assert_eq!(got, expected);
        assert!(headers[DURATION_HEADER].parse::<u32>().is_ok(), "the time as seen from here");
    }
    let (_, summary) = handle(&sample("direct"), &Fake::picture("image/png", b"", ""), UrlMode::Buffered).await;
    assert_eq!((summary.status, summary.error.as_deref()), (502, Some("no_picture")));
}

#[tokio::test]
async fn a_picture_that_does_not_fit_is_an_error_of_its_source() {
    let endpoint = Fake::picture("image/png", &[0; 900_000], "");
    let (reply, summary) = handle(&sample("load-balancer"), &endpoint, UrlMode::Stream).await;
    assert_eq!((summary.status, summary.error.as_deref()), (413, Some("picture_too_large")));
    assert_eq!(buffered(reply).status_description.as_deref(), Some("413 Payload Too Large"));
    assert_eq!(handle(&sample("function-url"), &endpoint, UrlMode::Buffered).await.1.status, 200);
}

#[tokio::test]
async fn errors_of_the_endpoint_reach_the_caller_once() {
    let endpoint = Fake::new(Err(InvokeError::Throttled));
    let (reply, summary) = handle(&sample("function-url"), &endpoint, UrlMode::Buffered).await;
    let reply = buffered(reply);
    assert_eq!(
        (reply.status_code, reply.headers["Retry-After"].as_str(), summary.error.as_deref()),
        (429, "5", Some("throttled"))
    );
    assert_eq!(endpoint.sent().len(), 1);
}

#[tokio::test]
async fn the_wait_is_never_longer_than_the_operation_limit() {
    let endpoint = Fake::jpeg();
    let handler = Handler::new(workflows(), &endpoint, UrlMode::Buffered);
    let event = sample("direct").to_string();
    for (budget, expected) in
        [(Duration::from_secs(900), OPERATION_TIMEOUT), (Duration::from_secs(3), Duration::from_secs(3))]
    {
        handler.handle(&event, budget).await;
        assert_eq!(endpoint.sent().last().map(|call| call.budget), Some(expected));
    }
}
