//! The file name in `Content-Disposition` (RFC 6266, RFC 8187).

use percent_encoding::percent_decode;

/// Longer fields than this, in bytes, are not looked at.
const MAX: usize = 8 * 1024;
/// Parameters after these many are not looked at.
const MAX_PARAMETERS: usize = 32;

/// The name that the server suggests, decoded and nothing else: it still has to become a
/// [`RelPath`](dlm_core::RelPath). `filename*` is preferred to `filename`; among equals the first counts.
///
/// Lenient where servers are: values without quotes may hold spaces, and bytes that are not ASCII are read as UTF-8,
/// or as ISO-8859-1 where they are not UTF-8.
///
/// ```
/// use dlm_http::fuzzing::file_name;
/// assert_eq!(file_name(b"attachment; filename=\"a b.txt\"").as_deref(), Some("a b.txt"));
/// assert_eq!(file_name(b"attachment; filename=x; filename*=UTF-8''%e2%82%ac.txt").as_deref(), Some("\u{20ac}.txt"));
/// ```
pub fn file_name(value: &[u8]) -> Option<String> {
    if value.len() > MAX {
        return None;
    }
    let mut plain = None;
    let mut extended = None;
    let mut rest = value;
    // The disposition type comes first; a field that begins with a parameter has none, and is read all the same.
    if let Some(end) = rest.iter().position(|b| matches!(b, b';' | b'=')) {
        if rest[end] == b';' {
            rest = &rest[end + 1..];
        }
    } else {
        return None;
    }
    for _ in 0..MAX_PARAMETERS {
        let Some((name, value, after)) = parameter(rest) else { break };
        if name.eq_ignore_ascii_case(b"filename*") {
            extended = extended.or_else(|| decode_extended(&value));
        } else if name.eq_ignore_ascii_case(b"filename") {
            plain = plain.or_else(|| Some(decode(&value)));
        }
        rest = after;
    }
    extended.or(plain).filter(|n| !n.is_empty())
}

/// The next parameter: its name, its value without quotes and escapes, and what follows.
fn parameter(mut rest: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    loop {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|b| matches!(b, b'=' | b';'))?;
        let name = rest[..end].trim_ascii();
        if rest[end] == b';' {
            // A word without a value says nothing.
            rest = &rest[end + 1..];
            continue;
        }
        let value = rest[end + 1..].trim_ascii_start();
        let (value, after) = if value.first() == Some(&b'"') { quoted(&value[1..]) } else { unquoted(value) };
        return Some((name, value, after));
    }
}

fn unquoted(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
    (text[..end].trim_ascii_end().to_vec(), text.get(end + 1..).unwrap_or_default())
}

/// Up to the closing quote (or the end, where it is missing), then past the next semicolon.
fn quoted(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(b) = text.get(at) {
        match b {
            b'"' => break,
            // Some servers write paths of their own system; only what needs an escape counts as escaped.
            b'\\' if matches!(text.get(at + 1), Some(b'"' | b'\\')) => {
                out.push(text[at + 1]);
                at += 1;
            }
            b => out.push(*b),
        }
        at += 1;
    }
    let rest = text.get(at + 1..).unwrap_or_default();
    let after = rest.iter().position(|b| *b == b';').map_or(&[][..], |i| &rest[i + 1..]);
    (out, after)
}

fn decode(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| latin1(bytes), str::to_owned)
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// `charset'language'percent-encoded` (RFC 8187, section 3.2); `None` when it is not that.
fn decode_extended(value: &[u8]) -> Option<String> {
    let mut parts = value.splitn(3, |b| *b == b'\'');
    let (charset, _language, text) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes: Vec<u8> = percent_decode(text).collect();
    if charset.eq_ignore_ascii_case(b"utf-8") {
        String::from_utf8(bytes).ok()
    } else if charset.eq_ignore_ascii_case(b"iso-8859-1") {
        Some(latin1(&bytes))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        for (text, name) in [
            ("attachment; filename=a.txt", Some("a.txt")),
            ("attachment;FileName = \"a.txt\" ; x=y", Some("a.txt")),
            ("inline; filename=\"a \\\"b\\\" \\\\ c.txt\"", Some("a \"b\" \\ c.txt")),
            ("attachment; filename=\"C:\\temp\\x.txt\"", Some("C:\\temp\\x.txt")),
            ("attachment; filename=a b.txt", Some("a b.txt")),
            ("attachment; filename=\"unclosed.txt", Some("unclosed.txt")),
            ("attachment; filename=\"a;b=c.txt\"; size=3", Some("a;b=c.txt")),
            ("attachment; filename=plain; filename*=UTF-8''%c3%a4.txt", Some("\u{e4}.txt")),
            ("attachment; filename*=utf-8'en'%c3%a4.txt; filename=plain", Some("\u{e4}.txt")),
            ("attachment; filename*=ISO-8859-1''%e4.txt", Some("\u{e4}.txt")),
            ("attachment; filename*=\"UTF-8''q.txt\"", Some("q.txt")),
            ("attachment; filename=plain; filename*=UTF-8''%ff", Some("plain")),
            ("attachment; filename=plain; filename*=KOI8-R''x", Some("plain")),
            ("attachment; filename=plain; filename*=nothing", Some("plain")),
            ("attachment; filename=first; filename=second", Some("first")),
            ("filename=bare.txt", Some("bare.txt")),
            ("attachment; foo; filename=x", Some("x")),
            ("attachment; filename=\u{e4}.txt", Some("\u{e4}.txt")),
            ("attachment; filename=../../etc/passwd", Some("../../etc/passwd")),
            ("attachment; filename*=UTF-8''..%2f..%2fx", Some("../../x")),
            ("attachment; filename=\"\"", None),
            ("attachment", None),
            ("", None),
            (";;;", None),
            ("attachment; filename", None),
            ("attachment; myfilename=x", None),
        ] {
            assert_eq!(file_name(text.as_bytes()).as_deref(), name, "{text}");
        }
        assert_eq!(file_name(b"attachment; filename=\"\xe4.txt\"").as_deref(), Some("\u{e4}.txt"));
        let long = format!("attachment; filename={}", "x".repeat(MAX));
        assert_eq!(file_name(long.as_bytes()), None);
        let many = format!("attachment; {} filename=x", "a=b;".repeat(MAX_PARAMETERS));
        assert_eq!(file_name(many.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) { let _ = file_name(&bytes); }

        #[test]
        fn never_panics_on_likely_text(text in "(attachment)?(; ?filename\\*?=(\"?[a-z\\\\\"%';=]{0,9}\"?|UTF-8''[%a-f0-9]{0,9})){0,4}") {
            let _ = file_name(text.as_bytes());
        }
    }
}
