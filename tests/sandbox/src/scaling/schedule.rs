//! Schedule expressions: `at(...)`, `rate(...)` and six-field `cron(...)`, read and matched against minutes.

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// A read expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Once, in the time zone of the action.
    At(DateTime),
    /// Every so many minutes.
    Rate(i64),
    /// When the fields match.
    Cron(Box<Cron>),
}

/// The six fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Cron {
    minutes: Vec<i64>,
    hours: Vec<i64>,
    months: Vec<i64>,
    years: Vec<i64>,
    day: Day,
}

#[derive(Debug, Clone, PartialEq)]
enum Day {
    Any,
    /// Days of the month.
    OfMonth(Vec<i64>),
    /// `L`.
    LastOfMonth,
    /// `15W`: the weekday nearest to a day.
    NearestWeekday(i64),
    /// Days of the week, 1 is Sunday.
    OfWeek(Vec<i64>),
    /// `5L`: the last such day of the week in the month.
    LastOfWeek(i64),
    /// `3#2`: the second such day of the week in the month.
    Nth(i64, i64),
}

/// Reads an expression; None if it is not one.
pub fn parse(text: &str) -> Option<Schedule> {
    let inner = |name: &str| text.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(at) = inner("at") {
        // Exactly yyyy-mm-ddThh:mm:ss.
        let shaped = at.len() == 19 && at.as_bytes().get(10) == Some(&b'T');
        return at.parse().ok().filter(|_| shaped).map(Schedule::At);
    }
    if let Some(rate) = inner("rate") {
        let (count, unit) = rate.split_once(' ')?;
        let count: i64 = count.parse().ok().filter(|n| *n > 0)?;
        // `rate(1 minute)`, `rate(5 minutes)`: the number agrees with the unit.
        let minutes = match (unit.strip_suffix('s'), count) {
            (Some(unit), 2..) => unit,
            (None, 1) => unit,
            _ => return None,
        };
        let each = match minutes {
            "minute" => 1,
            "hour" => 60,
            "day" => 1440,
            _ => return None,
        };
        return count.checked_mul(each).map(Schedule::Rate);
    }
    cron(inner("cron")?).map(|c| Schedule::Cron(Box::new(c)))
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

fn cron(text: &str) -> Option<Cron> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, week, year] = fields[..] else { return None };
    let (day, week) = (day.to_ascii_uppercase(), week.to_ascii_uppercase());
    // One of the two day fields has to be the question mark.
    let day = match (day.as_str(), week.as_str()) {
        ("?", "?") => return None,
        ("?", "*") | ("*", "?") => Day::Any,
        ("L", "?") => Day::LastOfMonth,
        (d, "?") => match d.strip_suffix('W') {
            Some(near) => Day::NearestWeekday(number(near, 1, 31, &[])?),
            None => Day::OfMonth(values(d, 1, 31, &[])?),
        },
        ("?", w) => {
            if let Some((which, nth)) = w.split_once('#') {
                Day::Nth(number(which, 1, 7, &DAYS)?, number(nth, 1, 5, &[])?)
            } else if let Some(which) = w.strip_suffix('L') {
                Day::LastOfWeek(number(which, 1, 7, &DAYS)?)
            } else {
                Day::OfWeek(values(w, 1, 7, &DAYS)?)
            }
        }
        _ => return None,
    };
    Some(Cron {
        minutes: values(minute, 0, 59, &[])?,
        hours: values(hour, 0, 23, &[])?,
        months: values(&month.to_ascii_uppercase(), 1, 12, &MONTHS)?,
        years: values(year, 1970, 2199, &[])?,
        day,
    })
}

/// One number or name; names count from 1.
fn number(text: &str, least: i64, most: i64, names: &[&str]) -> Option<i64> {
    let named = names.iter().position(|n| *n == text).and_then(|i| i64::try_from(i + 1).ok());
    named.or_else(|| text.parse().ok()).filter(|n| (least..=most).contains(n))
}

/// `*`, `5`, `1-5`, `MON-FRI`, `0/15`, `*/15` and lists of them.
fn values(text: &str, least: i64, most: i64, names: &[&str]) -> Option<Vec<i64>> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<i64>().ok().filter(|s| *s > 0)?)),
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (number(from, least, most, names)?, number(to, least, most, names)?),
            None if range == "*" => (least, most),
            None => {
                let from = number(range, least, most, names)?;
                (from, if step.is_some() { most } else { from })
            }
        };
        if from > to {
            return None;
        }
        let step = step.unwrap_or(1);
        all.extend((0..).map(|i| from + i * step).take_while(|n| *n <= to));
    }
    Some(all)
}

impl Cron {
    fn fits(&self, at: DateTime) -> bool {
        self.minutes.contains(&at.minute().into())
            && self.hours.contains(&at.hour().into())
            && self.months.contains(&at.month().into())
            && self.years.contains(&at.year().into())
            && self.day.fits(at.date())
    }
}

impl Day {
    fn fits(&self, date: Date) -> bool {
        let (day, last) = (i64::from(date.day()), i64::from(date.days_in_month()));
        // AWS counts from Sunday = 1.
        let week = i64::from(date.weekday().to_sunday_zero_offset()) + 1;
        match self {
            Day::Any => true,
            Day::OfMonth(days) => days.contains(&day),
            Day::LastOfMonth => day == last,
            Day::NearestWeekday(near) => nearest_weekday(date, *near) == Some(day),
            Day::OfWeek(days) => days.contains(&week),
            Day::LastOfWeek(which) => week == *which && day + 7 > last,
            Day::Nth(which, nth) => week == *which && (day - 1) / 7 + 1 == *nth,
        }
    }
}

/// The weekday nearest to a day, within the same month.
fn nearest_weekday(date: Date, near: i64) -> Option<i64> {
    let last = i64::from(date.days_in_month());
    let there = date.with().day(i8::try_from(near.min(last)).ok()?).build().ok()?;
    let day = i64::from(there.day());
    Some(match there.weekday() {
        Weekday::Saturday if day == 1 => 3,
        Weekday::Saturday => day - 1,
        Weekday::Sunday if day == last => day - 2,
        Weekday::Sunday => day + 1,
        _ => day,
    })
}

/// A time zone by its IANA name.
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

impl Schedule {
    /// Whether it fires in the minute that starts at `minute` (milliseconds since 1970). A rate counts from `since`.
    pub fn fires(&self, minute: i64, zone: &TimeZone, since: i64) -> bool {
        let Ok(at) = Timestamp::from_millisecond(minute) else { return false };
        let local = zone.to_datetime(at);
        match self {
            Schedule::At(when) => local <= *when && local.checked_add(1.minute()).is_ok_and(|end| *when < end),
            Schedule::Rate(every) => {
                let passed = (minute - since).div_euclid(60_000);
                passed > 0 && passed % every == 0
            }
            Schedule::Cron(cron) => cron.fits(local),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fires(text: &str, zone_name: &str, at: &str) -> bool {
        let at: Timestamp = at.parse().unwrap();
        parse(text).unwrap().fires(at.as_millisecond(), &zone(zone_name).unwrap(), 0)
    }

    #[test]
    fn expressions_are_read_or_refused() {
        for good in [
            "at(2026-01-02T03:04:05)",
            "rate(1 minute)",
            "rate(5 hours)",
            "cron(0 8 ? * MON-FRI *)",
            "cron(0/15 8-18 1,15 JAN-MAR ? 2026-2030)",
            "cron(0 0 L * ? *)",
            "cron(0 0 15W * ? *)",
            "cron(0 0 ? * 6L *)",
            "cron(0 0 ? * 3#2 *)",
            "cron(0 0 * * ? *)",
        ] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in [
            "at(2026-01-02)",
            "at(2026-13-02T03:04:05)",
            "rate(1 minutes)",
            "rate(5 minute)",
            "rate(0 minutes)",
            "rate(5 weeks)",
            "cron(0 8 * * MON-FRI *)",
            "cron(0 8 * * *)",
            "cron(60 8 ? * MON *)",
            "cron(0 24 ? * MON *)",
            "cron(0 8 ? * 0 *)",
            "cron(0 8 ? * FRI-MON *)",
            "0 8 ? * MON *",
            "",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn cron_fires_in_its_zone() {
        // 8:00 in Berlin is 7:00 UTC in winter and 6:00 in summer.
        let text = "cron(0 8 ? * MON-FRI *)";
        assert!(fires(text, "Europe/Berlin", "2026-01-05T07:00:00Z"));
        assert!(!fires(text, "Europe/Berlin", "2026-01-05T08:00:00Z"));
        assert!(fires(text, "Europe/Berlin", "2026-07-06T06:00:00Z"));
        assert!(!fires(text, "Europe/Berlin", "2026-01-04T07:00:00Z"), "a Sunday");
    }

    #[test]
    fn special_days() {
        assert!(fires("cron(0 0 L * ? *)", "UTC", "2026-02-28T00:00:00Z"));
        assert!(!fires("cron(0 0 L * ? *)", "UTC", "2026-02-27T00:00:00Z"));
        // 15 August 2026 is a Saturday.
        assert!(fires("cron(0 0 15W * ? *)", "UTC", "2026-08-14T00:00:00Z"));
        // The second Tuesday and the last Friday of January 2026.
        assert!(fires("cron(0 0 ? * 3#2 *)", "UTC", "2026-01-13T00:00:00Z"));
        assert!(fires("cron(0 0 ? * 6L *)", "UTC", "2026-01-30T00:00:00Z"));
        assert!(!fires("cron(0 0 ? * 6L *)", "UTC", "2026-01-23T00:00:00Z"));
    }

    #[test]
    fn at_fires_once_and_rate_every_so_often() {
        assert!(fires("at(2026-01-02T03:04:05)", "UTC", "2026-01-02T03:04:00Z"));
        assert!(!fires("at(2026-01-02T03:04:05)", "UTC", "2026-01-02T03:05:00Z"));
        let rate = parse("rate(5 minutes)").unwrap();
        let hits: Vec<i64> = (0..12).filter(|m| rate.fires(m * 60_000, &TimeZone::UTC, 0)).collect();
        assert_eq!(hits, [5, 10]);
    }
}
