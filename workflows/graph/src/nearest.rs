//! "Did you mean", and text of others in messages.

/// The name that was probably meant, if one is near: a third of the characters may differ, and two in any case, or one
/// of both goes on where the other ends. Upper and lower case do not count as a difference.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let length = wanted.chars().count();
    // Nobody mistypes a whole page; the distance takes time and memory by the square.
    if length > LONGEST {
        return None;
    }
    let wanted_stem = stem(&wanted);
    let limit = (wanted_stem.chars().count() / 3).max(2);
    let is_near = |candidate: &str| {
        let lower = candidate.to_lowercase();
        let (candidate_stem, distance) = (stem(&lower), strsim::damerau_levenshtein(&wanted, &lower));
        let shorter = wanted_stem.len().min(candidate_stem.len());
        let goes_on = wanted_stem.starts_with(candidate_stem) || candidate_stem.starts_with(wanted_stem);
        let enough_in_common = distance <= limit && distance < length.max(lower.chars().count());
        (enough_in_common || (goes_on && shorter >= SHORTEST)).then_some(distance)
    };
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .filter_map(|candidate| Some((is_near(candidate)?, candidate)))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Characters beyond which a name is not compared.
const LONGEST: usize = 200;
/// Characters that a name must have to be the beginning of another one, not just a part.
const SHORTEST: usize = 5;

/// Without the end of a file's name, which says nothing about which file is meant.
fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
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
        let names = ["sd_xl_base_1.0.safetensors", "flux1-dev-fp8.safetensors", "base.safetensors", "steps", "cfg"];
        for (name, near) in [
            ("sdxl_base_1.0.safetensors", Some("sd_xl_base_1.0.safetensors")),
            ("SD_XL_BASE_1.0.SAFETENSORS", Some("sd_xl_base_1.0.safetensors")),
            ("flux1-dev.safetensors", Some("flux1-dev-fp8.safetensors")),
            ("step", Some("steps")),
            ("cgf", Some("cfg")),
            ("denoise", None),
            ("t5.safetensors", None),
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
