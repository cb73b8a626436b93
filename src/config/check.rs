//! The tree against the JSON Schema: unknown keys, wrong types, YAML's traps, patterns and ranges. What is right
//! comes out as JSON for serde; what is wrong is left out and reported, so that one run reports everything.

mod shape;
mod text;

use serde_json::{Map, Number, Value as Json};

use super::problem::Problem;
use super::scalar::{Reading, reading, spoken};
use super::tree::{Entry, Node, Path, Value};
use shape::Shape;
pub(crate) use text::is_match;
pub(super) use text::nearest;
use text::{guess, text_problem};

/// Reads a tree by a schema. With `partial`, required keys may be absent: for overlays, which are merged later.
pub fn read(node: &Node, schema: &Json, partial: bool) -> (Option<Json>, Vec<Problem>) {
    read_at(node, schema, partial, Path::default())
}

/// As [`read`], for a tree that stands at a path of the file.
pub fn read_at(node: &Node, schema: &Json, partial: bool, path: Path) -> (Option<Json>, Vec<Problem>) {
    let mut reader = Reader { root: schema, partial, problems: Vec::new() };
    let json = reader.node(node, schema, &path);
    (json, reader.problems)
}

struct Reader<'s> {
    root: &'s Json,
    partial: bool,
    problems: Vec<Problem>,
}

impl<'s> Reader<'s> {
    fn node(&mut self, node: &Node, schema: &'s Json, path: &Path) -> Option<Json> {
        let shape = Shape::of(self.root, schema);
        match &node.value {
            Value::Map(entries) => match shape.object {
                Some(object) => Some(self.object(entries, node, object, path)),
                None => self.wrong(node, path, &shape, "keys and values"),
            },
            Value::List(items) => match shape.array {
                Some(array) => Some(self.array(items, node, array, path)),
                None => self.wrong(node, path, &shape, "a list"),
            },
            Value::Scalar { text, plain } => self.scalar(node, text, *plain, &shape, path, schema),
        }
    }

    fn object(&mut self, entries: &[Entry], node: &Node, schema: &'s Json, path: &Path) -> Json {
        let mut json = Map::new();
        let properties = schema.get("properties").and_then(Json::as_object);
        let additional =
            schema.get("additionalProperties").filter(|extra| !extra.is_boolean() || extra == &&Json::Bool(true));
        for entry in entries {
            let below = path.key(&entry.key);
            match properties.and_then(|known| known.get(&entry.key)).or(additional) {
                Some(schema) => {
                    if schema.is_boolean() {
                        json.insert(entry.key.clone(), free(&entry.node));
                    } else if let Some(value) = self.property(&entry.node, schema, &below) {
                        json.insert(entry.key.clone(), value);
                    }
                }
                None => self.unknown(entry, properties, path, &below),
            }
        }
        if let Some(names) = schema.get("propertyNames") {
            for entry in entries {
                self.property_name(names, entry, &path.key(&entry.key));
            }
        }
        if let Some(max) = schema.get("maxProperties").and_then(Json::as_u64)
            && entries.len() as u64 > max
        {
            self.problems.push(
                Problem::error(path.clone(), format!("`{path}` has {} entries", entries.len()))
                    .at(node.origin.clone())
                    .help(format!("Allowed: at most {max}.")),
            );
        }
        if !self.partial {
            self.required(&json, entries, node, schema, path);
        }
        Json::Object(json)
    }

    fn required(&mut self, json: &Map<String, Json>, entries: &[Entry], node: &Node, schema: &Json, path: &Path) {
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if json.contains_key(name) || entries.iter().any(|entry| entry.key == name) {
                continue;
            }
            let below = path.key(name);
            let about = schema
                .pointer(&format!("/properties/{name}/description"))
                .and_then(Json::as_str)
                .map(first_sentence)
                .unwrap_or_default();
            self.problems.push(
                Problem::error(below.clone(), format!("`{below}` is missing"))
                    .at(node.origin.clone())
                    .label(format!("`{name}` belongs in here"))
                    .help(format!("Add it: `{name}: ...`. {about}").trim().to_owned()),
            );
        }
    }

    fn property(&mut self, node: &Node, schema: &'s Json, path: &Path) -> Option<Json> {
        if node.is_null() {
            let shape = Shape::of(self.root, schema);
            // A section with nothing below it is what remains when its lines are commented out.
            if shape.null || shape.object.is_some() || shape.array.is_some() {
                return None;
            }
        }
        self.node(node, schema, path)
    }

    fn property_name(&mut self, names: &Json, entry: &Entry, path: &Path) {
        if let Some(help) = text_problem(names, &entry.key) {
            self.problems.push(
                Problem::error(path.clone(), format!("`{}` cannot be a key of `{}`", entry.key, parent(path)))
                    .at(entry.key_origin.clone())
                    .on_key()
                    .label("this key")
                    .help(help),
            );
        }
    }

    fn unknown(&mut self, entry: &Entry, properties: Option<&'s Map<String, Json>>, path: &Path, below: &Path) {
        let known: Vec<&str> = properties.map(|p| p.keys().map(String::as_str).collect()).unwrap_or_default();
        let near = nearest(&entry.key, known.iter().copied());
        let label = near.map_or("not known here".to_owned(), |near| format!("did you mean `{near}`?"));
        let help = if entry.key == "<<" {
            "YAML merge keys are not understood; write the values out, or use `environments:`.".to_owned()
        } else if let Some(elsewhere) = near.is_none().then(|| self.elsewhere(&entry.key, path)).flatten() {
            format!("There is `{elsewhere}`: is the indentation right?")
        } else {
            let place = if path.0.is_empty() { "at the top level".to_owned() } else { format!("in `{path}`") };
            format!("Known {place}: {}.", known.join(", "))
        };
        self.problems.push(
            Problem::error(below.clone(), format!("`{below}` is not a known key"))
                .at(entry.key_origin.clone())
                .on_key()
                .label(label)
                .help(help),
        );
    }

    /// The path of a key that exists in another section: a sign of wrong indentation.
    fn elsewhere(&self, key: &str, here: &Path) -> Option<String> {
        let top = self.root.get("properties")?.as_object()?;
        if !here.0.is_empty() && top.contains_key(key) {
            return Some(key.to_owned());
        }
        top.iter().find_map(|(section, schema)| {
            let object = Shape::of(self.root, schema).object?;
            object.get("properties")?.get(key).map(|_| format!("{section}.{key}"))
        })
    }

    fn array(&mut self, items: &[Node], node: &Node, schema: &'s Json, path: &Path) -> Json {
        let count = items.len() as u64;
        let min = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        let max = schema.get("maxItems").and_then(Json::as_u64).unwrap_or(u64::MAX);
        if count < min || count > max {
            let allowed = if count < min { format!("at least {min}") } else { format!("at most {max}") };
            let about = schema.get("description").and_then(Json::as_str).unwrap_or_default();
            self.problems.push(
                Problem::error(path.clone(), format!("`{path}` has {count} item{}", if count == 1 { "" } else { "s" }))
                    .at(node.origin.clone())
                    .help(if about.is_empty() { format!("Allowed: {allowed}.") } else { about.to_owned() }),
            );
        }
        let Some(of) = schema.get("items") else { return Json::Array(items.iter().map(free).collect()) };
        let values = items.iter().enumerate().filter_map(|(n, item)| self.node(item, of, &path.index(n)));
        Json::Array(values.collect())
    }

    fn scalar(
        &mut self,
        node: &Node,
        text: &str,
        plain: bool,
        shape: &Shape<'s>,
        path: &Path,
        schema: &Json,
    ) -> Option<Json> {
        let read = if plain { reading(text) } else { Reading::Text };
        if read == Reading::Null && shape.null {
            return Some(Json::Null);
        }
        if read == Reading::Null {
            let problem = Problem::error(path.clone(), format!("`{path}` has no value")).label("nothing here");
            return self
                .refuse(node, problem.help(format!("Allowed: {}. Or remove the key.", self.allowed(shape, schema))));
        }
        // A word list decides by the letters: `off` is a word there, whatever YAML makes of it.
        if shape.words.contains(&text) {
            return Some(Json::String(text.to_owned()));
        }
        if let Some(integer) = shape.integer.or(shape.number)
            && let Some(result) = self.number(node, text, plain, read, integer, shape, path)
        {
            return result;
        }
        if shape.boolean {
            return self.boolean(node, text, plain, read, path);
        }
        if !shape.words.is_empty() && shape.string.is_none() {
            let near = nearest(text, shape.words.iter().copied());
            let label = near.map_or("not one of them".to_owned(), |near| format!("did you mean `{near}`?"));
            let problem = Problem::error(path.clone(), format!("`{path}` is `{text}`")).label(label);
            return self.refuse(node, problem.help(format!("Allowed: {}.", shape.spoken())));
        }
        match shape.string {
            Some(schema) => self.string(node, text, read, schema, path),
            None => self.wrong(node, path, shape, "a single value"),
        }
    }

    fn string(&mut self, node: &Node, text: &str, read: Reading, schema: &Json, path: &Path) -> Option<Json> {
        if read != Reading::Text {
            let key = path.to_string();
            let key = key.rsplit('.').next().unwrap_or_default();
            let quoted = if key.ends_with(']') { format!("\"{text}\"") } else { format!("{key}: \"{text}\"") };
            let problem = Problem::error(
                path.clone(),
                format!("`{path}` is `{text}`, which YAML may read as {}", spoken(text, read)),
            )
            .label("quote it");
            return self.refuse(node, problem.help(format!("Quote it, since text is meant here: `{quoted}`")));
        }
        if let Some(help) = text_problem(schema, text) {
            let shown: String = text.chars().take(80).collect();
            let shown = if shown.len() < text.len() { format!("{shown}...") } else { shown };
            let what = if text.is_empty() { format!("`{path}` is empty") } else { format!("`{path}` is `{shown}`") };
            let label = guess(schema, text).map_or("not allowed".to_owned(), |g| format!("did you mean `{g}`?"));
            return self.refuse(node, Problem::error(path.clone(), what).label(label).help(help));
        }
        Some(Json::String(text.to_owned()))
    }

    /// None if the text is not meant as a number and may be something else.
    #[allow(clippy::too_many_arguments)]
    fn number(
        &mut self,
        node: &Node,
        text: &str,
        plain: bool,
        read: Reading,
        schema: &Json,
        shape: &Shape<'s>,
        path: &Path,
    ) -> Option<Option<Json>> {
        let whole = shape.integer.is_some();
        let allowed = format!("Allowed: {}.", shape.spoken());
        let problem = Problem::error(path.clone(), format!("`{path}` is `{text}`"));
        let numeric = matches!(reading(text), Reading::Integer | Reading::Number | Reading::Octal);
        if !plain && numeric && shape.string.is_none() {
            let problem =
                Problem::error(path.clone(), format!("`{path}` is the text \"{text}\"")).label("text, not a number");
            return Some(self.refuse(node, problem.help(format!("Remove the quotes. {allowed}"))));
        }
        let value = match read {
            Reading::Octal => {
                let bare = text.trim_start_matches('0');
                let bare = if bare.is_empty() { "0" } else { bare };
                let problem = problem.label("a leading zero means octal to some YAML readers");
                return Some(self.refuse(node, problem.help(format!("Write {bare}. {allowed}"))));
            }
            Reading::Integer => text.parse::<i64>().ok().map(Number::from),
            Reading::Number if !whole => text.parse::<f64>().ok().and_then(Number::from_f64),
            Reading::Number => None,
            _ if shape.string.is_none() => None,
            _ => return None,
        };
        let in_range = value.as_ref().and_then(Number::as_f64).is_some_and(|n| {
            let limit = |key: &str| schema.get(key).and_then(Json::as_f64);
            limit("minimum").is_none_or(|min| n >= min)
                && limit("maximum").is_none_or(|max| n <= max)
                && limit("exclusiveMinimum").is_none_or(|min| n > min)
        });
        match value.filter(|_| in_range) {
            Some(number) => Some(Some(Json::Number(number))),
            None => {
                let why = schema.get("patternErrorMessage").and_then(Json::as_str).map(|s| format!(" {s}"));
                let label = if numeric { "out of range" } else { "not a number" };
                let label = if numeric && whole && read == Reading::Number { "not a whole number" } else { label };
                Some(self.refuse(node, problem.label(label).help(format!("{allowed}{}", why.unwrap_or_default()))))
            }
        }
    }

    fn boolean(&mut self, node: &Node, text: &str, plain: bool, read: Reading, path: &Path) -> Option<Json> {
        match (text, read) {
            ("true", Reading::Bool(_)) => return Some(Json::Bool(true)),
            ("false", Reading::Bool(_)) => return Some(Json::Bool(false)),
            _ => {}
        }
        let problem = Problem::error(path.clone(), format!("`{path}` is `{text}`"));
        let problem = match (reading(text), plain) {
            (Reading::Bool(value), true) => problem
                .label(format!("write {value}"))
                .help(format!("Write {value}: only some YAML readers take `{text}` for it. Allowed: true or false.")),
            (Reading::Bool(value), false) => {
                problem.label("text").help(format!("Write {value}, without quotes. Allowed: true or false."))
            }
            _ => problem.label("not allowed").help("Allowed: true or false."),
        };
        self.refuse(node, problem)
    }

    fn wrong(&mut self, node: &Node, path: &Path, shape: &Shape<'s>, got: &str) -> Option<Json> {
        let name = if path.0.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
        let problem = Problem::error(path.clone(), format!("{name} must be {}, not {got}", shape.spoken()));
        self.refuse(node, problem.label(format!("this is {got}")))
    }

    fn refuse(&mut self, node: &Node, problem: Problem) -> Option<Json> {
        self.problems.push(problem.at(node.origin.clone()));
        None
    }

    fn allowed(&self, shape: &Shape<'s>, schema: &Json) -> String {
        let message = shape.string.or(Some(schema)).and_then(|s| s.get("patternErrorMessage")).and_then(Json::as_str);
        message.map_or_else(|| shape.spoken(), |m| m.trim_start_matches("Allowed: ").trim_end_matches('.').to_owned())
    }
}

fn parent(path: &Path) -> Path {
    Path(path.0[..path.0.len().saturating_sub(1)].to_vec())
}

fn first_sentence(text: &str) -> &str {
    text.split_inclusive(". ").next().unwrap_or(text).trim()
}

/// The JSON of a tree without a schema, by YAML's own rules.
fn free(node: &Node) -> Json {
    match &node.value {
        Value::Map(entries) => Json::Object(entries.iter().map(|e| (e.key.clone(), free(&e.node))).collect()),
        Value::List(items) => Json::Array(items.iter().map(free).collect()),
        Value::Scalar { text, plain: false } => Json::String(text.clone()),
        Value::Scalar { text, .. } => match reading(text) {
            Reading::Null => Json::Null,
            Reading::Bool(value) => Json::Bool(value),
            Reading::Integer => text.parse::<i64>().map_or_else(|_| Json::String(text.clone()), Json::from),
            Reading::Number => text.parse::<f64>().map_or_else(|_| Json::String(text.clone()), Json::from),
            Reading::Octal | Reading::Text => Json::String(text.clone()),
        },
    }
}
