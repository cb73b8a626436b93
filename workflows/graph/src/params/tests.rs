use super::*;
use serde_json::json;

fn workflow() -> Workflow {
    Workflow::from_value(json!({
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "tiled": false}, "_meta": {"title": "Size"}},
        "3": {"class_type": "KSampler", "inputs": {"steps": 20, "cfg": 7, "denoise": 1.0, "model": ["4", 0],
            "sampler_name": "euler"}, "_meta": {"title": "SD 1.5"}},
        "SD 1": {"class_type": "X", "inputs": {"5.cfg": 1}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "x"}, "_meta": {"title": "Prompt"}},
        "8": {"class_type": "CLIPTextEncode", "inputs": {"text": "y"}, "_meta": {"title": "Prompt"}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a", "n": null, "l": {"a": 1}},
            "_meta": {"title": "5"}},
    }))
    .expect("a workflow")
}

/// The place that one param goes to, or why not.
fn one(key: &str, value: Value) -> Result<String, String> {
    let params = [(key.to_owned(), value)].into_iter().collect();
    match resolve(&workflow(), Some(&params)) {
        Ok(set) => Ok(set[0].0.to_string()),
        Err(problems) => Err(problems[0].to_string()),
    }
}

#[test]
fn by_id_and_by_title() {
    for (key, value, place) in [
        ("5.width", json!(768), "5.width"),
        ("Size.width", json!(768), "5.width"),
        ("SD 1.5.steps", json!(4), "3.steps"),
        // The id wins, though node 3 has that title and a cfg.
        ("SD 1.5.cfg", json!(4), "SD 1.5.cfg"),
        // A title that is another node's id is of no use unless the id has no such input.
        ("5.filename_prefix", json!("x"), "9.filename_prefix"),
        ("9.n", json!(true), "9.n"),
    ] {
        assert_eq!(one(key, value).as_deref(), Ok(place), "{key}");
    }
}

#[test]
fn kinds_are_the_workflows_own() {
    for (key, value, fits) in [
        ("3.steps", json!(4), true),
        ("3.steps", json!(4.5), false),
        ("3.steps", json!("4"), false),
        ("3.steps", json!(true), false),
        ("3.denoise", json!(1), true),
        ("3.denoise", json!(0.5), true),
        // ComfyUI exports 7.0 as 7.
        ("3.cfg", json!(3.5), true),
        ("3.sampler_name", json!("ddim"), true),
        ("3.sampler_name", json!(1), false),
        ("5.tiled", json!(true), true),
        ("5.tiled", json!(1), false),
        ("9.filename_prefix", json!(["4", 0]), false),
        ("9.n", json!(["4", 0]), false),
        ("9.n", json!(null), false),
        ("9.l", json!({"a": 2}), false),
        ("9.l", json!(2), false),
    ] {
        assert_eq!(one(key, value.clone()).is_ok(), fits, "{key} = {value}");
    }
}

#[test]
fn problems_say_what_to_do() {
    for (key, value, message) in [
        ("width", json!(1), r#"param "width": write it as NODE.INPUT"#),
        (".width", json!(1), "NODE.INPUT"),
        ("5.", json!(1), "NODE.INPUT"),
        (
            "5.widht",
            json!(1),
            r#"node 5 (EmptyLatentImage) has no input "widht" in the workflow; it has width, tiled; did you mean "5.width"?"#,
        ),
        ("Sise.width", json!(1), r#"no node has the id or title "Sise"; did you mean "Size.width"?"#),
        ("77.nothing", json!(1), r#"no node has the id or title "77""#),
        ("Prompt.text", json!("x"), "2 nodes have this title (7, 8); use an id"),
        ("3.model", json!("x"), "it is linked to node 4, and links cannot be overwritten"),
        (
            "3.steps",
            json!(4.5),
            "it must be a whole number, as node 3 (KSampler) has 20 there; if the node takes fractions, write 20.0",
        ),
        ("3.steps", json!("4"), "it must be a whole number, as in the workflow, and is a text"),
        ("9.l", json!([1]), "an array cannot be set"),
    ] {
        let got = one(key, value).expect_err(key);
        assert!(got.contains(message), "{got}");
    }
}

#[test]
fn one_input_is_set_once() {
    let params = json!({"5.width": 1, "Size.width": 2});
    let problems = resolve(&workflow(), params.as_object()).expect_err("twice");
    assert_eq!(problems[0].to_string(), r#"param "Size.width": 5.width is set twice, by id and by title"#);
}

#[test]
fn texts_become_what_the_workflow_has() {
    for (key, text, value) in [
        ("5.width", "768", json!(768)),
        ("3.denoise", "0.5", json!(0.5)),
        ("3.denoise", "1", json!(1)),
        ("5.tiled", "true", json!(true)),
        ("9.filename_prefix", "768", json!("768")),
        ("9.filename_prefix", "a=b", json!("a=b")),
        ("9.n", "x", json!("x")),
    ] {
        assert_eq!(param_from_text(&workflow(), key, text), Ok(value), "{key}={text}");
    }
    for (key, text) in [("5.width", "7.5"), ("5.width", "wide"), ("5.width", ""), ("5.tiled", "yes"), ("3.model", "4")]
    {
        assert!(param_from_text(&workflow(), key, text).is_err(), "{key}={text}");
    }
}

#[test]
fn the_names_of_fractions() {
    let names: Vec<&str> = FLOAT_INPUTS.lines().collect();
    assert!(names.is_sorted() && names.contains(&"cfg") && names.contains(&"denoise"), "{names:?}");
    assert!(!names.contains(&"steps") && !names.contains(&"value"), "{names:?}");
}
