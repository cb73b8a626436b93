//! The resource types: which properties they have, and what changing one does.
//!
//! The data is AWS's own, by way of cfn-lint's bundle; `data/make-cfn-schemas.py` says what is kept of it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::expand::KNOWN_AFTER_APPLY;
use super::template::plain;

/// One resource type.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schema {
    /// Top-level properties.
    pub properties: BTreeMap<String, Value>,
    /// What they refer to.
    pub definitions: BTreeMap<String, Value>,
    /// Properties that must be there.
    pub required: Vec<String>,
    /// Changing one makes a new resource.
    pub create_only_properties: Vec<String>,
    /// What `Fn::GetAtt` gives, nested ones with slashes.
    pub read_only_properties: Vec<String>,
    /// Changing one may make a new resource.
    pub conditional_create_only_properties: Vec<String>,
    /// The members of the physical id.
    pub primary_identifier: Vec<String>,
    /// `Tags` where stack tags go to the resource, else empty.
    pub tag_property: String,
}

fn all() -> &'static BTreeMap<String, Schema> {
    static ALL: OnceLock<BTreeMap<String, Schema>> = OnceLock::new();
    ALL.get_or_init(|| {
        // The file is part of the program, and a test reads it.
        serde_json::from_str(include_str!("../../data/cfn-schemas.json")).unwrap_or_default()
    })
}

/// The schema of a type.
pub fn of(kind: &str) -> Option<&'static Schema> {
    all().get(kind)
}

/// The property that names a resource, for types that can have a custom name.
pub fn name_property(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "AWS::ECR::Repository" => "RepositoryName",
        "AWS::IAM::Role" => "RoleName",
        "AWS::Lambda::Function" => "FunctionName",
        "AWS::Logs::LogGroup" => "LogGroupName",
        "AWS::S3::Bucket" => "BucketName",
        "AWS::SageMaker::Endpoint" => "EndpointName",
        "AWS::SageMaker::EndpointConfig" => "EndpointConfigName",
        "AWS::SageMaker::Model" => "ModelName",
        _ => return None,
    })
}

/// Whether `Fn::GetAtt` may ask for it. Beside the read-only properties these are the attributes that the
/// resource reference lists under return values.
pub fn has_attribute(kind: &str, attribute: &str) -> bool {
    let documented = matches!(
        (kind, attribute),
        ("AWS::SageMaker::Model", "ModelName")
            | ("AWS::SageMaker::EndpointConfig", "EndpointConfigName")
            | ("AWS::SageMaker::Endpoint", "EndpointName")
    );
    documented || of(kind).is_some_and(|s| s.read_only_properties.iter().any(|p| p.replace('/', ".") == attribute))
}

/// What a change of a top-level property does: `Always`, `Conditionally` or `Never`.
pub fn recreation(kind: &str, property: &str) -> &'static str {
    let Some(schema) = of(kind) else { return "Never" };
    let in_list = |list: &[String]| list.iter().any(|path| path.split('/').next() == Some(property));
    if in_list(&schema.create_only_properties) {
        "Always"
    } else if in_list(&schema.conditional_create_only_properties) {
        "Conditionally"
    } else {
        "Never"
    }
}

impl Schema {
    fn follow<'a>(&'a self, schema: &'a Value) -> &'a Value {
        schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|path| self.definitions.get(path.rsplit('/').next().unwrap_or_default()))
            .unwrap_or(schema)
    }

    /// The properties with scalars turned into the type the schema names, as CloudFormation does: a parameter of
    /// type Number is text until then.
    pub fn coerce(&self, properties: &Map<String, Value>) -> Map<String, Value> {
        properties
            .iter()
            .map(|(name, value)| {
                let coerced = self.properties.get(name).map(|schema| self.coerce_value(schema, value));
                (name.clone(), coerced.unwrap_or_else(|| value.clone()))
            })
            .collect()
    }

    fn coerce_value(&self, schema: &Value, value: &Value) -> Value {
        let schema = self.follow(schema);
        let kind = schema.get("type").and_then(Value::as_str);
        match (value, kind) {
            (Value::String(text), Some("integer")) => text.parse::<i64>().map_or_else(|_| value.clone(), Value::from),
            (Value::String(text), Some("number")) => match text.parse::<i64>() {
                Ok(whole) => whole.into(),
                Err(_) => text.parse::<f64>().map_or_else(|_| value.clone(), Value::from),
            },
            (Value::String(text), Some("boolean")) => match text.as_str() {
                "true" | "True" | "TRUE" => true.into(),
                "false" | "False" | "FALSE" => false.into(),
                _ => value.clone(),
            },
            (Value::Number(_) | Value::Bool(_), Some("string")) => plain(value).into(),
            (Value::Array(items), _) => match schema.get("items") {
                Some(inner) => items.iter().map(|item| self.coerce_value(inner, item)).collect(),
                None => value.clone(),
            },
            (Value::Object(members), _) => members
                .iter()
                .map(|(name, member)| {
                    let inner = member_schema(schema, name);
                    (name.clone(), inner.map_or_else(|| member.clone(), |inner| self.coerce_value(inner, member)))
                })
                .collect::<Map<_, _>>()
                .into(),
            _ => value.clone(),
        }
    }

    /// What does not fit, as the messages of resource validation: `#/Path: extraneous key [X] is not permitted`.
    pub fn violations(&self, properties: &Map<String, Value>) -> Vec<String> {
        let mut found = Vec::new();
        for name in properties.keys() {
            if !self.properties.contains_key(name) {
                found.push(format!("#: extraneous key [{name}] is not permitted"));
            } else if self.read_only_properties.contains(name) {
                found.push(format!("#: extraneous key [{name}] is not permitted, for it is read-only"));
            }
        }
        for name in &self.required {
            if !properties.contains_key(name) {
                found.push(format!("#: required key [{name}] not found"));
            }
        }
        for (name, value) in properties {
            if let Some(schema) = self.properties.get(name) {
                self.check(schema, value, &format!("#/{name}"), &mut found);
            }
        }
        found
    }

    fn check(&self, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
        let schema = self.follow(schema);
        if value.as_str().is_some_and(|text| text.contains(KNOWN_AFTER_APPLY)) {
            return;
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(choices) = schema.get(word).and_then(Value::as_array) {
                let fits = choices.iter().any(|choice| {
                    let mut inner = Vec::new();
                    self.check(choice, value, path, &mut inner);
                    inner.is_empty()
                });
                if !fits {
                    found
                        .push(format!("{path}: #: no subschema matched out of the total {} subschemas", choices.len()));
                }
            }
        }
        let kinds: Vec<&str> = match schema.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !kinds.is_empty() && !kinds.iter().any(|kind| is_a(value, kind)) {
            found.push(format!("{path}: expected type: {}, found: {}", title(kinds[0]), title(kind_of(value))));
            return;
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            found.push(format!("{path}: {} is not a valid enum value", plain(value)));
        }
        self.check_bounds(schema, value, path, found);
        match value {
            Value::Object(members) => self.check_members(schema, members, path, found),
            Value::Array(items) => {
                if let Some(inner) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.check(inner, item, &format!("{path}/{index}"), found);
                    }
                }
            }
            _ => {}
        }
    }

    fn check_bounds(&self, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let (size, least, most, what) = match value {
            Value::String(text) => (text.chars().count() as f64, bound("minLength"), bound("maxLength"), "Length"),
            Value::Array(items) => (items.len() as f64, bound("minItems"), bound("maxItems"), "Items"),
            Value::Number(number) => (number.as_f64().unwrap_or(0.0), bound("minimum"), bound("maximum"), ""),
            _ => return,
        };
        let words = |most: bool| match (what, most) {
            ("Length", false) => "expected minLength",
            ("Length", true) => "expected maxLength",
            ("Items", false) => "expected minimum item count",
            ("Items", true) => "expected maximum item count",
            (_, false) => "not greater or equal to minimum",
            (_, true) => "not less or equal to maximum",
        };
        if let Some(least) = least.filter(|least| size < *least) {
            found.push(format!("{path}: {}: {least}, actual: {size}", words(false)));
        }
        if let Some(most) = most.filter(|most| size > *most) {
            found.push(format!("{path}: {}: {most}, actual: {size}", words(true)));
        }
    }

    fn check_members(&self, schema: &Value, members: &Map<String, Value>, path: &str, found: &mut Vec<String>) {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                found.push(format!("{path}: required key [{name}] not found"));
            }
        }
        for (name, member) in members {
            match member_schema(schema, name) {
                Some(inner) => self.check(inner, member, &format!("{path}/{name}"), found),
                None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                    found.push(format!("{path}: extraneous key [{name}] is not permitted"));
                }
                None => {}
            }
        }
    }
}

fn member_schema<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema
        .get("properties")
        .and_then(|properties| properties.get(name))
        .or_else(|| {
            let patterns = schema.get("patternProperties").and_then(Value::as_object)?;
            patterns.iter().find(|(pattern, _)| regex::Regex::new(pattern).is_ok_and(|r| r.is_match(name))).map(|p| p.1)
        })
        .or_else(|| schema.get("additionalProperties").filter(|inner| inner.is_object()))
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "JSONArray",
        Value::Object(_) => "JSONObject",
    }
}

fn title(kind: &str) -> String {
    match kind {
        "array" => return "JSONArray".to_owned(),
        "object" => return "JSONObject".to_owned(),
        _ => {}
    }
    let mut letters = kind.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
