//! Request headers: `Name: value`.

use std::fmt;

use dlm_core::{Error, Kind, Result, escape};

/// A header to send. Its value may be a secret and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// A token (RFC 9110, 5.6.2).
    pub(crate) name: String,
    /// Without CR, LF or NUL (RFC 9110, 5.5), spaces around it removed.
    pub(crate) value: String,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ***", self.name)
    }
}

/// Reads `Name: value`.
///
/// # Errors
/// [`Kind::Invalid`]: the name is no token, or the value holds control characters. Neither is repeated where it may
/// be a secret.
pub(crate) fn header(text: &str) -> Result<Header> {
    let wrong = |on: &str, why: &str| {
        let e =
            Error::new(Kind::Invalid, "send the header").because(why).advise("write --header 'Name: value'");
        if on.is_empty() { e } else { e.on(escape(on)) }
    };
    let Some((name, value)) = text.split_once(':') else {
        return Err(wrong("", "there is no ':' behind its name"));
    };
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(wrong("", "its name is not made of letters, digits and -_.!#$%&'*+^`|~"));
    }
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(wrong(name, "its value holds a line end or another control character"));
    }
    Ok(Header { name: name.to_owned(), value: value.trim_matches([' ', '\t']).to_owned() })
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_headers() {
        for (text, name, value) in [
            ("A: b", "A", "b"),
            ("X-Y:z", "X-Y", "z"),
            ("Cookie:  a=b; c=d: e ", "Cookie", "a=b; c=d: e"),
            ("A:", "A", ""),
        ] {
            let h = header(text).unwrap();
            assert_eq!((h.name.as_str(), h.value.as_str()), (name, value));
        }
    }

    #[test]
    fn refuses_what_would_smuggle() {
        for text in ["", "A", ": b", "A b: c", "A\r: b", "A: b\r\nC: d", "A: b\nC: d", "A: \0", "Ä: b"] {
            let e = header(text).unwrap_err();
            assert_eq!(e.kind(), Kind::Invalid, "{text}");
        }
    }

    #[test]
    fn keeps_secrets() {
        assert_eq!(format!("{:?}", header("Authorization: Bearer hunter2").unwrap()), "Authorization: ***");
        for text in ["Authorization Bearer hunter2", "Authorization: hunter2\r\n", "Auth orization: hunter2"]
        {
            let e = header(text).unwrap_err();
            assert!(!format!("{e} {e:?} {}", e.advice()).contains("hunter2"), "{text}");
        }
    }
}
