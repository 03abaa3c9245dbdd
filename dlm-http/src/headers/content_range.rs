//! `Content-Range` (RFC 9110, 14.4).

use super::digits;

/// What a `206` says it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte.
    pub start: u64,
    /// One past the last byte; always greater than `start`.
    pub end: u64,
    /// The length of the whole, at least `end`; `None` for `*`.
    pub total: Option<u64>,
}

/// Reads `bytes FIRST-LAST/TOTAL`. The grammar is taken at its word: digits only, `FIRST <= LAST < TOTAL`.
///
/// ```
/// use dlm_http::fuzzing::{ContentRange, content_range};
/// assert_eq!(content_range(b"bytes 0-4/10"), Some(ContentRange { start: 0, end: 5, total: Some(10) }));
/// assert_eq!(content_range(b"bytes 5-4/10"), None);
/// ```
pub fn content_range(value: &[u8]) -> Option<ContentRange> {
    let (range, total) = split(value)?;
    let dash = range.iter().position(|b| *b == b'-')?;
    let (start, last) = (digits(&range[..dash])?, digits(&range[dash + 1..])?);
    let end = last.checked_add(1)?;
    let total = if total == b"*" { None } else { Some(digits(total)?) };
    (start < end && total.is_none_or(|t| end <= t)).then_some(ContentRange { start, end, total })
}

/// Reads `bytes */TOTAL`, with which a `416` says how long the whole is.
pub fn unsatisfied_range(value: &[u8]) -> Option<u64> {
    let (range, total) = split(value)?;
    if range == b"*" { digits(total) } else { None }
}

/// What stands before and after the slash.
fn split(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (unit, rest) = value.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes ") {
        return None;
    }
    let slash = rest.iter().position(|b| *b == b'/')?;
    Some((&rest[..slash], &rest[slash + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn takes_what_is_right() {
        let max = u64::MAX;
        for (text, start, end, total) in [
            ("bytes 0-0/1", 0, 1, Some(1)),
            ("Bytes 5-9/*", 5, 10, None),
            ("bytes 007-9/10", 7, 10, Some(10)),
            (&format!("bytes 0-{}/{max}", max - 1), 0, max, Some(max)),
        ] {
            assert_eq!(content_range(text.as_bytes()), Some(ContentRange { start, end, total }), "{text}");
        }
        assert_eq!(unsatisfied_range(b"bytes */0"), Some(0));
        assert_eq!(unsatisfied_range(b"bytes */123"), Some(123));
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "bytes",
            "bytes ",
            "bytes 0-4",
            "bytes 0-4/",
            "bytes 0-4/4",
            "bytes 5-4/10",
            "bytes -4/10",
            "bytes 0-/10",
            "bytes +0-4/10",
            "bytes 0-+4/10",
            "bytes 0-4/+10",
            "bytes 0-4/-1",
            "bytes=0-4/10",
            "bytes  0-4/10",
            "bytes 0 -4/10",
            "bytes 0-4 /10",
            "bytes 0-4/ 10",
            "bytes 0-4/10 ",
            "bytes 0-4/10, bytes 5-9/10",
            "octets 0-4/10",
            "bytes 0x0-4/10",
            "bytes 0-18446744073709551615/*",
            "bytes 0-18446744073709551616/*",
            "bytes 0-4/18446744073709551616",
            "bytes */10",
            "bytes 0-4/*/*",
            "bytes 0-4-5/10",
            "bytes \u{661}-4/10",
        ] {
            assert_eq!(content_range(text.as_bytes()), None, "{text}");
        }
        for text in ["bytes */", "bytes */*", "bytes */-1", "bytes 0-4/10", "*/10"] {
            assert_eq!(unsatisfied_range(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = content_range(&bytes);
            let _ = unsatisfied_range(&bytes);
        }

        #[test]
        fn never_panics_on_likely_text(text in "bytes [0-9*+ -]{0,25}/[0-9* ]{0,22}") {
            if let Some(r) = content_range(text.as_bytes()) {
                prop_assert!(r.start < r.end && r.total.is_none_or(|t| r.end <= t));
            }
        }
    }
}
