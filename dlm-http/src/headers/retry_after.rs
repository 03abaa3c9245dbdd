//! `Retry-After` (RFC 9110, 10.2.3).

use std::time::{Duration, SystemTime};

use super::digits;

/// The longest pause that is reported; a server that asks for more gets this.
const MAX: Duration = Duration::from_hours(24);

/// How long the server asks to wait, as seen at `now`: a number of seconds or an HTTP-date. A date that has passed is
/// no pause; more than a day is a day.
pub fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let value = value.trim_ascii();
    if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
        // A number too large to hold is a long time too.
        return Some(digits(value).map_or(MAX, |s| Duration::from_secs(s).min(MAX)));
    }
    let date = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    Some(date.duration_since(now).unwrap_or_default().min(MAX))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seconds_and_dates() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, secs) in [
            ("0", Some(0)),
            (" 12 ", Some(12)),
            ("99999999999999999999999", Some(86400)),
            ("86401", Some(86400)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86400)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("+1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(text.as_bytes(), now), secs.map(Duration::from_secs), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) { let _ = retry_after(&bytes, UNIX_EPOCH); }
    }
}
