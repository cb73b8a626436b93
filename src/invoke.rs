//! A sentence sent to the deployed app, and the picture that comes back. Pure; `commands/invoke.rs` does the talking.

pub mod curl;
pub mod file;
pub mod reply;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// What a picture is asked for with; the members that the function takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// `positive_prompt`
    pub prompt: String,
    /// `negative_prompt`
    pub negative: Option<String>,
    /// `prompt_file`; the app's default if absent.
    pub workflow: Option<String>,
    /// `seed`; drawn by the function if absent.
    pub seed: Option<u64>,
    /// `params`
    pub params: Map<String, Value>,
    /// `images`
    pub images: Vec<Value>,
    /// `format`
    pub format: Option<&'static str>,
}

impl Request {
    /// The body.
    pub fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("positive_prompt".into(), json!(self.prompt));
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.into(), value);
            }
        };
        set("negative_prompt", self.negative.as_ref().map(|text| json!(text)));
        set("prompt_file", self.workflow.as_ref().map(|name| json!(name)));
        set("seed", self.seed.map(|seed| json!(seed)));
        set("params", (!self.params.is_empty()).then(|| json!(self.params)));
        set("images", (!self.images.is_empty()).then(|| json!(self.images)));
        set("format", self.format.map(|name| json!(name)));
        body
    }

    /// The seeds of `count` pictures: consecutive ones from a given seed, else none.
    ///
    /// # Errors
    /// The last one is more than ComfyUI takes.
    pub fn seeds(&self, count: u32) -> Result<Vec<Option<u64>>> {
        let Some(first) = self.seed else { return Ok(vec![None; count as usize]) };
        first.checked_add(u64::from(count).saturating_sub(1)).ok_or_else(|| {
            Error::usage(format!("{count} seeds from {first} on go beyond {}", u64::MAX))
                .next("choose a smaller --seed")
        })?;
        Ok((0..u64::from(count)).map(|n| Some(first + n)).collect())
    }
}

/// A param whose workflow is not on this machine: JSON if it is, else text.
pub fn param_as_written(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_) | Value::String(_))) => value,
        _ => Value::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_sent() {
        let mut request = Request { prompt: "a dog".into(), ..Request::default() };
        assert_eq!(Value::from(request.body()), json!({"positive_prompt": "a dog"}));
        request.seed = Some(u64::MAX);
        request.workflow = Some("flux1-dev-fp8".into());
        request.params.insert("5.width".into(), json!(768));
        request.format = Some("png");
        let expected = json!({"positive_prompt": "a dog", "prompt_file": "flux1-dev-fp8", "seed": u64::MAX,
            "params": {"5.width": 768}, "format": "png"});
        assert_eq!(Value::from(request.body()), expected);
    }

    #[test]
    fn seeds_are_consecutive_and_do_not_wrap() {
        let mut request = Request::default();
        assert_eq!(request.seeds(2).unwrap(), [None, None]);
        request.seed = Some(u64::MAX - 1);
        assert_eq!(request.seeds(2).unwrap(), [Some(u64::MAX - 1), Some(u64::MAX)]);
        assert!(request.seeds(3).is_err());
    }

    #[test]
    fn a_param_is_json_or_text() {
        assert_eq!(param_as_written("768"), json!(768));
        assert_eq!(param_as_written("true"), json!(true));
        assert_eq!(param_as_written("a cat"), json!("a cat"));
        assert_eq!(param_as_written("[1]"), json!("[1]"), "no value of a node");
    }
}
