use super::*;
use proptest::prelude::*;

#[test]
fn what_is_not_a_workflow_says_why() {
    for (text, why) in [
        ("", "empty"),
        ("{", "not JSON: EOF while parsing an object at line 1, column 1"),
        ("{\"1\":\n  {,}}", "not JSON: key must be a string at line 2, column 4"),
        ("null", "null"),
        ("[1]", "an array"),
        ("\"x\"", "a string"),
        ("{}", "no nodes"),
        (r#"{"nodes":[],"links":[],"version":0.4}"#, "Workflow > Export (API)"),
        (r#"{"prompt":{"1":{"class_type":"X","inputs":{}}},"client_id":"x"}"#, "the value of its \"prompt\""),
        (r#"{"1":3}"#, "\"1\" is not a node: it is not an object"),
        (r#"{"1":{"inputs":{}}}"#, "no class_type"),
        (r#"{"1":{"class_type":7,"inputs":{}}}"#, "class_type is not a string"),
        (r#"{"1":{"class_type":"X"}}"#, "no inputs"),
        (r#"{"1":{"class_type":"X","inputs":[]}}"#, "inputs are not an object"),
        (
            "{\"1\":{\"class_type\":\"X\",\"inputs\":{}},\n\"1\":{}}",
            "the key \"1\" twice in one object, the second time at line 2",
        ),
    ] {
        let error = Workflow::parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn what_is_not_text_says_what_it_is() {
    for (bytes, why) in [
        (&b"\xff\xfe{\0}\0"[..], "UTF-16"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"RIFF....WEBP", "a WebP picture"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture"),
        (b"{\n \"a\xff\": 1}", "not UTF-8 at line 2, column 4"),
    ] {
        let error = Workflow::parse(bytes).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert!(Workflow::parse(b"\xef\xbb\xbf{\"1\":{\"class_type\":\"A\",\"inputs\":{}}}").is_ok());
}

#[test]
fn order_and_unknown_members_are_kept() {
    let text = r#"{"9":{"class_type":"A","inputs":{"z":1,"a":["3",0]},"_meta":{"title":"t"}},"3":{"class_type":"B","inputs":{}}}"#;
    let workflow = Workflow::parse(text.as_bytes()).expect("a workflow");
    assert_eq!(workflow.nodes().map(|(id, _)| id).collect::<Vec<_>>(), ["9", "3"]);
    assert_eq!(workflow.to_string(), text);
    let node = workflow.node("9").expect("a node");
    assert_eq!((node.id(), node.class(), node.title(), node.inputs().len()), ("9", "A", Some("t"), 2));
}

#[test]
fn a_node_may_be_called_nodes_or_prompt() {
    for id in ["nodes", "prompt"] {
        let text = format!(r#"{{"{id}":{{"class_type":"A","inputs":{{}}}}}}"#);
        assert!(Workflow::parse(text.as_bytes()).is_ok());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Workflow::parse(&bytes);
    }

    #[test]
    fn nor_does_anything_that_looks_like_json(text in r#"[\[\]{}:,"0-9a-c\\eE.+\- \nu]{0,60}"#) {
        let _ = Workflow::parse(text.as_bytes());
    }
}
