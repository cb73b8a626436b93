//! "Did you mean", and text of others in messages.

/// The name that was probably meant, if one is near: a third of the characters may differ, and two in any case.
/// Upper and lower case do not count as a difference.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let length = wanted.chars().count();
    // Nobody mistypes a whole page; the distance takes time and memory by the square.
    if length > 200 {
        return None;
    }
    let limit = (length / 3).max(2);
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= 4 * 300)
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < length.max(candidate.chars().count()))
        .min()
        .map(|(_, candidate)| candidate)
}

/// `; did you mean X?`, or nothing.
pub(crate) fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean {}?", quote(name))).unwrap_or_default()
}

/// Text of a workflow for a message: in quotes, escaped, and not longer than a line.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_and_far_ones() {
        let names = ["sd_xl_base_1.0.safetensors", "flux1-dev-fp8.safetensors", "steps", "cfg"];
        for (name, near) in [
            ("sdxl_base_1.0.safetensors", Some("sd_xl_base_1.0.safetensors")),
            ("SD_XL_BASE_1.0.SAFETENSORS", Some("sd_xl_base_1.0.safetensors")),
            ("flux1-dev.safetensors", Some("flux1-dev-fp8.safetensors")),
            ("step", Some("steps")),
            ("cgf", Some("cfg")),
            ("denoise", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, names), near, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), names), None);
    }

    #[test]
    fn quoted_text_is_short_and_on_one_line() {
        assert_eq!(quote("a\n\u{1b}\"b"), r#""a\n\u{1b}\"b""#);
        assert_eq!(quote(&"\u{e9}".repeat(81)), format!("{:?}...", "\u{e9}".repeat(80)));
    }
}
