//! What node classes there are, and what each takes and gives.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::parse::Workflow;

/// Node classes, as a ComfyUI of some version has them.
#[derive(Debug, Clone, PartialEq)]
pub struct Classes {
    /// Version of ComfyUI.
    pub comfyui: String,
    /// Its full commit.
    pub commit: String,
    /// When the list was made, `YYYY-MM-DD`.
    pub date: String,
    classes: BTreeMap<String, Class>,
    api: BTreeSet<String>,
    lists: Vec<Vec<String>>,
}

/// One node class.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// Types of its outputs, by slot; `*` is any.
    pub outputs: Vec<String>,
    /// Whether a workflow may end in it: it saves or shows something.
    pub output_node: bool,
    /// Its inputs by name.
    pub inputs: BTreeMap<String, Input>,
}

/// One input of a class.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Whether a node cannot do without it.
    pub required: bool,
    /// What it takes.
    pub kind: InputType,
}

/// What an input takes.
#[derive(Debug, Clone, PartialEq)]
pub enum InputType {
    /// A value of a named type; several are separated by commas, `*` is any.
    Of(String),
    /// A whole number. The limits are as wide as a Python int can be declared.
    Int {
        /// Smallest.
        min: Option<i128>,
        /// Largest.
        max: Option<i128>,
    },
    /// A number.
    Float {
        /// Smallest.
        min: Option<f64>,
        /// Largest.
        max: Option<f64>,
    },
    /// One of some names; see [`Classes::choices`].
    Choice(usize),
    /// The name of a file in a models folder.
    Model {
        /// Such as `checkpoints`.
        folder: String,
        /// Names that are no files and always there.
        also: Vec<String>,
    },
    /// The name of a file in ComfyUI's input directory.
    File,
}

impl Classes {
    /// Reads what `core-classes.py` writes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: RawClasses = serde_json::from_str(text).map_err(|cause| cause.to_string())?;
        let mut classes = BTreeMap::new();
        for (name, class) in raw.classes {
            let mut inputs = BTreeMap::new();
            for (required, section) in [(true, class.required), (false, class.optional)] {
                for (input, kind) in section {
                    let kind = kind.read(raw.lists.len()).map_err(|why| format!("{name}.{input}: {why}"))?;
                    inputs.insert(input, Input { required, kind });
                }
            }
            classes.insert(name, Class { outputs: class.out, output_node: class.save, inputs });
        }
        let RawClasses { comfyui, commit, date, api, lists, .. } = raw;
        Ok(Classes { comfyui, commit, date, classes, api, lists })
    }

    /// A class by name.
    pub fn get(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// Whether it is a class of ComfyUI that calls an outside service with the caller's account there.
    pub fn is_api(&self, name: &str) -> bool {
        self.api.contains(name)
    }

    /// Whether values of a type come out of nodes alone: nobody can type a model or a picture.
    pub(crate) fn only_linked(&self, kind: &str) -> bool {
        !matches!(kind, "STRING" | "BOOLEAN" | "INT" | "FLOAT" | "*")
            && self.classes.values().any(|class| class.outputs.iter().any(|output| output == kind))
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.classes.keys().map(String::as_str)
    }

    /// The model files that a workflow names, as folder and name, each once, in the order of the file. Links and names of
    /// classes that are not known are left out.
    pub fn model_files(&self, workflow: &Workflow) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for node in workflow.views() {
            let Some(class) = self.get(node.class()) else { continue };
            for (name, value) in node.inputs() {
                let kind = class.inputs.get(name).map(|input| &input.kind);
                let (Some(InputType::Model { folder, also }), Some(file)) = (kind, value.as_str()) else { continue };
                let entry = (folder.clone(), file.to_owned());
                if !also.contains(&entry.1) && !files.contains(&entry) {
                    files.push(entry);
                }
            }
        }
        files
    }

    /// What an [`InputType::Choice`] offers.
    pub fn choices(&self, choice: usize) -> &[String] {
        self.lists.get(choice).map_or(&[], Vec::as_slice)
    }
}

#[derive(Deserialize)]
struct RawClasses {
    comfyui: String,
    commit: String,
    date: String,
    api: BTreeSet<String>,
    lists: Vec<Vec<String>>,
    classes: BTreeMap<String, RawClass>,
}

#[derive(Deserialize)]
struct RawClass {
    out: Vec<String>,
    #[serde(default)]
    save: bool,
    #[serde(default, rename = "in")]
    required: BTreeMap<String, RawInput>,
    #[serde(default, rename = "opt")]
    optional: BTreeMap<String, RawInput>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawInput {
    Name(String),
    Number(String, serde_json::Value, serde_json::Value),
    Model {
        models: String,
        #[serde(default)]
        also: Vec<String>,
    },
    Choice {
        list: usize,
    },
}

impl RawInput {
    fn read(self, lists: usize) -> Result<InputType, String> {
        let whole =
            |value: &serde_json::Value| value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from));
        match self {
            RawInput::Name(name) => Ok(match name.as_str() {
                "FILE" => InputType::File,
                "INT" => InputType::Int { min: None, max: None },
                "FLOAT" => InputType::Float { min: None, max: None },
                _ => InputType::Of(name),
            }),
            RawInput::Number(kind, min, max) => match kind.as_str() {
                "INT" => Ok(InputType::Int { min: whole(&min), max: whole(&max) }),
                "FLOAT" => Ok(InputType::Float { min: min.as_f64(), max: max.as_f64() }),
                _ => Err(format!("{kind} has no limits")),
            },
            RawInput::Model { models, also } => Ok(InputType::Model { folder: models, also }),
            RawInput::Choice { list } if list < lists => Ok(InputType::Choice(list)),
            RawInput::Choice { list } => Err(format!("there is no list {list}")),
        }
    }
}

/// The classes of ComfyUI itself, without custom nodes; made by `core-classes.py`.
#[cfg(feature = "core-classes")]
pub fn core_classes() -> &'static Classes {
    static CORE: std::sync::LazyLock<Classes> = std::sync::LazyLock::new(|| {
        // Built in, and read by a test.
        Classes::parse(include_str!("../core-classes.json")).expect("core-classes.json is valid")
    });
    &CORE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_says_where() {
        let file = |input: &str| {
            format!(
                r#"{{"comfyui":"1","commit":"c","date":"d","api":[],"lists":[["a"]],"classes":{{"X":{{"out":[],"in":{{"i":{input}}}}}}}}}"#
            )
        };
        for good in [r#""MODEL""#, r#"["INT",0,18446744073709551615]"#, r#"["FLOAT",null,1.5]"#, r#"{"list":0}"#] {
            assert!(Classes::parse(&file(good)).is_ok(), "{good}");
        }
        for (bad, why) in [(r#"{"list":1}"#, "X.i: there is no list 1"), (r#"["TEXT",0,1]"#, "X.i: TEXT has no limits")]
        {
            assert_eq!(Classes::parse(&file(bad)).expect_err(bad), why);
        }
        assert!(Classes::parse(&file("3")).is_err());
    }
}
