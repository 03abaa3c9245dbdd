//! Numbers as people read them.

use std::time::Duration;

/// Bytes in binary units: `999 B`, `1.5 KiB`, `123.4 MiB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 and more would print as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Time that went by: `0.04 s`, `3.2 s`, `1 min 5 s`, `2 h 3 min`.
pub(crate) fn time(d: Duration) -> String {
    let s = d.as_secs_f64();
    if s < 0.095 {
        return format!("{s:.2} s");
    }
    if s < 59.95 {
        return format!("{s:.1} s");
    }
    let s = s.round() as u64;
    if s < 3600 {
        format!("{} min {} s", s / 60, s % 60)
    } else {
        format!("{} h {} min", s / 3600, s % 3600 / 60)
    }
}

/// Time left as a clock: `0:12`, `1:02:03`; `-` for more than four days.
pub(crate) fn clock(s: u64) -> String {
    match s {
        0..3600 => format!("{}:{:02}", s / 60, s % 60),
        3600..360_000 => format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60),
        _ => "-".to_owned(),
    }
}

/// Bytes a second over a time; `None` where the time is too short to say.
pub(crate) fn speed(n: u64, over: Duration) -> Option<u64> {
    (over >= Duration::from_millis(1)).then(|| (n as f64 / over.as_secs_f64()) as u64)
}

/// The first letter in upper case.
pub(crate) fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (n, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (129_394_278, "123.4 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(n), shown);
        }
    }

    #[test]
    fn times() {
        for (ms, shown) in [
            (0, "0.00 s"),
            (40, "0.04 s"),
            (99, "0.1 s"),
            (3_249, "3.2 s"),
            (59_999, "1 min 0 s"),
            (65_000, "1 min 5 s"),
            (7_380_000, "2 h 3 min"),
        ] {
            assert_eq!(time(Duration::from_millis(ms)), shown);
        }
        assert_eq!((clock(12), clock(3723), clock(u64::MAX)), ("0:12".into(), "1:02:03".into(), "-".into()));
    }
}
