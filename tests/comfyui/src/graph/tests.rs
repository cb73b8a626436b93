use super::*;
use crate::{models::Models, py};

fn prompt(text: &str) -> Dict {
    py::parse(text).unwrap().as_dict().unwrap().clone()
}

fn all_keys(text: &str) -> HashMap<String, Option<Key>> {
    keys(&prompt(text), |_| Some(String::new()))
}

#[test]
fn keys_follow_everything_above_and_nothing_else() {
    let text = |seed: &str, other: &str| {
        format!(
            r#"{{"a":{{"class_type":"TestPhoto","inputs":{{"seed":{seed}}}}},
            "b":{{"class_type":"ImageInvert","inputs":{{"image":["a",0]}},"_meta":{{"title":"{other}"}}}},
            "c":{{"class_type":"TestPhoto","inputs":{{"seed":9}}}}}}"#
        )
    };
    let (first, same, other) = (all_keys(&text("1", "x")), all_keys(&text("1.0", "y")), all_keys(&text("2", "x")));
    assert_eq!(first, same);
    assert_ne!(first["b"], other["b"]);
    assert_eq!(first["c"], other["c"]);
}

#[test]
fn unknown_inputs_are_part_of_the_key_and_nan_is_never_equal() {
    let with = |extra: &str| all_keys(&format!(r#"{{"a":{{"class_type":"EmptyImage","inputs":{{{extra}}}}}}}"#))["a"];
    assert_ne!(with(r#""_nonce":1"#), with(r#""_nonce":2"#));
    assert_eq!(with(r#""x":NaN"#), None);
}

fn order(text: &str, outputs: &[&str], cached: &[&str]) -> Vec<String> {
    let registry = Registry::new(Models::default(), true);
    let prompt = prompt(text);
    let outputs: Vec<String> = outputs.iter().map(ToString::to_string).collect();
    let mut plan = Plan::new(&prompt, &registry, &outputs, |id| cached.contains(&id));
    let mut order = Vec::new();
    while let Some(id) = plan.next() {
        plan.done(&id);
        order.push(id);
    }
    order
}

const TWO: &str = r#"{"1":{"class_type":"EmptyImage","inputs":{}},
    "2":{"class_type":"ImageInvert","inputs":{"image":["1",0]}},
    "3":{"class_type":"SaveImage","inputs":{"images":["2",0]}},
    "4":{"class_type":"SaveImage","inputs":{"images":["1",0]}}}"#;

#[test]
fn output_nodes_run_as_soon_as_they_can() {
    assert_eq!(order(TWO, &["3", "4"], &[]), ["1", "4", "2", "3"]);
    assert_eq!(order(TWO, &["4", "3"], &[]), ["1", "4", "2", "3"]);
    assert_eq!(order(TWO, &["3"], &[]), ["1", "2", "3"]);
    assert_eq!(order(TWO, &["3", "4"], &["1", "2"]), ["3", "4"]);
}

#[test]
fn a_link_has_a_text_and_a_number() {
    assert!(link(&py::parse(r#"["1",0]"#).unwrap()).is_some());
    for other in [r#"["1"]"#, r#"[1,0]"#, r#"["1","0"]"#, r#""1""#] {
        assert!(link(&py::parse(other).unwrap()).is_none(), "{other}");
    }
}

#[test]
fn names_with_their_folder() {
    assert_eq!(annotated("a.png [output]"), ("a.png", Some("output")));
    assert_eq!(annotated("a.png [temp]"), ("a.png", Some("temp")));
    assert_eq!(annotated("a.png"), ("a.png", None));
    assert_eq!(annotated("[input]"), ("", Some("input")));
}
