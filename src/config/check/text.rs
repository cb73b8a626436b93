//! Single texts: by pattern and length, and what was probably meant by a wrong one.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use regex_lite::Regex;
use serde_json::Value as Json;

/// The known name nearest to a mistyped one, if one is near.
pub(in crate::config) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |s: &str| s.to_lowercase().replace(['-', '_', ' '], "");
    let folded = fold(name);
    known
        .into_iter()
        .map(|candidate| {
            let other = fold(candidate);
            let edits = strsim::damerau_levenshtein(&folded, &other);
            // One word inside the other (`type` for `instance_type`) is a good guess too, though far in edits.
            let part = folded.len() >= 4 && (other.contains(&folded) || folded.contains(&other)) && other.len() >= 3;
            (if part { edits.min(2) } else { edits }, candidate)
        })
        .filter(|(edits, candidate)| *edits <= (candidate.len().max(folded.len()) / 3).max(1))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// What is wrong with a text by its pattern and length, as the sentence that says what is allowed.
pub(super) fn text_problem(schema: &Json, text: &str) -> Option<String> {
    let limit = |key: &str| schema.get(key).and_then(Json::as_u64);
    let length = text.chars().count() as u64;
    let fits = limit("minLength").is_none_or(|min| length >= min) && limit("maxLength").is_none_or(|max| length <= max);
    let matches = schema.get("pattern").and_then(Json::as_str).is_none_or(|pattern| is_match(pattern, text));
    if fits && matches {
        return None;
    }
    Some(match schema.get("patternErrorMessage").and_then(Json::as_str) {
        Some(message) => message.to_owned(),
        None => match (limit("minLength"), limit("maxLength")) {
            (Some(min), Some(max)) => format!("Allowed: {min} to {max} characters."),
            (Some(1), None) => "It must not be empty.".to_owned(),
            (Some(min), None) => format!("Allowed: at least {min} characters."),
            (None, Some(max)) => format!("Allowed: at most {max} characters."),
            (None, None) => "Allowed: what the JSON Schema says (`comfy-deploy config schema`).".to_owned(),
        },
    })
}

/// What was probably meant by a text that is not allowed: the slips that people make with these values.
pub(super) fn guess(schema: &Json, text: &str) -> Option<String> {
    let lower = text.trim().to_lowercase();
    [
        lower.clone(),
        lower.replace(['_', ' ', '.'], "-"),
        // An instance type as EC2 writes it.
        format!("ml.{lower}"),
        // An availability zone for its region.
        lower.trim_end_matches(|c: char| c.is_ascii_lowercase()).to_owned(),
        // An account as the console groups its digits.
        lower.replace(['-', ' '], ""),
    ]
    .into_iter()
    .find(|guess| !guess.is_empty() && guess != text && text_problem(schema, guess).is_none())
}

/// Whether a text matches a pattern of the schema. Patterns are compiled once.
pub(crate) fn is_match(pattern: &str, text: &str) -> bool {
    static COMPILED: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
    // A pattern that does not compile is a mistake in this program, which a test finds; it refuses nothing.
    regex.as_ref().is_none_or(|regex| regex.is_match(text))
}
