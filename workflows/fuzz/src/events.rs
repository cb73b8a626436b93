//! Events of the function.

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use comfy_handler::{Call, Handler, Invoke, Invoked, Picture, Reply, UrlMode, Workflows};
use serde_json::Value;

/// Longer than nothing; nothing is waited for.
const BUDGET: Duration = Duration::from_secs(60);

/// An endpoint that has a picture for everything that is JSON.
struct Endpoint;

impl Invoke for Endpoint {
    fn invoke(&self, call: Call) -> Invoked<'_> {
        let sent: Value = serde_json::from_slice(&call.body).expect("the endpoint gets JSON");
        assert!(sent.is_object(), "{sent}");
        Box::pin(async {
            Ok(Picture {
                content_type: "image/jpeg".to_owned(),
                body: Bytes::from_static(b"\xff\xd8\xff\xe0picture"),
                attributes: "prompt_id=p;seed=7;queue_ms=0;duration_ms=1".to_owned(),
            })
        })
    }
}

static HANDLERS: LazyLock<[Handler<Endpoint>; 2]> = LazyLock::new(|| {
    let workflows = Workflows::of([
        ("workflow_api.json", include_bytes!("../../workflow_api.json").as_slice()),
        ("image.json", include_bytes!("../../sdxl-image-to-image.json")),
    ]);
    [UrlMode::Buffered, UrlMode::Stream].map(|mode| Handler::new(workflows.clone(), Endpoint, mode))
});

/// Answers an event, and the same text as the body of an event.
///
/// # Panics
/// An answer that is the function's fault, or none: that is what is looked for.
pub fn events(input: &[u8]) {
    // As the function takes it from Lambda.
    let text = String::from_utf8_lossy(input);
    let body = serde_json::json!({"requestContext": {"elb": {}}, "httpMethod": "POST", "body": text}).to_string();
    for handler in &*HANDLERS {
        for event in [&*text, &body] {
            let mut answering = pin!(handler.handle(event, BUDGET));
            let Poll::Ready((reply, summary)) = answering.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("nothing is there to wait for");
            };
            let status = match reply {
                Reply::Streamed(reply) => reply.status,
                Reply::Buffered(reply) => {
                    let document: Value = serde_json::from_slice(&reply.to_json()).expect("Lambda gets JSON");
                    assert_eq!(document["statusCode"], reply.status_code);
                    reply.status_code
                }
            };
            assert!(matches!(status, 200 | 400..=499), "{status} {:?}", summary.error);
            assert_eq!(status, summary.status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::events;

    /// The target accepts the sample events, or it would find nothing.
    #[test]
    fn sample_events_pass() {
        for text in [
            include_bytes!("../../handler/tests/events/function-url.json").as_slice(),
            include_bytes!("../../handler/tests/events/load-balancer.json"),
            include_bytes!("../../handler/tests/events/direct.json"),
            b"",
            b"\xff{",
        ] {
            events(text);
        }
    }
}
