//! `json.dumps`, `str` and `repr`.

use std::fmt::Write as _;

use super::Value;

/// The value as `json.dumps` writes it: `, ` and `: ` between, only ASCII.
pub fn dumps(value: &Value) -> String {
    let mut out = String::new();
    json(&mut out, value);
    out
}

/// The value as Python's `str` shows it.
pub fn str_of(value: &Value) -> String {
    match value {
        Value::Str(text) => text.clone(),
        other => repr(other),
    }
}

/// The value as Python's `repr` shows it.
pub fn repr(value: &Value) -> String {
    let mut out = String::new();
    python(&mut out, value);
    out
}

fn json(out: &mut String, value: &Value) {
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Int(int) => int_to(out, *int),
        Value::Float(float) if float.is_nan() => out.push_str("NaN"),
        Value::Float(float) if float.is_infinite() => {
            out.push_str(if *float > 0.0 { "Infinity" } else { "-Infinity" });
        }
        Value::Float(float) => out.push_str(&float_repr(*float)),
        Value::Str(text) => json_string(out, text),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                json(out, item);
            }
            out.push(']');
        }
        Value::Dict(dict) => {
            out.push('{');
            for (index, (key, item)) in dict.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                json_string(out, key);
                out.push_str(": ");
                json(out, item);
            }
            out.push('}');
        }
    }
}

fn int_to(out: &mut String, int: i128) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{int}");
}

fn json_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, char) in text.char_indices() {
        if matches!(char, ' '..='~' if char != '"' && char != '\\') {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + char.len_utf8();
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// A finite float as Python shows it: the shortest digits that read back the same, with a point or an exponent.
fn float_repr(float: f64) -> String {
    if float == 0.0 {
        return if float.is_sign_negative() { "-0.0".into() } else { "0.0".into() };
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{float}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn python(out: &mut String, value: &Value) {
    match value {
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(int) => int_to(out, *int),
        Value::Float(float) if float.is_nan() => out.push_str("nan"),
        Value::Float(float) if float.is_infinite() => out.push_str(if *float > 0.0 { "inf" } else { "-inf" }),
        Value::Float(float) => out.push_str(&float_repr(*float)),
        Value::Str(text) => python_string(out, text),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                python(out, item);
            }
            out.push(']');
        }
        Value::Dict(dict) => {
            out.push('{');
            for (index, (key, item)) in dict.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                python_string(out, key);
                out.push_str(": ");
                python(out, item);
            }
            out.push('}');
        }
    }
}

fn python_string(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control @ ('\0'..='\u{1f}' | '\u{7f}'..='\u{a0}') => {
                let _ = write!(out, "\\x{:02x}", u32::from(control));
            }
            same if same == quote => {
                out.push('\\');
                out.push(same);
            }
            other => out.push(other),
        }
    }
    out.push(quote);
}
