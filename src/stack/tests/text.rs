use proptest::prelude::*;
use serde_json::json;

use super::super::yaml::emit;
use super::*;

#[test]
fn short_tags_become_the_long_form() {
    let value = parse(
        "A: !Ref X\nB: !GetAtt X.Y.Z\nC: !If [P, !Sub 'a${B}', !Ref AWS::NoValue]\nD: !Not [!Condition P]\nE: !GetAtt [X, Y]\n\
         F: !Sub ['${N}', {N: !Ref X}]\nG: 2012-10-17\n",
    )
    .unwrap();
    assert_eq!(
        value,
        json!({
            "A": {"Ref": "X"},
            "B": {"Fn::GetAtt": ["X", "Y.Z"]},
            "C": {"Fn::If": ["P", {"Fn::Sub": "a${B}"}, {"Ref": "AWS::NoValue"}]},
            "D": {"Fn::Not": [{"Condition": "P"}]},
            "E": {"Fn::GetAtt": ["X", "Y"]},
            "F": {"Fn::Sub": ["${N}", {"N": {"Ref": "X"}}]},
            "G": "2012-10-17"
        })
    );
}

#[test]
fn json_is_read_as_json() {
    assert_eq!(parse("\n\t{\"A\": {\"Ref\": \"X\"}}").unwrap(), json!({"A": {"Ref": "X"}}));
}

#[test]
fn what_is_no_template_is_an_error() {
    for body in ["", "just words", "- a\n- b", "{\"A\": ", "A: [", "A: !GetAtt X"] {
        let error = parse(body).unwrap_err();
        assert_eq!(error.what(), "the template cannot be read", "{body:?}");
        assert!(!error.reasons().is_empty());
    }
}

#[test]
fn embedded_templates_survive_writing() {
    for text in [FOUNDATION, SERVICE] {
        let value = parse(text).unwrap();
        let rendered = Rendered::new(value.clone());
        assert_eq!(parse(&rendered.body).unwrap(), value);
        assert!(rendered.body.len() < MAX_BODY / 2, "{} bytes", rendered.body.len());
    }
}

#[test]
fn what_yaml_readers_disagree_on_is_quoted() {
    for word in [
        "on",
        "NO",
        "y",
        "12:30:45",
        "1_000",
        "0x1f",
        "2012-10-17",
        "1e3",
        "",
        " a",
        "a: b",
        "a #b",
        "~",
        "*",
        "!x",
        "=",
    ] {
        assert_eq!(emit(&json!({"K": word})), format!("K: {}\n", json!(word)), "{word}");
    }
    for word in ["AWS::S3::Bucket", "ml.g5.xlarge", "/", "models/", "s3:GetObject", "Seconds, as in (a; b)."] {
        assert_eq!(emit(&json!({"K": word})), format!("K: {word}\n"));
    }
    assert_eq!(emit(&json!({"on": 1})), "\"on\": 1\n");
}

#[test]
fn functions_are_written_short() {
    let value = json!({
        "A": {"Fn::If": ["P", {"Fn::Sub": ["${V}", {"V": {"Ref": "X"}}]}, {"Ref": "AWS::NoValue"}]},
        "B": [{"Fn::GetAtt": ["X", "Arn"]}, [1, 2], {"C": [], "D": {}}]
    });
    let expected = "A: !If\n  - P\n  - !Sub\n    - \"${V}\"\n    - V: !Ref X\n  - !Ref AWS::NoValue\n\
                    B:\n  - !GetAtt X.Arn\n  - - 1\n    - 2\n  - C: []\n    D: {}\n";
    assert_eq!(emit(&value), expected);
    assert_eq!(parse(expected).unwrap(), value);
}

#[test]
fn a_template_too_large_for_yaml_becomes_minified_json() {
    // Deep nesting costs indentation in YAML alone.
    let mut deep = json!("leaf");
    for _ in 0..100 {
        deep = json!({ "k": deep });
    }
    let value = json!({ "Resources": [deep.clone(), deep.clone(), deep.clone(), deep.clone(), deep.clone(), deep] });
    let rendered = Rendered::new(value.clone());
    assert!(rendered.body.starts_with('{'));
    assert!(rendered.body.len() <= MAX_BODY);
    assert_eq!(parse(&rendered.body).unwrap(), value);
}

fn any_value() -> impl Strategy<Value = Value> {
    let word = prop_oneof![".{0,12}", "[a-zA-Z:/._ -]{0,12}", Just("Fn::Sub".to_owned()), Just("Ref".to_owned())];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map(word.clone(), inner.clone(), 0..5).prop_map(|m| json!(m)),
            inner.clone().prop_map(|v| json!({"Fn::If": ["P", v, {"Ref": "AWS::NoValue"}]})),
            inner.prop_map(|v| json!({"Fn::Sub": ["${A}", {"A": v}]})),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_written_reads_back(value in any_value()) {
        let template = json!({ "T": value });
        prop_assert_eq!(parse(&emit(&template)).unwrap(), template);
    }
}
