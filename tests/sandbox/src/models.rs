//! What the API models say about requests: unknown and missing members, types, lengths, ranges, patterns and
//! enumerations, refused with the code and in the words of the service. The data is `data/api-models.json`.

use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::Mutex;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::world::ApiError;

#[derive(Debug, Deserialize)]
struct Models {
    services: HashMap<String, Service>,
}

#[derive(Debug, Deserialize)]
struct Service {
    inputs: HashMap<String, Option<String>>,
    shapes: HashMap<String, Shape>,
}

#[derive(Debug, Deserialize)]
struct Shape {
    #[serde(rename = "t")]
    kind: String,
    /// Members of a structure.
    #[serde(rename = "m", default)]
    members: HashMap<String, String>,
    #[serde(rename = "r", default)]
    required: Vec<String>,
    #[serde(rename = "e")]
    element: Option<String>,
    #[serde(rename = "k")]
    key: Option<String>,
    #[serde(rename = "v")]
    value: Option<String>,
    min: Option<f64>,
    max: Option<f64>,
    #[serde(rename = "p")]
    pattern: Option<String>,
    #[serde(rename = "enum", default)]
    allowed: Vec<String>,
}

fn models() -> &'static Models {
    static MODELS: OnceLock<Models> = OnceLock::new();
    MODELS.get_or_init(|| {
        // The file is part of the program, and a test reads it.
        serde_json::from_str(include_str!("../data/api-models.json")).unwrap_or(Models { services: HashMap::new() })
    })
}

/// A compiled pattern; None for one that needs look-around, which this engine has not.
fn pattern(text: &str) -> Option<Regex> {
    static SEEN: OnceLock<Mutex<HashMap<String, Option<Regex>>>> = OnceLock::new();
    let mut seen = SEEN.get_or_init(Mutex::default).lock();
    // The services match the whole value whether or not the pattern has anchors.
    seen.entry(text.to_owned())
        .or_insert_with(|| {
            // Java's ways to write what lies outside the basic plane, and printable ASCII.
            let rust = text
                .replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\x{10000}-\x{10FFFF}")
                .replace(r"\p{Print}", "[[:print:]]");
            Regex::new(&format!("^(?s:{rust})$")).ok()
        })
        .clone()
}

/// Gives strings that came as form fields or in a URL the types of the model. What does not fit stays a string, and
/// `check` refuses it.
pub fn coerce(service: &str, operation: &str, input: &mut Value) {
    if let Some((model, shape)) = input_shape(service, operation) {
        coerce_value(model, shape, input);
    }
}

fn input_shape(service: &str, operation: &str) -> Option<(&'static Service, &'static str)> {
    let model = models().services.get(service)?;
    Some((model, model.inputs.get(operation)?.as_deref()?))
}

fn coerce_value(model: &Service, shape: &str, value: &mut Value) {
    let Some(shape) = model.shapes.get(shape) else { return };
    match (shape.kind.as_str(), &mut *value) {
        ("structure", Value::Object(map)) => {
            for (name, member) in map.iter_mut() {
                if let Some(shape) = shape.members.get(name) {
                    coerce_value(model, shape, member);
                }
            }
        }
        ("list", Value::Array(items)) => {
            if let Some(element) = &shape.element {
                items.iter_mut().for_each(|item| coerce_value(model, element, item));
            }
        }
        // `Tags=` is how the query protocol sends an empty list.
        ("list", Value::String(text)) if text.is_empty() => *value = Value::Array(Vec::new()),
        ("map", Value::String(text)) if text.is_empty() => *value = Value::Object(Map::new()),
        ("map", Value::Object(map)) => {
            if let Some(element) = &shape.value {
                map.iter_mut().for_each(|(_, item)| coerce_value(model, element, item));
            }
        }
        ("boolean", Value::String(text)) => match text.as_str() {
            "true" => *value = Value::Bool(true),
            "false" => *value = Value::Bool(false),
            _ => {}
        },
        ("integer" | "long", Value::String(text)) => {
            if let Ok(number) = text.parse::<i64>() {
                *value = Value::from(number);
            }
        }
        ("float" | "double", Value::String(text)) => {
            if let Ok(number) = text.parse::<f64>() {
                *value = Value::from(number);
            }
        }
        _ => {}
    }
}

/// Refuses what the model of the operation's input does not allow. An operation that is not in the models passes.
pub fn check(service: &str, operation: &str, input: &Value) -> Result<(), ApiError> {
    let Some((model, shape)) = input_shape(service, operation) else { return Ok(()) };
    let mut found = Found { model, wrong: Vec::new(), unreadable: None };
    found.value(shape, input, "");
    if let Some(text) = found.unreadable {
        let code = match service {
            "cloudformation" | "iam" | "sts" => "MalformedInput",
            _ => "SerializationException",
        };
        return Err(ApiError::new(code, text));
    }
    if found.wrong.is_empty() {
        return Ok(());
    }
    let code = match service {
        "cloudformation" | "iam" | "sts" => "ValidationError",
        "ecr" | "logs" => "InvalidParameterException",
        "servicequotas" => "IllegalArgumentException",
        _ => "ValidationException",
    };
    let count = found.wrong.len();
    let message = if service == "ecr" {
        format!("Invalid parameter {}", found.wrong.join("; "))
    } else {
        let plural = if count == 1 { "error" } else { "errors" };
        format!("{count} validation {plural} detected: Value {}", found.wrong.join("; Value "))
    };
    Err(ApiError::new(code, message))
}

struct Found {
    model: &'static Service,
    /// Broken constraints.
    wrong: Vec<String>,
    /// A value of another type than the model's: the request is not even understood.
    unreadable: Option<String>,
}

impl Found {
    fn broken(&mut self, path: &str, value: &Value, constraint: String) {
        let shown = match value {
            Value::Null => "null".to_owned(),
            Value::String(text) => format!("'{text}'"),
            other => format!("'{other}'"),
        };
        self.wrong.push(format!("{shown} at '{path}' failed to satisfy constraint: {constraint}"));
    }

    fn mismatch(&mut self, value: &Value, wanted: &str) {
        let have = match value {
            Value::Null => "NULL_VALUE",
            Value::Bool(true) => "TRUE_VALUE",
            Value::Bool(false) => "FALSE_VALUE",
            Value::Number(number) if number.is_f64() => "DECIMAL_VALUE",
            Value::Number(_) => "NUMBER_VALUE",
            Value::String(_) => "STRING_VALUE",
            Value::Array(_) => "START_ARRAY",
            Value::Object(_) => "START_OBJECT",
        };
        self.unreadable.get_or_insert(format!("{have} can not be converted to {wanted}"));
    }

    fn value(&mut self, name: &str, value: &Value, path: &str) {
        let Some(shape) = self.model.shapes.get(name) else { return };
        match (shape.kind.as_str(), value) {
            ("structure", Value::Object(map)) => self.structure(shape, map, path),
            ("list", Value::Array(items)) => {
                self.length(shape, items.len(), value, path);
                if let Some(element) = &shape.element {
                    for (i, item) in items.iter().enumerate() {
                        self.value(element, item, &format!("{path}.{}.member", i + 1));
                    }
                }
            }
            ("map", Value::Object(map)) => {
                self.length(shape, map.len(), value, path);
                for (key, item) in map {
                    if let Some(shape) = &shape.key {
                        self.value(shape, &Value::String(key.clone()), &format!("{path}.key"));
                    }
                    if let Some(shape) = &shape.value {
                        self.value(shape, item, &format!("{path}.{key}.member"));
                    }
                }
            }
            ("string", Value::String(text)) => {
                self.length(shape, text.chars().count(), value, path);
                if let Some(wanted) = &shape.pattern
                    && pattern(wanted).is_some_and(|p| !p.is_match(text))
                {
                    self.broken(path, value, format!("Member must satisfy regular expression pattern: {wanted}"));
                }
                if !shape.allowed.is_empty() && !shape.allowed.contains(text) {
                    let constraint = format!("Member must satisfy enum value set: [{}]", shape.allowed.join(", "));
                    self.broken(path, value, constraint);
                }
            }
            ("integer" | "long", Value::Number(number)) if number.is_i64() || number.is_u64() => {
                self.range(shape, number.as_f64().unwrap_or_default(), value, path);
            }
            ("float" | "double", Value::Number(number)) => {
                self.range(shape, number.as_f64().unwrap_or_default(), value, path);
            }
            ("boolean", Value::Bool(_)) | ("blob", Value::String(_)) => {}
            ("timestamp", Value::Number(_) | Value::String(_)) => {}
            ("string", _) => self.mismatch(value, "a String"),
            ("integer", _) => self.mismatch(value, "an Integer"),
            ("long", _) => self.mismatch(value, "a Long"),
            ("float" | "double", _) => self.mismatch(value, "a Double"),
            ("boolean", _) => self.mismatch(value, "a Boolean"),
            (kind @ ("structure" | "list" | "map" | "blob" | "timestamp"), _) => {
                self.mismatch(value, &format!("a {kind}"));
            }
            _ => {}
        }
    }

    fn structure(&mut self, shape: &Shape, map: &Map<String, Value>, path: &str) {
        for name in &shape.required {
            if map.get(name).is_none_or(Value::is_null) {
                self.broken(&join(path, name), &Value::Null, "Member must not be null".into());
            }
        }
        for (name, value) in map {
            match shape.members.get(name) {
                // A null member is an absent one.
                Some(_) if value.is_null() => {}
                Some(shape) => self.value(shape, value, &join(path, name)),
                // The services drop what they do not know; a caller that sends it has a mistake all the same.
                None => self.broken(&join(path, name), value, "Member must be one of the operation's".into()),
            }
        }
    }

    fn length(&mut self, shape: &Shape, length: usize, value: &Value, path: &str) {
        if shape.min.is_some_and(|min| (length as f64) < min) {
            let min = shape.min.unwrap_or_default();
            self.broken(path, value, format!("Member must have length greater than or equal to {min}"));
        }
        if shape.max.is_some_and(|max| (length as f64) > max) {
            let max = shape.max.unwrap_or_default();
            self.broken(path, value, format!("Member must have length less than or equal to {max}"));
        }
    }

    fn range(&mut self, shape: &Shape, number: f64, value: &Value, path: &str) {
        if let Some(min) = shape.min.filter(|min| number < *min) {
            self.broken(path, value, format!("Member must have value greater than or equal to {min}"));
        }
        if let Some(max) = shape.max.filter(|max| number > *max) {
            self.broken(path, value, format!("Member must have value less than or equal to {max}"));
        }
    }
}

/// `productionVariants.1.member.variantName`: the services show members with a small first letter.
fn join(path: &str, name: &str) -> String {
    let mut chars = name.chars();
    let name: String = chars.next().map(|c| c.to_ascii_lowercase()).into_iter().chain(chars).collect();
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(service: &str, operation: &str, input: Value) -> (String, String) {
        let error = check(service, operation, &input).unwrap_err();
        (error.code, error.message)
    }

    #[test]
    fn the_data_is_complete_and_every_shape_resolves() {
        let models = models();
        assert_eq!(models.services.len(), 9);
        for (service, model) in &models.services {
            for (operation, shape) in &model.inputs {
                assert!(shape.as_ref().is_none_or(|s| model.shapes.contains_key(s)), "{service}:{operation}");
            }
            for shape in model.shapes.values() {
                let children = shape.members.values().chain(&shape.element).chain(&shape.key).chain(&shape.value);
                for child in children {
                    assert!(model.shapes.contains_key(child), "{service}: {child}");
                }
            }
        }
    }

    #[test]
    fn nearly_every_pattern_is_understood() {
        let unknown: Vec<_> = models()
            .services
            .values()
            .flat_map(|s| s.shapes.values())
            .filter_map(|s| s.pattern.clone())
            .filter(|p| pattern(p).is_none())
            .collect();
        // Look-around only.
        assert!(unknown.iter().all(|p| p.contains("(?!") || p.contains("(?=") || p.contains("(?<")), "{unknown:?}");
    }

    #[test]
    fn a_missing_member_is_null() {
        assert_eq!(
            refused("sagemaker", "DescribeEndpoint", json!({})),
            (
                "ValidationException".into(),
                "1 validation error detected: Value null at 'endpointName' failed to satisfy constraint: Member must not be null"
                    .into()
            )
        );
    }

    #[test]
    fn pattern_length_range_enum_and_unknown_members_are_refused() {
        let long = "a".repeat(64);
        let (_, text) = refused("sagemaker", "DescribeEndpoint", json!({"EndpointName": long}));
        assert!(text.contains("length less than or equal to 63"), "{text}");
        let (_, text) = refused("sagemaker", "DescribeEndpoint", json!({"EndpointName": "a_b"}));
        assert!(text.contains("regular expression pattern"), "{text}");
        let (_, text) = refused("sagemaker", "DescribeEndpoint", json!({"EndpointName": "a", "X": 1}));
        assert!(text.contains("'x'"), "{text}");
        let variant = json!({"VariantName": "A", "InstanceType": "ml.huge", "VolumeSizeInGB": 513});
        let (_, text) = refused(
            "sagemaker",
            "CreateEndpointConfig",
            json!({"EndpointConfigName": "c", "ProductionVariants": [variant]}),
        );
        assert!(text.starts_with("2 validation errors detected: "), "{text}");
        assert!(text.contains("'productionVariants.1.member.instanceType'"), "{text}");
        assert!(text.contains("less than or equal to 512"), "{text}");
    }

    #[test]
    fn another_type_is_not_even_read() {
        assert_eq!(
            refused("sagemaker", "DescribeEndpoint", json!({"EndpointName": 1})),
            ("SerializationException".into(), "NUMBER_VALUE can not be converted to a String".into())
        );
    }

    #[test]
    fn form_fields_get_their_types() {
        let mut input = json!({"RoleName": "r", "MaxSessionDuration": "3600", "Tags": ""});
        coerce("iam", "CreateRole", &mut input);
        assert_eq!(input, json!({"RoleName": "r", "MaxSessionDuration": 3600, "Tags": []}));
    }
}
