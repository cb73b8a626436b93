//! Bytes and times as people read them.

use std::time::Duration;

/// `812 B`, `1.5 GB`: decimal, as disks and S3's price list count, three digits or so.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    // Rounding must not print 1000 MB, so the step up is taken half a digit early.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if value < 99.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// `45s`, `3m05s`, `1h02m`: for elapsed and remaining times.
pub fn time(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}

/// `00:45`, `1:02:03`: the time in front of a line.
pub fn stamp(duration: Duration) -> String {
    let s = duration.as_secs();
    if s < 3600 {
        format!("{:02}:{:02}", s / 60, s % 60)
    } else {
        format!("{}:{:02}:{:02}", s / 3600, s % 3600 / 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_never_show_four_digits_before_a_larger_unit() {
        let shown = |n| bytes(n);
        assert_eq!(shown(0), "0 B");
        assert_eq!(shown(999), "999 B");
        assert_eq!(shown(1000), "1.0 kB");
        assert_eq!(shown(999_999), "1.0 MB");
        assert_eq!(shown(6_979_321_856), "7.0 GB");
        assert_eq!(shown(301_234_567), "301 MB");
        assert_eq!(shown(u64::MAX), "18.4 EB");
    }

    #[test]
    fn times_grow_their_unit() {
        let at = |s| (time(Duration::from_secs(s)), stamp(Duration::from_secs(s)));
        assert_eq!(at(5), ("5s".into(), "00:05".into()));
        assert_eq!(at(65), ("1m05s".into(), "01:05".into()));
        assert_eq!(at(3723), ("1h02m".into(), "1:02:03".into()));
    }
}
