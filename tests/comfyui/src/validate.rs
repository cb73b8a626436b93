//! What ComfyUI says about a prompt before it queues it.

use std::collections::HashSet;

use crate::{
    coerce::coerce,
    files::Folders,
    graph::annotated,
    nodes::{Class, Input, Kind, Registry},
    order::set_order,
    py::{Dict, Value, dict, repr, str_of},
};

/// The prompt made ComfyUI's handler raise: status 500 without a reason.
#[derive(Debug, PartialEq)]
pub(crate) struct Crash;

/// What became of a prompt.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The output nodes that will run, in the order in which they will be asked for.
    pub outputs: Vec<String>,
    /// Per node, why it is refused.
    pub node_errors: Value,
    /// Why nothing of the prompt runs; `None` when something does.
    pub error: Option<Value>,
}

/// A Python exception inside the validation of a node.
struct Raised {
    kind: &'static str,
    text: String,
    line: u32,
}

/// The verdict on one node.
#[derive(Clone)]
struct Verdict {
    valid: bool,
    reasons: Vec<Value>,
}

/// Checks `prompt` and converts its values in place, as ComfyUI does. `targets` are `partial_execution_targets`.
pub(crate) fn validate(
    prompt: &mut Value,
    targets: Option<&Value>,
    registry: &Registry,
    folders: &Folders,
    seed: u64,
) -> Result<Checked, Crash> {
    let nodes = match prompt {
        Value::Dict(nodes) => nodes,
        Value::Str(text) if text.is_empty() => return Ok(refused("prompt_no_outputs", "Prompt has no outputs", "")),
        Value::List(list) if list.is_empty() => return Ok(refused("prompt_no_outputs", "Prompt has no outputs", "")),
        _ => return Err(Crash),
    };
    let mut outputs = Vec::new();
    for (id, node) in nodes.iter() {
        let missing = "Cannot execute because a node is missing the class_type property.";
        let class = match node {
            Value::Dict(node) => node.get("class_type"),
            Value::Str(text) if text.contains("class_type") => return Err(Crash),
            Value::List(list) if list.iter().any(|item| item.as_str() == Some("class_type")) => return Err(Crash),
            Value::Str(_) | Value::List(_) => None,
            _ => return Err(Crash),
        };
        let Some(class) = class else { return Ok(refused("invalid_prompt", missing, &format!("Node ID '#{id}'"))) };
        if matches!(class, Value::List(_) | Value::Dict(_)) {
            return Err(Crash);
        }
        let Some(class) = class.as_str().and_then(|name| registry.get(name)) else {
            let message = format!("Cannot execute because node {} does not exist.", str_of(class));
            return Ok(refused("invalid_prompt", &message, &format!("Node ID '#{id}'")));
        };
        if class.output_node && wanted(targets, id)? {
            outputs.push(id.clone());
        }
    }
    if outputs.is_empty() {
        return Ok(refused("prompt_no_outputs", "Prompt has no outputs", ""));
    }
    let outputs = set_order(seed, outputs);
    let mut walk = Walk { nodes, registry, folders, seed, verdicts: Vec::new(), open: HashSet::new() };
    let mut good = Vec::new();
    let mut failures = Vec::new();
    let mut node_errors = Dict::new();
    for output in &outputs {
        let verdict = match walk.node(output) {
            Ok(verdict) => verdict,
            Err(raised) => {
                walk.open.clear();
                let verdict = Verdict { valid: false, reasons: vec![outer(&raised)] };
                walk.keep(output, &verdict);
                verdict
            }
        };
        if verdict.valid {
            good.push(output.clone());
            continue;
        }
        for reason in &verdict.reasons {
            failures.push(format!("{}: {}", text_of(reason, "message"), text_of(reason, "details")));
        }
        for (id, verdict) in walk.verdicts.iter().filter(|(_, it)| !it.valid && !it.reasons.is_empty()) {
            let entry = node_errors.entry(id.clone()).or_insert_with(|| {
                dict! {
                    "errors" => verdict.reasons.clone(),
                    "dependent_outputs" => Value::List(Vec::new()),
                    "class_type" => walk.nodes.get(id).and_then(|node| node.get("class_type")).cloned()
                        .unwrap_or(Value::None),
                }
            });
            if let Value::Dict(entry) = entry
                && let Some(Value::List(dependent)) = entry.get_mut("dependent_outputs")
            {
                dependent.push(Value::from(output.as_str()));
            }
        }
    }
    let error = good.is_empty().then(|| {
        error("prompt_outputs_failed_validation", "Prompt outputs failed validation", &failures.join("\n"), dict! {})
    });
    Ok(Checked { outputs: good, node_errors: Value::Dict(node_errors), error })
}

/// Whether an output node is among the targets, when there are any.
fn wanted(targets: Option<&Value>, id: &str) -> Result<bool, Crash> {
    match targets {
        None | Some(Value::None) => Ok(true),
        Some(Value::List(ids)) => Ok(ids.iter().any(|target| target.as_str() == Some(id))),
        Some(Value::Str(text)) => Ok(text.contains(id)),
        Some(Value::Dict(ids)) => Ok(ids.contains_key(id)),
        Some(_) => Err(Crash),
    }
}

fn refused(kind: &str, message: &str, details: &str) -> Checked {
    Checked { outputs: Vec::new(), node_errors: dict! {}, error: Some(error(kind, message, details, dict! {})) }
}

fn error(kind: &str, message: &str, details: &str, extra: Value) -> Value {
    dict! { "type" => kind, "message" => message, "details" => details, "extra_info" => extra }
}

fn text_of(reason: &Value, key: &str) -> String {
    reason.get(key).map(str_of).unwrap_or_default()
}

/// One line per frame, without the source text that Python adds.
fn frame(line: u32, function: &str) -> Value {
    Value::Str(format!("  File \"/opt/ComfyUI/execution.py\", line {line}, in {function}\n"))
}

fn outer(raised: &Raised) -> Value {
    let trace = Value::List(vec![frame(1010, "validate_prompt"), frame(raised.line, "validate_inputs")]);
    let extra = dict! { "exception_type" => raised.kind, "traceback" => trace };
    error("exception_during_validation", "Exception when validating node", &raised.text, extra)
}

struct Walk<'a> {
    nodes: &'a mut Dict,
    registry: &'a Registry,
    folders: &'a Folders,
    seed: u64,
    /// In the order in which Python's dict has them.
    verdicts: Vec<(String, Verdict)>,
    /// Nodes whose inputs are being followed: meeting one again is a cycle.
    open: HashSet<String>,
}

impl Walk<'_> {
    fn keep(&mut self, id: &str, verdict: &Verdict) {
        match self.verdicts.iter_mut().find(|(known, _)| known == id) {
            Some((_, old)) => *old = verdict.clone(),
            None => self.verdicts.push((id.to_owned(), verdict.clone())),
        }
    }

    fn node(&mut self, id: &str) -> Result<Verdict, Raised> {
        if let Some((_, verdict)) = self.verdicts.iter().find(|(known, _)| known == id) {
            return Ok(verdict.clone());
        }
        // ComfyUI recurses until Python gives up; every node of the cycle ends as invalid without a reason.
        if !self.open.insert(id.to_owned()) {
            return Ok(Verdict { valid: false, reasons: Vec::new() });
        }
        let result = self.inputs(id);
        self.open.remove(id);
        let verdict = result?;
        self.keep(id, &verdict);
        Ok(verdict)
    }

    fn inputs(&mut self, id: &str) -> Result<Verdict, Raised> {
        let node = self.nodes.get(id).ok_or_else(|| key_error(&Value::from(id), 730))?;
        let given = node.get("inputs").ok_or_else(|| key_error(&Value::from("inputs"), 730))?;
        let type_error = |text: String| Raised { kind: "TypeError", text, line: 754 };
        let given = match given {
            Value::Dict(given) => given.clone(),
            Value::List(_) | Value::Str(_) => Dict::new(),
            other => return Err(type_error(format!("argument of type '{}' is not iterable", other.type_name()))),
        };
        let registry = self.registry;
        let name = node.get("class_type").and_then(Value::as_str).unwrap_or_default();
        let class = registry.get(name).ok_or_else(|| key_error(&Value::from(name), 732))?;
        let mut errors = Vec::new();
        let mut valid = true;
        for name in set_order(self.seed, class.inputs.iter().map(|input| input.name.as_str())) {
            let Some(input) = class.inputs.iter().find(|input| input.name == name) else { continue };
            match given.get(&name) {
                None if input.required => {
                    let extra = dict! { "input_name" => name.as_str() };
                    errors.push(error("required_input_missing", "Required input is missing", &name, extra));
                }
                None => {}
                Some(Value::List(link)) => match self.link(input, link)? {
                    Some(Refusal::Here(reason)) => errors.push(reason),
                    Some(Refusal::Above) => valid = false,
                    None => {}
                },
                Some(value) => match self.value(class, input, value) {
                    Ok(converted) => self.set_input(id, &name, converted),
                    Err(against) => {
                        let (converted, reason) = *against;
                        if let Some(converted) = converted {
                            self.set_input(id, &name, converted);
                        }
                        errors.push(reason);
                    }
                },
            }
        }
        self.own_check(id, class, &mut errors)?;
        Ok(Verdict { valid: valid && errors.is_empty(), reasons: errors })
    }

    fn set_input(&mut self, id: &str, name: &str, value: Value) {
        if let Some(Value::Dict(node)) = self.nodes.get_mut(id)
            && let Some(Value::Dict(inputs)) = node.get_mut("inputs")
        {
            inputs.insert(name.to_owned(), value);
        }
    }

    fn config(&self, input: &Input) -> Value {
        Value::List(vec![self.registry.shown_kind(input), input.config.clone()])
    }

    fn link(&mut self, input: &Input, link: &[Value]) -> Result<Option<Refusal>, Raised> {
        let value = Value::List(link.to_vec());
        let [from, slot] = link else {
            let extra = dict! {
                "input_name" => input.name.as_str(), "input_config" => self.config(input), "received_value" => value,
            };
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            return Ok(Some(Refusal::Here(error("bad_linked_input", message, &input.name, extra))));
        };
        let unhashable = matches!(from, Value::List(_) | Value::Dict(_));
        if unhashable {
            let text = format!("unhashable type: '{}'", from.type_name());
            return Err(Raised { kind: "TypeError", text, line: 788 });
        }
        let Some((from, node)) = from.as_str().and_then(|id| Some((id.to_owned(), self.nodes.get(id)?))) else {
            return Err(key_error(from, 788));
        };
        let name = node.get("class_type").and_then(Value::as_str).unwrap_or_default();
        let class = self.registry.get(name).ok_or_else(|| key_error(&Value::from(name), 789))?;
        let received = slot_type(class, slot)?;
        if !fits(&received, &input.kind) {
            let kind = self.registry.shown_kind(input);
            let details = format!("{}, received_type({received}) mismatch input_type({})", input.name, str_of(&kind));
            let extra = dict! {
                "input_name" => input.name.as_str(), "input_config" => self.config(input),
                "received_type" => received, "linked_node" => value,
            };
            let message = "Return type mismatch between linked nodes";
            return Ok(Some(Refusal::Here(error("return_type_mismatch", message, &details, extra))));
        }
        match self.node(&from) {
            Ok(verdict) if verdict.valid => Ok(None),
            Ok(_) => Ok(Some(Refusal::Above)),
            Err(raised) => {
                let extra = dict! {
                    "input_name" => input.name.as_str(), "input_config" => self.config(input),
                    "exception_message" => raised.text.as_str(), "exception_type" => raised.kind,
                    "traceback" => Value::List(vec![
                        frame(808, "validate_inputs"), frame(raised.line, "validate_inputs"),
                    ]),
                    "linked_node" => value,
                };
                let message = "Exception when validating inner node";
                let reason = error("exception_during_inner_validation", message, &raised.text, extra);
                self.keep(&from, &Verdict { valid: false, reasons: vec![reason] });
                Ok(Some(Refusal::Above))
            }
        }
    }

    /// The converted value, or the reason against it (with the conversion, when that much worked).
    fn value(&self, class: &Class, input: &Input, value: &Value) -> Result<Value, Against> {
        let wrapped = match value {
            Value::Dict(dict) => dict.get("__value__"),
            _ => None,
        };
        let value = wrapped.unwrap_or(value);
        let extra = |config: Value, value: &Value| {
            dict! { "input_name" => input.name.as_str(), "input_config" => config, "received_value" => value.clone() }
        };
        let kind = match &input.kind {
            Kind::Typed(kind) => kind.as_str(),
            _ => "",
        };
        let value = match coerce(kind, value) {
            Ok(converted) => converted,
            Err(why) => {
                let mut info = extra(self.config(input), value);
                if let Value::Dict(info) = &mut info {
                    info.insert("exception_message".into(), Value::from(why.as_str()));
                }
                let message = format!("Failed to convert an input value to a {kind} value");
                let details = format!("{}, {}, {why}", input.name, str_of(value));
                let kept = wrapped.cloned();
                return Err(Box::new((kept, error("invalid_input_type", &message, &details, info))));
            }
        };
        if checks_itself(class) {
            return Ok(value);
        }
        for (limit, kind, word, over) in [
            ("min", "value_smaller_than_min", "smaller than min", -1.0),
            ("max", "value_bigger_than_max", "bigger than max", 1.0),
        ] {
            let Some(limit) = input.config.get(limit) else { continue };
            if beyond(&value, limit, over) {
                let message = format!("Value {} {word} of {}", str_of(&value), str_of(limit));
                let reason = error(kind, &message, &input.name, extra(self.config(input), &value));
                return Err(Box::new((Some(value), reason)));
            }
        }
        if let Some(choices) = self.registry.choices(input)
            && !choices.iter().any(|choice| value.as_str() == Some(choice))
        {
            let (config, list) = if choices.len() > 20 {
                (Value::None, format!("(list of length {})", choices.len()))
            } else {
                (self.config(input), repr(&Value::from(choices)))
            };
            let details = format!("{}: '{}' not in {list}", input.name, str_of(&value));
            let reason = error("value_not_in_list", "Value not in list", &details, extra(config, &value));
            return Err(Box::new((Some(value), reason)));
        }
        Ok(value)
    }

    /// The check that LoadImage and its kind bring along.
    fn own_check(&self, id: &str, class: &Class, errors: &mut Vec<Value>) -> Result<(), Raised> {
        if !checks_itself(class) {
            return Ok(());
        }
        let raise = |kind, text| Raised { kind, text, line: 889 };
        let given = self.nodes.get(id).and_then(|node| node.get("inputs")).and_then(|inputs| inputs.get("image"));
        let name = match given {
            None => {
                let text = format!("{}.VALIDATE_INPUTS() missing 1 required positional argument: 'image'", class.name);
                return Err(raise("TypeError", text));
            }
            Some(Value::Str(name)) => name,
            Some(other) => {
                let given = if crate::graph::link(other).is_some() { "NoneType" } else { other.type_name() };
                return Err(raise("AttributeError", format!("'{given}' object has no attribute 'endswith'")));
            }
        };
        let (name, folder) = annotated(name);
        let folder = self.folders.of(folder.unwrap_or("input"));
        if !folder.is_some_and(|folder| folder.join(name).exists()) {
            let details = format!("image - Invalid image file: {}", given.map(str_of).unwrap_or_default());
            let extra = dict! { "input_name" => "image" };
            errors.push(error("custom_validation_failed", "Custom validation failed for node", &details, extra));
        }
        Ok(())
    }
}

/// What conversion left of a value, and the reason against it.
type Against = Box<(Option<Value>, Value)>;

enum Refusal {
    /// The link itself is wrong.
    Here(Value),
    /// The node that it comes from is.
    Above,
}

fn key_error(key: &Value, line: u32) -> Raised {
    Raised { kind: "KeyError", text: repr(key), line }
}

/// Whether a class has its own check instead of the list of choices.
fn checks_itself(class: &Class) -> bool {
    class.inputs.iter().any(|input| matches!(&input.kind, Kind::Files(folder) if folder == "images"))
}

fn slot_type(class: &Class, slot: &Value) -> Result<String, Raised> {
    let sequence = if class.v3 { "list" } else { "tuple" };
    let Some(slot) = slot.as_int() else {
        let text = format!("{sequence} indices must be integers or slices, not {}", slot.type_name());
        return Err(Raised { kind: "TypeError", text, line: 790 });
    };
    let count = class.outputs.len() as i128;
    // Python counts negative indices from the end.
    let index = if slot < 0 { slot + count } else { slot };
    usize::try_from(index).ok().and_then(|index| class.outputs.get(index)).cloned().ok_or_else(|| Raised {
        kind: "IndexError",
        text: format!("{sequence} index out of range"),
        line: 790,
    })
}

/// Types are names with commas between; one in common is enough, and `*` fits everything.
fn fits(received: &str, wanted: &Kind) -> bool {
    let Kind::Typed(wanted) = wanted else { return false };
    if received == wanted || received == "*" || wanted == "*" {
        return true;
    }
    received.split(',').any(|one| wanted.split(',').any(|other| one.trim() == other.trim()))
}

fn beyond(value: &Value, limit: &Value, sign: f64) -> bool {
    if let (Some(value), Some(limit)) = (value.as_int(), limit.as_int()) {
        return if sign > 0.0 { value > limit } else { value < limit };
    }
    match (value.as_f64(), limit.as_f64()) {
        (Some(value), Some(limit)) => (value - limit) * sign > 0.0,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
