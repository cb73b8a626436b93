//! The syntax of lifecycle policies (ECR User Guide, Lifecycle policy properties).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::invalid;
use crate::world::ApiError;

/// Whether ECR would take this policy text.
pub fn check(text: &str) -> Result<(), ApiError> {
    syntax(text).map_err(|why| {
        invalid(format!(
            "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation \
             failure: {why}'"
        ))
    })
}

fn object<'a>(value: &'a Value, what: &str, known: &[&str]) -> Result<&'a Map<String, Value>, String> {
    let map = value.as_object().ok_or_else(|| format!("{what} is not an object"))?;
    match map.keys().find(|k| !known.contains(&k.as_str())) {
        Some(unknown) => Err(format!("{what} has the unknown property {unknown}")),
        None => Ok(map),
    }
}

fn syntax(text: &str) -> Result<(), String> {
    let policy: Value = serde_json::from_str(text).map_err(|e| format!("Could not map policyString into JSON: {e}"))?;
    object(&policy, "the policy", &["rules"])?;
    let rules = policy["rules"].as_array().filter(|r| !r.is_empty()).ok_or("the policy has no rules")?;
    let mut priorities = BTreeSet::new();
    let mut any = None;
    for rule in rules {
        object(rule, "a rule", &["rulePriority", "description", "selection", "action"])?;
        let priority = rule["rulePriority"].as_u64().filter(|p| *p > 0).ok_or("rulePriority must be above 0")?;
        if !priorities.insert(priority) {
            return Err(format!("rulePriority {priority} is used twice"));
        }
        object(&rule["action"], "action", &["type"])?;
        if rule["action"]["type"] != "expire" {
            return Err("action type must be expire".to_owned());
        }
        let selection = &rule["selection"];
        let known = ["tagStatus", "tagPrefixList", "tagPatternList", "countType", "countUnit", "countNumber"];
        object(selection, "selection", &known)?;
        check_selection(selection)?;
        if selection["tagStatus"] == "any" {
            any = any.or(Some(priority));
        }
    }
    if any.is_some_and(|any| priorities.last() != Some(&any)) {
        return Err(
            "a rule with tagStatus any must have the highest value of rulePriority and be evaluated last".into()
        );
    }
    Ok(())
}

fn check_selection(selection: &Value) -> Result<(), String> {
    let filled =
        |name: &str| selection[name].as_array().is_some_and(|l| !l.is_empty() && l.iter().all(Value::is_string));
    let lists = ["tagPrefixList", "tagPatternList"].iter().filter(|name| filled(name)).count();
    match selection["tagStatus"].as_str() {
        Some("tagged") if lists != 1 => return Err("tagged needs one of tagPrefixList and tagPatternList".to_owned()),
        Some("untagged" | "any") if lists != 0 => return Err("tag lists need tagStatus tagged".to_owned()),
        Some("tagged" | "untagged" | "any") => {}
        _ => return Err("tagStatus must be tagged, untagged or any".to_owned()),
    }
    if selection["countNumber"].as_u64().is_none_or(|n| n == 0) {
        return Err("countNumber must be above 0".to_owned());
    }
    match (selection["countType"].as_str(), &selection["countUnit"]) {
        (Some("imageCountMoreThan"), Value::Null) => Ok(()),
        (Some("imageCountMoreThan"), _) => Err("imageCountMoreThan takes no countUnit".to_owned()),
        (Some("sinceImagePushed"), unit) if unit == "days" => Ok(()),
        (Some("sinceImagePushed"), _) => Err("sinceImagePushed needs countUnit days".to_owned()),
        _ => Err("countType must be imageCountMoreThan or sinceImagePushed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(priority: u64, selection: Value) -> Value {
        json!({"rulePriority": priority, "selection": selection, "action": {"type": "expire"}})
    }

    #[test]
    fn lifecycle_syntax_bites() {
        let untagged =
            json!({"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1});
        let builds = json!({"tagStatus": "tagged", "tagPrefixList": ["build-"], "countType": "imageCountMoreThan", "countNumber": 5});
        let any = json!({"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 5});
        let policy = |rules: Value| json!({"rules": rules}).to_string();
        assert_eq!(
            check(&policy(json!([rule(1, untagged.clone()), rule(2, builds.clone()), rule(3, any.clone())]))),
            Ok(())
        );
        let mut no_unit = untagged.clone();
        no_unit["countUnit"].take();
        let mut no_prefix = builds.clone();
        no_prefix["tagPrefixList"] = json!([]);
        for bad in [
            "not json".to_owned(),
            policy(json!([])),
            policy(json!([rule(1, untagged.clone()), rule(1, builds)])),
            policy(json!([rule(1, any), rule(2, untagged)])),
            policy(json!([rule(1, no_unit)])),
            policy(json!([rule(1, no_prefix)])),
            json!({"rules": [], "more": 1}).to_string(),
        ] {
            assert_eq!(check(&bad).map_err(|e| e.code), Err("InvalidParameterException".to_owned()), "{bad}");
        }
    }
}
