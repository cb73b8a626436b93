//! What holds for every template.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::cfn::expand::{NoResources, Scope};

fn scope() -> Scope {
    let values = [("Env", json!("dev")), ("List", json!(["a", "b"]))];
    Scope {
        values: values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>(),
        conditions: [("Yes".to_owned(), true), ("No".to_owned(), false)].into(),
        mappings: serde_json::Map::new(),
    }
}

fn resolved(value: &Value) -> Option<Value> {
    scope().resolve(value, &NoResources).expect("resolves")
}

/// Values without functions.
fn plain() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        "[a-z ]{0,8}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[A-Z][a-z]{1,6}x", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_value_without_functions_stays_as_it_is(value in plain()) {
        prop_assert_eq!(resolved(&value), Some(value.clone()));
        prop_assert_eq!(scope().reduce(&value).expect("reduces"), Some(value));
    }

    #[test]
    fn split_undoes_join(parts in prop::collection::vec("[a-z]{0,5}", 1..6)) {
        let joined = json!({"Fn::Join": [",", parts]});
        prop_assert_eq!(resolved(&json!({"Fn::Split": [",", joined]})), Some(json!(parts)));
    }

    #[test]
    fn select_takes_the_one_at_the_index(parts in prop::collection::vec("[a-z]{1,5}", 1..6), at in 0usize..8) {
        let value = json!({"Fn::Select": [at.to_string(), parts]});
        match parts.get(at) {
            Some(part) => prop_assert_eq!(resolved(&value), Some(json!(part))),
            None => prop_assert!(scope().resolve(&value, &NoResources).is_err()),
        }
    }

    #[test]
    fn sub_leaves_other_text_alone(before in "[^$]{0,10}", after in "[^$]{0,10}") {
        let value = json!({"Fn::Sub": format!("{before}${{Env}}{after}")});
        prop_assert_eq!(resolved(&value), Some(json!(format!("{before}dev{after}"))));
    }

    #[test]
    fn no_variable_ever_passes_unresolved(name in "[A-Z][A-Za-z]{4,9}") {
        prop_assume!(name != "List");
        let value = json!({"Fn::Sub": format!("x-${{{name}}}")});
        let told = scope().resolve(&value, &NoResources);
        prop_assert!(told.is_err());
        let reference = json!({"Ref": name});
        let told = scope().resolve(&reference, &NoResources);
        prop_assert!(told.is_err());
    }

    #[test]
    fn if_gives_its_branch_and_reducing_first_makes_no_difference(yes in plain(), no in plain()) {
        for (condition, wanted) in [("Yes", &yes), ("No", &no)] {
            let value = json!({"A": {"Fn::If": [condition, yes, no]}, "B": {"Fn::If": [condition, {"Ref": "AWS::NoValue"}, 1]}});
            let direct = resolved(&value).expect("a value");
            prop_assert_eq!(&direct["A"], wanted);
            prop_assert_eq!(direct.get("B").is_some(), condition == "No");
            let reduced = scope().reduce(&value).expect("reduces").expect("a value");
            prop_assert_eq!(resolved(&reduced), Some(direct));
        }
    }

    #[test]
    fn base64_can_be_read_back(text in "[ -~]{0,40}") {
        use base64::Engine as _;
        let coded = resolved(&json!({"Fn::Base64": text})).expect("a value");
        let bytes = base64::engine::general_purpose::STANDARD.decode(coded.as_str().expect("text")).expect("base64");
        prop_assert_eq!(bytes, text.into_bytes());
    }

    #[test]
    fn any_text_is_a_template_or_an_error(text in "[ -~\n]{0,200}") {
        // No panic is all that is asked.
        if let Ok(template) = crate::cfn::template::Template::parse(&text) {
            drop(crate::cfn::spec::check(&template));
        }
    }
}
