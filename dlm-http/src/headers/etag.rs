//! `ETag` (RFC 9110, 8.8.3).

/// Longer tags than this, in bytes, count as none.
const MAX: usize = 1024;

/// An entity tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityTag {
    /// Whether it only promises equivalence, not equal bytes.
    pub weak: bool,
    /// The tag with its quotes and without the `W/`.
    pub opaque: String,
}

/// Reads an entity tag; `None` when it does not follow the grammar, and so says nothing.
///
/// ```
/// use dlm_http::fuzzing::entity_tag;
/// assert_eq!(entity_tag(b"\"abc\"").unwrap().opaque, "\"abc\"");
/// assert!(entity_tag(b"W/\"abc\"").unwrap().weak);
/// assert!(entity_tag(b"abc").is_none());
/// ```
pub fn entity_tag(value: &[u8]) -> Option<EntityTag> {
    let (weak, rest) = value.strip_prefix(b"W/").map_or((false, value), |r| (true, r));
    let inner = rest.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let allowed = |b: &u8| *b == 0x21 || (0x23..=0x7e).contains(b) || *b >= 0x80;
    if rest.len() > MAX || !inner.iter().all(allowed) {
        return None;
    }
    Some(EntityTag { weak, opaque: std::str::from_utf8(rest).ok()?.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_grammar() {
        for (text, weak) in [("\"\"", false), ("W/\"x\"", true), ("\"\u{e4}\"", false), ("\"a\\\"", false)] {
            assert_eq!(entity_tag(text.as_bytes()).unwrap().weak, weak, "{text}");
        }
        let long = format!("\"{}\"", "x".repeat(MAX));
        for bad in [
            "", "\"", "abc", "w/\"x\"", "W/x", "W/", "\"a\"b\"", "\"a", "a\"", "\"a\" ", "\"a b\"",
            "\"a\tb\"", &long,
        ] {
            assert_eq!(entity_tag(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(entity_tag(b"\"\xff\""), None);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) { let _ = entity_tag(&bytes); }
    }
}
