//! Durations as people write them: `90m`, `1h30m`, `45s`, or a plain number of seconds.

use std::time::Duration;

/// The longest that is accepted: CloudFormation's own limits are far below a week.
const MAX: Duration = Duration::from_secs(7 * 86_400);

/// Reads a duration; the error says what is allowed.
///
/// # Errors
/// A sentence with what is allowed.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time. Allowed: as in 90m, 1h30m, 45s, at most 7d.");
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(wrong());
    }
    let mut seconds: u64 = 0;
    let mut number = String::new();
    let mut last = u64::MAX;
    for c in trimmed.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            'd' => 86_400,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let count: u64 = number.parse().map_err(|_| wrong())?;
        // `30m1h` is more likely a slip than a wish.
        if unit >= last {
            return Err(wrong());
        }
        seconds = count.checked_mul(unit).and_then(|s| s.checked_add(seconds)).ok_or_else(wrong)?;
        last = unit;
        number.clear();
    }
    if !number.is_empty() {
        if last != u64::MAX {
            return Err(wrong());
        }
        seconds = number.parse().map_err(|_| wrong())?;
    }
    let duration = Duration::from_secs(seconds);
    if duration > MAX { Err(wrong()) } else { Ok(duration) }
}

/// Writes a duration as `parse` reads it: `1h30m`, `45s`.
pub fn write(duration: Duration) -> String {
    let total = duration.as_secs();
    let (h, m, s) = (total / 3600, total % 3600 / 60, total % 60);
    let mut text = String::new();
    for (count, unit) in [(h, 'h'), (m, 'm'), (s, 's')] {
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, seconds) in
            [("90m", 5400), ("1h30m", 5400), ("45s", 45), ("10", 10), ("2d", 172_800), (" 5M ", 300), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_what_is_allowed() {
        for text in ["", "m", "1x", "1.5h", "-1m", "30m1h", "1h30", "8d", "99999999999999999999s", "1m 30s"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("90m"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0u64..604_800) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&write(duration)), Ok(duration));
        }
    }
}
