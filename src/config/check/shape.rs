//! What a schema lets a value be, unfolded, and the words for it.

use serde_json::Value as Json;

/// A schema with its references followed and the alternatives of an option or a word list unfolded.
#[derive(Default, Clone)]
pub(super) struct Shape<'s> {
    pub(super) object: Option<&'s Json>,
    pub(super) array: Option<&'s Json>,
    pub(super) string: Option<&'s Json>,
    pub(super) integer: Option<&'s Json>,
    pub(super) number: Option<&'s Json>,
    pub(super) boolean: bool,
    pub(super) null: bool,
    pub(super) words: Vec<&'s str>,
}

impl<'s> Shape<'s> {
    pub(super) fn of(root: &'s Json, schema: &'s Json) -> Self {
        let mut shape = Shape::default();
        shape.add(root, schema, 0);
        shape
    }

    fn add(&mut self, root: &'s Json, schema: &'s Json, depth: usize) {
        // References in our own schema are never recursive; the limit keeps a mistake there from hanging the program.
        if depth > 16 {
            return;
        }
        if let Some(target) = schema.get("$ref").and_then(Json::as_str).and_then(|r| root.pointer(r.strip_prefix('#')?))
        {
            self.add(root, target, depth + 1);
        }
        for alternatives in ["anyOf", "oneOf"] {
            for schema in schema.get(alternatives).and_then(Json::as_array).into_iter().flatten() {
                self.add(root, schema, depth + 1);
            }
        }
        if let Some(word) = schema.get("const").and_then(Json::as_str) {
            self.words.push(word);
            return;
        }
        if let Some(words) = schema.get("enum").and_then(Json::as_array) {
            self.words.extend(words.iter().filter_map(Json::as_str));
            self.null |= words.iter().any(Json::is_null);
            return;
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        };
        for name in types {
            match name {
                "object" => self.object = Some(schema),
                "array" => self.array = Some(schema),
                "string" => self.string = Some(schema),
                "integer" => self.integer = Some(schema),
                "number" => self.number = Some(schema),
                "boolean" => self.boolean = true,
                "null" => self.null = true,
                _ => {}
            }
        }
    }

    /// What is expected, as in "true or false".
    pub(super) fn spoken(&self) -> String {
        let mut kinds: Vec<String> = Vec::new();
        if self.object.is_some() {
            kinds.push("keys and values".into());
        }
        if self.array.is_some() {
            kinds.push("a list".into());
        }
        if let Some(schema) = self.integer.or(self.number) {
            kinds.push(number_spoken(schema, self.integer.is_some()));
        }
        if self.boolean {
            kinds.push("true or false".into());
        }
        kinds.extend(self.words.iter().map(|word| format!("`{word}`")));
        if self.string.is_some() {
            kinds.push("text".into());
        }
        one_of(&kinds)
    }
}

fn number_spoken(schema: &Json, whole: bool) -> String {
    let kind = if whole { "a whole number" } else { "a number" };
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(min), Some(max)) if min == max => short(min),
        (Some(min), Some(max)) => format!("{kind} from {} to {}", short(min), short(max)),
        (Some(min), None) if short(min) != "0" => format!("{kind}, at least {}", short(min)),
        (None, Some(max)) => format!("{kind}, at most {}", short(max)),
        _ => match schema.get("exclusiveMinimum") {
            Some(min) => format!("{kind} above {}", short(min)),
            None => kind.to_owned(),
        },
    }
}

fn short(number: &Json) -> String {
    number.as_f64().map_or_else(|| number.to_string(), |n| n.to_string())
}

/// `a`, `a or b`, `a, b or c`.
fn one_of(items: &[String]) -> String {
    match items {
        [] => "nothing".into(),
        [one] => one.clone(),
        [head @ .., last] => format!("{} or {last}", head.join(", ")),
    }
}
