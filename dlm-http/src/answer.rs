//! What a successful answer says that its bytes are.

use std::time::{SystemTime, UNIX_EPOCH};

use dlm_core::{Identity, Kind, Result, Span, Validator};
use http::{HeaderMap, StatusCode, header};

use crate::client::{Reply, nonsense};
use crate::headers::{accepts_ranges, content_coding, content_range, entity_tag, last_modified, single};
use crate::status::words;

/// What the bytes of an answer are, by its own account; offsets are those of the resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// Which bytes it holds.
    pub span: Span,
    /// Length and version of the whole.
    pub identity: Identity,
    /// It is a `206`.
    pub partial: bool,
    /// It is one, or says that the server could give one.
    pub offers_ranges: bool,
    /// When the whole was last changed.
    pub mtime: Option<SystemTime>,
    /// How long the body has to be, in bytes.
    pub owed: Option<u64>,
}

type Refusal = (Kind, &'static str);

/// Reads the head of an answer with a success status.
///
/// # Errors
/// [`Kind::Protocol`] and [`Kind::RangeIgnored`], both for another source to cure.
pub(crate) fn meaning(reply: &Reply, ranged: bool) -> Result<Meaning> {
    let parts = &reply.parts;
    let said = match parts.status {
        StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => {
            Ok(whole(&parts.headers, reply.body.announced()))
        }
        StatusCode::PARTIAL_CONTENT if ranged => partial(&parts.headers, reply.body.announced()),
        StatusCode::PARTIAL_CONTENT => Err((Kind::Protocol, "the answer is a part, and all was asked for")),
        other => return Err(nonsense(&reply.hop.url, Kind::Protocol, &words(other))),
    };
    said.and_then(possible)
        .and_then(|m| transfer_coding(&parts.headers).map(|()| m))
        .map_err(|(kind, why)| nonsense(&reply.hop.url, kind, why))
}

/// No file can be longer than offsets in it can be (2⁶³ - 1 everywhere): a greater length is a lie, or a counter that ran
/// over.
fn possible(m: Meaning) -> Result<Meaning, Refusal> {
    let most = i64::MAX.unsigned_abs();
    if m.identity.len.is_some_and(|n| n > most) || m.span.end.is_some_and(|n| n > most) {
        return Err((Kind::Protocol, "the answer speaks of more bytes than any file can hold"));
    }
    Ok(m)
}

/// hyper reads `chunked`, and takes any other transfer coding for part of the content, which it is not.
///
/// # Errors
/// Any other coding, or several.
pub fn transfer_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err((Kind::Protocol, "the answer has a transfer coding that was not asked for")),
    }
}

/// What a `200` says of its bytes; `announced` is how long hyper frames the body, in bytes.
pub fn whole(headers: &HeaderMap, announced: Option<u64>) -> Meaning {
    let mtime = last_modified(headers);
    let coding = content_coding(headers);
    Meaning {
        span: Span { start: 0, end: announced },
        identity: Identity::new(announced, validator(headers, mtime, &coding)),
        partial: false,
        offers_ranges: accepts_ranges(headers) && coding.is_empty(),
        mtime,
        owed: announced,
    }
}

/// What a `206` says of its bytes (RFC 9110, 15.3.7); `announced` is how long hyper frames the body, in bytes.
///
/// # Errors
/// It does not say, or contradicts itself, or is no plain part.
pub fn partial(headers: &HeaderMap, announced: Option<u64>) -> Result<Meaning, Refusal> {
    if let Some(kind) = headers.get(header::CONTENT_TYPE)
        && kind
            .as_bytes()
            .trim_ascii_start()
            .get(..20)
            .is_some_and(|k| k.eq_ignore_ascii_case(b"multipart/byteranges"))
    {
        return Err((Kind::RangeIgnored, "the answer is in several parts, and one was asked for"));
    }
    if !content_coding(headers).is_empty() {
        return Err((
            Kind::RangeIgnored,
            "the answer is a part of something compressed, which was not asked for",
        ));
    }
    let mut ranges = headers.get_all(header::CONTENT_RANGE).iter();
    let range = match (ranges.next(), ranges.next()) {
        (Some(one), None) => content_range(one.as_bytes())
            .ok_or((Kind::Protocol, "the answer's Content-Range makes no sense"))?,
        (None, _) => return Err((Kind::Protocol, "the answer is a part, and does not say which")),
        (Some(_), Some(_)) => return Err((Kind::Protocol, "the answer has several Content-Range fields")),
    };
    let len = range.end - range.start;
    if announced.is_some_and(|a| a != len) {
        return Err((Kind::Protocol, "the answer's Content-Range and Content-Length contradict each other"));
    }
    let mtime = last_modified(headers);
    Ok(Meaning {
        span: Span::new(range.start, range.end),
        identity: Identity::new(range.total, validator(headers, mtime, "")),
        partial: true,
        offers_ranges: true,
        mtime,
        owed: Some(len),
    })
}

/// The version, as strong as the answer makes it (RFC 9110, 8.8). The coding of the content is part of it: a server
/// that compresses what it sends may well give both forms the same tag, and they are not the same bytes. A mark that
/// follows the tag, outside its quotes, can be no tag's own.
fn validator(headers: &HeaderMap, mtime: Option<SystemTime>, coding: &str) -> Validator {
    let mark = |tag: String| if coding.is_empty() { tag } else { format!("{tag};{coding}") };
    let mtime = mtime.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_secs());
    match single(headers, &header::ETAG).and_then(|v| entity_tag(v.as_bytes())) {
        Some(tag) if !tag.weak => Validator::Strong(mark(tag.opaque).into()),
        Some(tag) => Validator::Weak { mtime, tag: Some(mark(tag.opaque).into()) },
        None if !coding.is_empty() => Validator::Weak { mtime, tag: Some(mark(String::new()).into()) },
        None if mtime.is_some() => Validator::Weak { mtime, tag: None },
        None => Validator::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(text: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in text.lines() {
            let (name, value) = line.trim().split_once(": ").unwrap();
            map.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn validators() {
        let date = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
        let weak = |mtime, tag: Option<&str>| Validator::Weak { mtime, tag: tag.map(Into::into) };
        let at = Some(784_111_777);
        for (text, want) in [
            ("", Validator::Unknown),
            ("ETag: \"a\"", Validator::Strong("\"a\"".into())),
            (&format!("ETag: \"a\"\n{date}"), Validator::Strong("\"a\"".into())),
            (&format!("ETag: W/\"a\"\n{date}"), weak(at, Some("\"a\""))),
            ("ETag: W/\"a\"", weak(None, Some("\"a\""))),
            (&format!("ETag: a\n{date}"), weak(at, None)),
            ("ETag: \"a\"\nETag: \"b\"", Validator::Unknown),
            ("ETag: \"a\"\nETag: \"a\"", Validator::Strong("\"a\"".into())),
            ("Last-Modified: yesterday", Validator::Unknown),
            ("ETag: \"a\"\nContent-Encoding: gzip", Validator::Strong("\"a\";gzip".into())),
            ("ETag: \"a\"\nContent-Encoding: identity", Validator::Strong("\"a\"".into())),
            (&format!("{date}\nContent-Encoding: GZip, br"), weak(at, Some(";gzip,br"))),
            ("Content-Encoding: gzip", weak(None, Some(";gzip"))),
        ] {
            assert_eq!(whole(&headers(text), Some(5)).identity, Identity::new(Some(5), want), "{text}");
        }
    }

    #[test]
    fn parts() {
        let good = partial(&headers("Content-Range: bytes 2-4/10\nETag: \"x\""), Some(3)).unwrap();
        assert_eq!(
            (good.span, good.owed, good.identity.len, good.partial),
            (Span::new(2, 5), Some(3), Some(10), true)
        );
        assert_eq!(partial(&headers("Content-Range: bytes 2-4/*"), None).unwrap().identity.len, None);
        for (text, announced, kind) in [
            ("X: y", Some(3), Kind::Protocol),
            ("Content-Range: bytes 2-4/10", Some(4), Kind::Protocol),
            ("Content-Range: bytes 4-2/10", Some(3), Kind::Protocol),
            ("Content-Range: bytes 2-4/10\nContent-Range: bytes 2-4/10", Some(3), Kind::Protocol),
            ("Content-Range: bytes 2-4/10\nContent-Encoding: gzip", Some(3), Kind::RangeIgnored),
            ("Content-Type: multipart/byteranges; boundary=x", Some(3), Kind::RangeIgnored),
        ] {
            assert_eq!(partial(&headers(text), announced).unwrap_err().0, kind, "{text}");
        }
    }

    #[test]
    fn lengths_that_cannot_be() {
        let max = i64::MAX.unsigned_abs();
        for (total, ok) in [(max, true), (max + 1, false), (u64::MAX, false)] {
            let head = format!("Content-Range: bytes 0-4/{total}");
            assert_eq!(partial(&headers(&head), None).and_then(possible).is_ok(), ok, "{total}");
            assert_eq!(possible(whole(&headers(""), Some(total))).is_ok(), ok, "{total}");
        }
        let beyond = format!("Content-Range: bytes 0-{max}/*");
        assert_eq!(partial(&headers(&beyond), None).and_then(possible).unwrap_err().0, Kind::Protocol);
    }

    #[test]
    fn transfer_codings() {
        for (text, ok) in [
            ("X: y", true),
            ("Transfer-Encoding: Chunked", true),
            ("Transfer-Encoding: gzip", false),
            ("Transfer-Encoding: gzip, chunked", false),
            ("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", false),
            ("Transfer-Encoding: identity", false),
        ] {
            assert_eq!(transfer_coding(&headers(text)).is_ok(), ok, "{text}");
        }
    }
}
