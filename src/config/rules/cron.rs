//! Schedule expressions of Application Auto Scaling: `cron(...)` with six fields, and `rate(...)`.

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// A few words.
    pub label: String,
    /// What is allowed.
    pub help: String,
}

fn wrong<T>(label: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { label: label.into(), help: help.into() })
}

const SHAPES: &str = "Allowed: cron(minute hour day-of-month month day-of-week year), as in cron(0 20 ? * MON-FRI *), or rate(n unit), as in rate(12 hours).";

/// One field of a cron expression.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Names of the values, beginning with that of `min`.
    words: &'static [&'static str],
}

const FIELDS: [Field; 6] = [
    Field { name: "minute", min: 0, max: 59, words: &[] },
    Field { name: "hour", min: 0, max: 23, words: &[] },
    Field { name: "day-of-month", min: 1, max: 31, words: &[] },
    Field {
        name: "month",
        min: 1,
        max: 12,
        words: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    },
    Field { name: "day-of-week", min: 1, max: 7, words: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] },
    Field { name: "year", min: 1970, max: 2199, words: &[] },
];
const DAY_OF_MONTH: usize = 2;
const DAY_OF_WEEK: usize = 4;

/// Checks an expression.
///
/// # Errors
/// What is wrong, and what is allowed.
pub fn check(expression: &str) -> Result<(), Wrong> {
    let inside = |name: &str| expression.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(fields) = inside("cron") {
        cron(fields)
    } else if let Some(rate) = inside("rate") {
        self::rate(rate)
    } else if inside("at").is_some() {
        wrong(
            "happens once",
            "A change at one moment does not belong in the file: AWS forgets it afterwards and the stack drifts. Only cron(...) and rate(...) recur.",
        )
    } else if expression.split_whitespace().count() == 5 && !expression.contains('(') {
        wrong("five fields are crontab's", format!("{SHAPES} One of day-of-month and day-of-week is `?`."))
    } else if expression.split_whitespace().count() == 6 && !expression.contains('(') {
        wrong("`cron(...)` is missing around it", format!("Write cron({expression}). {SHAPES}"))
    } else {
        wrong("not a schedule", SHAPES)
    }
}

fn rate(text: &str) -> Result<(), Wrong> {
    let help = "Allowed: rate(1 minute), rate(5 minutes), and the same with hour, hours, day, days.";
    let [count, unit] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        return wrong("two words belong in here", help);
    };
    match (count.parse::<u32>(), unit) {
        (Ok(1), "minute" | "hour" | "day") => Ok(()),
        (Ok(1), "minutes" | "hours" | "days") => wrong(format!("write rate(1 {})", unit.trim_end_matches('s')), help),
        (Ok(2..), "minutes" | "hours" | "days") => Ok(()),
        (Ok(2..), "minute" | "hour" | "day") => wrong(format!("write rate({count} {unit}s)"), help),
        (Ok(1..), _) => wrong(format!("unknown unit `{unit}`"), help),
        _ => wrong("the number must be at least 1", help),
    }
}

fn cron(text: &str) -> Result<(), Wrong> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 6 {
        return wrong(format!("{} fields instead of six", fields.len()), SHAPES);
    }
    for (n, (field, text)) in FIELDS.iter().zip(&fields).enumerate() {
        if *text == "?" {
            if n != DAY_OF_MONTH && n != DAY_OF_WEEK {
                return wrong(
                    format!("`?` as the {}", field.name),
                    "`?` is allowed for day-of-month or day-of-week only.",
                );
            }
            continue;
        }
        for part in text.split(',') {
            self::part(part, n, field)?;
        }
    }
    match (fields[DAY_OF_MONTH], fields[DAY_OF_WEEK]) {
        ("?", "?") => wrong("both days are `?`", "Allowed: `?` for one of day-of-month and day-of-week, not for both."),
        ("?", _) | (_, "?") => Ok(()),
        (_, "*") => wrong("day-of-week must be `?`", suggestion(&fields, DAY_OF_WEEK)),
        _ => wrong("day-of-month must be `?`", suggestion(&fields, DAY_OF_MONTH)),
    }
}

fn suggestion(fields: &[&str], at: usize) -> String {
    let mut fields = fields.to_vec();
    fields[at] = "?";
    format!("One of day-of-month and day-of-week is `?`: cron({}).", fields.join(" "))
}

/// One item of a comma-separated field: `*`, `5`, `1-5`, `*/15`, `10/5`, `L`, `LW`, `15W`, `6L`, `3#2`.
fn part(part: &str, n: usize, field: &Field) -> Result<(), Wrong> {
    let unknown = || {
        let names = match (field.words.first(), field.words.last()) {
            (Some(first), Some(last)) => format!(", or {first} to {last}"),
            _ => String::new(),
        };
        wrong(
            format!("`{part}` as the {}", field.name),
            format!(
                "Allowed as the {}: {} to {}{names}, with , - * / between and in them.",
                field.name, field.min, field.max
            ),
        )
    };
    let special = match n {
        DAY_OF_MONTH => {
            matches!(part, "L" | "LW") || part.strip_suffix('W').is_some_and(|day| value(day, field).is_some())
        }
        DAY_OF_WEEK => {
            part == "L"
                || part.strip_suffix('L').is_some_and(|day| value(day, field).is_some())
                || part
                    .split_once('#')
                    .is_some_and(|(day, nth)| value(day, field).is_some() && matches!(nth, "1" | "2" | "3" | "4" | "5"))
        }
        _ => false,
    };
    if special {
        return Ok(());
    }
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (part, None),
    };
    if let Some(step) = step
        && !step.parse::<u32>().is_ok_and(|step| step >= 1 && step <= field.max)
    {
        return unknown();
    }
    if range == "*" {
        return Ok(());
    }
    match range.split_once('-') {
        None if value(range, field).is_some() => Ok(()),
        None => unknown(),
        Some((from, to)) => match (value(from, field), value(to, field)) {
            (Some(low), Some(high)) if low > high => wrong(
                format!("`{part}` runs backwards"),
                format!("Write it as two: {from}-{},{}-{to}.", field.max, field.min),
            ),
            (Some(_), Some(_)) => Ok(()),
            _ => unknown(),
        },
    }
}

/// A number in the field's range, or the name of one.
fn value(text: &str, field: &Field) -> Option<u32> {
    if let Some(at) = field.words.iter().position(|word| word.eq_ignore_ascii_case(text)) {
        return Some(field.min + at as u32);
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|n| (field.min..=field.max).contains(n))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_what_aws_accepts() {
        for good in [
            "cron(0 20 ? * MON-FRI *)",
            "cron(0/15 8-18 * * ? 2027)",
            "cron(0 0 L * ? *)",
            "cron(0 0 LW * ? *)",
            "cron(0 0 15W * ? *)",
            "cron(0 9 ? * 2#1 *)",
            "cron(0 9 ? * FRIL *)",
            "cron(0 9 ? * 6L *)",
            "cron(5,10,15 * 1,15 jan-mar ? *)",
            "cron(*/5 * * * ? *)",
            "rate(1 hour)",
            "rate(12 hours)",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn refuses_the_rest_with_a_reason() {
        for (bad, label) in [
            ("0 20 * * 1", "five fields are crontab's"),
            ("0 20 ? * MON *", "`cron(...)` is missing around it"),
            ("cron(0 20 * * 1)", "5 fields instead of six"),
            ("cron(60 20 ? * MON *)", "`60` as the minute"),
            ("cron(0 24 ? * MON *)", "`24` as the hour"),
            ("cron(0 20 32 * ? *)", "`32` as the day-of-month"),
            ("cron(0 20 ? 13 MON *)", "`13` as the month"),
            ("cron(0 20 ? * 0 *)", "`0` as the day-of-week"),
            ("cron(0 20 ? * MO *)", "`MO` as the day-of-week"),
            ("cron(0 20 ? * MON 1969)", "`1969` as the year"),
            ("cron(0 20 * * * *)", "day-of-week must be `?`"),
            ("cron(0 20 * * MON *)", "day-of-month must be `?`"),
            ("cron(0 20 ? * ? *)", "both days are `?`"),
            ("cron(? 20 ? * MON *)", "`?` as the minute"),
            ("cron(0 22-2 ? * MON *)", "`22-2` runs backwards"),
            ("cron(0 20 ? * 3#6 *)", "`3#6` as the day-of-week"),
            ("cron(*/0 20 ? * MON *)", "`*/0` as the minute"),
            ("cron(5- 20 ? * MON *)", "`5-` as the minute"),
            ("rate(1 hours)", "write rate(1 hour)"),
            ("rate(5 hour)", "write rate(5 hours)"),
            ("rate(0 hours)", "the number must be at least 1"),
            ("rate(5 weeks)", "unknown unit `weeks`"),
            ("rate(5)", "two words belong in here"),
            ("at(2027-01-01T00:00:00)", "happens once"),
            ("every day", "not a schedule"),
        ] {
            assert_eq!(check(bad).map_err(|w| w.label), Err(label.to_owned()), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(cron|rate|at)?\\(?[0-9A-Z*?/,# -]{0,40}\\)?") {
            let _ = check(&text);
        }

        #[test]
        fn numbers_in_range_are_accepted(minute in 0u32..60, hour in 0u32..24, day in 1u32..32, month in 1u32..13) {
            prop_assert_eq!(check(&format!("cron({minute} {hour} {day} {month} ? *)")), Ok(()));
        }
    }
}
