//! Locators: the only gate for addresses. A locator never prints its secrets.

use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::error::{Error, Kind, Result};

/// The longest locator accepted, in bytes.
const MAX: usize = 64 * 1024;

/// The address of something to download.
///
/// It is parsed once, by the rules of the URL standard, and then trusted. [`Display`](fmt::Display) and
/// [`Debug`](fmt::Debug) show it without its password and with the values of its query masked, because signed
/// queries are secrets too; [`Locator::reveal`] gives the whole.
///
/// ```
/// let l: dlm_core::Locator = "http://me:pw@host/f?sig=abc".parse().unwrap();
/// assert_eq!(l.to_string(), "http://***@host/f?sig=***");
/// assert_eq!(l.reveal().as_str(), "http://me:pw@host/f?sig=abc");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Locator(Url);

impl Locator {
    /// Takes a URL that was already parsed.
    pub fn from_url(url: Url) -> Self {
        Self(url)
    }

    /// The whole address, secrets included: for the request itself, and for nothing that is kept or shown.
    pub fn reveal(&self) -> &Url {
        &self.0
    }

    /// What may be shown of a text that was meant to be an address, and may be none: as [`Display`](fmt::Display) when
    /// it is one; else without a query, a fragment, or anything before an `@`.
    ///
    /// ```
    /// assert_eq!(dlm_core::Locator::mask("me:pw@host/f?sig=abc"), "me:***@host/f?sig=***");
    /// assert_eq!(dlm_core::Locator::mask("//me:pw@host/f?sig=abc"), "***@host/f");
    /// ```
    pub fn mask(text: &str) -> String {
        if let Ok(url) = Url::parse(text) {
            return Self(url).to_string();
        }
        let (login, rest) = text.rsplit_once('@').map_or(("", text), |(_, rest)| ("***@", rest));
        format!("{login}{}", rest.split(['?', '#']).next().unwrap_or_default())
    }

    /// The scheme in lower case, without the colon.
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// The host, when the scheme has one.
    pub fn host(&self) -> Option<&str> {
        self.0.host_str()
    }

    /// Resolves a reference found in a document or an answer of this locator (RFC 3986, section 5). Credentials of
    /// this locator do not travel into the result.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the result is no URL, and for every reference of a `file:` locator with what looks like a
    /// drive of Windows in its path.
    pub fn join(&self, reference: &str) -> Result<Self> {
        let wrong =
            |why: &dyn fmt::Display| Error::new(Kind::Invalid, "follow the reference").on(self).because(why);
        if reference.len() > MAX {
            return Err(wrong(&"it is too long"));
        }
        if reference.chars().any(char::is_control) {
            return Err(wrong(&"it holds control characters"));
        }
        if has_drive(&self.0) {
            return Err(wrong(&"nothing can be relative to a drive of Windows"));
        }
        let mut base = self.0.clone();
        // A `cannot-be-a-base` URL has no userinfo to remove.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        let next = base.join(reference).map_err(|e| wrong(&e))?;
        if !is_steady(&next) {
            return Err(wrong(&UNSTEADY));
        }
        Ok(Self(next))
    }

    /// Whether both have the same scheme, host and port: what secrets are bound to.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.0.scheme() == other.0.scheme()
            && self.0.host() == other.0.host()
            && self.0.port_or_known_default() == other.0.port_or_known_default()
            && self.0.has_host()
    }

    /// The last component of the path, percent-decoded; it still has to become a [`RelPath`](crate::RelPath).
    pub fn file_name(&self) -> Option<String> {
        let last = self.0.path_segments()?.next_back()?;
        if last.is_empty() {
            return None;
        }
        Some(percent_encoding::percent_decode_str(last).decode_utf8_lossy().into_owned())
    }
}

impl FromStr for Locator {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let wrong = |why: &dyn fmt::Display| {
            Error::new(Kind::Invalid, "understand the locator")
                .because(why)
                .advise("write a full address, such as https://host/path")
        };
        if s.len() > MAX {
            return Err(wrong(&format_args!("it is longer than {MAX} bytes")));
        }
        // The URL standard silently removes tabs and line ends; a locator that has them was not meant.
        if s.chars().any(char::is_control) {
            return Err(wrong(&"it holds control characters"));
        }
        let url = Url::parse(s).map_err(|e| match e {
            url::ParseError::RelativeUrlWithoutBase => {
                wrong(&format_args!("{:?} has no scheme", Self::mask(s)))
            }
            e => wrong(&e),
        })?;
        if !is_steady(&url) {
            return Err(wrong(&UNSTEADY));
        }
        Ok(Self(url))
    }
}

const UNSTEADY: &str = "it means something else when it is read a second time";

/// Whether what `url` 2.5 writes is read as the same again. A host before what looks like a drive of Windows is lost.
fn is_steady(url: &Url) -> bool {
    url.scheme() != "file" || Url::parse(url.as_str()).is_ok_and(|again| again == *url)
}

/// A `file:` URL with a drive's name in its path. `url` 2.5 takes such a name for a drive wherever it stands, and `..`
/// then trips over an assertion of its own, or leads to the wrong place
/// (<https://github.com/servo/rust-url/issues/1114>).
fn has_drive(url: &Url) -> bool {
    let is_drive = |s: &str| matches!(s.as_bytes(), [a, b':' | b'|'] if a.is_ascii_alphabetic());
    url.scheme() == "file" && url.path_segments().is_some_and(|mut all| all.any(is_drive))
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let u = &self.0;
        write!(f, "{}:", u.scheme())?;
        if let Some(h) = u.host_str() {
            f.write_str("//")?;
            if !u.username().is_empty() || u.password().is_some() {
                f.write_str("***@")?;
            }
            f.write_str(h)?;
            if let Some(p) = u.port() {
                write!(f, ":{p}")?;
            }
        } else if u.scheme() == "file" {
            f.write_str("//")?;
        }
        match u.path().rsplit_once('@') {
            // Without `//` nothing says where a login ends, or whether all of it is one.
            _ if u.cannot_be_a_base() && u.path().is_empty() => {}
            Some((_, rest)) if u.cannot_be_a_base() => write!(f, "***@{rest}")?,
            None if u.cannot_be_a_base() => f.write_str("***")?,
            Some((_, rest)) if !u.has_host() && u.scheme() != "file" => write!(f, "/***@{rest}")?,
            _ => f.write_str(u.path())?,
        }
        if let Some(q) = u.query() {
            let mut mark = '?';
            for pair in q.split('&') {
                f.write_str(mark.encode_utf8(&mut [0; 4]))?;
                mark = '&';
                match pair.split_once('=') {
                    // A bare token in base64 ends in `=` too.
                    Some((k, v)) if !v.trim_matches('=').is_empty() => write!(f, "{k}=***")?,
                    _ => f.write_str("***")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locator({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::is_unprintable;

    fn l(s: &str) -> Locator {
        s.parse().unwrap()
    }

    #[test]
    fn prints_no_secret() {
        for (s, shown) in [
            ("https://u:p@h:8443/a%20b?x=1&tok#frag", "https://***@h:8443/a%20b?x=***&***"),
            ("ftp://token@h/f", "ftp://***@h/f"),
            ("http://h/", "http://h/"),
            ("http://h/?c2VjcmV0==&=x&k=", "http://h/?***&=***&***"),
            ("s3://b/k?versionId=abc", "s3://b/k?versionId=***"),
            ("magnet:?xt=urn:btih:abc", "magnet:?xt=***"),
            ("file:///a?b", "file:///a?***"),
            ("file:///a@b", "file:///a@b"),
            ("http://h/@scope/a@1", "http://h/@scope/a@1"),
            ("al:S3CRET@h/f?x=y", "al:***@h/f?x=***"),
            ("al:S3C@RET@h:80/f", "al:***@h:80/f"),
            ("foo:/al:S3CRET@h/f", "foo:/***@h/f"),
            ("al:S3CRET", "al:***"),
        ] {
            assert_eq!(l(s).to_string(), shown);
            assert_eq!(format!("{:?}", l(s)), format!("Locator({shown})"));
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for bad in [
            "",
            "file.bin",
            "http://",
            "http://h\r\nX: y/",
            "http://h:99999/",
            "http://[::1/",
            "http://h/\u{7f}",
        ] {
            assert!(bad.parse::<Locator>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_prints_no_secret_either() {
        for bad in [
            "//u:SECRET@host/f",
            "host/f?sig=SECRET",
            "http://u:SECRET@/f",
            "http://h:99999/?SECRET",
            "/f#SECRET",
            "1al:SECRET@host/f",
            "//u:SECRET?SECRET@host/f",
            "u:SECRET#SECRET@host/f\u{1}",
        ] {
            let e = bad.parse::<Locator>().unwrap_err();
            assert!(!format!("{e} {e:?}").contains("SECRET"), "{e}");
            assert!(!Locator::mask(bad).contains("SECRET"), "{}", Locator::mask(bad));
        }
        assert!("host/f".parse::<Locator>().unwrap_err().to_string().contains("\"host/f\""));
    }

    #[test]
    fn joins_without_credentials() {
        assert_eq!(l("http://u:p@h/a/b").join("c").unwrap().reveal().as_str(), "http://h/a/c");
        assert_eq!(l("http://u:p@h/a/b").join("//o/c").unwrap().reveal().as_str(), "http://o/c");
        assert!(l("http://h/").join("/a\r\nb").is_err());
    }

    #[test]
    fn origins() {
        assert!(l("http://h/a").same_origin(&l("http://h:80/b")));
        for other in ["https://h/a", "http://h:81/a", "http://i/a"] {
            assert!(!l("http://h/a").same_origin(&l(other)), "{other}");
        }
    }

    #[test]
    fn what_is_read_otherwise_a_second_time_is_refused() {
        let e = "file://-re//x:/.20X./y".parse::<Locator>().unwrap_err();
        assert!(e.kind() == Kind::Invalid && e.to_string().contains("a second time"), "{e}");
        let base = l("file://host/a/b");
        assert_eq!(base.join("//-re//x:/y").unwrap_err().kind(), Kind::Invalid);
        assert_eq!(base.join("c").unwrap(), l("file://host/a/c"));
    }

    #[test]
    fn nothing_is_relative_to_a_drive() {
        for base in ["file:///x/e:", "file:///t:", "file:///C:/a", "file:///a/b|/c", "file:///w:/a:"] {
            for reference in ["..", "../x", "file:..", "8", "/y", "file:///z"] {
                assert_eq!(l(base).join(reference).unwrap_err().kind(), Kind::Invalid, "{base} {reference}");
            }
        }
        for (base, reference, want) in [
            ("file:///a/b", "../c", "file:///c"),
            ("file:///a:b/c", "d", "file:///a:b/d"),
            ("http://h/C:/a", "b", "http://h/C:/b"),
        ] {
            assert_eq!(l(base).join(reference).unwrap(), l(want), "{base} {reference}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_nothing_odd(s in any::<String>(), tail in ".{0,40}") {
            for s in [s.clone(), format!("http://{s}"), format!("http://h/{tail}?{s}#{tail}"), format!("x:{s}"), format!("x://{s}/{tail}")] {
                if let Ok(l) = s.parse::<Locator>() {
                    prop_assert!(!l.to_string().chars().any(is_unprintable), "{:?}", l.to_string());
                    prop_assert!(!l.scheme().is_empty());
                    prop_assert!(l.reveal().as_str().parse::<Locator>().is_ok());
                    let _ = (l.file_name(), l.host());
                }
            }
        }

        #[test]
        fn secrets_stay_in(user in "[a-z]{3}SECRET", pw in "[!-~&&[^/?#@\\\\:]]{0,5}SECRET", value in "[!-~&&[^&#]]{0,9}SECRET", bare in "SECRET={0,2}", frag in "[a-z]{0,3}SECRET") {
            for s in [
                format!("https://{user}:{pw}@host:81/path?key={value}&{bare}&b=1#{frag}"),
                format!("ftp://{user}@host/path#{frag}"),
                format!("s3://:{pw}@host/path?a={value}"),
            ] {
                let l: Locator = s.parse().unwrap();
                prop_assert!(!format!("{l} {l:?}").contains("SECRET"), "{l}");
                prop_assert!(l.reveal().as_str().contains("SECRET"));
                let e = l.join("/\u{1}").unwrap_err();
                let shown = format!("{e} {e:?}");
                prop_assert!(!shown.contains("SECRET"), "{}", shown);
                prop_assert!(!l.join("other").unwrap().reveal().as_str().contains(&user));
            }
        }

        #[test]
        fn a_reference_from_outside_is_a_locator_or_an_error(reference in any::<String>()) {
            if let Ok(l) = l("https://u:p@h/a/b").join(&reference) {
                prop_assert!(!l.to_string().chars().any(is_unprintable));
                if l.same_origin(&self::l("https://h/")) && !reference.contains('@') {
                    prop_assert_eq!(l.reveal().username(), "");
                }
            }
        }
    }
}
