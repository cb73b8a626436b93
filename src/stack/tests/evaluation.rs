use serde_json::json;

use super::*;

fn with(template: Value, parameters: &[(&str, &str)]) -> crate::error::Result<Evaluated> {
    let parameters = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    evaluate(&template, &parameters, &pseudo())
}

/// Properties `P` of a template with resources `A` and `Gone` (whose condition is false).
fn property_of(value: Value) -> Value {
    let template = json!({
        "Parameters": {"Name": {"Type": "String"}, "List": {"Type": "CommaDelimitedList", "Default": "a, b"}},
        "Conditions": {"No": {"Fn::Equals": [{"Ref": "Name"}, "other"]}, "Yes": {"Fn::Not": [{"Condition": "No"}]}},
        "Mappings": {"M": {"eu-west-1": {"k": "mapped"}}},
        "Resources": {
            "A": {"Type": "T::A::A"},
            "B": {"Type": "T::B::B", "Properties": {"P": value}},
            "Gone": {"Type": "T::A::A", "Condition": "No"}
        }
    });
    with(template, &[("Name", "n")]).unwrap().resources["B"].properties["P"].clone()
}

#[test]
fn functions() {
    let cases = [
        (json!({"Ref": "Name"}), json!("n")),
        (json!({"Ref": "List"}), json!(["a", "b"])),
        (json!({"Ref": "AWS::Region"}), json!("eu-west-1")),
        (json!({"Ref": "A"}), json!({"Ref": "A"})),
        (json!({"Fn::GetAtt": "A.Arn.X"}), json!({"Fn::GetAtt": ["A", "Arn.X"]})),
        (json!({"Fn::Sub": "${Name}/${AWS::AccountId}/${!Kept}"}), json!("n/123456789012/${Kept}")),
        (json!({"Fn::Sub": ["${V}-${Name}", {"V": {"Fn::If": ["Yes", "y", "n"]}}]}), json!("y-n")),
        (json!({"Fn::Sub": "x/${A.Arn}/y"}), json!({"Fn::Join": ["", ["x/", {"Fn::GetAtt": ["A", "Arn"]}, "/y"]]})),
        (json!({"Fn::Sub": "${A}"}), json!({"Ref": "A"})),
        (json!({"Fn::Join": ["-", ["a", {"Ref": "Name"}, 3]]}), json!("a-n-3")),
        (
            json!({"Fn::Join": ["", ["x/", {"Fn::GetAtt": ["A", "Arn"]}, "/", "y"]]}),
            json!({"Fn::Join": ["", ["x/", {"Fn::GetAtt": ["A", "Arn"]}, "/y"]]}),
        ),
        (json!({"Fn::Select": ["1", {"Ref": "List"}]}), json!("b")),
        (json!({"Fn::Select": [0, {"Fn::Split": ["@", "repo@sha"]}]}), json!("repo")),
        (json!({"Fn::FindInMap": ["M", {"Ref": "AWS::Region"}, "k"]}), json!("mapped")),
        (json!({"Fn::If": ["No", {"Ref": "Gone"}, "else"]}), json!("else")),
        (json!([1, {"Fn::If": ["No", 2, {"Ref": "AWS::NoValue"}]}, 3]), json!([1, 3])),
        (json!({"a": {"Ref": "AWS::NoValue"}, "b": 1}), json!({"b": 1})),
        (json!({"Fn::ImportValue": {"Fn::Sub": "${Name}-x"}}), json!({"Fn::ImportValue": "n-x"})),
        (json!({"Condition": {"Bool": {"k": "false"}}}), json!({"Condition": {"Bool": {"k": "false"}}})),
    ];
    for (expression, expected) in cases {
        assert_eq!(property_of(expression.clone()), expected, "{expression}");
    }
}

#[test]
fn conditions() {
    let truth = |condition: Value| {
        let template = json!({
            "Conditions": {"T": {"Fn::Equals": [1, "1"]}, "F": {"Fn::Not": [{"Condition": "T"}]}, "C": condition},
            "Resources": {"R": {"Type": "T::A::A", "Condition": "C"}}
        });
        with(template, &[]).unwrap().resources.contains_key("R")
    };
    assert!(truth(json!({"Fn::And": [{"Condition": "T"}, {"Fn::Not": [{"Condition": "F"}]}]})));
    assert!(!truth(json!({"Fn::And": [{"Condition": "T"}, {"Condition": "F"}]})));
    assert!(truth(json!({"Fn::Or": [{"Condition": "F"}, {"Condition": "T"}]})));
    assert!(!truth(json!({"Fn::Or": [{"Condition": "F"}, {"Condition": "F"}]})));
}

#[test]
fn what_is_wrong_is_said() {
    let cases = [
        (json!({"Parameters": {"P": {"Type": "String"}}}), vec![], "parameter P has no value"),
        (json!({}), vec![("P", "1")], "the template has no parameter P"),
        (
            json!({"Resources": {"R": {"Type": "T", "Properties": {"X": {"Ref": "Q"}}}}}),
            vec![],
            "no resource or parameter Q",
        ),
        (
            json!({"Resources": {"R": {"Type": "T", "Properties": {"X": {"Fn::Sub": "${Q.Arn}"}}}}}),
            vec![],
            "no resource or parameter Q",
        ),
        (json!({"Resources": {"R": {"Type": "T", "Condition": "C"}}}), vec![], "there is no condition C"),
        (
            json!({"Conditions": {"C": {"Fn::Not": [{"Condition": "C"}]}}, "Resources": {"R": {"Type": "T", "Condition": "C"}}}),
            vec![],
            "condition C refers to itself",
        ),
        (
            json!({
                "Conditions": {"C": {"Fn::Equals": [1, 2]}},
                "Resources": {"G": {"Type": "T", "Condition": "C"}, "R": {"Type": "T", "Properties": {"X": {"Ref": "G"}}}}
            }),
            vec![],
            "resource R refers to G, which does not exist",
        ),
        (json!({"Resources": {"R": {"Type": "T", "Properties": {"X": {"Fn::Sub": "${A"}}}}}), vec![], "has an open ${"),
        (
            json!({"Resources": {"R": {"Type": "T", "Properties": {"X": {"Fn::Select": [5, ["a"]]}}}}}),
            vec![],
            "no item 5",
        ),
        (json!({"Resources": {"R": {}}}), vec![], "it has no type"),
    ];
    for (template, parameters, expected) in cases {
        let error = with(template.clone(), &parameters).unwrap_err().to_string();
        assert!(error.contains(expected), "{template}: {error}");
    }
}

#[test]
fn canonical_values_ignore_notation_and_order() {
    assert_eq!(
        canonical(&json!({"b": 1, "a": [true, "x"]})).to_string(),
        canonical(&json!({"a": ["true", "x"], "b": "1"})).to_string()
    );
    assert_ne!(canonical(&json!([1, 2])), canonical(&json!([2, 1])));
}

#[test]
fn nothing_in_the_service_stack_is_left_unresolved() {
    let everything = settings("lambda: {url: none}\nautoscaling: {enabled: true}\nendpoint: {volume_gb: 100}");
    for (id, resource) in evaluated(&everything).resources {
        let text = resource.properties.to_string();
        assert!(!text.contains("${") && !text.contains("Fn::Sub") && !text.contains("Fn::If"), "{id}: {text}");
    }
}

#[test]
fn resources_come_after_what_they_need() {
    let evaluated = evaluated(&settings("autoscaling: {enabled: true}"));
    let order = evaluated.in_order();
    let at = |id: &str| order.iter().position(|o| *o == id).unwrap();
    let chain = [
        ids::EXECUTION_ROLE,
        ids::MODEL,
        ids::ENDPOINT_CONFIG,
        ids::ENDPOINT,
        ids::SCALABLE_TARGET,
        ids::SCALING_POLICY,
    ];
    assert!(chain.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{order:?}");
    assert_eq!(order.len(), evaluated.resources.len());
}

#[test]
fn the_partition_follows_from_the_region() {
    let partition = |region: &str| Pseudo::new(ACCOUNT, region, "s").partition;
    assert_eq!(partition("eu-central-1"), "aws");
    assert_eq!(partition("cn-north-1"), "aws-cn");
    assert_eq!(partition("us-gov-west-1"), "aws-us-gov");
    assert_eq!(Pseudo::new(ACCOUNT, "cn-north-1", "s").url_suffix, "amazonaws.com.cn");
}
