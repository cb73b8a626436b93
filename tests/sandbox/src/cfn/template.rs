//! Templates as text: JSON or YAML with every short-form tag, to one JSON tree in long form.

use serde_json::{Map, Value, json};

use super::{Fail, invalid};

/// `TemplateBody` at most, in bytes (API model: TemplateBody).
pub const BODY_LIMIT: usize = 51_200;
/// What `TemplateURL` names at most, in bytes (API model: TemplateURL).
pub const URL_LIMIT: usize = 1_048_576;

const SECTIONS: &[&str] = &[
    "AWSTemplateFormatVersion",
    "Conditions",
    "Description",
    "Mappings",
    "Metadata",
    "Outputs",
    "Parameters",
    "Resources",
    "Rules",
    "Transform",
    "Hooks",
];

/// A template whose sections are all objects, and whose functions are all in long form.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    root: Map<String, Value>,
}

impl Template {
    /// Parses and checks the outermost shape.
    pub fn parse(text: &str) -> Result<Template, Fail> {
        let value = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| {
                invalid(format!(
                    "Template format error: JSON not well-formed. (line {}, column {})",
                    error.line(),
                    error.column()
                ))
            })?
        } else {
            parse_yaml(text)?
        };
        let Value::Object(root) = value else {
            return Err(invalid("Template format error: unsupported structure."));
        };
        let unknown: Vec<&str> = root.keys().map(String::as_str).filter(|key| !SECTIONS.contains(key)).collect();
        if !unknown.is_empty() {
            return Err(invalid(format!("Invalid template property or properties [{}]", unknown.join(", "))));
        }
        if let Some(version) = root.get("AWSTemplateFormatVersion")
            && version != "2010-09-09"
        {
            return Err(invalid(format!(
                "Template format error: {} is not a supported value for AWSTemplateFormatVersion.",
                plain(version)
            )));
        }
        if root.contains_key("Transform") {
            return Err(invalid("Template format error: the sandbox runs no transforms or macros"));
        }
        if let Some(description) = root.get("Description") {
            match description.as_str() {
                None => return Err(invalid("Template format error: Description must be a string.")),
                Some(text) if text.len() > 1024 => {
                    return Err(invalid("Template format error: Template description is longer than 1024 bytes"));
                }
                Some(_) => {}
            }
        }
        for name in ["Conditions", "Mappings", "Metadata", "Outputs", "Parameters", "Resources", "Rules"] {
            if root.get(name).is_some_and(|section| !section.is_object()) {
                return Err(invalid(format!("Template format error: {name} section must be an object")));
            }
        }
        let template = Template { root };
        if template.section("Resources").is_none_or(Map::is_empty) {
            return Err(invalid("Template format error: At least one Resources member must be defined."));
        }
        for (section, limit) in [("Resources", 500), ("Parameters", 200), ("Outputs", 200), ("Mappings", 200)] {
            let count = template.section(section).map_or(0, Map::len);
            if count > limit {
                return Err(invalid(format!(
                    "Template format error: Number of {}, {count}, is greater than maximum allowed, {limit}",
                    section.to_lowercase()
                )));
            }
        }
        Ok(template)
    }

    /// A section, if it is there.
    pub fn section(&self, name: &str) -> Option<&Map<String, Value>> {
        self.root.get(name).and_then(Value::as_object)
    }

    /// The members of a section, none if it is not there.
    pub fn members(&self, name: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.section(name).into_iter().flatten()
    }

    /// The description.
    pub fn description(&self) -> Option<&str> {
        self.root.get("Description").and_then(Value::as_str)
    }

    /// A section as it is, or nothing.
    pub fn raw(&self, name: &str) -> Option<&Value> {
        self.root.get(name)
    }
}

/// A scalar as text, anything else as JSON.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn parse_yaml(text: &str) -> Result<Value, Fail> {
    let value: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| {
        let place = error
            .location()
            .map(|place| format!("(line {}, column {})", place.line(), place.column()))
            .unwrap_or_default();
        let told = error.to_string();
        if told.contains("duplicate") {
            return invalid(format!("Template format error: YAML contains a duplicate key {place}").trim_end());
        }
        invalid(format!("Template format error: YAML not well-formed. {place}").trim_end())
    })?;
    long_form(value)
}

fn long_form(value: serde_yaml::Value) -> Result<Value, Fail> {
    use serde_yaml::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), _, _) => json!(whole),
            (None, Some(whole), _) => json!(whole),
            (None, None, Some(float)) => json!(float),
            (None, None, None) => return Err(invalid("Template format error: YAML not well-formed.")),
        },
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(long_form).collect::<Result<_, _>>()?),
        Yaml::Mapping(members) => {
            let mut map = Map::new();
            for (key, member) in members {
                let key = match long_form(key)? {
                    Value::String(text) => text,
                    scalar @ (Value::Number(_) | Value::Bool(_)) => scalar.to_string(),
                    _ => return Err(invalid("Template format error: YAML not well-formed.")),
                };
                map.insert(key, long_form(member)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            function(tag.trim_start_matches('!'), long_form(tagged.value)?)?
        }
    })
}

/// `!Name argument` in long form.
fn function(tag: &str, argument: Value) -> Result<Value, Fail> {
    let (name, argument) = match tag {
        "Ref" | "Condition" => (tag.to_owned(), argument),
        "GetAtt" => match &argument {
            // The attribute may have dots itself: the first one ends the logical id.
            Value::String(text) => match text.split_once('.') {
                Some((resource, attribute)) => ("Fn::GetAtt".to_owned(), json!([resource, attribute])),
                None => ("Fn::GetAtt".to_owned(), argument),
            },
            _ => ("Fn::GetAtt".to_owned(), argument),
        },
        "And" | "Base64" | "Cidr" | "Equals" | "FindInMap" | "GetAZs" | "If" | "ImportValue" | "Join" | "Not"
        | "Or" | "Select" | "Split" | "Sub" | "Transform" => (format!("Fn::{tag}"), argument),
        other => return Err(invalid(format!("Template format error: YAML not well-formed: unknown tag !{other}"))),
    };
    Ok(json!({ name: argument }))
}
