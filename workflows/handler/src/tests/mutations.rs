//! Events that were damaged in many ways, the same ones in every run: each gets an answer, and none of the 5xx kind.

use super::*;
use serde_json::Map;

/// Damaged events for each sample.
const ROUNDS: u64 = 600;

/// A small generator of its own (SplitMix64), so that a failure is found again by its number.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// Values that programs trip over.
fn odd_values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(0.1),
        json!(""),
        json!("../x"),
        json!("/etc/passwd"),
        json!("a\0b"),
        json!("%%%"),
        json!("POSITIVE_PROMPT_PLACEHOLDER"),
        json!("é\u{202e}🐈"),
        json!("x".repeat(70_000)),
        json!([]),
        json!({}),
        json!([[[[[]]]]]),
        json!({"a": {"b": {"c": 1}}}),
        json!("data:image/png;base64,iVBORw0KGgo="),
        json!(["iVBORw0KGgo="]),
        json!([{"data": "iVBORw0KGgo=", "node": "4"}]),
        json!("two-images"),
        json!({"5.steps": 3, "x": null}),
    ]
}

fn names() -> [&'static str; 16] {
    [
        "positive_prompt",
        "negative_prompt",
        "prompt_file",
        "seed",
        "params",
        "format",
        "images",
        "body",
        "headers",
        "multiValueHeaders",
        "accept",
        "isBase64Encoded",
        "requestContext",
        "httpMethod",
        "elb",
        "domainName",
    ]
}

/// Changes one place of a value: replaces, removes, adds or renames.
fn damage(value: &mut Value, draw: &mut Draw) {
    let inner = match value {
        Value::Object(members) if !members.is_empty() && draw.below(4) > 0 => {
            let at = draw.below(members.len());
            members.values_mut().nth(at)
        }
        Value::Array(items) if !items.is_empty() && draw.below(4) > 0 => {
            let at = draw.below(items.len());
            items.get_mut(at)
        }
        _ => None,
    };
    if let Some(inner) = inner {
        return damage(inner, draw);
    }
    match value {
        Value::Object(members) => match draw.below(3) {
            0 => {
                members.insert(draw.of(&names()).to_owned(), draw.of(&odd_values()));
            }
            1 => {
                let name = members.keys().nth(draw.below(members.len())).cloned();
                name.and_then(|name| members.remove(&name));
            }
            _ => *value = draw.of(&odd_values()),
        },
        _ => *value = draw.of(&odd_values()),
    }
}

/// Damages the body inside of its text, or the text.
fn damage_body(event: &mut Value, draw: &mut Draw) {
    let Some(text) = event["body"].as_str().map(str::to_owned) else { return damage(event, draw) };
    let text = match draw.below(3) {
        0 => {
            let mut bytes = text.into_bytes();
            if !bytes.is_empty() {
                let at = draw.below(bytes.len());
                bytes[at] = draw.of(b"{}[]\",:\\0-eE.x\x01\xff");
                bytes.truncate(bytes.len() - draw.below(2) * draw.below(bytes.len()));
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }
        _ => {
            let mut body: Value = serde_json::from_str(&text).unwrap_or(Value::Object(Map::new()));
            for _ in 0..=draw.below(3) {
                damage(&mut body, draw);
            }
            body.to_string()
        }
    };
    event["body"] = match draw.below(4) {
        0 => {
            event["isBase64Encoded"] = true.into();
            STANDARD.encode(text).into()
        }
        _ => text.into(),
    };
}

#[tokio::test]
async fn damaged_events_are_answered() {
    let endpoint = Fake::jpeg();
    let (mut good, mut bad) = (0, 0);
    for mode in [UrlMode::Buffered, UrlMode::Stream] {
        let handler = Handler::new(workflows(), &endpoint, mode);
        for (name, text) in EVENTS {
            for round in 0..ROUNDS {
                let mut draw = Draw(round);
                let mut event: Value = serde_json::from_str(text).expect("JSON");
                match draw.below(3) {
                    0 => damage(&mut event, &mut draw),
                    1 => damage_body(&mut event, &mut draw),
                    _ => {
                        damage(&mut event, &mut draw);
                        damage_body(&mut event, &mut draw);
                    }
                }
                let (reply, summary) = handler.handle(&event.to_string(), BUDGET).await;
                let status = match &reply {
                    Reply::Buffered(reply) => reply.status_code,
                    Reply::Streamed(reply) => reply.status,
                };
                assert_eq!(status, summary.status);
                // The one packaged file that is no workflow is ours to answer for.
                let ours = summary.workflow.as_deref() == Some("saved.json");
                assert!(matches!(status, 200 | 400..=499) || ours, "{name}, round {round}: {status} for {event}");
                if status == 200 { good += 1 } else { bad += 1 }
            }
        }
    }
    // Neither all refused nor all taken: the damage reaches behind the first check.
    assert!(good > 1_000 && bad > 1_000, "{good} were good, {bad} were bad");
}

/// Every prefix of an event, as it would be if it were cut: never JSON, always an answer.
#[tokio::test]
async fn cut_events_are_answered() {
    let endpoint = Fake::jpeg();
    let handler = Handler::new(workflows(), &endpoint, UrlMode::Buffered);
    for (name, text) in EVENTS {
        let text = text.trim_end();
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let (_, summary) = handler.handle(&text[..end], BUDGET).await;
            assert_eq!(summary.status, 400, "{name} cut at {end}");
        }
    }
    assert!(endpoint.sent().is_empty());
}

proptest::proptest! {
    /// Any text at all, as an event and as a body.
    #[test]
    fn any_text_is_answered(text in proptest::prelude::any::<String>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let endpoint = Fake::jpeg();
        for event in [text.clone(), event("function-url", &text).to_string()] {
            let handler = Handler::new(workflows(), &endpoint, UrlMode::Buffered);
            let (_, summary) = runtime.block_on(handler.handle(&event, BUDGET));
            proptest::prop_assert!((400..500).contains(&summary.status));
        }
    }
}
