//! Fills a template in as CloudFormation would: parameters, conditions, functions. What only exists once a
//! resource exists stays symbolic, as `{"Ref": X}` or `{"Fn::GetAtt": [X, a]}`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map as Object, Value, json};

use crate::cloud::Map;
use crate::error::{Error, Result};

/// The pseudo parameters. `AWS::StackId` and `AWS::NotificationARNs` stay symbolic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pseudo {
    /// Twelve digits.
    pub account: String,
    /// Region.
    pub region: String,
    /// `aws`, `aws-cn`, `aws-us-gov`, ...
    pub partition: String,
    /// `amazonaws.com`, `amazonaws.com.cn`, ...
    pub url_suffix: String,
    /// Stack name.
    pub stack_name: String,
}

impl Pseudo {
    /// Partition and suffix follow from the region.
    pub fn new(account: impl Into<String>, region: impl Into<String>, stack_name: impl Into<String>) -> Self {
        let region = region.into();
        // Prefixes and suffixes as in botocore's partitions.json.
        let (partition, url_suffix) = match region.split('-').collect::<Vec<_>>().as_slice() {
            ["cn", ..] => ("aws-cn", "amazonaws.com.cn"),
            ["us", "gov", ..] => ("aws-us-gov", "amazonaws.com"),
            ["us", "iso", ..] => ("aws-iso", "c2s.ic.gov"),
            ["us", "isob", ..] => ("aws-iso-b", "sc2s.sgov.gov"),
            ["eusc", ..] => ("aws-eusc", "amazonaws.eu"),
            _ => ("aws", "amazonaws.com"),
        };
        Pseudo {
            account: account.into(),
            partition: partition.into(),
            url_suffix: url_suffix.into(),
            stack_name: stack_name.into(),
            region,
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        Some(match name {
            "AWS::AccountId" => &self.account,
            "AWS::Region" => &self.region,
            "AWS::Partition" => &self.partition,
            "AWS::URLSuffix" => &self.url_suffix,
            "AWS::StackName" => &self.stack_name,
            _ => return None,
        })
    }
}

/// One resource that exists under the given parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// `AWS::...`
    pub kind: String,
    /// Its properties, filled in.
    pub properties: Value,
    /// `DeletionPolicy`.
    pub deletion_policy: Option<String>,
    /// `UpdateReplacePolicy`.
    pub update_replace_policy: Option<String>,
    /// Logical ids that this resource refers to or depends on.
    pub references: BTreeSet<String>,
}

/// A template, filled in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evaluated {
    /// By logical id.
    pub resources: BTreeMap<String, Resource>,
    /// Values of the outputs; most are symbolic.
    pub outputs: BTreeMap<String, Value>,
}

impl Evaluated {
    /// Logical ids so that each comes after what it refers to; otherwise alphabetical.
    pub fn in_order(&self) -> Vec<&str> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for id in self.resources.keys() {
            self.visit(id, &mut seen, &mut order);
        }
        order
    }

    fn visit<'a>(&'a self, id: &'a str, seen: &mut BTreeSet<&'a str>, order: &mut Vec<&'a str>) {
        let Some(resource) = self.resources.get(id) else { return };
        if seen.insert(id) {
            for reference in &resource.references {
                self.visit(reference, seen, order);
            }
            order.push(id);
        }
    }
}

/// Applies parameters, conditions and functions.
///
/// Fails on a parameter that has no value or that the template does not know, on a reference to nothing, and
/// on conditions that turn in a circle. Functions that ask AWS (`Fn::ImportValue`, `Fn::GetAZs`) stay as they are.
pub fn evaluate(template: &Value, parameters: &Map, pseudo: &Pseudo) -> Result<Evaluated> {
    let scope = Scope::new(template, parameters, pseudo)?;
    let empty = Object::new();
    let section = |name: &str| template.get(name).and_then(Value::as_object).unwrap_or(&empty);
    let mut evaluated = Evaluated::default();
    for (id, definition) in section("Resources") {
        if scope.exists(definition).map_err(|e| e.why(format!("resource {id}")))? {
            let resource = scope.resource(definition).map_err(|e| e.why(format!("resource {id}")))?;
            evaluated.resources.insert(id.clone(), resource);
        }
    }
    for (id, resource) in &mut evaluated.resources {
        resource.references.remove(id);
    }
    // DependsOn of a resource whose condition is false is ignored; a reference to one is an error.
    let present: BTreeSet<String> = evaluated.resources.keys().cloned().collect();
    for (id, resource) in &mut evaluated.resources {
        if let Some(missing) = referenced(&resource.properties).into_iter().find(|r| !present.contains(r)) {
            return Err(fault(format!("resource {id} refers to {missing}, which does not exist")));
        }
        resource.references.retain(|r| present.contains(r));
    }
    for (name, definition) in section("Outputs") {
        if scope.exists(definition).map_err(|e| e.why(format!("output {name}")))? {
            let value = definition.get("Value").cloned().unwrap_or(Value::Null);
            if let Some(value) = scope.resolve(&value).map_err(|e| e.why(format!("output {name}")))? {
                evaluated.outputs.insert(name.clone(), value);
            }
        }
    }
    Ok(evaluated)
}

/// The same value however it was written: keys sorted, scalars as strings, because to CloudFormation `1` and
/// `"1"`, `true` and `"true"` are the same.
pub fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(o) => {
            let sorted: BTreeMap<&String, Value> = o.iter().map(|(k, v)| (k, canonical(v))).collect();
            Value::Object(sorted.into_iter().map(|(k, v)| (k.clone(), v)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        Value::Null => Value::Null,
        scalar => Value::String(scalar_text(scalar).unwrap_or_default()),
    }
}

/// Logical ids that a resolved value refers to.
pub(super) fn referenced(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(value, &mut found);
    found
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    if let Some(id) = reference(value) {
        if !id.starts_with("AWS::") {
            found.insert(id.to_owned());
        }
        return;
    }
    match value {
        Value::Object(o) => o.values().for_each(|v| collect(v, found)),
        Value::Array(items) => items.iter().for_each(|v| collect(v, found)),
        _ => {}
    }
}

/// The logical id of a symbolic reference.
pub(super) fn reference(value: &Value) -> Option<&str> {
    let (name, argument) = function(value)?;
    match name {
        "Ref" => argument.as_str(),
        "Fn::GetAtt" => argument.get(0).and_then(Value::as_str),
        _ => None,
    }
}

/// Name and argument of a function call.
fn function(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object().filter(|o| o.len() == 1)?;
    let (name, argument) = object.iter().next()?;
    let known = name == "Ref" || name.starts_with("Fn::") || (name == "Condition" && argument.is_string());
    known.then_some((name.as_str(), argument))
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

fn fault(what: impl std::fmt::Display) -> Error {
    Error::failed("the template cannot be evaluated").why(what.to_string())
}

struct Scope<'a> {
    template: &'a Value,
    pseudo: &'a Pseudo,
    parameters: BTreeMap<&'a str, Value>,
    /// Evaluated conditions; `None` while one is being evaluated.
    conditions: RefCell<BTreeMap<String, Option<bool>>>,
}

impl<'a> Scope<'a> {
    fn new(template: &'a Value, given: &'a Map, pseudo: &'a Pseudo) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        if let Some(definitions) = template.get("Parameters").and_then(Value::as_object) {
            for (name, definition) in definitions {
                let text = match given.get(name) {
                    Some(value) => value.clone(),
                    None => definition
                        .get("Default")
                        .and_then(scalar_text)
                        .ok_or_else(|| fault(format!("parameter {name} has no value")))?,
                };
                let list = definition
                    .get("Type")
                    .and_then(Value::as_str)
                    .is_some_and(|t| t == "CommaDelimitedList" || t.starts_with("List<"));
                let value = if list {
                    Value::Array(text.split(',').map(|item| item.trim().into()).collect())
                } else {
                    Value::String(text)
                };
                parameters.insert(name.as_str(), value);
            }
        }
        if let Some(unknown) = given.keys().find(|name| !parameters.contains_key(name.as_str())) {
            return Err(fault(format!("the template has no parameter {unknown}")));
        }
        Ok(Scope { template, pseudo, parameters, conditions: RefCell::default() })
    }

    fn exists(&self, definition: &Value) -> Result<bool> {
        match definition.get("Condition") {
            Some(Value::String(name)) => self.condition(name),
            Some(other) => Err(fault(format!("{other} is not the name of a condition"))),
            None => Ok(true),
        }
    }

    fn resource(&self, definition: &Value) -> Result<Resource> {
        let text = |name: &str| definition.get(name).and_then(Value::as_str).map(str::to_owned);
        let properties = match definition.get("Properties") {
            Some(properties) => self.resolve(properties)?.unwrap_or_else(|| json!({})),
            None => json!({}),
        };
        let mut references = referenced(&properties);
        match definition.get("DependsOn") {
            Some(Value::String(id)) => {
                references.insert(id.clone());
            }
            Some(Value::Array(ids)) => references.extend(ids.iter().filter_map(Value::as_str).map(str::to_owned)),
            _ => {}
        }
        Ok(Resource {
            kind: text("Type").ok_or_else(|| fault("it has no type"))?,
            properties,
            deletion_policy: text("DeletionPolicy"),
            update_replace_policy: text("UpdateReplacePolicy"),
            references,
        })
    }

    fn condition(&self, name: &str) -> Result<bool> {
        match self.conditions.borrow().get(name) {
            Some(Some(known)) => return Ok(*known),
            Some(None) => return Err(fault(format!("condition {name} refers to itself"))),
            None => {}
        }
        let definition = self
            .template
            .get("Conditions")
            .and_then(|c| c.get(name))
            .ok_or_else(|| fault(format!("there is no condition {name}")))?;
        self.conditions.borrow_mut().insert(name.to_owned(), None);
        let value = self.truth(definition)?;
        self.conditions.borrow_mut().insert(name.to_owned(), Some(value));
        Ok(value)
    }

    fn truth(&self, expression: &Value) -> Result<bool> {
        let Some((name, argument)) = function(expression) else {
            return Err(fault(format!("{expression} is not a condition")));
        };
        let items = || argument.as_array().ok_or_else(|| fault(format!("{name} needs a list")));
        Ok(match name {
            "Condition" => self.condition(argument.as_str().unwrap_or_default())?,
            "Fn::Not" => match items()?.as_slice() {
                [one] => !self.truth(one)?,
                _ => return Err(fault("Fn::Not needs one condition")),
            },
            "Fn::And" => items()?.iter().map(|c| self.truth(c)).collect::<Result<Vec<_>>>()?.into_iter().all(|c| c),
            "Fn::Or" => items()?.iter().map(|c| self.truth(c)).collect::<Result<Vec<_>>>()?.into_iter().any(|c| c),
            "Fn::Equals" => match items()?.as_slice() {
                [a, b] => {
                    let (a, b) = (self.resolve(a)?, self.resolve(b)?);
                    a.as_ref().map(canonical) == b.as_ref().map(canonical)
                }
                _ => return Err(fault("Fn::Equals needs two values")),
            },
            other => return Err(fault(format!("{other} is not a condition"))),
        })
    }

    /// The value, or `None` for `AWS::NoValue`.
    fn resolve(&self, value: &Value) -> Result<Option<Value>> {
        if let Some((name, argument)) = function(value) {
            // An IAM statement may have the single key `Condition`, but its value is no string.
            if name != "Condition" {
                return self.call(name, argument);
            }
        }
        Ok(Some(match value {
            Value::Object(o) => {
                let mut resolved = Object::new();
                for (key, value) in o {
                    if let Some(value) = self.resolve(value)? {
                        resolved.insert(key.clone(), value);
                    }
                }
                Value::Object(resolved)
            }
            Value::Array(items) => Value::Array(self.resolve_all(items)?),
            scalar => scalar.clone(),
        }))
    }

    fn resolve_all(&self, items: &[Value]) -> Result<Vec<Value>> {
        Ok(items.iter().map(|item| self.resolve(item)).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn call(&self, name: &str, argument: &Value) -> Result<Option<Value>> {
        let items = || argument.as_array().ok_or_else(|| fault(format!("{name} needs a list")));
        Ok(Some(match name {
            "Ref" => {
                let target = argument.as_str().ok_or_else(|| fault("Ref needs a name"))?;
                if target == "AWS::NoValue" {
                    return Ok(None);
                }
                self.lookup(target)?
            }
            "Fn::GetAtt" => {
                let (id, attribute) = match argument {
                    Value::String(path) => path.split_once('.').map(|(id, a)| (id.to_owned(), Value::from(a))),
                    Value::Array(parts) if parts.len() == 2 => {
                        parts[0].as_str().map(|id| (id.to_owned(), parts[1].clone()))
                    }
                    _ => None,
                }
                .ok_or_else(|| fault("Fn::GetAtt needs a resource and an attribute"))?;
                self.must_define(&id)?;
                json!({ "Fn::GetAtt": [id, attribute] })
            }
            "Fn::If" => match items()?.as_slice() {
                [Value::String(condition), yes, no] => {
                    return self.resolve(if self.condition(condition)? { yes } else { no });
                }
                _ => return Err(fault("Fn::If needs a condition and two values")),
            },
            "Fn::Sub" => match argument {
                Value::String(text) => self.substitute(text, &Object::new())?,
                Value::Array(parts) => match parts.as_slice() {
                    [Value::String(text), Value::Object(variables)] => self.substitute(text, variables)?,
                    _ => return Err(fault("Fn::Sub needs a text and a mapping")),
                },
                _ => return Err(fault("Fn::Sub needs a text")),
            },
            "Fn::Join" => match items()?.as_slice() {
                [Value::String(separator), parts] => match self.resolve(parts)? {
                    Some(Value::Array(parts)) => {
                        let mut joined = Vec::new();
                        for (i, part) in parts.into_iter().enumerate() {
                            if i > 0 {
                                joined.push(Value::from(separator.as_str()));
                            }
                            joined.push(part);
                        }
                        concatenate(joined)
                    }
                    other => json!({ name: [separator, other] }),
                },
                _ => return Err(fault("Fn::Join needs a separator and a list")),
            },
            "Fn::Select" => match self.resolve_all(items()?)?.as_slice() {
                [index, Value::Array(list)] => scalar_text(index)
                    .and_then(|i| i.parse::<usize>().ok())
                    .and_then(|i| list.get(i))
                    .cloned()
                    .ok_or_else(|| fault(format!("Fn::Select has no item {index}")))?,
                [index, symbolic] => json!({ name: [index, symbolic] }),
                _ => return Err(fault("Fn::Select needs an index and a list")),
            },
            "Fn::Split" => match self.resolve_all(items()?)?.as_slice() {
                [Value::String(separator), Value::String(text)] if !separator.is_empty() => {
                    Value::Array(text.split(separator.as_str()).map(Value::from).collect())
                }
                [separator, symbolic] => json!({ name: [separator, symbolic] }),
                _ => return Err(fault("Fn::Split needs a separator and a text")),
            },
            "Fn::FindInMap" => {
                let mut found = self.template.get("Mappings");
                let keys = self.resolve_all(items()?)?;
                for key in keys.iter().take(3) {
                    found = found.and_then(|m| m.get(key.as_str().unwrap_or_default()));
                }
                found.cloned().ok_or_else(|| fault(format!("there is no mapping {}", Value::Array(keys.clone()))))?
            }
            // The rest is answered by AWS alone; its arguments are filled in and the call is kept.
            other => {
                let mut kept = Object::new();
                kept.insert(other.to_owned(), self.resolve(argument)?.unwrap_or(Value::Null));
                Value::Object(kept)
            }
        }))
    }

    /// Parameter, pseudo parameter, or a symbolic reference to a resource.
    fn lookup(&self, name: &str) -> Result<Value> {
        if let Some(value) = self.parameters.get(name) {
            return Ok(value.clone());
        }
        if let Some(value) = self.pseudo.get(name) {
            return Ok(value.into());
        }
        if !matches!(name, "AWS::StackId" | "AWS::NotificationARNs") {
            self.must_define(name)?;
        }
        Ok(json!({ "Ref": name }))
    }

    fn must_define(&self, id: &str) -> Result<()> {
        match self.template.get("Resources").and_then(|r| r.get(id)) {
            Some(_) => Ok(()),
            None => Err(fault(format!("there is no resource or parameter {id}"))),
        }
    }

    fn substitute(&self, text: &str, variables: &Object<String, Value>) -> Result<Value> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let end = rest[start..].find('}').ok_or_else(|| fault(format!("{text} has an open ${{")))? + start;
            parts.push(Value::from(&rest[..start]));
            let name = &rest[start + 2..end];
            parts.push(match (name.strip_prefix('!'), variables.get(name), name.split_once('.')) {
                // ${!Literal} is written as ${Literal}.
                (Some(literal), _, _) => format!("${{{literal}}}").into(),
                (None, Some(value), _) => self.resolve(value)?.unwrap_or(Value::Null),
                (None, None, Some((id, attribute))) => {
                    self.must_define(id)?;
                    json!({ "Fn::GetAtt": [id, attribute] })
                }
                (None, None, None) => self.lookup(name)?,
            });
            rest = &rest[end + 1..];
        }
        parts.push(rest.into());
        Ok(concatenate(parts))
    }
}

/// Joins what is known; one notation for `Fn::Sub` and `Fn::Join`, so that either compares equal to the other.
fn concatenate(parts: Vec<Value>) -> Value {
    let mut joined: Vec<Value> = Vec::new();
    for part in parts {
        match (scalar_text(&part), joined.last_mut()) {
            (Some(text), Some(Value::String(last))) => last.push_str(&text),
            (Some(text), _) => joined.push(text.into()),
            (None, _) => joined.push(part),
        }
    }
    joined.retain(|part| part.as_str() != Some(""));
    match joined.as_slice() {
        [] => "".into(),
        [one] => one.clone(),
        _ => json!({ "Fn::Join": ["", joined] }),
    }
}
