use super::*;
use crate::testing::{EVENTS, event, sample};
use serde_json::json;

fn read(event: &Value) -> (Source, Result<Event, Problem>) {
    Event::read(&event.to_string())
}

#[test]
fn every_source_is_recognised_and_its_body_is_read() {
    let expected = [
        ("function-url", Source::FunctionUrl),
        ("http-api", Source::HttpApi),
        ("rest-api", Source::RestApi),
        ("load-balancer", Source::LoadBalancer { multi_value: false }),
        ("load-balancer-multi-value", Source::LoadBalancer { multi_value: true }),
        ("direct", Source::Direct),
    ];
    assert_eq!(EVENTS.map(|(name, _)| name), expected.map(|(name, _)| name));
    for (name, source) in expected {
        let (found, event) = read(&sample(name));
        let event = event.expect(name);
        assert_eq!((found, event.source), (source, source), "{name}");
        assert_eq!(event.body["positive_prompt"], "a happy dog on a hill", "{name}");
        assert_eq!(event.accept.as_deref(), (name != "direct").then_some("*/*"), "{name}");
    }
}

#[test]
fn bodies_in_base64() {
    for (name, _) in EVENTS.into_iter().filter(|(name, _)| *name != "direct") {
        let mut encoded = event(name, &STANDARD.encode(r#"{"positive_prompt":"é"}"#));
        encoded["isBase64Encoded"] = true.into();
        assert_eq!(read(&encoded).1.expect(name).body["positive_prompt"], "é", "{name}");
        encoded["body"] = "%%%".into();
        assert_eq!(read(&encoded).1.expect_err(name).status, 400);
        encoded["body"] = STANDARD.encode([0xff, 0xfe]).into();
        assert_eq!(read(&encoded).1.expect_err(name).status, 400);
    }
}

#[test]
fn an_event_without_an_origin_is_taken_too() {
    let (source, event) = read(&json!({"body": r#"{"positive_prompt":"x"}"#}));
    assert_eq!((source, event.expect("an event").body["positive_prompt"].as_str()), (Source::Direct, Some("x")));
}

#[test]
fn the_accept_header_in_any_case_and_number() {
    let mut single = event("function-url", "{}");
    single["headers"] = json!({"ACCEPT": "image/png"});
    let mut many = event("load-balancer-multi-value", "{}");
    many["multiValueHeaders"] = json!({"accept": ["image/webp", "image/png;q=0.5"]});
    let mut odd = event("rest-api", "{}");
    odd["multiValueHeaders"] = Value::Null;
    odd["headers"] = json!({"accept": 5});
    for (event, accept) in [(single, Some("image/png")), (many, Some("image/webp, image/png;q=0.5")), (odd, None)] {
        assert_eq!(read(&event).1.expect("an event").accept.as_deref(), accept);
    }
}

#[test]
fn other_methods_are_not_allowed() {
    for name in ["function-url", "http-api", "rest-api", "load-balancer"] {
        let mut get = event(name, "");
        for place in ["/httpMethod", "/requestContext/http/method"] {
            if let Some(method) = get.pointer_mut(place) {
                *method = "GET".into();
            }
        }
        let problem = read(&get).1.expect_err(name);
        assert_eq!((problem.status, problem.headers), (405, vec![("Allow", "POST".to_owned())]), "{name}");
    }
}

#[test]
fn bodies_that_cannot_be_read() {
    let long = format!(r#"{{"positive_prompt":"{}"}}"#, "x".repeat(10_000_000));
    let deep = "[".repeat(100_000);
    for (body, status, why) in [
        ("", 400, "empty"),
        (" \n", 400, "empty"),
        ("{\"positive_prompt\": \"my secret", 400, "line 1, column 30"),
        ("[]", 400, "not a JSON object"),
        ("null", 400, "not a JSON object"),
        ("\"x\"", 400, "not a JSON object"),
        (deep.as_str(), 400, "line 1, column"),
        (long.as_str(), 413, "6291456"),
    ] {
        let problem = read(&event("function-url", body)).1.expect_err("a problem");
        assert_eq!(problem.status, status);
        assert!(problem.message.contains(why), "{}", problem.message);
        assert!(!problem.body().contains("secret"), "{}", problem.body());
    }
    let mut encoded = event("function-url", &STANDARD.encode(&long));
    encoded["isBase64Encoded"] = true.into();
    assert_eq!(read(&encoded).1.expect_err("a problem").status, 413);
    let mut object = event("function-url", "");
    object["body"] = json!({"positive_prompt": "x"});
    assert_eq!(read(&object).1.expect_err("a problem").status, 400);
    for event in ["", "null", "[]", "{", "5"] {
        let (source, problem) = Event::read(event);
        assert_eq!((source, problem.expect_err(event).status), (Source::Direct, 400));
    }
}
