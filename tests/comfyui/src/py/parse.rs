//! `json.loads`.

use super::{Dict, Value};

/// Why a text is not JSON. ComfyUI answers all of these alike, so there is nothing to tell them apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not JSON at byte {at}")]
pub struct ParseError {
    /// Where reading stopped, in bytes.
    pub at: usize,
}

/// Python gives up at its recursion limit; nothing useful is nested this deep.
const DEEPEST: usize = 900;

/// Reads a text as Python's `json.loads` does: also `NaN`, `Infinity` and `-Infinity`; of equal keys the last one wins.
pub fn parse(text: &str) -> Result<Value, ParseError> {
    let mut reader = Reader { bytes: text.as_bytes(), text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    if reader.at == text.len() { Ok(value) } else { reader.fail() }
}

struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn fail<T>(&self) -> Result<T, ParseError> {
        Err(ParseError { at: self.at })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, word: &str) -> bool {
        let found = self.bytes[self.at..].starts_with(word.as_bytes());
        if found {
            self.at += word.len();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, ParseError> {
        if depth > DEEPEST {
            return self.fail();
        }
        self.space();
        match self.peek() {
            Some(b'"') => Ok(Value::Str(self.string()?)),
            Some(b'{') => self.dict(depth),
            Some(b'[') => self.list(depth),
            Some(b'n') if self.eat("null") => Ok(Value::None),
            Some(b't') if self.eat("true") => Ok(Value::Bool(true)),
            Some(b'f') if self.eat("false") => Ok(Value::Bool(false)),
            Some(b'N') if self.eat("NaN") => Ok(Value::Float(f64::NAN)),
            Some(b'I') if self.eat("Infinity") => Ok(Value::Float(f64::INFINITY)),
            Some(b'-') if self.eat("-Infinity") => Ok(Value::Float(f64::NEG_INFINITY)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.fail(),
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Value, ParseError> {
        let mut dict = Dict::new();
        self.at += 1;
        self.space();
        if self.eat("}") {
            return Ok(Value::Dict(dict));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return self.fail();
            }
            let key = self.string()?;
            self.space();
            if !self.eat(":") {
                return self.fail();
            }
            let value = self.value(depth + 1)?;
            dict.insert(key, value);
            self.space();
            if self.eat("}") {
                return Ok(Value::Dict(dict));
            }
            if !self.eat(",") {
                return self.fail();
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, ParseError> {
        let mut list = Vec::new();
        self.at += 1;
        self.space();
        if self.eat("]") {
            return Ok(Value::List(list));
        }
        loop {
            list.push(self.value(depth + 1)?);
            self.space();
            if self.eat("]") {
                return Ok(Value::List(list));
            }
            if !self.eat(",") {
                return self.fail();
            }
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Value, ParseError> {
        let start = self.at;
        self.eat("-");
        if !self.eat("0") && self.digits() == 0 {
            return self.fail();
        }
        let mut whole = true;
        // A point or an exponent without digits is not part of the number; what follows then fails by itself.
        let before = self.at;
        if self.eat(".") {
            if self.digits() > 0 {
                whole = false;
            } else {
                self.at = before;
            }
        }
        let before = self.at;
        if self.eat("e") || self.eat("E") {
            if !self.eat("+") {
                self.eat("-");
            }
            if self.digits() > 0 {
                whole = false;
            } else {
                self.at = before;
            }
        }
        let text = &self.text[start..self.at];
        if whole && let Ok(int) = text.parse() {
            return Ok(Value::Int(int));
        }
        text.parse().map(Value::Float).or_else(|_| self.fail())
    }

    fn hex4(&mut self) -> Result<u32, ParseError> {
        let Some(digits) = self.bytes.get(self.at..self.at + 4) else { return self.fail() };
        let mut code = 0;
        for digit in digits {
            let Some(digit) = char::from(*digit).to_digit(16) else { return self.fail() };
            code = code * 16 + digit;
        }
        self.at += 4;
        Ok(code)
    }

    fn string(&mut self) -> Result<String, ParseError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..=0x1f)) {
                self.at += 1;
            }
            out.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let escape = self.peek();
                    self.at += 1;
                    out.push(match escape {
                        Some(b'"') => '"',
                        Some(b'\\') => '\\',
                        Some(b'/') => '/',
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(b'n') => '\n',
                        Some(b'r') => '\r',
                        Some(b't') => '\t',
                        Some(b'u') => self.unicode()?,
                        _ => return self.fail(),
                    });
                }
                _ => return self.fail(),
            }
        }
    }

    fn unicode(&mut self) -> Result<char, ParseError> {
        let high = self.hex4()?;
        if (0xd800..0xdc00).contains(&high) && self.bytes[self.at..].starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}
