//! What YAML readers make of an unquoted scalar. Versions 1.1 and 1.2 of YAML disagree about `no`, `on`, `0123` and
//! others; where text is expected, all of them must be quoted, so that the file means one thing to every reader.

/// What an unquoted scalar may be read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `false` and, in YAML 1.1, `yes`, `no`, `on`, `off`, `y`, `n`.
    Bool(bool),
    /// A whole number without a leading zero.
    Integer,
    /// Digits with a leading zero: decimal to some readers, octal to others.
    Octal,
    /// Any other spelling of a number: `1.10`, `1e3`, `0x1f`, `0o17`, `1_000`, `.inf`.
    Number,
    /// Text to everybody.
    Text,
}

/// Whether an unquoted scalar is YAML's null.
pub fn is_null(text: &str) -> bool {
    reading(text) == Reading::Null
}

/// What an unquoted scalar may be read as.
pub fn reading(text: &str) -> Reading {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Reading::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            return Reading::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Reading::Bool(false);
        }
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if digits(unsigned) {
        return if unsigned.len() > 1 && unsigned.starts_with('0') { Reading::Octal } else { Reading::Integer };
    }
    let lower = unsigned.to_ascii_lowercase();
    if matches!(lower.as_str(), ".inf" | ".nan") {
        return Reading::Number;
    }
    let radix = |prefix: &str, allowed: fn(char) -> bool| {
        lower.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c == '_' || allowed(c)))
    };
    if radix("0x", |c| c.is_ascii_hexdigit())
        || radix("0o", |c| c.is_digit(8))
        || radix("0b", |c| c.is_digit(2))
        || (lower.contains('_') && lower.starts_with(|c: char| c.is_ascii_digit()) && digits(&lower.replace('_', "")))
        || float(&lower)
    {
        return Reading::Number;
    }
    Reading::Text
}

/// Digits with a point or an exponent. `std`'s parser also takes `inf` and `nan`, which are words to YAML.
fn float(lower: &str) -> bool {
    lower.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && lower.contains(|c: char| c.is_ascii_digit())
        && lower.parse::<f64>().is_ok()
}

/// How to say what YAML makes of it, as in "the number 1.1".
pub fn spoken(text: &str, reading: Reading) -> String {
    match reading {
        Reading::Null => "nothing".into(),
        Reading::Bool(value) => value.to_string(),
        Reading::Octal => "a number, octal or without its leading zero".into(),
        Reading::Integer | Reading::Number => match text.parse::<f64>() {
            Ok(number) if number.is_finite() && number.to_string().len() <= 20 => format!("the number {number}"),
            _ => "a number".into(),
        },
        Reading::Text => "text".into(),
    }
}
