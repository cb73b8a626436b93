//! Intrinsic functions: conditions first, then what a resource's properties become.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::template::{Template, plain};
use super::{Fail, invalid};

/// What a change set shows for a value that only execution decides.
pub const KNOWN_AFTER_APPLY: &str = "{{changeSet:KNOWN_AFTER_APPLY}}";

const FUNCTIONS: &[&str] = &[
    "Condition",
    "Fn::And",
    "Fn::Base64",
    "Fn::Equals",
    "Fn::FindInMap",
    "Fn::GetAtt",
    "Fn::If",
    "Fn::Join",
    "Fn::Not",
    "Fn::Or",
    "Fn::Select",
    "Fn::Split",
    "Fn::Sub",
    "Ref",
];

/// What does not depend on resources: parameters, pseudo parameters, conditions, mappings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// What `Ref` gives for parameters and pseudo parameters.
    pub values: BTreeMap<String, Value>,
    /// The conditions, decided.
    pub conditions: BTreeMap<String, bool>,
    /// The Mappings section.
    pub mappings: Map<String, Value>,
}

/// What a template mentions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mention {
    /// `Ref`, or `${Name}`.
    Name(String),
    /// `Fn::GetAtt`, or `${Name.Attribute}`.
    Attribute(String, String),
    /// `Condition`, or the first argument of `Fn::If`.
    Condition(String),
}

/// The one function an object is, with its argument.
pub fn as_function(value: &Value) -> Option<(&str, &Value)> {
    let map = value.as_object()?;
    let (name, argument) = map.iter().next()?;
    (map.len() == 1 && (name == "Ref" || name == "Condition" && argument.is_string() || name.starts_with("Fn::")))
        .then_some((name.as_str(), argument))
}

/// Text with the `${...}` of `Fn::Sub` taken apart; `${!Literal}` is text.
fn sub_parts(text: &str) -> Result<Vec<Part>, Fail> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find("${") {
        parts.push(Part::Text(rest[..start].to_owned()));
        let after = &rest[start + 2..];
        let Some(end) = after.find('}') else {
            return Err(invalid(
                "Template error: variable names in Fn::Sub syntax must contain only alphanumeric characters, underscores, periods, and colons",
            ));
        };
        let name = &after[..end];
        if let Some(literal) = name.strip_prefix('!') {
            parts.push(Part::Text(format!("${{{literal}}}")));
        } else {
            let name = name.trim();
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':');
            if name.is_empty() || !name.bytes().all(fits) {
                return Err(invalid(
                    "Template error: variable names in Fn::Sub syntax must contain only alphanumeric characters, underscores, periods, and colons",
                ));
            }
            parts.push(Part::Variable(name.to_owned()));
        }
        rest = &after[end + 1..];
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

enum Part {
    Text(String),
    Variable(String),
}

const SUB_ARGUMENTS: &str = "Template error: One or more Fn::Sub intrinsic functions don't specify expected arguments. Specify a string as first argument, and an optional second argument to specify a mapping of values to replace in the string";

type SubArguments<'a> = (&'a str, Option<&'a Map<String, Value>>);

fn sub_arguments(argument: &Value) -> Result<SubArguments<'_>, Fail> {
    match argument {
        Value::String(text) => Ok((text, None)),
        Value::Array(items) => match items.as_slice() {
            [Value::String(text), Value::Object(map)] => Ok((text, Some(map))),
            [Value::String(text)] => Ok((text, None)),
            _ => Err(invalid(SUB_ARGUMENTS)),
        },
        _ => Err(invalid(SUB_ARGUMENTS)),
    }
}

fn get_att_arguments(argument: &Value) -> Result<(String, String), Fail> {
    const TEXT: &str = "Template error: every Fn::GetAtt object requires two non-empty parameters, the resource name and the resource attribute";
    let (name, attribute) = match argument {
        Value::String(text) => text.split_once('.').ok_or_else(|| invalid(TEXT))?,
        Value::Array(items) => match items.as_slice() {
            [Value::String(name), Value::String(attribute)] => (name.as_str(), attribute.as_str()),
            _ => return Err(invalid(TEXT)),
        },
        _ => return Err(invalid(TEXT)),
    };
    if name.is_empty() || attribute.is_empty() {
        return Err(invalid(TEXT));
    }
    Ok((name.to_owned(), attribute.to_owned()))
}

/// Collects all that a value mentions, in both branches of every `Fn::If`, and refuses malformed functions.
pub fn mentions(value: &Value, found: &mut BTreeSet<Mention>) -> Result<(), Fail> {
    let Some((name, argument)) = as_function(value) else {
        match value {
            Value::Object(map) => {
                if let Some(name) = map.keys().find(|key| FUNCTIONS.contains(&key.as_str()) && *key != "Condition") {
                    return Err(invalid(format!(
                        "Template error: {name} must be the only member of the object it is in"
                    )));
                }
                return map.values().try_for_each(|inner| mentions(inner, found));
            }
            Value::Array(items) => return items.iter().try_for_each(|inner| mentions(inner, found)),
            _ => return Ok(()),
        }
    };
    if !FUNCTIONS.contains(&name) {
        return Err(invalid(format!(
            "Template format error: Unsupported function {name}: the sandbox does not have it"
        )));
    }
    match name {
        "Ref" => {
            let Some(target) = argument.as_str() else {
                return Err(invalid("Template error: every Ref object must have a single String value."));
            };
            found.insert(Mention::Name(target.to_owned()));
            Ok(())
        }
        "Condition" => {
            found.insert(Mention::Condition(plain(argument)));
            Ok(())
        }
        "Fn::GetAtt" => {
            let (resource, attribute) = get_att_arguments(argument)?;
            found.insert(Mention::Attribute(resource, attribute));
            Ok(())
        }
        "Fn::Sub" => {
            let (text, map) = sub_arguments(argument)?;
            for part in sub_parts(text)? {
                if let Part::Variable(variable) = part
                    && !map.is_some_and(|map| map.contains_key(&variable))
                {
                    found.insert(match variable.split_once('.') {
                        Some((resource, attribute)) => Mention::Attribute(resource.to_owned(), attribute.to_owned()),
                        None => Mention::Name(variable),
                    });
                }
            }
            map.into_iter().flatten().try_for_each(|(_, inner)| mentions(inner, found))
        }
        "Fn::If" => {
            let (condition, yes, no) = if_arguments(argument)?;
            found.insert(Mention::Condition(condition.to_owned()));
            mentions(yes, found)?;
            mentions(no, found)
        }
        _ => mentions(argument, found),
    }
}

fn if_arguments(argument: &Value) -> Result<(&str, &Value, &Value), Fail> {
    match argument.as_array().map(Vec::as_slice) {
        Some([Value::String(condition), yes, no]) => Ok((condition, yes, no)),
        _ => Err(invalid("Template error: Fn::If requires a list argument with three elements")),
    }
}

/// What a mention of a resource gives.
pub trait Resources {
    /// The physical id.
    fn reference(&self, name: &str) -> Option<Value>;
    /// An attribute.
    fn attribute(&self, name: &str, attribute: &str) -> Option<Value>;
}

/// Where no resource may be mentioned.
#[derive(Debug)]
pub struct NoResources;

impl Resources for NoResources {
    fn reference(&self, _: &str) -> Option<Value> {
        None
    }
    fn attribute(&self, _: &str, _: &str) -> Option<Value> {
        None
    }
}

impl Scope {
    /// Of a template with these parameter and pseudo parameter values: decides the conditions.
    pub fn new(template: &Template, values: BTreeMap<String, Value>) -> Result<Scope, Fail> {
        let mut scope = Scope {
            values,
            conditions: BTreeMap::new(),
            mappings: template.section("Mappings").cloned().unwrap_or_default(),
        };
        for (name, _) in template.members("Conditions") {
            let decided = scope.condition(template, name, &mut Vec::new())?;
            scope.conditions.insert(name.clone(), decided);
        }
        Ok(scope)
    }

    fn condition(&self, template: &Template, name: &str, path: &mut Vec<String>) -> Result<bool, Fail> {
        if let Some(decided) = self.conditions.get(name) {
            return Ok(*decided);
        }
        if path.iter().any(|seen| seen == name) {
            return Err(invalid(format!("Template error: Found circular condition dependency: [{}]", path.join(", "))));
        }
        let Some(body) = template.section("Conditions").and_then(|all| all.get(name)) else {
            return Err(invalid(format!(
                "Template format error: Unresolved condition dependency {name} in the Conditions block of the template"
            )));
        };
        path.push(name.to_owned());
        let decided = self.decide(template, body, path);
        path.pop();
        decided
    }

    fn decide(&self, template: &Template, body: &Value, path: &mut Vec<String>) -> Result<bool, Fail> {
        const TEXT: &str =
            "Template format error: Conditions can only be boolean operations on parameters and other conditions";
        let (name, argument) = as_function(body).ok_or_else(|| invalid(TEXT))?;
        let several = |least: usize, most: usize| -> Result<&Vec<Value>, Fail> {
            argument.as_array().filter(|items| (least..=most).contains(&items.len())).ok_or_else(|| {
                invalid(format!(
                    "Template error: every {name} object requires a list of at least {least} and at most {most} boolean parameters"
                ))
            })
        };
        match name {
            "Condition" => self.condition(template, &plain(argument), path),
            "Fn::Equals" => match argument.as_array().map(Vec::as_slice) {
                Some([left, right]) => {
                    let left = self.resolve(left, &NoResources)?.unwrap_or(Value::Null);
                    let right = self.resolve(right, &NoResources)?.unwrap_or(Value::Null);
                    Ok(left == right || !left.is_array() && !left.is_object() && plain(&left) == plain(&right))
                }
                _ => Err(invalid("Template error: every Fn::Equals object requires a list of 2 string parameters")),
            },
            "Fn::Not" => match argument.as_array().map(Vec::as_slice) {
                Some([inner]) => Ok(!self.decide(template, inner, path)?),
                _ => Err(invalid("Template error: every Fn::Not object requires a list of one boolean parameter")),
            },
            "Fn::And" => {
                let mut all = true;
                for inner in several(2, 10)? {
                    all &= self.decide(template, inner, path)?;
                }
                Ok(all)
            }
            "Fn::Or" => {
                let mut any = false;
                for inner in several(2, 10)? {
                    any |= self.decide(template, inner, path)?;
                }
                Ok(any)
            }
            _ => Err(invalid(TEXT)),
        }
    }

    /// The value with every `Fn::If` replaced by its branch and `AWS::NoValue` members gone.
    pub fn reduce(&self, value: &Value) -> Result<Option<Value>, Fail> {
        if let Some((name, argument)) = as_function(value) {
            return match name {
                "Ref" if argument == "AWS::NoValue" => Ok(None),
                "Fn::If" => {
                    let (condition, yes, no) = if_arguments(argument)?;
                    match self.conditions.get(condition) {
                        Some(true) => self.reduce(yes),
                        Some(false) => self.reduce(no),
                        None => Err(invalid(format!(
                            "Template format error: Unresolved condition dependency {condition} in the Resources block of the template"
                        ))),
                    }
                }
                _ => Ok(Some(json!({ name: self.reduce(argument)?.unwrap_or(Value::Null) }))),
            };
        }
        Ok(Some(match value {
            Value::Object(map) => {
                let mut reduced = Map::new();
                for (key, inner) in map {
                    if let Some(inner) = self.reduce(inner)? {
                        reduced.insert(key.clone(), inner);
                    }
                }
                Value::Object(reduced)
            }
            Value::Array(items) => {
                let mut reduced = Vec::new();
                for inner in items {
                    reduced.extend(self.reduce(inner)?);
                }
                Value::Array(reduced)
            }
            other => other.clone(),
        }))
    }

    /// The value with every function done. `None` is `AWS::NoValue`.
    pub fn resolve(&self, value: &Value, resources: &dyn Resources) -> Result<Option<Value>, Fail> {
        if let Some((name, argument)) = as_function(value) {
            return self.call(name, argument, resources);
        }
        Ok(Some(match value {
            Value::Object(map) => {
                let mut resolved = Map::new();
                for (key, inner) in map {
                    if let Some(inner) = self.resolve(inner, resources)? {
                        resolved.insert(key.clone(), inner);
                    }
                }
                Value::Object(resolved)
            }
            Value::Array(items) => {
                let mut resolved = Vec::new();
                for inner in items {
                    resolved.extend(self.resolve(inner, resources)?);
                }
                Value::Array(resolved)
            }
            other => other.clone(),
        }))
    }

    fn reference(&self, name: &str, resources: &dyn Resources) -> Result<Value, Fail> {
        self.values.get(name).cloned().or_else(|| resources.reference(name)).ok_or_else(|| unresolved(name))
    }

    fn call(&self, name: &str, argument: &Value, resources: &dyn Resources) -> Result<Option<Value>, Fail> {
        Ok(Some(match name {
            "Ref" => {
                let name = argument.as_str().unwrap_or_default();
                if name == "AWS::NoValue" {
                    return Ok(None);
                }
                self.reference(name, resources)?
            }
            "Fn::GetAtt" => {
                let (resource, attribute) = get_att_arguments(argument)?;
                resources.attribute(&resource, &attribute).ok_or_else(|| {
                    invalid(format!(
                        "Template error: resource {resource} does not support attribute type {attribute} in Fn::GetAtt"
                    ))
                })?
            }
            "Fn::If" => {
                let (condition, yes, no) = if_arguments(argument)?;
                let branch = if self.conditions.get(condition).copied().unwrap_or(false) { yes } else { no };
                return self.resolve(branch, resources);
            }
            "Fn::Sub" => Value::String(self.sub(argument, resources)?),
            "Fn::Join" => self.join(argument, resources)?,
            "Fn::Select" => self.select(argument, resources)?,
            "Fn::Split" => self.split(argument, resources)?,
            "Fn::FindInMap" => self.find_in_map(argument, resources)?,
            "Fn::Base64" => {
                use base64::Engine as _;
                match self.resolve(argument, resources)? {
                    Some(Value::String(text)) if text.contains(KNOWN_AFTER_APPLY) => KNOWN_AFTER_APPLY.into(),
                    Some(Value::String(text)) => base64::engine::general_purpose::STANDARD.encode(text).into(),
                    _ => {
                        return Err(invalid("Template error: every Fn::Base64 object must have a String-typed value."));
                    }
                }
            }
            other => return Err(invalid(format!("Template error: {other} cannot be used here"))),
        }))
    }

    fn sub(&self, argument: &Value, resources: &dyn Resources) -> Result<String, Fail> {
        let (text, map) = sub_arguments(argument)?;
        let mut done = String::new();
        for part in sub_parts(text)? {
            match part {
                Part::Text(text) => done.push_str(&text),
                Part::Variable(name) => {
                    let value = match map.and_then(|map| map.get(&name)) {
                        Some(inner) => self.resolve(inner, resources)?.unwrap_or(Value::Null),
                        None => match name.split_once('.') {
                            Some((resource, attribute)) => {
                                resources.attribute(resource, attribute).ok_or_else(|| unresolved(&name))?
                            }
                            None => self.reference(&name, resources)?,
                        },
                    };
                    if value.is_array() || value.is_object() || value.is_null() {
                        return Err(invalid(format!(
                            "Template error: Fn::Sub expression does not resolve to a string: {name}"
                        )));
                    }
                    done.push_str(&plain(&value));
                }
            }
        }
        Ok(done)
    }

    fn join(&self, argument: &Value, resources: &dyn Resources) -> Result<Value, Fail> {
        const TEXT: &str = "Template error: every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of strings to be joined or a function that returns a list of strings (such as Fn::GetAZs) to be joined.";
        let Some([Value::String(delimiter), list]) = argument.as_array().map(Vec::as_slice) else {
            return Err(invalid(TEXT));
        };
        match self.resolve(list, resources)? {
            Some(Value::Array(items)) if !items.iter().any(|item| item.is_object() || item.is_array()) => {
                Ok(items.iter().map(plain).collect::<Vec<_>>().join(delimiter).into())
            }
            Some(unknown) if unknown == KNOWN_AFTER_APPLY => Ok(unknown),
            _ => Err(invalid(TEXT)),
        }
    }

    fn select(&self, argument: &Value, resources: &dyn Resources) -> Result<Value, Fail> {
        const TEXT: &str =
            "Template error: Fn::Select requires a list argument with two elements: an integer index and a list";
        let Some([index, list]) = argument.as_array().map(Vec::as_slice) else {
            return Err(invalid(TEXT));
        };
        let index = self.resolve(index, resources)?.as_ref().map(plain).and_then(|text| text.parse::<usize>().ok());
        let index = index.ok_or_else(|| invalid(TEXT))?;
        match self.resolve(list, resources)? {
            Some(Value::Array(items)) => items.get(index).cloned().ok_or_else(|| {
                invalid(format!("Template error: Fn::Select  cannot select nonexistent value at index {index}"))
            }),
            Some(unknown) if unknown == KNOWN_AFTER_APPLY => Ok(unknown),
            _ => Err(invalid(TEXT)),
        }
    }

    fn split(&self, argument: &Value, resources: &dyn Resources) -> Result<Value, Fail> {
        const TEXT: &str = "Template error: every Fn::Split object requires two parameters, (1) a string delimiter and (2) a string to be split or a function that returns a string to be split.";
        let Some([Value::String(delimiter), source]) = argument.as_array().map(Vec::as_slice) else {
            return Err(invalid(TEXT));
        };
        match self.resolve(source, resources)? {
            Some(Value::String(text)) if text.contains(KNOWN_AFTER_APPLY) => Ok(KNOWN_AFTER_APPLY.into()),
            Some(Value::String(text)) if !delimiter.is_empty() => Ok(text.split(delimiter.as_str()).collect()),
            _ => Err(invalid(TEXT)),
        }
    }

    fn find_in_map(&self, argument: &Value, resources: &dyn Resources) -> Result<Value, Fail> {
        let parts = argument.as_array().filter(|parts| parts.len() == 3).ok_or_else(|| {
            invalid("Template error: every Fn::FindInMap object requires three parameters, the map name, map key and the attribute for return value")
        })?;
        let mut names = Vec::new();
        for part in parts {
            names.push(self.resolve(part, resources)?.as_ref().map(plain).unwrap_or_default());
        }
        self.mappings
            .get(&names[0])
            .and_then(|map| map.get(&names[1]))
            .and_then(|map| map.get(&names[2]))
            .cloned()
            .ok_or_else(|| invalid(format!("Template error: Unable to get mapping for {}", names.join("::"))))
    }
}

fn unresolved(name: &str) -> Fail {
    invalid(format!(
        "Template format error: Unresolved resource dependencies [{name}] in the Resources block of the template"
    ))
}
