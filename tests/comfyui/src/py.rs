//! JSON as Python reads and writes it.
//!
//! ComfyUI's answers are `json.dumps` of Python objects, so `NaN` goes in and out, `30` and `30.0` differ, integers have
//! no limit worth mentioning, separators carry a space and everything outside ASCII is escaped. Its error texts are made
//! of `str()` and `repr()`. All of that reaches clients, so it is imitated here and nowhere else.

mod parse;
mod write;

use indexmap::IndexMap;

pub use parse::{ParseError, parse};
pub use write::{dumps, repr, str_of};

/// A JSON object in the order in which it was written.
pub type Dict = IndexMap<String, Value>;

/// A JSON value, with Python's distinction between `int` and `float`.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`
    None,
    /// `true` and `false`
    Bool(bool),
    /// A number without fraction and exponent. One that does not fit becomes a [`Value::Float`].
    Int(i128),
    /// Any other number, also `NaN` and the infinities.
    Float(f64),
    /// Text. A lone surrogate, which Python keeps, becomes U+FFFD.
    Str(String),
    /// An array.
    List(Vec<Value>),
    /// An object.
    Dict(Dict),
}

impl Value {
    /// The member `key`, when this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Dict(dict) => dict.get(key),
            _ => None,
        }
    }

    /// The text, when this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The members, when this is an object.
    pub fn as_dict(&self) -> Option<&Dict> {
        match self {
            Value::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    /// The elements, when this is an array.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The number, when this is one or a boolean (a Python `bool` is an `int`).
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
            Value::Int(int) => Some(*int as f64),
            Value::Float(float) => Some(*float),
            _ => None,
        }
    }

    /// The whole number, when this is one or a boolean.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Bool(flag) => Some(i128::from(*flag)),
            Value::Int(int) => Some(*int),
            _ => None,
        }
    }

    /// What Python's `if value:` decides.
    pub fn truthy(&self) -> bool {
        match self {
            Value::None => false,
            Value::Bool(flag) => *flag,
            Value::Int(int) => *int != 0,
            Value::Float(float) => *float != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(list) => !list.is_empty(),
            Value::Dict(dict) => !dict.is_empty(),
        }
    }

    /// The name of the value's Python type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::List(_) => "list",
            Value::Dict(_) => "dict",
        }
    }

    /// Python's `==`: numbers of different types compare by value.
    pub fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Value::Dict(a), Value::Dict(b)) => {
                a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| value.equals(other)))
            }
            (a, b) => match (a.as_int(), b.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => match (a.as_f64(), b.as_f64()) {
                    (Some(a), Some(b)) => a == b,
                    _ => a == b,
                },
            },
        }
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Value::Bool(flag)
    }
}
impl From<i128> for Value {
    fn from(int: i128) -> Self {
        Value::Int(int)
    }
}
impl From<u64> for Value {
    fn from(int: u64) -> Self {
        Value::Int(int.into())
    }
}
impl From<usize> for Value {
    fn from(int: usize) -> Self {
        Value::Int(int as i128)
    }
}
impl From<f64> for Value {
    fn from(float: f64) -> Self {
        Value::Float(float)
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Str(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Str(text)
    }
}
impl From<Dict> for Value {
    fn from(dict: Dict) -> Self {
        Value::Dict(dict)
    }
}
impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(list: Vec<T>) -> Self {
        Value::List(list.into_iter().map(Into::into).collect())
    }
}

/// An object from its members: `dict! { "a" => 1u64, "b" => "text" }`.
macro_rules! dict {
    ($($key:expr => $value:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut dict = $crate::py::Dict::new();
        $(dict.insert(String::from($key), $crate::py::Value::from($value));)*
        $crate::py::Value::Dict(dict)
    }};
}
pub(crate) use dict;

#[cfg(test)]
mod tests;
