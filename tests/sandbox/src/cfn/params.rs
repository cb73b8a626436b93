//! Parameters: declarations, and the values of one operation.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::template::{Template, plain};
use super::{Fail, Parameter, flag, invalid, text};

/// What a parameter's declaration may hold.
const MEMBERS: &[&str] = &[
    "AllowedPattern",
    "AllowedValues",
    "ConstraintDescription",
    "Default",
    "Description",
    "MaxLength",
    "MaxValue",
    "MinLength",
    "MinValue",
    "NoEcho",
    "Type",
];

/// Checks the declarations, and every default against its own constraints.
pub fn check_declarations(template: &Template) -> Result<(), Fail> {
    for (name, declaration) in template.members("Parameters") {
        if !alphanumeric(name) {
            return Err(invalid(format!("Template format error: Parameter name {name} is non alphanumeric.")));
        }
        let Value::Object(members) = declaration else {
            return Err(invalid(format!(
                "Template format error: [/Parameters/{name}] Every Parameters object must be an object."
            )));
        };
        if let Some(unknown) = members.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
            return Err(invalid(format!("Invalid template parameter property '{unknown}'")));
        }
        let Some(kind) = members.get("Type").and_then(Value::as_str) else {
            return Err(invalid(format!(
                "Template format error: Every Parameters object must contain a Type member. Parameter: {name}"
            )));
        };
        if kind.starts_with("AWS::SSM::Parameter::") {
            return Err(invalid(format!(
                "Template format error: the sandbox resolves no SSM parameters (parameter {name})"
            )));
        }
        if !matches!(kind, "String" | "Number" | "CommaDelimitedList" | "List<Number>" | "List<String>")
            && !kind.starts_with("AWS::EC2::")
            && !kind.starts_with("List<AWS::EC2::")
            && !matches!(kind, "AWS::Route53::HostedZone::Id" | "List<AWS::Route53::HostedZone::Id>")
        {
            return Err(invalid(format!(
                "Template format error: Unrecognized parameter type: {kind}. Parameter: {name}"
            )));
        }
        if let Some(default) = members.get("Default") {
            if default.is_object() || default.is_array() {
                return Err(invalid(format!(
                    "Template format error: Every Default member must be a string. Parameter: {name}"
                )));
            }
            check_value(name, members, &plain(default))?;
        }
    }
    Ok(())
}

pub(super) fn alphanumeric(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_list(kind: &str) -> bool {
    kind == "CommaDelimitedList" || kind.starts_with("List<")
}

fn number(value: Option<&Value>) -> Option<f64> {
    match value? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A value against its declaration, in CloudFormation's words.
fn check_value(name: &str, declaration: &Map<String, Value>, value: &str) -> Result<(), Fail> {
    let kind = declaration.get("Type").and_then(Value::as_str).unwrap_or("String");
    let broken = |rule: String| match declaration.get("ConstraintDescription").and_then(Value::as_str) {
        Some(told) => invalid(format!("Parameter {name} failed to satisfy constraint: {told}")),
        None => invalid(format!("Parameter '{name}' {rule}")),
    };
    let items: Vec<&str> = if is_list(kind) { value.split(',').map(str::trim).collect() } else { vec![value] };
    if matches!(kind, "Number" | "List<Number>") {
        for item in &items {
            let Some(parsed) = item.parse::<f64>().ok().filter(|number| number.is_finite()) else {
                return Err(invalid(format!("Parameter '{name}' must be a number.")));
            };
            if number(declaration.get("MinValue")).is_some_and(|least| parsed < least) {
                return Err(broken(format!("must be a number not less than {}", plain(&declaration["MinValue"]))));
            }
            if number(declaration.get("MaxValue")).is_some_and(|most| parsed > most) {
                return Err(broken(format!("must be a number not greater than {}", plain(&declaration["MaxValue"]))));
            }
        }
    } else if kind == "String" {
        let length = value.chars().count() as f64;
        if number(declaration.get("MinLength")).is_some_and(|least| length < least) {
            return Err(broken(format!("must contain at least {} characters", plain(&declaration["MinLength"]))));
        }
        if number(declaration.get("MaxLength")).is_some_and(|most| length > most) {
            return Err(broken(format!("must contain at most {} characters", plain(&declaration["MaxLength"]))));
        }
    }
    if let Some(allowed) = declaration.get("AllowedValues").and_then(Value::as_array)
        && let Some(_stranger) = items.iter().find(|item| !allowed.iter().any(|value| plain(value) == **item))
    {
        return Err(broken(format!(
            "must be one of AllowedValues [{}]",
            allowed.iter().map(plain).collect::<Vec<_>>().join(", ")
        )));
    }
    if let Some(pattern) = declaration.get("AllowedPattern").and_then(Value::as_str) {
        // The whole value has to match, as with Java's `matches`.
        let regex = regex::Regex::new(&format!("^(?:{pattern})$")).map_err(|_| {
            invalid(format!(
                "Template format error: AllowedPattern of parameter {name} is not a regular expression: {pattern}"
            ))
        })?;
        if items.iter().any(|item| !regex.is_match(item)) {
            return Err(broken(format!("must match pattern {pattern}")));
        }
    }
    Ok(())
}

/// The values of an operation: given ones, previous ones where asked, defaults. `previous` is `None` for a new
/// stack. The result is in the template's order.
pub fn decide(template: &Template, given: &[Value], previous: Option<&[Parameter]>) -> Result<Vec<Parameter>, Fail> {
    let declared = template.section("Parameters");
    let mut asked: BTreeMap<String, &Value> = BTreeMap::new();
    for entry in given {
        let Some(key) = text(entry, "ParameterKey") else {
            return Err(invalid("Every parameter must have a ParameterKey"));
        };
        if asked.insert(key.to_owned(), entry).is_some() {
            return Err(invalid(format!("Duplicate parameter keys [{key}]")));
        }
    }
    let strangers: Vec<&str> =
        asked.keys().filter(|key| !declared.is_some_and(|d| d.contains_key(*key))).map(String::as_str).collect();
    if !strangers.is_empty() {
        return Err(invalid(format!("Parameters: [{}] do not exist in the template", strangers.join(", "))));
    }
    let (mut decided, mut missing) = (Vec::new(), Vec::new());
    for (name, declaration) in template.members("Parameters") {
        let entry = asked.get(name);
        let value = if let Some(entry) = entry.filter(|entry| flag(entry, "UsePreviousValue")) {
            if text(entry, "ParameterValue").is_some() {
                return Err(invalid(format!(
                    "Invalid input for parameter key {name}. Cannot specify usePreviousValue as true and also specify a parameter value"
                )));
            }
            let kept = previous.and_then(|all| all.iter().find(|parameter| parameter.key == *name));
            let Some(kept) = kept else {
                return Err(invalid(format!(
                    "Invalid input for parameter key {name}. Cannot specify usePreviousValue as true for a parameter key not in the previous template"
                )));
            };
            Some(kept.value.clone())
        } else {
            let given = entry.and_then(|entry| text(entry, "ParameterValue")).map(str::to_owned);
            given.or_else(|| declaration.get("Default").map(plain))
        };
        match value {
            None => missing.push(name.as_str()),
            Some(value) => {
                if let Some(members) = declaration.as_object() {
                    check_value(name, members, &value)?;
                }
                decided.push(Parameter { key: name.clone(), value, no_echo: flag(declaration, "NoEcho") });
            }
        }
    }
    if !missing.is_empty() {
        return Err(invalid(format!("Parameters: [{}] must have values", missing.join(", "))));
    }
    Ok(decided)
}

/// What `Ref` gives for each parameter: text, or a list of it.
pub fn values(template: &Template, parameters: &[Parameter]) -> BTreeMap<String, Value> {
    let declared = template.section("Parameters");
    let kind = |key: &str| declared.and_then(|d| d.get(key)).and_then(|d| d.get("Type")).and_then(Value::as_str);
    parameters
        .iter()
        .map(|parameter| {
            let value = match kind(&parameter.key) {
                Some(kind) if is_list(kind) && parameter.value.is_empty() => json!([]),
                Some(kind) if is_list(kind) => parameter.value.split(',').map(str::trim).collect(),
                _ => Value::String(parameter.value.clone()),
            };
            (parameter.key.clone(), value)
        })
        .collect()
}

/// The declarations as ValidateTemplate (`summary` false) and GetTemplateSummary show them.
pub fn describe(template: &Template, summary: bool) -> Vec<Value> {
    let mut all = Vec::new();
    for (name, declaration) in template.members("Parameters") {
        let mut entry = json!({ "ParameterKey": name, "NoEcho": flag(declaration, "NoEcho") });
        if let Some(default) = declaration.get("Default") {
            entry["DefaultValue"] = Value::String(plain(default));
        }
        if let Some(told) = declaration.get("Description") {
            entry["Description"] = told.clone();
        }
        if summary {
            entry["ParameterType"] = declaration["Type"].clone();
            let mut constraints = Map::new();
            if let Some(allowed) = declaration.get("AllowedValues").and_then(Value::as_array) {
                constraints.insert("AllowedValues".into(), allowed.iter().map(plain).collect());
            }
            entry["ParameterConstraints"] = Value::Object(constraints);
        }
        all.push(entry);
    }
    all
}
