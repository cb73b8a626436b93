//! The details of a changed property: one for every place in it that differs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cfn::template::plain;

/// What the details of one property have in common.
#[derive(Debug)]
pub struct Why<'a> {
    pub recreation: &'a str,
    pub evaluation: &'a str,
    pub source: &'a str,
    pub cause: Option<String>,
}

/// The details of a property that differs.
pub fn of(name: &str, why: &Why<'_>, before: Option<&Value>, after: Option<&Value>) -> Vec<Value> {
    let mut found = Vec::new();
    walk(name, &format!("/Properties/{name}"), why, before, after, &mut found);
    found
}

fn walk(name: &str, path: &str, why: &Why<'_>, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<Value>) {
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let members: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for member in members.into_iter().filter(|member| old.get(*member) != new.get(*member)) {
                walk(name, &format!("{path}/{member}"), why, old.get(member), new.get(member), found);
            }
        }
        // Items that moved cannot be told from items that changed, so only lists of one length are taken apart.
        (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new) {
                walk(name, &format!("{path}/{index}"), why, Some(old), Some(new), found);
            }
        }
        _ => found.push(one(name, path, why, before, after)),
    }
}

/// One detail.
pub fn one(name: &str, path: &str, why: &Why<'_>, before: Option<&Value>, after: Option<&Value>) -> Value {
    let kind = match (before, after) {
        (None, _) => "Add",
        (_, None) => "Remove",
        _ => "Modify",
    };
    let mut target = json!({
        "Attribute": "Properties",
        "Name": name,
        "RequiresRecreation": why.recreation,
        "Path": path,
        "AttributeChangeType": kind,
    });
    for (member, value) in [("BeforeValue", before), ("AfterValue", after)] {
        if let Some(value) = value {
            target[member] = json!(plain(value));
        }
    }
    let mut detail = json!({ "Target": target, "Evaluation": why.evaluation, "ChangeSource": why.source });
    if let Some(cause) = &why.cause {
        detail["CausingEntity"] = json!(cause);
    }
    detail
}
