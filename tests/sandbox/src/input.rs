//! Small readers of JSON that the services share.

use std::collections::BTreeMap;

use rand::RngExt;
use serde_json::{Map, Value, json};

use crate::world::ApiError;

/// A string member; empty if it is absent.
pub fn text<'a>(input: &'a Value, name: &str) -> &'a str {
    input[name].as_str().unwrap_or_default()
}

/// The last part of a name or ARN.
pub fn last(name_or_arn: &str) -> &str {
    name_or_arn.rsplit('/').next().unwrap_or(name_or_arn)
}

/// `[{Key, Value}]` as a map.
pub fn tags(list: &Value) -> BTreeMap<String, String> {
    let pairs = list.as_array().into_iter().flatten();
    pairs.map(|t| (text(t, "Key").to_owned(), text(t, "Value").to_owned())).collect()
}

/// A map of tags as `[{Key, Value}]`.
pub fn tag_list(tags: &BTreeMap<String, String>) -> Value {
    tags.iter().map(|(k, v)| json!({"Key": k, "Value": v})).collect()
}

/// `{k: v}` as a map.
pub fn string_map(map: &Value) -> BTreeMap<String, String> {
    let pairs = map.as_object().into_iter().flatten();
    pairs.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// The strings of a list.
pub fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// Copies the members that are there.
pub fn pick(from: &Value, names: &[&str]) -> Map<String, Value> {
    let found =
        names.iter().filter_map(|n| from.get(*n).filter(|v| !v.is_null()).map(|v| ((*n).to_owned(), v.clone())));
    found.collect()
}

/// One page of at most `size` items and the token of the next one. The token is the number of items before it.
pub fn page<T>(items: Vec<T>, size: usize, token: &Value, code: &str) -> Result<(Vec<T>, Option<String>), ApiError> {
    let start = match token.as_str() {
        None => 0,
        Some(token) => token
            .strip_prefix("page")
            .and_then(|n| n.parse::<usize>().ok())
            .filter(|n| *n <= items.len())
            .ok_or_else(|| ApiError::new(code, "The pagination token is not valid."))?,
    };
    let end = items.len().min(start.saturating_add(size.max(1)));
    let next = (end < items.len()).then(|| format!("page{end}"));
    Ok((items.into_iter().skip(start).take(end - start).collect(), next))
}

/// A member that says how many items to return.
pub fn limit(input: &Value, name: &str, default: usize) -> usize {
    input[name].as_u64().map_or(default, |n| usize::try_from(n).unwrap_or(default))
}

/// Random characters of AWS's unique ids.
pub fn unique_id(prefix: &str, length: usize) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut rng = rand::rng();
    prefix.chars().chain((0..length).map(|_| char::from(letters[rng.random_range(0..letters.len())]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_everything_once() {
        let (mut seen, mut token) = (Vec::new(), Value::Null);
        loop {
            let (items, next) = page((0..7).collect(), 3, &token, "X").unwrap();
            seen.extend(items);
            match next {
                Some(next) => token = json!(next),
                None => break,
            }
        }
        assert_eq!(seen, (0..7).collect::<Vec<_>>());
        assert!(page(vec![1], 3, &json!("page9"), "X").is_err());
        assert!(page(vec![1], 3, &json!("nonsense"), "X").is_err());
    }
}
