use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use crate::event::Source;

fn request(body: Value) -> Result<Request, Problem> {
    with_accept(body, None)
}

fn with_accept(body: Value, accept: Option<&str>) -> Result<Request, Problem> {
    let Value::Object(body) = body else { panic!("not an object") };
    Request::of(Event { source: Source::Direct, accept: accept.map(str::to_owned), body })
}

fn png() -> String {
    STANDARD.encode(b"\x89PNG\r\n\x1a\nrest")
}

#[test]
fn all_fields() {
    let body = json!({
        "positive_prompt": "a \"cat\"", "negative_prompt": "a dog", "prompt_file": "flux1-dev-fp8.json",
        "seed": u64::MAX, "params": {"5.width": 768}, "format": "WebP", "images": [png()],
    });
    let request = with_accept(body, Some("image/png")).expect("a request");
    assert_eq!((request.positive_prompt.as_str(), request.negative_prompt.as_str()), ("a \"cat\"", "a dog"));
    assert_eq!((request.prompt_file.as_str(), request.seed), ("flux1-dev-fp8.json", Some(u64::MAX)));
    assert_eq!((&request.params["5.width"], request.format), (&json!(768), Some(Format::Webp)));
    assert_eq!((request.images.len(), request.images[0].data.as_str()), (1, png().as_str()));
}

#[test]
fn defaults_and_nulls() {
    let body = json!({"positive_prompt": "x", "negative_prompt": null, "prompt_file": null, "seed": null,
        "params": null, "format": null, "images": null});
    for body in [body, json!({"positive_prompt": "x"})] {
        let request = request(body).expect("a request");
        assert_eq!((request.negative_prompt.as_str(), request.prompt_file.as_str()), ("", DEFAULT_PROMPT_FILE));
        assert_eq!((request.seed, request.format), (None, None));
        assert!(request.params.is_empty() && request.images.is_empty());
    }
}

#[test]
fn the_accept_header_decides_where_format_does_not() {
    let body = json!({"positive_prompt": "x"});
    for (accept, format) in [(None, None), (Some("*/*"), None), (Some("image/png"), Some(Format::Png))] {
        assert_eq!(with_accept(body.clone(), accept).expect("a request").format, format);
    }
    assert_eq!(with_accept(body, Some("image/gif")).expect_err("a problem").status, 406);
}

#[test]
fn mistakes() {
    let big = STANDARD.encode(vec![0; 100]);
    for (more, code, why) in [
        (json!({"positive_prompt": null}), "invalid_request", "positive_prompt is missing"),
        (json!({"positive_prompt": " \n"}), "invalid_request", "positive_prompt is missing"),
        (json!({"positive_prompt": 5}), "invalid_request", "positive_prompt is not a string"),
        (json!({"negative_prompt": []}), "invalid_request", "negative_prompt is not a string"),
        (json!({"prompt_file": {}}), "invalid_request", "prompt_file is not a string"),
        (json!({"seed": -1}), "invalid_request", "seed"),
        (json!({"seed": 1.5}), "invalid_request", "seed"),
        (json!({"seed": 1e30}), "invalid_request", "seed"),
        (json!({"seed": "7"}), "invalid_request", "without quotes"),
        (json!({"seed": true}), "invalid_request", "seed"),
        (json!({"params": []}), "invalid_request", "params is not an object"),
        (json!({"params": "5.width=1"}), "invalid_request", "params is not an object"),
        (json!({"format": "gif"}), "invalid_request", "\"gif\""),
        (json!({"format": 1}), "invalid_request", "format is not a string"),
        (json!({"postive_prompt": "y"}), "unknown_field", "did you mean positive_prompt?"),
        (json!({"Seed": 1}), "unknown_field", "did you mean seed?"),
        (json!({"zzz": 1}), "unknown_field", "no field \"zzz\""),
        (json!({"images": "x"}), "invalid_images", "not a list"),
        (json!({"images": ["%%%"]}), "invalid_images", "images[0] is not base64"),
        (json!({"images": [png(), 5]}), "invalid_images", "images[1] is neither"),
        (json!({"images": [big]}), "invalid_images", "images[0] is not a JPEG, PNG or WebP"),
        (json!({"images": [""]}), "invalid_images", "images[0] is not a JPEG, PNG or WebP"),
        (json!({"images": [{"node": "4"}]}), "invalid_images", "images[0] has no data"),
        (json!({"images": [{"data": png(), "node": 4}]}), "invalid_images", "node that is not a string"),
        (json!({"images": [{"data": png(), "name": "../x"}]}), "invalid_images", "members other than"),
        (json!({"images": [{"data": "data:image/png,x"}]}), "invalid_images", "without base64"),
        (json!({"images": vec![png(); 17]}), "invalid_images", "at most 16"),
    ] {
        let mut body = json!({"positive_prompt": "x"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let problem = request(body).expect_err(why);
        assert_eq!((problem.status, problem.code.as_str()), (400, code), "{more}");
        assert!(problem.message.contains(why), "{more}: {}", problem.message);
    }
}

#[test]
fn prompt_files_are_plain_names() {
    for name in [
        "../x",
        "..",
        ".",
        "",
        "a/b",
        "/etc/passwd",
        "a\\b",
        "C:x",
        "x\0.json",
        "./workflow_api.json",
        ".hidden",
        "a\nb",
        &"x".repeat(256),
    ] {
        let problem = request(json!({"positive_prompt": "x", "prompt_file": name})).expect_err(name);
        assert_eq!((problem.status, problem.code.as_str()), (400, "invalid_prompt_file"), "{name:?}");
    }
}

#[test]
fn images_get_names_of_their_content() {
    let url = format!("data:image/png;base64,{}", png());
    let body = json!({"positive_prompt": "x", "images": [png(), {"data": url, "node": "Start"}]});
    let images = request(body).expect("a request").images;
    assert_eq!(images[0].name, images[1].name);
    assert!(images[0].name.ends_with(".png") && images[0].name.len() == 28, "{}", images[0].name);
    assert_eq!((&images[0].node, &images[1].node), (&None, &Some("Start".to_owned())));
    assert_eq!(images[0].data, images[1].data);
}

#[test]
fn names_of_a_page_are_not_compared() {
    assert_eq!(nearest("prompt_fil", FIELDS), Some("prompt_file"));
    assert_eq!(nearest(&"prompt_file".repeat(100_000), FIELDS), None);
}

#[test]
fn what_is_shown_of_a_callers_text_is_short_and_in_one_line() {
    let text = shown(&format!("a\n\"{}", "é".repeat(1000)));
    assert!(text.starts_with("\"a\\n\\\"é") && text.ends_with("…\"") && text.chars().count() < 80, "{text}");
}

proptest! {
    /// Every seed in range is taken as it is.
    #[test]
    fn seeds(seed: u64) {
        let body = serde_json::from_str(&format!(r#"{{"positive_prompt":"x","seed":{seed}}}"#)).expect("JSON");
        prop_assert_eq!(request(body).expect("a request").seed, Some(seed));
    }

    /// Texts arrive unchanged.
    #[test]
    fn prompts(positive in "\\PC{1,40}", negative in any::<String>()) {
        prop_assume!(!positive.trim().is_empty());
        let request = request(json!({"positive_prompt": positive, "negative_prompt": negative})).expect("a request");
        prop_assert_eq!((request.positive_prompt, request.negative_prompt), (positive, negative));
    }

    /// No name gets through that could lead out of a directory.
    #[test]
    fn names(name in any::<String>()) {
        if let Ok(request) = request(json!({"positive_prompt": "x", "prompt_file": name})) {
            let path = std::path::Path::new(&request.prompt_file);
            let parts: Vec<_> = path.components().collect();
            prop_assert!(matches!(parts[..], [std::path::Component::Normal(only)] if only == path.as_os_str()));
        }
    }
}
