use axum::http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn node() -> Value {
    json!({"class_type": "SaveImage", "inputs": {"images": ["1", 0]}})
}

fn problem(body: &str) -> Problem {
    parse(body.as_bytes()).expect_err("is refused")
}

#[test]
fn a_workflow_alone_or_in_an_envelope() {
    let bare = parse(json!({"2": node()}).to_string().as_bytes()).expect("a workflow");
    let page = json!({"prompt": {"2": node()}, "client_id": "x", "prompt_id": "y", "front": true,
        "extra_data": {"extra_pnginfo": {}}, "partial_execution_targets": null});
    let page = parse(page.to_string().as_bytes()).expect("an envelope");
    assert_eq!(page.submission.workflow, bare.submission.workflow);
    assert!(bare.submission.extra.is_empty());
    // Ids are the server's own business: somebody else's job must not be replaced.
    assert_eq!(Value::Object(page.submission.extra), json!({"extra_data": {"extra_pnginfo": {}}}));
    // A node may be called anything.
    let odd = parse(json!({"prompt": node(), "images": node()}).to_string().as_bytes()).expect("a workflow");
    assert_eq!(odd.submission.workflow.nodes().count(), 2);
}

#[test]
fn what_goes_along_has_the_types_that_comfyui_needs() {
    let with = |key: &str, value: Value| json!({"prompt": {"2": node()}, key: value}).to_string();
    for value in [json!(5), json!([]), json!("x"), json!(true)] {
        let problem = problem(&with("extra_data", value));
        assert_eq!((problem.status.as_u16(), problem.message.as_str()), (400, "extra_data must be an object"));
    }
    for value in [json!(5), json!({}), json!("2"), json!([2]), json!(["2", null])] {
        let problem = problem(&with("partial_execution_targets", value));
        let expected = "partial_execution_targets must be a list of node ids";
        assert_eq!((problem.status.as_u16(), problem.message.as_str()), (400, expected));
    }
    let targets = parse(with("partial_execution_targets", json!(["2"])).as_bytes()).expect("an envelope");
    assert_eq!(Value::Object(targets.submission.extra), json!({"partial_execution_targets": ["2"]}));
}

#[test]
fn seeds_stay_exact() {
    let body = format!(r#"{{"3":{{"class_type":"K","inputs":{{"seed":{}}}}}}}"#, u64::MAX);
    let request = parse(body.as_bytes()).expect("a workflow");
    assert_eq!(seed(&request.submission.workflow).as_deref(), Some("18446744073709551615"));
    assert_eq!(request.submission.workflow.into_value().to_string(), body);
    let seed_of =
        |inputs: Value| seed(&Workflow::from_value(json!({"1": {"class_type": "K", "inputs": inputs}})).expect("one"));
    assert_eq!(seed_of(json!({"noise_seed": 7})).as_deref(), Some("7"));
    assert_eq!(seed_of(json!({"seed": ["2", 0]})), None);
    assert_eq!(seed_of(json!({})), None);
}

#[test]
fn what_is_no_workflow() {
    for (body, code, says) in [
        ("", "not_json", "empty"),
        ("{", "not_json", "not JSON"),
        ("{\"1\":NaN}", "not_json", "not JSON"),
        ("\u{feff}{}", "not_json", "not JSON"),
        ("null", "invalid_workflow", "null"),
        ("[1]", "invalid_workflow", "array"),
        ("{}", "invalid_workflow", "no nodes"),
        (r#"{"prompt":null}"#, "invalid_workflow", "null"),
        (r#"{"prompt":"a dog"}"#, "invalid_workflow", "a string"),
        (r#"{"prompt":{}}"#, "invalid_workflow", "no nodes"),
        (r#"{"nodes":[],"links":[],"version":0.4}"#, "invalid_workflow", "Export (API)"),
        (r#"{"prompt":{"nodes":[],"links":[]}}"#, "invalid_workflow", "Export (API)"),
    ] {
        let problem = problem(body);
        assert_eq!((problem.status.as_u16(), problem.code), (400, code), "{body}");
        assert!(problem.message.contains(says), "{body}: {}", problem.message);
    }
    assert!(parse(b"\xff\xfe{}").is_err());
    assert!(parse("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn pictures() {
    let with = |images: Value| parse(json!({"prompt": {"2": node()}, "images": images}).to_string().as_bytes());
    let request = with(json!([
        {"name": "in.png", "data": "aGVsbG8="},
        {"name": "b.jpg", "data": "data:image/jpeg;base64,aGVsbG8"},
    ]));
    let images = request.expect("an envelope").images;
    assert_eq!(images[0], Image { name: "in.png".into(), bytes: Bytes::from_static(b"hello") });
    assert_eq!(images[1].bytes, "hello");
    assert_eq!(with(json!(null)).expect("none").images, []);
    for (bad, says) in [
        (json!("x"), "a list"),
        (json!([5]), "images[0] has no name"),
        (json!([{"name": "a"}]), "images[0] has no data"),
        (json!([{"name": "a", "data": "?"}]), "not base64"),
        (json!([{"name": "a", "data": ""}]), "is empty"),
        (json!([{"name": "../a", "data": "aGVsbG8="}]), "plain file name"),
        (json!([{"name": ".a", "data": "aGVsbG8="}]), "plain file name"),
        (json!([{"name": "a\r\nb", "data": "aGVsbG8="}]), "plain file name"),
        (json!([{"name": "x".repeat(200), "data": "aGVsbG8="}]), "plain file name"),
        (json!([{"name": "a", "data": "aGk="}, {"name": "a", "data": "aGk="}]), "images[1] has the name"),
    ] {
        let problem = with(bad.clone()).expect_err("is refused");
        assert_eq!(problem.code, "invalid_image");
        assert!(problem.message.contains(says), "{bad}: {}", problem.message);
    }
}

#[test]
fn pictures_are_renamed_where_they_are_named() {
    let mut workflow = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "in.png", "other": ["in.png", 0]}},
        "2": {"class_type": "LoadImageMask", "inputs": {"image": "in.png"}, "_meta": {"title": "in.png"}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "see in.png"}},
    });
    assert_eq!(rename(&mut workflow, "in.png", "new.png"), 2);
    assert_eq!(workflow["1"]["inputs"], json!({"image": "new.png", "other": ["in.png", 0]}));
    assert_eq!(
        workflow["2"],
        json!({"class_type": "LoadImageMask", "inputs": {"image": "new.png"}, "_meta": {"title": "in.png"}})
    );
    assert_eq!(workflow["3"]["inputs"]["text"], "see in.png");
    assert_eq!(rename(&mut workflow, "absent.png", "x"), 0);
}

#[test]
fn options() {
    let parse = |pairs: &[(&'static str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).expect("a header"));
        }
        Options::parse(&headers)
    };
    let all = Options { all: true, ..Options::default() };
    assert_eq!(parse(&[]), Ok(Options::default()));
    assert_eq!(parse(&[(ATTRIBUTES, "output=all")]), Ok(all));
    assert_eq!(parse(&[(ATTRIBUTES, "trace=abc; Output = ALL ;;x")]), Ok(all));
    assert_eq!(parse(&[("x-comfy-output", "all")]), Ok(all));
    assert_eq!(parse(&[("x-comfy-output", "all"), (ATTRIBUTES, "output=first")]), Ok(Options::default()));
    let everything = Options { all: true, keep_metadata: true, quality: Some(0) };
    assert_eq!(parse(&[(ATTRIBUTES, "output=all,metadata=keep,quality=0")]), Ok(everything));
    for bad in ["output=some", "output=", "metadata=yes", "quality=96", "quality=high", "quality=-1"] {
        let problem = parse(&[(ATTRIBUTES, bad)]).expect_err("is refused");
        assert_eq!((problem.status.as_u16(), problem.code), (400, "invalid_option"), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_body_crashes(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(problem) = parse(&body) {
            prop_assert_eq!(problem.status.as_u16(), 400);
        }
    }

    #[test]
    fn no_json_crashes(prompt in ".{0,40}", key in "prompt|images|1|nodes", list in any::<bool>()) {
        let value = if list { json!([{"name": prompt, "data": prompt}]) } else { json!({"class_type": prompt}) };
        if let Err(problem) = parse(json!({key: value}).to_string().as_bytes()) {
            prop_assert_eq!(problem.status.as_u16(), 400);
            prop_assert!(problem.body().len() <= 2048);
        }
    }
}
