//! JSON as strict as a workflow has to be: no key twice, not endlessly nested, and errors with their place.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting that is read. ComfyUI's own format needs four levels; a node's private data may need some more.
pub(crate) const DEPTH_MAX: usize = 64;

/// A place in a text; both count from 1, columns in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Why a text was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flaw {
    Syntax(String),
    DuplicateKey(String),
    TooDeep,
}

/// Reads one value, with nothing but white space around it.
pub(crate) fn read(text: &str) -> Result<Value, (Flaw, At)> {
    let flaw = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Seed { depth: 0, flaw: &flaw }.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v));
    value.map_err(|cause| {
        let at = At { line: cause.line(), column: cause.column() };
        (flaw.take().unwrap_or_else(|| Flaw::Syntax(without_place(&cause))), at)
    })
}

/// serde_json ends its messages with the place, which is said in other words here.
fn without_place(cause: &serde_json::Error) -> String {
    let text = cause.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    flaw: &'a RefCell<Option<Flaw>>,
}

impl Seed<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(self.give_up(Flaw::TooDeep));
        }
        Ok(Seed { depth: self.depth + 1, ..self })
    }

    fn give_up<E: Error>(self, flaw: Flaw) -> E {
        self.flaw.replace(Some(flaw));
        // The reader adds its place to this; the text is never shown.
        E::custom("")
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(seed)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut all = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if all.contains_key(&key) {
                return Err(self.give_up(Flaw::DuplicateKey(key)));
            }
            let value = members.next_value_seed(seed)?;
            all.insert(key, value);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flaws_have_their_place() {
        for (text, flaw, line) in [
            ("{\"a\": 1,\n \"b\": 2,\n \"a\": 3}", Flaw::DuplicateKey("a".into()), 3),
            ("{\"a\": {\"x\": 1,\n\"x\": 1}}", Flaw::DuplicateKey("x".into()), 2),
            // The same key, written in another way.
            ("{\"a\": 1, \"\\u0061\": 2}", Flaw::DuplicateKey("a".into()), 1),
            ("{\"a\": 1,\n}", Flaw::Syntax("trailing comma".into()), 2),
            ("{\"a\": NaN}", Flaw::Syntax("expected value".into()), 1),
            ("{} {}", Flaw::Syntax("trailing characters".into()), 1),
        ] {
            let (got, at) = read(text).expect_err(text);
            assert_eq!((got, at.line), (flaw, line), "{text}");
            assert!(at.column > 0, "{text}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        for levels in [DEPTH_MAX + 1, 100_000] {
            assert_eq!(read(&nested(levels)).expect_err("too deep").0, Flaw::TooDeep);
        }
    }

    #[test]
    fn numbers_keep_their_digits() {
        for text in ["18446744073709551615", "-9223372036854775808", "7.0", "0.1", "1e300", "8.41", "123456.789e-7"] {
            let value = read(text).expect(text);
            let number: f64 = text.parse().expect(text);
            assert_eq!(value.as_f64().map(f64::to_bits), Some(number.to_bits()), "{text}");
        }
        assert_eq!(read("18446744073709551615").expect("a number").as_u64(), Some(u64::MAX));
    }

    proptest! {
        /// What is accepted is what serde_json accepts, to the bit.
        #[test]
        fn floats_are_read_exactly(number in prop::num::f64::NORMAL) {
            let text = serde_json::to_string(&number).unwrap();
            prop_assert_eq!(read(&text).unwrap().as_f64().map(f64::to_bits), Some(number.to_bits()));
        }
    }
}
