use serde_json::json;

use super::*;

fn whom() -> Whom {
    Whom { arn: "arn:aws:lambda:eu-west-1:123456789012:function:comfy-lambda".into(), direct: false }
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Answer { status, headers, body: body.into() }
}

fn problem(status: u16, headers: &[(&str, &str)], code: &str, details: Value) -> Trouble {
    let body = json!({"error": {"code": code, "message": "the words", "details": details}}).to_string();
    read(answer(status, headers, body), &whom()).expect_err("no picture")
}

#[test]
fn a_picture_has_its_headers() {
    let headers = [
        ("content-type", "image/jpeg"),
        ("x-comfy-seed", "18446744073709551615"),
        ("x-comfy-prompt-id", "a-b"),
        ("x-comfy-duration-ms", "1234"),
    ];
    let picture = read(answer(200, &headers, "bytes"), &whom()).expect("a picture");
    assert_eq!((picture.seed, picture.duration_ms), (Some(u64::MAX), Some(1234)));
    assert_eq!(picture.prompt_id.as_deref(), Some("a-b"));
}

#[test]
fn a_200_without_a_picture_is_a_failure() {
    for answer in [answer(200, &[("content-type", "application/json")], "null"), answer(200, &[], "")] {
        assert_eq!(read(answer, &whom()).expect_err("no picture").error.kind(), Kind::Failed);
    }
}

#[test]
fn each_code_has_its_exit_code_and_advice() {
    for (status, code, kind, hint) in [
        (400, "invalid_request", Kind::Usage, "invoke --help"),
        (404, "unknown_workflow", Kind::Usage, "workflow ls"),
        (413, "picture_too_large", Kind::Failed, "--format"),
        (413, "body_too_large", Kind::Usage, "smaller pictures"),
        (424, "execution_failed", Kind::Failed, "workflow check"),
        (429, "throttled", Kind::Quota, "again"),
        (500, "invalid_workflow", Kind::Usage, "workflow check"),
        (502, "denied", Kind::Access, "role"),
        (502, "endpoint_failed", Kind::Failed, "status"),
        (503, "endpoint_not_ready", Kind::Failed, "status"),
        (503, "unavailable", Kind::Quota, "again"),
        (504, "timeout", Kind::Failed, "fewer steps"),
    ] {
        let trouble = problem(status, &[], code, Value::Null);
        assert_eq!(trouble.error.kind(), kind, "{status} {code}");
        assert!(trouble.error.hint().unwrap_or_default().contains(hint), "{status} {code}: {:?}", trouble.error.hint());
        assert!(trouble.error.to_string().contains("the words"), "{}", trouble.error);
        assert_eq!(trouble.again.is_some(), matches!(status, 429 | 503), "{status}");
    }
}

#[test]
fn the_wait_is_what_the_app_says_and_bounded() {
    let again = |seconds: &str| problem(503, &[("retry-after", seconds)], "unavailable", Value::Null).again;
    assert_eq!(again("15"), Some(Duration::from_secs(15)));
    assert_eq!(again("3600"), None, "told instead of waited for");
    assert_eq!(again("soon"), Some(USUAL_WAIT));
}

#[test]
fn node_errors_are_shown_with_their_nodes() {
    let details = json!({"original_status_code": 400, "node_id": "4", "original": {"node_errors": {
        "4": {"class_type": "KSampler", "errors": [{"message": "Value too big", "details": "steps"}, {"message": "No"}]},
        "7": {"class_type": "VAEDecode", "errors": ["odd"]},
    }}});
    let error = problem(424, &[], "invalid_workflow", details).error;
    assert_eq!(error.reasons(), ["node 4 (KSampler): Value too big: steps; No", "node 7 (VAEDecode): odd"]);
    let one = problem(424, &[], "execution_failed", json!({"node_id": "2", "node_class": "KSampler"})).error;
    assert_eq!(one.reasons(), ["node 2 (KSampler)"]);
}

#[test]
fn what_there_is_and_what_was_meant_are_shown() {
    let error = problem(404, &[], "unknown_workflow", json!({"available": ["a.json", "b.json"]})).error;
    assert_eq!(error.reasons(), ["there are: a.json, b.json"]);
    let problems = json!({"problems": [{"key": "5.widht", "message": "there is no such input", "nearest": "5.width"}]});
    let error = problem(400, &[], "invalid_params", problems).error;
    assert_eq!(error.reasons(), ["param 5.widht: there is no such input (did you mean 5.width?)"]);
}

#[test]
fn lambda_itself_refuses() {
    let refused = |kind: &str, body: &'static str| {
        read(answer(403, &[("x-amzn-errortype", kind)], body), &whom()).expect_err("refused").error
    };
    let forbidden = refused("AccessDeniedException", r#"{"Message":"Forbidden. For more"}"#);
    assert_eq!(forbidden.kind(), Kind::Access);
    let hint = forbidden.hint().unwrap_or_default();
    for word in ["lambda:InvokeFunctionUrl", "lambda:InvokeFunction ", &whom().arn, "comfy-deploy status"] {
        assert!(hint.contains(word), "{hint}");
    }
    assert!(forbidden.to_string().contains("Forbidden. For more"));
    let signature = refused("InvalidSignatureException", r#"{"message":"The request signature we calculated"}"#);
    assert!(signature.what().contains("signature") && signature.hint().unwrap_or_default().contains("clock"));
    assert!(refused("ExpiredTokenException", "{}").what().contains("expired"));

    let broken = read(answer(502, &[], "Internal Server Error"), &whom()).expect_err("broken").error;
    assert!(broken.to_string().contains("Internal Server Error"), "{broken}");
    let busy = read(answer(429, &[], r#"{"Reason":"x","message":"Rate Exceeded."}"#), &whom()).expect_err("busy");
    assert_eq!((busy.error.kind(), busy.again), (Kind::Quota, Some(USUAL_WAIT)));
}

#[test]
fn a_direct_call_speaks_of_the_caller_and_not_of_a_role() {
    let body = json!({"error": {"code": "denied", "message": "the function's role may not", "details": null}});
    let whom = Whom { arn: "arn:of:endpoint".into(), direct: true };
    let error = read(answer(502, &[], body.to_string()), &whom).expect_err("denied").error;
    assert_eq!(error.kind(), Kind::Access);
    assert!(error.hint().unwrap_or_default().contains("sagemaker:InvokeEndpoint on arn:of:endpoint"));
    assert!(!error.to_string().contains("role"), "{error}");
}
