//! What the user wants sent along, and to whom.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dlm_core::{Error, Kind, Locator, Result};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

/// Options of one job for HTTP, to be put into [`dlm_core::Options`].
///
/// Headers and credentials are sent to the origin (scheme, host, port) of the locator that the user named, and to no
/// other: a redirect elsewhere loses them for the rest of its way. Values are typed, so none can carry a line end
/// into a request, and none is ever shown.
///
/// ```
/// use dlm_http::HttpOptions;
/// let options = HttpOptions::new().header_line("X-Token: secret").unwrap().user("me", "pw").unwrap();
/// assert!(!format!("{options:?}").contains("secret"));
/// assert!(HttpOptions::new().header_line("X: a\r\nY: b").is_err());
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HttpOptions {
    headers: HeaderMap,
    authorization: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    home: Option<Locator>,
}

/// Fields that this backend decides: with other values an answer would mean something else than it seems to.
const OURS: [&str; 15] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn wrong(op: &'static str, subject: &str, why: &str) -> Error {
    Error::new(Kind::Invalid, op).on(subject).because(why)
}

impl HttpOptions {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends this field too.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: the name or the value has characters that it must not have (RFC 9110, 5.1 and 5.5), or it
    /// is a field that this backend decides itself (`Range` and whatever else says what an answer means).
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        const OP: &str = "send the header";
        let Ok(header) = HeaderName::try_from(name) else {
            return Err(wrong(OP, name, "that is no valid header name"));
        };
        if OURS.contains(&header.as_str()) {
            return Err(wrong(OP, name, "dlm sets it itself"));
        }
        let Ok(mut value) = HeaderValue::try_from(value) else {
            return Err(wrong(OP, name, "its value holds characters that are not allowed there"));
        };
        value.set_sensitive(true);
        self.headers.append(header, value);
        Ok(self)
    }

    /// Sends this field too, given as `Name: value`.
    ///
    /// # Errors
    /// As [`header`](Self::header); also when there is no colon.
    pub fn header_line(self, line: &str) -> Result<Self> {
        match line.split_once(':') {
            Some((name, value)) => self.header(name, value.trim_matches([' ', '\t'])),
            // The line may be all secret: it is not repeated.
            None => Err(wrong("send the header", "", "it is not of the form 'Name: value'")),
        }
    }

    /// Logs in with a name and a password (Basic, RFC 7617).
    ///
    /// # Errors
    /// [`Kind::Invalid`]: a colon in the name, or a control character in either.
    pub fn user(mut self, name: &str, password: &str) -> Result<Self> {
        self.authorization = Some(basic(name, password)?);
        Ok(self)
    }

    /// Logs in with a bearer token (RFC 6750).
    ///
    /// # Errors
    /// [`Kind::Invalid`]: a character that a token must not have.
    pub fn bearer(mut self, token: &str) -> Result<Self> {
        let token = token.trim();
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        if token.is_empty() || !token.bytes().all(fits) {
            return Err(wrong("use the token", "", "it holds characters that are not allowed there"));
        }
        self.authorization = Some(secret(&format!("Bearer {token}"))?);
        Ok(self)
    }

    /// Calls itself this instead of `dlm/VERSION`, everywhere.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: a control character.
    pub fn user_agent(mut self, name: &str) -> Result<Self> {
        let value = HeaderValue::try_from(name).map_err(|_| {
            wrong("use the user agent", name, "it holds characters that are not allowed there")
        })?;
        self.user_agent = Some(value);
        Ok(self)
    }

    /// Binds headers and credentials to the origin of `home`, whichever locator a context says that the user named.
    /// For a job with mirrors that the user named too, and that must not see them.
    pub fn home(mut self, home: &Locator) -> Self {
        self.home = Some(home.clone());
        self
    }

    pub(crate) fn agent(&self) -> Option<&HeaderValue> {
        self.user_agent.as_ref()
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("authorization", &self.authorization.is_some())
            .field("user_agent", &self.user_agent)
            .field("home", &self.home)
            .finish()
    }
}

fn secret(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| wrong("use the credentials", "", "they hold characters that are not allowed there"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn basic(name: &str, password: &str) -> Result<HeaderValue> {
    const OP: &str = "use the credentials";
    if name.contains(':') {
        return Err(wrong(OP, "", "the user name holds a colon"));
    }
    if name.chars().chain(password.chars()).any(char::is_control) {
        return Err(wrong(OP, "", "they hold control characters"));
    }
    secret(&format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
}

/// What is sent to the home of one locator, and only there.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secrets {
    pub(crate) headers: HeaderMap,
    pub(crate) authorization: Option<HeaderValue>,
}

impl Secrets {
    /// What belongs to requests for `locator`: its own userinfo; and the user's options, if it has the origin of the
    /// locator that the user named. `None` when that is nothing.
    pub(crate) fn of(
        locator: &Locator,
        named: Option<&Locator>,
        options: Option<&HttpOptions>,
    ) -> Result<Option<Arc<Self>>> {
        let mut out = Self::default();
        let url = locator.reveal();
        if !url.username().is_empty() || url.password().is_some() {
            let plain = |s: &str| percent_decode_str(s).decode_utf8_lossy().into_owned();
            let credentials = basic(&plain(url.username()), &plain(url.password().unwrap_or_default()));
            out.authorization = Some(credentials.map_err(|e| e.on(locator))?);
        }
        if let Some(options) = options
            && named.is_none_or(|n| n.same_origin(locator))
            && options.home.as_ref().is_none_or(|h| h.same_origin(locator))
        {
            out.headers = options.headers.clone();
            if options.authorization.is_some() {
                out.authorization.clone_from(&options.authorization);
            }
        }
        // A field that was given by hand is the most explicit of all.
        if out.headers.contains_key(AUTHORIZATION) {
            out.authorization = None;
        }
        Ok((out != Self::default()).then(|| Arc::new(out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn l(s: &str) -> Locator {
        s.parse().unwrap()
    }

    #[test]
    fn nothing_injects() {
        for (name, value) in [
            ("X", "a\r\nb"),
            ("X", "a\nb"),
            ("X", "a\0b"),
            ("X\r\nY", "a"),
            ("X Y", "a"),
            ("", "a"),
            ("X:", "a"),
            ("Range", "bytes=0-1"),
            ("transfer-encoding", "chunked"),
            ("Accept-Encoding", "gzip"),
        ] {
            assert_eq!(
                HttpOptions::new().header(name, value).unwrap_err().kind(),
                Kind::Invalid,
                "{name}: {value}"
            );
        }
        assert!(HttpOptions::new().header_line("no colon").is_err());
        assert!(HttpOptions::new().bearer("a b").is_err());
        assert!(HttpOptions::new().bearer("a\r\nX: y").is_err());
        assert!(HttpOptions::new().user("a:b", "c").is_err());
        assert!(HttpOptions::new().user("a", "c\n").is_err());
        assert!(HttpOptions::new().user_agent("a\r\nX: y").is_err());
    }

    #[test]
    fn nothing_shows() {
        let o = HttpOptions::new().header_line("X-Key: hush").unwrap().bearer("hush").unwrap();
        assert!(!format!("{o:?}").contains("hush"));
        assert!(!HttpOptions::new().header("X", "hush\n").unwrap_err().to_string().contains("hush"));
    }

    #[test]
    fn secrets_have_a_home() {
        let options = HttpOptions::new().header_line("X: y").unwrap().user("me", "pw").unwrap();
        let named = l("https://a/x");
        let of = |s: &str| Secrets::of(&l(s), Some(&named), Some(&options)).unwrap();
        assert_eq!(of("https://a/other").unwrap().authorization.as_ref().unwrap(), "Basic bWU6cHc=");
        for other in ["http://a/x", "https://a:444/x", "https://b/x"] {
            assert!(of(other).is_none(), "{other}");
        }
        // Bound to one place, they stay there whatever the context says.
        let bound = options.clone().home(&named);
        assert!(Secrets::of(&l("https://b/x"), Some(&l("https://b/x")), Some(&bound)).unwrap().is_none());
        assert!(Secrets::of(&named, None, Some(&bound)).unwrap().is_some());
        // Userinfo is at home at its own host, decoded.
        assert_eq!(of("https://u%40:p%3A@b/x").unwrap().authorization.as_ref().unwrap(), "Basic dUA6cDo=");
        assert!(of("https://u%40:p%3A@b/x").unwrap().headers.is_empty());
        // Explicit credentials win over userinfo, a header given by hand over both.
        assert_eq!(of("https://u:p@a/x").unwrap().authorization.as_ref().unwrap(), "Basic bWU6cHc=");
        let by_hand = options.clone().header_line("Authorization: Custom z").unwrap();
        let got = Secrets::of(&l("https://u:p@a/x"), None, Some(&by_hand)).unwrap().unwrap();
        assert!(got.authorization.is_none());
        assert_eq!(got.headers[AUTHORIZATION], "Custom z");
        assert!(Secrets::of(&l("https://a%0a:p@h/"), None, None).is_err());
    }
}
