//! The node classes: what inputs they take and what they give out.
//!
//! `nodes.json` holds one line per class in the shape of ComfyUI's `/object_info`, without prose. `"@checkpoints"` in
//! the place of a type stands for the files of that model folder, `"@images"` for the pictures in the input folder.

use std::collections::HashMap;

use crate::{
    models::Models,
    py::{self, Dict, Value, dict},
};

/// What a class takes as an input.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// A type, or several with commas between.
    Typed(String),
    /// One of these.
    Choice(Vec<String>),
    /// One of the files of a model folder, or of the pictures in the input folder.
    Files(String),
}

/// One input of a class.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub kind: Kind,
    /// Whether a prompt must have it.
    pub required: bool,
    /// The second half of its declaration: limits, default.
    pub config: Value,
}

/// One node class.
#[derive(Debug, Clone)]
pub(crate) struct Class {
    /// Its name in a prompt.
    pub name: String,
    /// Inputs, required ones first.
    pub inputs: Vec<Input>,
    /// The types of its outputs.
    pub outputs: Vec<String>,
    /// Whether running it is an end in itself.
    pub output_node: bool,
    /// Whether it is written against the newer node API, which shows in one error text.
    pub v3: bool,
    raw: Value,
}

/// All classes.
pub(crate) struct Registry {
    classes: HashMap<String, Class>,
    order: Vec<String>,
    models: Models,
}

impl Registry {
    /// The classes with model lists from `models`, with or without the custom nodes.
    pub fn new(models: Models, custom: bool) -> Self {
        let table = py::parse(include_str!("nodes.json")).unwrap_or(Value::None);
        let mut classes = HashMap::new();
        let mut order = Vec::new();
        let wanted = |raw: &Value| custom || !raw.get("custom").is_some_and(Value::truthy);
        for (name, raw) in table.as_dict().into_iter().flatten().filter(|(_, raw)| wanted(raw)) {
            classes.insert(name.clone(), class(name, raw));
            order.push(name.clone());
        }
        Registry { classes, order, models }
    }

    /// The class with this name.
    pub fn get(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// The folders of models.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// The names of all classes.
    pub fn names(&self) -> &[String] {
        &self.order
    }

    /// The type of an input as ComfyUI shows it: a name, or the list of choices.
    pub fn shown_kind(&self, input: &Input) -> Value {
        match &input.kind {
            Kind::Typed(name) => Value::from(name.as_str()),
            Kind::Choice(choices) => Value::from(choices.clone()),
            Kind::Files(folder) => Value::from(self.models.list(folder)),
        }
    }

    /// The choices of an input that has some.
    pub fn choices(&self, input: &Input) -> Option<Vec<String>> {
        match &input.kind {
            Kind::Typed(_) => None,
            Kind::Choice(choices) => Some(choices.clone()),
            Kind::Files(folder) => Some(self.models.list(folder)),
        }
    }

    /// The class as `/object_info` shows it.
    pub fn info(&self, class: &Class) -> Value {
        let mut groups = Dict::new();
        let mut names = Dict::new();
        for (group, required) in [("required", true), ("optional", false)] {
            let mut members = Dict::new();
            for input in class.inputs.iter().filter(|input| input.required == required) {
                let mut declared = vec![self.shown_kind(input)];
                if input.config.truthy() {
                    declared.push(input.config.clone());
                }
                members.insert(input.name.clone(), Value::List(declared));
            }
            if required || !members.is_empty() {
                names.insert(group.into(), Value::from(members.keys().cloned().collect::<Vec<_>>()));
                groups.insert(group.into(), Value::Dict(members));
            }
        }
        if let Some(hidden) = class.raw.get("hidden") {
            let keys: Vec<String> = hidden.as_dict().into_iter().flatten().map(|(key, _)| key.clone()).collect();
            names.insert("hidden".into(), Value::from(keys));
            groups.insert("hidden".into(), hidden.clone());
        }
        let outputs = Value::from(class.outputs.clone());
        dict! {
            "input" => groups,
            "input_order" => names,
            "output" => outputs.clone(),
            "output_is_list" => vec![false; class.outputs.len()],
            "output_name" => class.raw.get("output_name").cloned().unwrap_or(outputs),
            "name" => class.name.as_str(),
            "display_name" => class.name.as_str(),
            "description" => "",
            "python_module" => "nodes",
            "category" => class.raw.get("category").cloned().unwrap_or_else(|| Value::from("sd")),
            "output_node" => class.output_node,
        }
    }
}

fn class(name: &str, raw: &Value) -> Class {
    let mut inputs = Vec::new();
    for (group, required) in [("required", true), ("optional", false)] {
        for (name, declared) in raw.get(group).and_then(Value::as_dict).into_iter().flatten() {
            let declared = declared.as_list().unwrap_or_default();
            let kind = match declared.first() {
                Some(Value::List(choices)) => Kind::Choice(choices.iter().map(py::str_of).collect()),
                Some(other) => match py::str_of(other).strip_prefix('@') {
                    Some(folder) => Kind::Files(folder.to_owned()),
                    None => Kind::Typed(py::str_of(other)),
                },
                None => Kind::Typed("*".into()),
            };
            let config = declared.get(1).cloned().unwrap_or_else(|| dict! {});
            inputs.push(Input { name: name.clone(), kind, required, config });
        }
    }
    let strings = |key: &str| -> Vec<String> {
        raw.get(key).and_then(Value::as_list).unwrap_or_default().iter().map(py::str_of).collect()
    };
    Class {
        name: name.to_owned(),
        inputs,
        outputs: strings("output"),
        output_node: raw.get("output_node").is_some_and(Value::truthy),
        v3: raw.get("v3").is_some_and(Value::truthy),
        raw: raw.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let table = py::parse(include_str!("nodes.json")).expect("nodes.json is JSON");
        let registry = Registry::new(Models::default(), true);
        assert_eq!(registry.names().len(), table.as_dict().map_or(0, Dict::len));
        for name in registry.names() {
            let class = registry.get(name).expect("listed");
            assert!(class.output_node || !class.outputs.is_empty(), "{name} gives nothing");
            for input in &class.inputs {
                assert!(input.config.as_dict().is_some(), "{name}.{}", input.name);
            }
        }
    }

    #[test]
    fn object_info_has_the_list_of_checkpoints() {
        let registry = Registry::new(Models::recorded(), true);
        let class = registry.get("CheckpointLoaderSimple").expect("known");
        let shown = py::dumps(&registry.info(class));
        assert!(shown.contains(r#""ckpt_name": [["tiny_random.safetensors"], "#), "{shown}");
    }
}
