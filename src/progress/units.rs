//! Bytes and times as people read them.

use std::time::Duration;

/// `812 B`, `1.5 GiB`: binary units, three digits or so.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // Rounding must not print 1024 MiB, so the step up is taken half a digit early.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
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
        assert_eq!(shown(1023), "1023 B");
        assert_eq!(shown(1024), "1.0 KiB");
        assert_eq!(shown((1 << 20) - 1), "1.0 MiB");
        assert_eq!(shown(6_979_321_856), "6.5 GiB");
        assert_eq!(shown(100 << 20), "100 MiB");
        assert_eq!(shown(u64::MAX), "16384 PiB");
    }

    #[test]
    fn times_grow_their_unit() {
        let at = |s| (time(Duration::from_secs(s)), stamp(Duration::from_secs(s)));
        assert_eq!(at(5), ("5s".into(), "00:05".into()));
        assert_eq!(at(65), ("1m05s".into(), "01:05".into()));
        assert_eq!(at(3723), ("1h02m".into(), "1:02:03".into()));
    }
}
