//! What the server was asked.

use std::sync::Arc;

use bytes::Bytes;

/// The `Range` of a request, if it asked for exactly one range of bytes (RFC 9110, section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `bytes=A-`.
    From(u64),
    /// `bytes=A-B`, both ends included.
    Between(u64, u64),
    /// `bytes=-N`: the last N bytes.
    Last(u64),
}

impl Asked {
    fn parse(value: &str) -> Option<Self> {
        let (first, last) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
        match (first.trim(), last.trim()) {
            ("", n) => Some(Self::Last(n.parse().ok()?)),
            (a, "") => Some(Self::From(a.parse().ok()?)),
            (a, b) => Some(Self::Between(a.parse().ok()?, b.parse().ok()?)),
        }
    }

    /// First and last byte of it in a file of `len` bytes; `None` when it holds no byte of the file.
    pub fn within(self, len: u64) -> Option<(u64, u64)> {
        let end = len.checked_sub(1)?;
        let (a, b) = match self {
            Self::From(a) => (a, end),
            Self::Between(a, b) => (a, b.min(end)),
            Self::Last(0) => return None,
            Self::Last(n) => (len.saturating_sub(n), end),
        };
        (a <= b).then_some((a, b))
    }
}

/// One request, and where in the run of the server it came.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// `GET`, `HEAD` and so on.
    pub method: String,
    /// The request target as it was sent: path and query.
    pub target: String,
    /// Names and values in the order in which they came. Bytes that are no UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// What came with it, by its `Content-Length`, at most 1 MiB.
    pub body: Bytes,
    /// The one range it asks for; `None` for no range, several, or one that makes no sense.
    pub range: Option<Asked>,
    /// Which of the server's origins it came to, from 0.
    pub origin: usize,
    /// Which connection it came on, counted from 0 over the whole server.
    pub connection: u64,
    /// How many requests came before it, on the whole server.
    pub nth: u64,
    /// How many `GET`s came before it, on the whole server.
    pub nth_get: u64,
    /// How many bytes of bodies the server had handed out when it came.
    pub served: u64,
    /// How many other requests were being answered when it came.
    pub busy: u64,
    pub(super) bases: Arc<[String]>,
}

impl Request {
    /// The first header of this name; case does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
    /// Whether a body is expected.
    pub fn is_get(&self) -> bool {
        self.method == "GET"
    }
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
    /// The first byte it asks for; 0 without a range and for a range from the end.
    pub fn start(&self) -> u64 {
        match self.range {
            Some(Asked::From(a) | Asked::Between(a, _)) => a,
            _ => 0,
        }
    }
    /// The URL of `path` (which begins with a slash) on the server's origin of this number. For an origin that does not
    /// exist, one on port 1 of loopback, where nobody listens.
    pub fn url(&self, origin: usize, path: &str) -> String {
        format!("{}{path}", self.bases.get(origin).map_or("http://127.0.0.1:1", String::as_str))
    }

    /// Reads a request head without its empty last line. `None` when it has no form.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        words.next()?.strip_prefix("HTTP/1.")?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|l| l.split_once(':'))
            .map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()))
            .collect();
        let mut request = Self {
            method,
            target,
            headers,
            body: Bytes::new(),
            range: None,
            origin: 0,
            connection: 0,
            nth: 0,
            nth_get: 0,
            served: 0,
            busy: 0,
            bases: Arc::new([]),
        };
        request.range = request.header("range").and_then(Asked::parse);
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, len, want) in [
            ("bytes=0-", 10, Some((0, 9))),
            ("bytes=3-5", 10, Some((3, 5))),
            ("bytes=3-500", 10, Some((3, 9))),
            ("bytes=-4", 10, Some((6, 9))),
            ("bytes=-40", 10, Some((0, 9))),
            ("bytes=10-", 10, None),
            ("bytes=-0", 10, None),
            ("bytes=0-", 0, None),
            ("bytes=5-3", 10, None),
        ] {
            assert_eq!(Asked::parse(text).and_then(|a| a.within(len)), want, "{text}");
        }
        for none in ["bytes=0-1,3-4", "bytes=", "bytes=-", "lines=0-1", "bytes=a-b", ""] {
            assert_eq!(Asked::parse(none), None, "{none}");
        }
    }

    #[test]
    fn heads() {
        let r = Request::parse(b"GET /a?b HTTP/1.1\r\nHost: h\r\nRANGE: bytes=7-\r\nX: a:b").unwrap();
        assert_eq!((r.path(), r.start(), r.header("x"), r.is_get()), ("/a", 7, Some("a:b"), true));
        for bad in [&b""[..], b"GET", b"GET /", b"GET / SMTP", b"\x16\x03\x01"] {
            assert!(Request::parse(bad).is_none());
        }
    }
}
