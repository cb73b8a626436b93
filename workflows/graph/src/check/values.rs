//! Literal inputs against what their class takes.

use serde_json::Value;

use super::{Check, Kind};
use crate::classes::InputType;
use crate::nearest::{nearest, quote};
use crate::node::Node;

impl Check<'_> {
    pub(super) fn inputs(&mut self, node: Node<'_>) {
        let Some(classes) = self.known.classes else { return };
        let Some(class) = classes.get(node.class()) else { return };
        for (name, _) in
            class.inputs.iter().filter(|(name, input)| input.required && !node.inputs().contains_key(*name))
        {
            self.find(self.misfit(), Kind::MissingInput, node, Some(name), "it is required, and not there".into());
        }
        for (name, value) in node.inputs() {
            match class.inputs.get(name) {
                Some(input) => self.value(node, name, &input.kind, value),
                None => {
                    // ComfyUI ignores inputs that it does not know, and its own exports have some.
                    let free = class.inputs.keys().filter(|known| !node.inputs().contains_key(*known));
                    if let Some(near) = nearest(name, free.map(String::as_str)).map(str::to_owned) {
                        let message = format!("{} has no such input, and ComfyUI ignores it", node.class());
                        let severity = super::Severity::Warning;
                        self.find(severity, Kind::MisspeltInput, node, Some(name), message).nearest = Some(near);
                    }
                }
            }
        }
    }

    /// As ComfyUI does: convert first, then compare.
    fn value(&mut self, node: Node<'_>, input: &str, kind: &InputType, value: &Value) {
        if value.is_array() {
            return; // A link, or a broken one.
        }
        // A list of values comes wrapped for that reason.
        let value = value.get("__value__").unwrap_or(value);
        match kind {
            InputType::Int { min, max } => match whole(value) {
                Some(number) => self.range(node, input, number, *min, *max),
                None => self.wrong_type(node, input, "a whole number", value),
            },
            InputType::Float { min, max } => match number(value) {
                Some(number) => self.range(node, input, number, *min, *max),
                None => self.wrong_type(node, input, "a number", value),
            },
            InputType::Choice(list) => {
                let choices = self.known.classes.map_or(&[][..], |classes| classes.choices(*list));
                if value.as_str().is_some_and(|text| choices.iter().any(|choice| choice == text)) {
                    return;
                }
                let shown = value.as_str().map_or_else(|| quote(&value.to_string()), quote);
                let near = value.as_str().and_then(|text| nearest(text, choices.iter().map(String::as_str)));
                let near = near.map(str::to_owned);
                let known = self.known.classes.map_or("", |classes| classes.comfyui.as_str());
                let message = format!("{shown} is not one of the {} choices of ComfyUI {known}", choices.len());
                self.find(self.misfit(), Kind::NoSuchChoice, node, Some(input), message).nearest = near;
            }
            InputType::Model { .. } | InputType::File if !value.is_string() => {
                self.wrong_type(node, input, "the name of a file", value);
            }
            InputType::Of(name) if self.known.classes.is_some_and(|classes| classes.only_linked(name)) => {
                // Python's None stands for an optional input that is not there.
                if !value.is_null() {
                    let message = format!("it takes {name} from another node, and has {}", quote(&value.to_string()));
                    self.find(self.misfit(), Kind::LiteralForLink, node, Some(input), message);
                }
            }
            // Texts and booleans are made of anything; other types have an editor of their own.
            InputType::Model { .. } | InputType::File | InputType::Of(_) => {}
        }
    }

    fn range<N: PartialOrd + Copy + std::fmt::Display>(
        &mut self,
        node: Node<'_>,
        name: &str,
        number: N,
        min: Option<N>,
        max: Option<N>,
    ) {
        let message = match (min, max) {
            (Some(min), _) if number < min => format!("{number} is too small; the smallest is {min}"),
            (_, Some(max)) if number > max => format!("{number} is too big; the biggest is {max}"),
            _ => return,
        };
        self.find(self.misfit(), Kind::OutOfRange, node, Some(name), message);
    }

    fn wrong_type(&mut self, node: Node<'_>, name: &str, wanted: &str, value: &Value) {
        let message = format!("it takes {wanted}, and has {}", quote(&value.to_string()));
        self.find(self.misfit(), Kind::WrongType, node, Some(name), message);
    }
}

/// What Python's `int` makes of it.
fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => Some(number.into()),
            (_, Some(number)) => Some(number.into()),
            // Saturates, far beyond every limit.
            _ => number.as_f64().map(|number| number as i128),
        },
        Value::String(text) => digits(text)?.parse().ok(),
        Value::Bool(on) => Some((*on).into()),
        _ => None,
    }
}

/// What Python's `float` makes of it.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => digits(text)?.parse().ok(),
        Value::Bool(on) => Some(f64::from(u8::from(*on))),
        _ => None,
    }
}

/// Python allows white space around a number, and single underscores inside it.
fn digits(text: &str) -> Option<String> {
    let text = text.trim();
    let misplaced = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    (!misplaced).then(|| text.replace('_', ""))
}
