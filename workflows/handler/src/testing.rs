//! Events and workflows for the tests.

use serde_json::Value;

use crate::Workflows;

/// One event of each source, with a good request in it.
pub(crate) const EVENTS: [(&str, &str); 6] = [
    ("function-url", include_str!("../tests/events/function-url.json")),
    ("http-api", include_str!("../tests/events/http-api.json")),
    ("rest-api", include_str!("../tests/events/rest-api.json")),
    ("load-balancer", include_str!("../tests/events/load-balancer.json")),
    ("load-balancer-multi-value", include_str!("../tests/events/load-balancer-multi-value.json")),
    ("direct", include_str!("../tests/events/direct.json")),
];

/// A workflow with two pictures to load, beside those that are shipped.
pub(crate) const TWO_IMAGES: &str = r#"{
    "4": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Start"}},
    "10": {"class_type": "LoadImageMask", "inputs": {"image": "b.png", "channel": "alpha"}},
    "11": {"class_type": "LoadImage", "inputs": {"image": ["4", 0]}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "POSITIVE_PROMPT_PLACEHOLDER"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}}
}"#;

/// The sample event of a source.
pub(crate) fn sample(name: &str) -> Value {
    let (_, text) = EVENTS.into_iter().find(|(known, _)| *known == name).expect("a known event");
    serde_json::from_str(text).expect("JSON")
}

/// The same with another body.
pub(crate) fn event(name: &str, body: &str) -> Value {
    let mut event = sample(name);
    event["body"] = body.into();
    event
}

/// Some workflows that are shipped, one with pictures, and one that is not a workflow.
pub(crate) fn workflows() -> Workflows {
    Workflows::of([
        ("workflow_api.json", include_bytes!("../../workflow_api.json").as_slice()),
        ("flux1-dev-fp8.json", include_bytes!("../../flux1-dev-fp8.json")),
        ("two-images.json", TWO_IMAGES.as_bytes()),
        ("saved.json", br#"{"nodes":[],"links":[]}"#),
    ])
}
