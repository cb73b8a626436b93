//! `.dockerignore`, as the container tools read it.
//!
//! It looks like a `.gitignore` and is not one: every pattern is anchored at the context's root (`*.bin` means the
//! top level only, `**/*.bin` every level), a trailing slash means nothing, and `!` readmits even below a directory
//! that is ignored. The last pattern that matches a path *or any of its parents* decides.

/// The patterns of one file, in order.
#[derive(Debug, Default)]
pub(super) struct IgnoreFile {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    readmit: bool,
    /// One per path component.
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq)]
enum Part {
    /// `**`: any number of components, also none.
    AnyDepth,
    /// Matches within one component.
    Glob(Vec<Token>),
}

#[derive(Debug, PartialEq)]
enum Token {
    Literal(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `[a-z]`, `[^a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl IgnoreFile {
    /// Reads patterns, one per line; `#` in the first column begins a comment.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (readmit, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let at = |why: String| format!("line {}: \"{line}\": {why}", index + 1);
            if pattern.is_empty() {
                if readmit {
                    return Err(at("nothing follows the exclamation mark".into()));
                }
                continue;
            }
            let parts = split(pattern).into_iter().map(part).collect::<Result<Vec<_>, _>>().map_err(at)?;
            // `/`, `.` and the like name the context itself, which cannot be ignored.
            if !parts.is_empty() {
                rules.push(Rule { readmit, parts });
            }
        }
        Ok(IgnoreFile { rules })
    }

    /// Whether a path (relative, `/` between components) is ignored.
    pub(super) fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        let mut ignored = false;
        for rule in &self.rules {
            // A rule that would not change the answer need not be tried.
            if rule.readmit == ignored && (1..=path.len()).any(|n| matches(&rule.parts, &path[..n])) {
                ignored = !rule.readmit;
            }
        }
        ignored
    }

    /// Whether something below the ignored directory `path` can be readmitted, so that it must be looked at.
    pub(super) fn may_readmit_below(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        self.rules.iter().filter(|rule| rule.readmit).any(|rule| {
            for (index, component) in path.iter().enumerate() {
                match rule.parts.get(index) {
                    Some(Part::AnyDepth) => return true,
                    Some(Part::Glob(tokens)) if glob(tokens, component) => {}
                    _ => return false,
                }
            }
            rule.parts.len() > path.len()
        })
    }
}

/// The components of a pattern, cleaned of empty ones, `.` and `..` as a path is.
fn split(pattern: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

fn part(text: &str) -> Result<Part, String> {
    if text == "**" {
        return Ok(Part::AnyDepth);
    }
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let token = match c {
            '*' => {
                if tokens.last() == Some(&Token::Many) {
                    continue;
                }
                Token::Many
            }
            '?' => Token::One,
            '\\' => Token::Literal(chars.next().ok_or("it ends with a backslash")?),
            '[' => class(&mut chars)?,
            c => Token::Literal(c),
        };
        tokens.push(token);
    }
    Ok(Part::Glob(tokens))
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, String> {
    const OPEN: &str = "a `[` is not closed";
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let mut bound = || match chars.next() {
            Some('\\') => chars.next().ok_or(OPEN),
            Some(c) => Ok(c),
            None => Err(OPEN),
        };
        let low = bound()?;
        if low == ']' && !ranges.is_empty() {
            return Ok(Token::Class { negated, ranges });
        }
        let high = if chars.next_if_eq(&'-').is_some() {
            match chars.next() {
                Some('\\') => chars.next().ok_or(OPEN)?,
                Some(']') | None => return Err(OPEN.into()),
                Some(c) => c,
            }
        } else {
            low
        };
        ranges.push((low, high));
    }
}

fn matches(parts: &[Part], path: &[&str]) -> bool {
    match (parts.split_first(), path.split_first()) {
        (None, None) => true,
        // `a/**` is everything below `a`, not `a` itself.
        (Some((Part::AnyDepth, [])), _) => !path.is_empty(),
        (Some((Part::AnyDepth, rest)), _) => (0..=path.len()).any(|n| matches(rest, &path[n..])),
        (Some((Part::Glob(tokens), rest)), Some((first, below))) => glob(tokens, first) && matches(rest, below),
        _ => false,
    }
}

fn glob(tokens: &[Token], text: &str) -> bool {
    let Some((first, rest)) = tokens.split_first() else { return text.is_empty() };
    if *first == Token::Many {
        return (0..=text.len()).filter(|n| text.is_char_boundary(*n)).any(|n| glob(rest, &text[n..]));
    }
    let mut chars = text.chars();
    let Some(c) = chars.next() else { return false };
    let fits = match first {
        Token::Literal(literal) => c == *literal,
        Token::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        Token::One | Token::Many => true,
    };
    fits && glob(rest, chars.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::IgnoreFile;

    proptest! {
        /// A name ignores itself and what is below it; readmitting it last undoes that; nothing else is touched.
        #[test]
        fn names_mean_themselves(path in "[a-c]{1,2}(/[a-c]{1,2}){0,3}", below in "[a-c]{1,2}", other in "[d-f]{1,3}(/[a-c]){0,2}") {
            prop_assert!(ignored(&path, &path));
            let child = format!("{path}/{below}");
            prop_assert!(ignored(&path, &child));
            prop_assert!(!ignored(&path, &other));
            let undone = format!("{path}\n!{path}");
            prop_assert!(!ignored(&undone, &path) && !ignored(&undone, &child));
        }

        /// A directory that is not entered holds nothing that would be readmitted.
        #[test]
        fn what_is_not_entered_is_ignored(
            rules in prop::collection::vec("!?([ab*]|\\*\\*)(/([ab*]|\\*\\*)){0,3}", 1..5),
            dir in "[ab](/[ab]){0,2}",
            below in "[ab](/[ab]){0,2}",
        ) {
            let rules = IgnoreFile::parse(&rules.join("\n")).expect("valid patterns");
            let child = format!("{dir}/{below}");
            if rules.matches(&dir) && !rules.may_readmit_below(&dir) {
                prop_assert!(rules.matches(&child), "{}", child);
            }
        }
    }

    /// Whether `path` is ignored by `rules`.
    fn ignored(rules: &str, path: &str) -> bool {
        IgnoreFile::parse(rules).expect("valid patterns").matches(path)
    }

    #[test]
    fn patterns_are_anchored_at_the_root() {
        assert!(ignored("*.bin", "a.bin"));
        assert!(!ignored("*.bin", "sub/a.bin"));
        assert!(ignored("**/*.bin", "a.bin"));
        assert!(ignored("**/*.bin", "sub/deep/a.bin"));
        assert!(ignored("/models", "models/x"));
        assert!(ignored("./models/", "models/x/y"));
    }

    #[test]
    fn a_matching_parent_ignores_what_is_below() {
        assert!(ignored("node", "node/a/b"));
        assert!(ignored("a/*/c", "a/b/c/d"));
        assert!(!ignored("a/*/c", "a/b/b/c"));
        assert!(!ignored("nod", "node/a"));
    }

    #[test]
    fn two_stars() {
        assert!(ignored("a/**", "a/b"));
        assert!(!ignored("a/**", "a"));
        assert!(ignored("a/**/z", "a/z"));
        assert!(ignored("a/**/z", "a/b/c/z"));
        assert!(ignored("**", "x"));
        assert!(ignored("a**b", "axxb"));
        assert!(!ignored("a**b", "a/b"));
    }

    #[test]
    fn the_last_match_decides() {
        assert!(!ignored("*\n!Dockerfile", "Dockerfile"));
        assert!(ignored("*\n!Dockerfile", "other"));
        assert!(!ignored("serve\n!serve/src", "serve/src/main.rs"));
        assert!(ignored("serve\n!serve/src\nserve/src/*.tmp", "serve/src/a.tmp"));
        assert!(ignored("!a\na", "a"));
    }

    #[test]
    fn classes_escapes_and_comments() {
        assert!(ignored("[a-c]x", "bx"));
        assert!(!ignored("[^a-c]x", "bx"));
        assert!(ignored("[]]", "]"));
        assert!(ignored("\\*", "*"));
        assert!(!ignored("\\*", "a"));
        assert!(ignored("a?c", "aéc"));
        assert!(!ignored("# a\n\n", "a"));
        assert!(!ignored(" #a", "a"));
        assert!(ignored("b/../a", "a"));
        assert!(!ignored("/", "a"));
    }

    #[test]
    fn bad_patterns_say_where() {
        for bad in ["ok\n[a", "ok\n!", "ok\na\\", "ok\n[a-"] {
            let why = IgnoreFile::parse(bad).expect_err("not a pattern");
            assert!(why.starts_with("line 2"), "{why}");
        }
    }

    #[test]
    fn ignored_directories_are_entered_only_for_a_reason() {
        let rules = IgnoreFile::parse("*\n!image/serve/src\n!**/keep.txt").expect("valid patterns");
        assert!(rules.may_readmit_below("image"));
        assert!(rules.may_readmit_below("models"));
        let rules = IgnoreFile::parse("*\n!image/serve/src").expect("valid patterns");
        assert!(rules.may_readmit_below("image/serve"));
        assert!(!rules.may_readmit_below("models"));
        assert!(!rules.may_readmit_below("image/serve/src"));
    }
}
