use super::*;
use crate::{models::Models, py};

fn check(prompt: &str) -> Result<Checked, Crash> {
    let registry = Registry::new(Models::recorded(), true);
    let none = std::path::PathBuf::from("/no/such/folder");
    let folders = Folders { output: none.clone(), temp: none.clone(), input: none };
    validate(&mut py::parse(prompt).unwrap(), None, &registry, &folders, 1)
}

fn reason(prompt: &str, node: &str) -> String {
    let checked = check(prompt).unwrap();
    let errors = checked.node_errors.get(node).and_then(|node| node.get("errors")).unwrap();
    let first = &errors.as_list().unwrap()[0];
    format!("{}|{}", text_of(first, "type"), text_of(first, "details"))
}

const IMAGE: &str = r#""1":{"class_type":"EmptyImage","inputs":{"width":8,"height":8,"batch_size":1,"color":0}}"#;

#[test]
fn nodes_that_are_no_objects_crash_or_lack_a_class() {
    for prompt in ["null", "5", "true", r#""x""#, "[1]", r#"{"1":5}"#, r#"{"1":null}"#, r#"{"1":{"class_type":[]}}"#] {
        assert_eq!(check(prompt).unwrap_err(), Crash, "{prompt}");
    }
    for prompt in [r#"{"1":"x"}"#, r#"{"1":[]}"#, r#"{"1":{}}"#] {
        let error = check(prompt).unwrap().error.unwrap();
        assert_eq!(text_of(&error, "type"), "invalid_prompt", "{prompt}");
    }
    for prompt in ["{}", "[]", r#""""#] {
        assert_eq!(text_of(&check(prompt).unwrap().error.unwrap(), "type"), "prompt_no_outputs", "{prompt}");
    }
}

#[test]
fn odd_links_raise_as_in_python() {
    let with = |link: &str| {
        format!(r#"{{{IMAGE},"2":{{"class_type":"SaveImage","inputs":{{"filename_prefix":"x","images":{link}}}}}}}"#)
    };
    for (link, said) in [
        (r#"[1,0]"#, "exception_during_validation|1"),
        (r#"["1","0"]"#, "exception_during_validation|tuple indices must be integers or slices, not str"),
        (r#"["1",1]"#, "exception_during_validation|tuple index out of range"),
        (r#"[["1"],0]"#, "exception_during_validation|unhashable type: 'list'"),
        (r#"[]"#, "bad_linked_input|images"),
    ] {
        assert_eq!(reason(&with(link), "2"), said, "{link}");
    }
    assert!(check(&with(r#"["1",-1]"#)).unwrap().error.is_none(), "counted from the end");
}

#[test]
fn an_inner_exception_blames_the_inner_node() {
    let prompt = r#"{"1":{"class_type":"ImageInvert","inputs":{"image":["9",0]}},
        "2":{"class_type":"SaveImage","inputs":{"filename_prefix":"x","images":["1",0]}}}"#;
    assert_eq!(reason(prompt, "1"), "exception_during_inner_validation|'9'");
}

#[test]
fn long_lists_of_choices_are_not_shown() {
    let prompt = r#"{"1":{"class_type":"KSamplerSelect","inputs":{"sampler_name":"no"}},
        "2":{"class_type":"PreviewAny","inputs":{"source":["1",0]}}}"#;
    assert_eq!(reason(prompt, "1"), "value_not_in_list|sampler_name: 'no' not in (list of length 42)");
}

#[test]
fn targets_choose_among_outputs() {
    let registry = Registry::new(Models::recorded(), true);
    let none = std::path::PathBuf::new();
    let folders = Folders { output: none.clone(), temp: none.clone(), input: none };
    let text = format!(
        r#"{{{IMAGE},"2":{{"class_type":"PreviewImage","inputs":{{"images":["1",0]}}}},
        "3":{{"class_type":"PreviewImage","inputs":{{"images":["1",0]}}}}}}"#
    );
    let outputs = |targets: &str| {
        let targets = py::parse(targets).unwrap();
        validate(&mut py::parse(&text).unwrap(), Some(&targets), &registry, &folders, 1).map(|checked| checked.outputs)
    };
    assert_eq!(outputs(r#"["3"]"#), Ok(vec!["3".to_owned()]));
    assert_eq!(outputs("null").map(|all| all.len()), Ok(2));
    assert_eq!(outputs("[]"), Ok(vec![]));
    assert_eq!(outputs("5"), Err(Crash));
}
