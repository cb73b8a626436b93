use super::*;

fn unwrapped(status: u16, message: &str) -> Problem {
    Problem::from(InvokeError::Model { status, message: message.into() })
}

#[test]
fn statuses_and_codes() {
    let model = |status: u16, message: &str| InvokeError::Model { status, message: message.into() };
    let container = r#"{"error":{"code":"invalid_workflow","message":"no model x","details":{"node":"4"}}}"#;
    for (error, status, code, wait) in [
        (model(400, container), 424, "invalid_workflow", None),
        (model(422, container), 424, "invalid_workflow", None),
        (model(500, container), 424, "invalid_workflow", None),
        (model(406, container), 406, "invalid_workflow", None),
        (model(413, container), 413, "invalid_workflow", None),
        (model(400, r#"{"error":{"code":"invalid_image","message":"m"}}"#), 400, "invalid_image", None),
        (model(503, r#"{"error":{"code":"job_lost","message":"m"}}"#), 503, "job_lost", Some("1")),
        (model(422, "cut JSON {"), 424, "model_error", None),
        (model(500, "plain text"), 502, "model_error", None),
        (model(500, ""), 502, "model_error", None),
        (model(0, "connection reset"), 502, "model_error", None),
        (model(429, "{}"), 429, "model_error", Some("15")),
        (model(503, "{}"), 503, "model_error", Some("15")),
        (model(503, r#"{"error":{"code":"busy","message":"m","details":{"retry_after":3}}}"#), 503, "busy", Some("3")),
        (
            model(503, r#"{"error":{"code":"busy","message":"m","details":{"retry_after":-3}}}"#),
            503,
            "busy",
            Some("15"),
        ),
        (model(504, container), 504, "timeout", None),
        (model(0, "Your invocation timed out while waiting for a response"), 504, "timeout", None),
        (InvokeError::Throttled, 429, "throttled", Some("5")),
        (InvokeError::Unavailable, 503, "unavailable", Some("15")),
        (InvokeError::NotReady("Endpoint e not found".into()), 503, "endpoint_not_ready", Some("60")),
        (InvokeError::Unreachable("no connection".into()), 503, "unreachable", Some("15")),
        (InvokeError::TooLarge, 413, "request_too_large", None),
        (InvokeError::Rejected("x".into()), 502, "endpoint_rejected", None),
        (InvokeError::Denied, 502, "denied", None),
        (InvokeError::TimedOut { seconds: 65 }, 504, "timeout", None),
        (InvokeError::Failed("x".into()), 502, "endpoint_failed", None),
    ] {
        let problem = Problem::from(error.clone());
        assert_eq!((problem.status, problem.code.as_str()), (status, code), "{error:?}");
        let retry = problem.headers.iter().find(|(name, _)| *name == "Retry-After").map(|(_, value)| value.as_str());
        assert_eq!(retry, wait, "{error:?}");
    }
}

#[test]
fn what_the_container_said_is_passed_on() {
    let said = r#"{"error":{"code":"c","message":"no model x","node_id":"4","node_class":"K","details":{"n":1}}}"#;
    let problem = unwrapped(400, said);
    assert_eq!((problem.code.as_str(), problem.message.as_str()), ("c", "no model x"));
    let details = json!({"original_status_code": 400, "node_id": "4", "node_class": "K", "original": {"n": 1}});
    assert_eq!(*problem.details, details);
    assert_eq!(*unwrapped(500, "<html>").details, json!({"original_status_code": 500, "original": "<html>"}));
    assert_eq!(unwrapped(500, r#"{"detail":1}"#).details["original"], json!({"detail": 1}));
    let body: Value = serde_json::from_str(&problem.body()).expect("JSON");
    assert_eq!(body, json!({"error": {"code": "c", "message": "no model x", "details": details}}));
}

#[test]
fn a_timeout_says_what_to_do_and_whose_limit_it_was() {
    let of = |seconds| Problem::from(InvokeError::TimedOut { seconds });
    for advice in ["fewer steps", "smaller picture", "faster instance"] {
        assert!(of(65).message.contains(advice) && of(20).message.contains(advice), "{}", of(20).message);
    }
    assert!(of(65).message.contains("60 seconds that SageMaker allows"), "{}", of(65).message);
    assert!(of(20).message.contains("within 20 seconds") && of(20).message.contains("the function's timeout"));
    assert_eq!(
        (of(20).details["limit_seconds"].clone(), of(65).details["limit_seconds"].clone()),
        (json!(20), json!(60))
    );
}
