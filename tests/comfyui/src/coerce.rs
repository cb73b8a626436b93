//! What Python's `int()`, `float()`, `str()` and `bool()` make of a value, and what they say when they cannot.

use crate::py::{Value, repr, str_of};

/// The value as an input of `kind` gets it; kinds that are not converted give the value back.
///
/// # Errors
/// The message of the exception that Python raises.
pub(crate) fn coerce(kind: &str, value: &Value) -> Result<Value, String> {
    match kind {
        "INT" => int(value).map(Value::Int),
        "FLOAT" => float(value).map(Value::Float),
        "STRING" => Ok(Value::Str(str_of(value))),
        "BOOLEAN" => Ok(Value::Bool(value.truthy())),
        _ => Ok(value.clone()),
    }
}

fn int(value: &Value) -> Result<i128, String> {
    match value {
        Value::Float(float) if float.is_nan() => Err("cannot convert float NaN to integer".into()),
        Value::Float(float) if float.is_infinite() => Err("cannot convert float infinity to integer".into()),
        Value::Float(float) => Ok(float.trunc() as i128),
        Value::Str(text) => digits(text.trim())
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| format!("invalid literal for int() with base 10: {}", repr(value))),
        other => other.as_int().ok_or_else(|| {
            let given = other.type_name();
            format!("int() argument must be a string, a bytes-like object or a real number, not '{given}'")
        }),
    }
}

fn float(value: &Value) -> Result<f64, String> {
    if let Value::Str(text) = value {
        let word = text.trim();
        let bare = word.strip_prefix(['+', '-']).unwrap_or(word).to_ascii_lowercase();
        // Rust's parser takes the same words and numbers, but no underscores between digits.
        let number = match bare.as_str() {
            "inf" | "infinity" | "nan" => word.parse().ok(),
            _ => underscores(word).and_then(|plain| plain.parse().ok()),
        };
        return number.ok_or_else(|| format!("could not convert string to float: {}", repr(value)));
    }
    value
        .as_f64()
        .ok_or_else(|| format!("float() argument must be a string or a real number, not '{}'", value.type_name()))
}

/// The text without underscores, when each stands between two digits.
fn underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let fine = bytes.iter().enumerate().all(|(at, byte)| {
        let digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_digit);
        *byte != b'_' || (digit(at.checked_sub(1)) && digit(Some(at + 1)))
    });
    fine.then(|| text.replace('_', ""))
}

fn digits(text: &str) -> Option<String> {
    let plain = underscores(text)?;
    let bare = plain.strip_prefix(['+', '-']).unwrap_or(&plain);
    (!bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_digit())).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_text_are_numbers() {
        assert_eq!(coerce("INT", &Value::from(" 64 ")), Ok(Value::Int(64)));
        assert_eq!(coerce("INT", &Value::from("1_000")), Ok(Value::Int(1000)));
        assert_eq!(coerce("INT", &Value::from("-3")), Ok(Value::Int(-3)));
        assert_eq!(coerce("INT", &Value::Float(1.9)), Ok(Value::Int(1)));
        assert_eq!(coerce("INT", &Value::Bool(true)), Ok(Value::Int(1)));
        assert_eq!(coerce("INT", &Value::from("18446744073709551615")), Ok(Value::Int(u64::MAX.into())));
        assert_eq!(coerce("FLOAT", &Value::from("1e3")), Ok(Value::Float(1000.0)));
        assert_eq!(coerce("FLOAT", &Value::Int(30)), Ok(Value::Float(30.0)));
        assert_eq!(coerce("FLOAT", &Value::from("-Infinity")), Ok(Value::Float(f64::NEG_INFINITY)));
        assert_eq!(coerce("BOOLEAN", &Value::from("false")), Ok(Value::Bool(true)));
        assert_eq!(coerce("STRING", &Value::None), Ok(Value::from("None")));
        assert_eq!(coerce("MODEL", &Value::None), Ok(Value::None));
    }

    #[test]
    fn refusals_are_in_pythons_words() {
        for (kind, value, said) in [
            ("INT", Value::from("abc"), "invalid literal for int() with base 10: 'abc'"),
            ("INT", Value::from("1.5"), "invalid literal for int() with base 10: '1.5'"),
            ("INT", Value::from("_1"), "invalid literal for int() with base 10: '_1'"),
            ("INT", Value::Float(f64::INFINITY), "cannot convert float infinity to integer"),
            (
                "INT",
                Value::None,
                "int() argument must be a string, a bytes-like object or a real number, not 'NoneType'",
            ),
            ("FLOAT", Value::from(""), "could not convert string to float: ''"),
            ("FLOAT", Value::None, "float() argument must be a string or a real number, not 'NoneType'"),
        ] {
            assert_eq!(coerce(kind, &value), Err(said.to_owned()));
        }
    }
}
