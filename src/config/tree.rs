//! The config file as a tree that remembers where each value came from: the file's bytes, a flag or a variable.
//! Overlays, flags and variables are merged here, so that one checker sees the final values and can point at them.

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A range of bytes of the config file.
    File {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
    },
    /// A flag, as in `--region`.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// A config built in memory, or the default.
    Memory,
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}

/// A value whose scalars are still text: what a scalar means depends on the key it stands under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text as written, without its quotes.
    Scalar {
        /// The text.
        text: String,
        /// Written without quotes, so that YAML may read it as something else than text.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<Entry>),
}

/// One key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key stands.
    pub key_origin: Origin,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// A quoted scalar.
    pub fn text(text: impl Into<String>, origin: Origin) -> Self {
        Node { value: Value::Scalar { text: text.into(), plain: false }, origin }
    }

    /// A plain scalar, read by the rules of YAML.
    pub fn plain(text: impl Into<String>, origin: Origin) -> Self {
        Node { value: Value::Scalar { text: text.into(), plain: true }, origin }
    }

    /// An empty mapping.
    pub fn empty(origin: Origin) -> Self {
        Node { value: Value::Map(Vec::new()), origin }
    }

    /// The tree of a JSON value; everything in it is [`Origin::Memory`].
    pub fn from_json(value: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match value {
            Json::Null => Value::Scalar { text: "null".into(), plain: true },
            Json::Bool(b) => Value::Scalar { text: b.to_string(), plain: true },
            Json::Number(n) => Value::Scalar { text: n.to_string(), plain: true },
            Json::String(s) => Value::Scalar { text: s.clone(), plain: false },
            Json::Array(items) => Value::List(items.iter().map(Node::from_json).collect()),
            Json::Object(map) => Value::Map(
                map.iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        key_origin: Origin::Memory,
                        node: Node::from_json(value),
                    })
                    .collect(),
            ),
        };
        Node { value, origin: Origin::Memory }
    }

    /// Whether this is YAML's null: nothing, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if super::scalar::is_null(text))
    }

    /// The entries, if this is a mapping.
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entry of a key.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries()?.iter().find(|entry| entry.key == key)
    }

    /// The entry of a key, to change it.
    pub fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The entry at a path of keys and list indices, as in `autoscaling.schedule[0].when`: where it stands, and the
    /// nearest parent that exists if it does not.
    pub fn locate(&self, path: &Path) -> Located<'_> {
        let mut at = Located { node: self, key: None, found: true };
        for step in &path.0 {
            let next = match (step, &at.node.value) {
                (Step::Key(key), Value::Map(entries)) => entries
                    .iter()
                    .find(|entry| &entry.key == key)
                    .map(|entry| Located { node: &entry.node, key: Some(&entry.key_origin), found: true }),
                (Step::Index(index), Value::List(items)) => {
                    items.get(*index).map(|node| Located { node, key: None, found: true })
                }
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => return Located { found: false, ..at },
            }
        }
        at
    }

    /// Removes and returns a key's value.
    pub fn take(&mut self, key: &str) -> Option<Entry> {
        match &mut self.value {
            Value::Map(entries) => {
                let at = entries.iter().position(|entry| entry.key == key)?;
                Some(entries.remove(at))
            }
            _ => None,
        }
    }

    /// Lays another tree over this one: mappings are merged key by key, everything else is replaced.
    ///
    /// An overlay that is null leaves a mapping alone and unsets anything else.
    pub fn overlay(&mut self, over: Node) {
        match (&mut self.value, over.value) {
            (Value::Map(entries), Value::Map(new)) => {
                for entry in new {
                    match entries.iter_mut().find(|old| old.key == entry.key) {
                        Some(old) => {
                            old.key_origin = entry.key_origin;
                            old.node.overlay(entry.node);
                        }
                        None => entries.push(entry),
                    }
                }
            }
            // A section with all its lines commented out says nothing about what lies below it.
            (Value::Map(_), Value::Scalar { text, plain: true }) if crate::config::scalar::is_null(&text) => {}
            (_, value) => *self = Node { value, origin: over.origin },
        }
    }

    /// Sets the value at a path of keys, making the mappings on the way.
    pub fn set(&mut self, keys: &[&str], node: Node) {
        let over = keys.iter().rev().fold(node, |node, key| {
            let origin = node.origin.clone();
            Node { value: Value::Map(vec![Entry { key: (*key).to_owned(), key_origin: origin.clone(), node }]), origin }
        });
        // A section that is present but empty is null in YAML; a mapping takes its place.
        self.overlay(over);
    }
}

/// What stands at a path, or nearest to it.
#[derive(Debug, Clone, Copy)]
pub struct Located<'a> {
    /// The value there.
    pub node: &'a Node,
    /// Where its key stands; none for list items and the root.
    pub key: Option<&'a Origin>,
    /// Whether the whole path exists.
    pub found: bool,
}

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A key.
    Key(String),
    /// A position in a list.
    Index(usize),
}

/// The path of a value, as in `autoscaling.schedule[0].when`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// The path of keys and indices written with dots and brackets.
    pub fn of(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (key, rest) = part.split_once('[').map_or((part, ""), |(key, rest)| (key, rest));
            if !key.is_empty() {
                steps.push(Step::Key(key.to_owned()));
            }
            for index in rest.split('[').filter_map(|index| index.trim_end_matches(']').parse().ok()) {
                steps.push(Step::Index(index));
            }
        }
        Path(steps)
    }

    /// This path and one key more.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    /// This path and one position more.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }

    /// Whether the other path is this one or below it.
    pub fn contains(&self, other: &Path) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if n == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
