//! Template text to a JSON value and back. CloudFormation's short tags (`!Ref`, `!Sub`, ...) become the long
//! form, so that the rest of the program knows one notation.

use serde_json::{Map as Object, Number, Value, json};
use serde_yaml::Value as Yaml;

use crate::error::{Error, Result};

/// Reads a template: YAML with short tags, or JSON, as GetTemplate returns it.
pub fn parse(body: &str) -> Result<Value> {
    let malformed = |cause: String| Error::failed("the template cannot be read").why(cause);
    let value = if body.trim_start().starts_with('{') {
        serde_json::from_str(body).map_err(|e| malformed(e.to_string()))?
    } else {
        let yaml: Yaml = serde_yaml::from_str(body).map_err(|e| malformed(e.to_string()))?;
        long_form(yaml).map_err(malformed)?
    };
    if value.is_object() { Ok(value) } else { Err(malformed("it is not a mapping".into())) }
}

fn long_form(yaml: Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => Value::Bool(b),
        Yaml::Number(n) => number(&n)?,
        Yaml::String(s) => Value::String(s),
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(long_form).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut object = Object::new();
            for (key, value) in entries {
                object.insert(key_text(&key)?, long_form(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let name = tag.trim_start_matches('!');
            let inner = long_form(tagged.value)?;
            match (name, inner) {
                ("Ref" | "Condition", inner) => json!({ name: inner }),
                ("GetAtt", Value::String(path)) => {
                    let (resource, attribute) =
                        path.split_once('.').ok_or_else(|| format!("!GetAtt {path} names no attribute"))?;
                    json!({ "Fn::GetAtt": [resource, attribute] })
                }
                (name, inner) => {
                    let mut object = Object::new();
                    object.insert(format!("Fn::{name}"), inner);
                    Value::Object(object)
                }
            }
        }
    })
}

fn number(n: &serde_yaml::Number) -> Result<Value, String> {
    if let Some(i) = n.as_i64() {
        return Ok(i.into());
    }
    if let Some(u) = n.as_u64() {
        return Ok(u.into());
    }
    n.as_f64().and_then(Number::from_f64).map(Value::Number).ok_or_else(|| format!("{n} is not a number JSON knows"))
}

fn key_text(key: &Yaml) -> Result<String, String> {
    match key {
        Yaml::String(s) => Ok(s.clone()),
        Yaml::Bool(b) => Ok(b.to_string()),
        Yaml::Number(n) => Ok(n.to_string()),
        _ => Err("a key is not a word".into()),
    }
}

/// Writes a template as block YAML with short tags. Strings are plain only where no YAML version could read
/// anything else, and JSON strings elsewhere: readers of YAML 1.1 take `on`, `12:30:45` and `1_000` for
/// something else.
pub(super) fn emit(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// One node that begins on a line of its own.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            for (key, value) in entries {
                pad(indent, out);
                out.push_str(&text(key));
                out.push(':');
                tail(value, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                pad(indent, out);
                out.push('-');
                match item {
                    Value::Object(o) if short(item).is_none() && !o.is_empty() => compact(item, indent, out),
                    Value::Array(a) if !a.is_empty() => compact(item, indent, out),
                    _ => tail(item, indent, out),
                }
            }
        }
        other => {
            pad(indent, out);
            out.push_str(&scalar(other));
            out.push('\n');
        }
    }
}

/// A collection that begins on the line of its dash.
fn compact(item: &Value, indent: usize, out: &mut String) {
    let mut inner = String::new();
    block(item, indent + 2, &mut inner);
    out.push(' ');
    out.push_str(inner.trim_start_matches(' '));
}

/// What follows `key:` or a dash.
fn tail(value: &Value, indent: usize, out: &mut String) {
    match short(value) {
        Some((tag, Short::Inline(text))) => out.push_str(&format!(" !{tag} {text}\n")),
        Some((tag, Short::Block(argument))) => {
            out.push_str(&format!(" !{tag}\n"));
            block(argument, indent + 2, out);
        }
        None => match value {
            Value::Object(o) if !o.is_empty() => {
                out.push('\n');
                block(value, indent + 2, out);
            }
            Value::Array(a) if !a.is_empty() => {
                out.push('\n');
                block(value, indent + 2, out);
            }
            other => {
                out.push(' ');
                out.push_str(&scalar(other));
                out.push('\n');
            }
        },
    }
}

enum Short<'a> {
    Inline(String),
    Block(&'a Value),
}

/// The short form of a function, if it has one that reads back as the same.
fn short(value: &Value) -> Option<(&str, Short<'_>)> {
    let object = value.as_object()?;
    let (key, argument) = object.iter().next().filter(|_| object.len() == 1)?;
    match (key.as_str(), argument) {
        ("Ref" | "Condition", Value::String(s)) => Some((key, Short::Inline(text(s)))),
        ("Fn::GetAtt", Value::Array(parts)) => match parts.as_slice() {
            [Value::String(resource), Value::String(attribute)] if !resource.contains('.') => {
                Some(("GetAtt", Short::Inline(text(&format!("{resource}.{attribute}")))))
            }
            _ => None,
        },
        ("Fn::GetAtt", _) => None,
        (function, argument) => {
            let name = function.strip_prefix("Fn::")?;
            if name.is_empty()
                || !name.bytes().all(|b| b.is_ascii_alphanumeric())
                || matches!(name, "Ref" | "Condition")
            {
                return None;
            }
            match argument {
                Value::String(s) => Some((name, Short::Inline(text(s)))),
                Value::Array(items) if !items.is_empty() => Some((name, Short::Block(argument))),
                _ => None,
            }
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(s) => text(s),
        // Numbers, booleans, null and the empty collections are the same in JSON and YAML.
        other => other.to_string(),
    }
}

/// A string, plain if that is safe in every version of YAML.
fn text(s: &str) -> String {
    const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"];
    let plain = s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !s.ends_with([':', ' '])
        && !s.contains(": ")
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./:,;()@ -".contains(&b))
        && !WORDS.contains(&s.to_ascii_lowercase().as_str());
    if plain { s.to_owned() } else { quoted(s) }
}

/// A double-quoted string, which has the same escapes in JSON and YAML. Beyond JSON's own, everything that
/// some YAML reader may refuse or fold is escaped: C1 controls, line separators, the byte order mark.
fn quoted(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    for c in Value::String(s.to_owned()).to_string().chars() {
        match c {
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c if u32::from(c) > 0xffff => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}
