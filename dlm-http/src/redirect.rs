//! Where a redirect leads, and whether it may.

use std::fmt::Write as _;

use dlm_core::{Error, Kind, Locator, Result, Retry};
use http::{HeaderMap, StatusCode, header};

use crate::headers::single;

/// The longest `Location` that is followed, in bytes.
const MAX: usize = 16 * 1024;

/// Which redirects are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Most redirects in a row.
    pub limit: u32,
    /// Whether https may lead to http.
    pub allow_downgrade: bool,
}

/// Whether the status sends somewhere else (RFC 9110, 15.4).
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The `Location` of an answer.
///
/// # Errors
/// [`Kind::Protocol`]: there is none, or there are several that differ.
pub fn location<'a>(from: &Locator, headers: &'a HeaderMap) -> Result<&'a [u8]> {
    match single(headers, &header::LOCATION) {
        Some(value) => Ok(value.as_bytes()),
        None if headers.contains_key(header::LOCATION) => {
            Err(refused(Kind::Protocol, from, "it redirects to several places at once"))
        }
        None => Err(refused(Kind::Protocol, from, "it redirects, and does not say where to")),
    }
}

/// Where `location`, in an answer of `from`, leads to. Userinfo in it is dropped.
///
/// # Errors
/// [`Kind::Protocol`]: it is no address. [`Kind::Unsupported`]: another scheme than http and https.
/// [`Kind::Denied`]: from https to http, where `rules` do not allow that.
pub fn next(from: &Locator, location: &[u8], rules: Rules) -> Result<Locator> {
    if location.len() > MAX {
        return Err(refused(Kind::Protocol, from, "it redirects to an address that is too long"));
    }
    // Bytes beyond ASCII come in any encoding; percent-encoded they reach the server as it wrote them.
    let mut text = String::with_capacity(location.len());
    for b in location {
        if b.is_ascii() {
            text.push(char::from(*b));
        } else {
            let _ = write!(text, "%{b:02X}");
        }
    }
    let to = from.join(text.trim_matches([' ', '\t'])).map_err(|e| {
        refused(
            Kind::Protocol,
            from,
            &format!("it redirects to something that is no address: {}", e.detail()),
        )
        .caused_by(e)
    })?;
    let mut url = to.reveal().clone();
    if !matches!(url.scheme(), "http" | "https") {
        let what = format!("it redirects to the scheme {:?}, which is not followed", url.scheme());
        return Err(refused(Kind::Unsupported, from, &what));
    }
    if from.scheme() == "https" && url.scheme() == "http" && !rules.allow_downgrade {
        let e = refused(Kind::Denied, from, "it redirects from https to http");
        return Err(e.advise(
            "there anybody on the way can read and change the file; if that will do, give the http address itself",
        ));
    }
    if url.port() == Some(0) {
        return Err(refused(Kind::Protocol, from, "it redirects to port 0, where nothing can be"));
    }
    // Neither fails for a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    Ok(Locator::from_url(url))
}

pub(crate) fn refused(kind: Kind, from: &Locator, why: &str) -> Error {
    Error::new(kind, "fetch").on(from).because(why).with_retry(Retry::Elsewhere)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRICT: Rules = Rules { limit: 20, allow_downgrade: false };

    fn to(from: &str, location: &[u8]) -> Result<String> {
        next(&from.parse().unwrap(), location, STRICT).map(|l| l.reveal().to_string())
    }

    #[test]
    fn leads_somewhere() {
        for (from, location, want) in [
            ("http://u:p@h/a/b", "c", "http://h/a/c"),
            ("http://h/a/b", "/c?x#frag", "http://h/c?x"),
            ("http://h/a", "//o/c", "http://o/c"),
            ("http://h/a", "https://me:pw@o/c", "https://o/c"),
            ("https://h/a", "https://o:8443/", "https://o:8443/"),
            ("http://h/a", "", "http://h/a"),
            ("http://h/a", " /b ", "http://h/b"),
            ("http://h/a", "/\u{e4} b", "http://h/%C3%A4%20b"),
            ("http://h/a", "http:\\\\o\\c", "http://o/c"),
        ] {
            assert_eq!(to(from, location.as_bytes()).unwrap(), want, "{location}");
        }
        assert_eq!(to("http://h/a", b"/\xe4").unwrap(), "http://h/%E4");
    }

    #[test]
    fn refuses() {
        for (from, location, kind) in [
            ("http://h/", "ftp://o/x", Kind::Unsupported),
            ("http://h/", "file:///etc/passwd", Kind::Unsupported),
            ("http://h/", "javascript:alert(1)", Kind::Unsupported),
            ("http://h/", "data:,x", Kind::Unsupported),
            ("https://h/", "http://h/", Kind::Denied),
            ("http://h/", "http://", Kind::Protocol),
            ("http://h/", "http://o:0/", Kind::Protocol),
            ("http://h:0/", "/a", Kind::Protocol),
            ("http://h/", "http://[::1/", Kind::Protocol),
            ("http://h/", "/a\r\nX: y", Kind::Protocol),
            ("http://h/", "/a\tb", Kind::Protocol),
        ] {
            assert_eq!(to(from, location.as_bytes()).unwrap_err().kind(), kind, "{location}");
        }
        let loose = Rules { allow_downgrade: true, ..STRICT };
        assert!(next(&"https://h/".parse().unwrap(), b"http://h/", loose).is_ok());
        assert_eq!(to("http://h/", &vec![b'a'; MAX + 1]).unwrap_err().kind(), Kind::Protocol);
    }

    #[test]
    fn one_location() {
        let from = "http://h/".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(location(&from, &headers).unwrap_err().kind(), Kind::Protocol);
        headers.append("location", "/a".parse().unwrap());
        headers.append("location", "/a".parse().unwrap());
        assert_eq!(location(&from, &headers).unwrap(), b"/a");
        headers.append("location", "/b".parse().unwrap());
        assert_eq!(location(&from, &headers).unwrap_err().kind(), Kind::Protocol);
    }

    proptest! {
        #[test]
        fn stays_within_the_rules(location: Vec<u8>) {
            if let Ok(l) = next(&"https://u:p@h/a".parse().unwrap(), &location, STRICT) {
                prop_assert_eq!(l.scheme(), "https");
                prop_assert!(l.reveal().username().is_empty() && l.reveal().password().is_none());
            }
        }
    }
}
