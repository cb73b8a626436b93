//! Placeholders for prompt texts.

/// Stand for the positive prompt. The first is the spelling of workflows that exist already.
pub const POSITIVE_PLACEHOLDERS: [&str; 2] = ["POSITIVE_PROMT_PLACEHOLDER", "POSITIVE_PROMPT_PLACEHOLDER"];
/// Stands for the negative prompt.
pub const NEGATIVE_PLACEHOLDER: &str = "NEGATIVE_PROMPT_PLACEHOLDER";

/// The end of each of them.
const TAIL: &str = "_PLACEHOLDER";

/// A text with its placeholders replaced.
pub(crate) struct Replaced {
    pub(crate) text: String,
    pub(crate) positive: bool,
    pub(crate) negative: bool,
}

/// Replaces every placeholder in one pass from left to right, so that what was put in is not looked at again. `None` if
/// there is none.
pub(crate) fn replace(text: &str, positive: &str, negative: &str) -> Option<Replaced> {
    let mut done = Replaced { text: String::new(), positive: false, negative: false };
    let (mut copied, mut from) = (0, 0);
    while let Some(at) = text[from..].find(TAIL) {
        let end = from + at + TAIL.len();
        let ends_with = |placeholder: &&str| text[copied..end].ends_with(*placeholder);
        let found = if let Some(placeholder) = POSITIVE_PLACEHOLDERS.iter().find(|p| ends_with(p)) {
            done.positive = true;
            Some((placeholder.len(), positive))
        } else if ends_with(&NEGATIVE_PLACEHOLDER) {
            done.negative = true;
            Some((NEGATIVE_PLACEHOLDER.len(), negative))
        } else {
            None
        };
        if let Some((length, value)) = found {
            done.text.push_str(&text[copied..end - length]);
            done.text.push_str(value);
            copied = end;
        }
        from = end;
    }
    if !(done.positive || done.negative) {
        return None;
    }
    done.text.push_str(&text[copied..]);
    Some(done)
}

/// Whether a text has a placeholder for the positive prompt.
pub(crate) fn has_positive(text: &str) -> bool {
    POSITIVE_PLACEHOLDERS.iter().any(|placeholder| text.contains(placeholder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replaced(text: &str) -> Option<String> {
        replace(text, "P", "N").map(|done| done.text)
    }

    #[test]
    fn alone_inside_and_not_at_all() {
        for (text, expected) in [
            ("POSITIVE_PROMT_PLACEHOLDER", Some("P")),
            ("a POSITIVE_PROMPT_PLACEHOLDER, b", Some("a P, b")),
            ("POSITIVE_PROMPT_PLACEHOLDERNEGATIVE_PROMPT_PLACEHOLDER", Some("PN")),
            ("XPOSITIVE_PROMPT_PLACEHOLDER_PLACEHOLDER", Some("XP_PLACEHOLDER")),
            ("PROMPT_PLACEHOLDER", None),
            ("positive_prompt_placeholder", None),
            ("_PLACEHOLDER_PLACEHOLDER", None),
            ("", None),
        ] {
            assert_eq!(replaced(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_put_in_is_not_looked_at_again() {
        let [one, two] = POSITIVE_PLACEHOLDERS;
        let done = replace(&format!("{two}|{NEGATIVE_PLACEHOLDER}|{one}"), NEGATIVE_PLACEHOLDER, two);
        assert_eq!(done.map(|d| d.text), Some(format!("{NEGATIVE_PLACEHOLDER}|{two}|{NEGATIVE_PLACEHOLDER}")));
        // Nor do two halves become a whole.
        assert_eq!(
            replace(&format!("POSITIVE_{NEGATIVE_PLACEHOLDER}_PLACEHOLDER"), "x", "PROMPT").map(|d| d.text),
            Some(two.to_owned())
        );
    }

    proptest! {
        /// Text around placeholders stays, and each occurrence is replaced once.
        #[test]
        fn replacing_is_concatenation(
            pieces in prop::collection::vec("[a-z \"{}\u{e9}]{0,8}", 1..5),
            kinds in prop::collection::vec(0usize..3, 4),
            positive in ".{0,12}",
            negative in ".{0,12}",
        ) {
            let (mut text, mut expected) = (pieces[0].clone(), pieces[0].clone());
            for (piece, kind) in pieces[1..].iter().zip(kinds) {
                let (placeholder, value) = [
                    (POSITIVE_PLACEHOLDERS[0], &positive),
                    (POSITIVE_PLACEHOLDERS[1], &positive),
                    (NEGATIVE_PLACEHOLDER, &negative),
                ][kind];
                text += placeholder;
                text += piece;
                expected += value;
                expected += piece;
            }
            let done = replace(&text, &positive, &negative);
            prop_assert_eq!(done.is_some(), pieces.len() > 1);
            prop_assert_eq!(done.map_or(text, |d| d.text), expected);
        }
    }
}
