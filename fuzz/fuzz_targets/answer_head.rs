//! Heads of answers: whatever fields a server sends, what is read from them does not contradict itself.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use dlm_core::{Kind, Locator, Retry, Validator};
use dlm_http::fuzzing::{
    Meaning, Rules, accepts_ranges, content_coding, last_modified, location, next, partial, refusal,
    transfer_coding, whole,
};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, header};
use libfuzzer_sys::fuzz_target;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The fields as hyper hands them on, and the status; what it would not take is left out.
fn read(head: &[u8]) -> (StatusCode, HeaderMap) {
    let mut lines = head.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix(b"HTTP/1.1 ").and_then(|s| StatusCode::from_bytes(s.get(..3)?).ok());
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (status.unwrap_or(StatusCode::OK), headers)
}

/// How long hyper frames the body.
fn announced(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let text = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn check(m: &Meaning, headers: &HeaderMap) {
    let coding = content_coding(headers);
    assert!(coding.chars().all(|c| !c.is_ascii_uppercase()) && coding.trim() == coding);
    match &m.identity.validator {
        Validator::Strong(tag) => {
            assert!(!tag.contains(['\n', '\r', '\0']), "{tag:?}");
            // What follows the server's own tag is the mark of the coding, and nothing else.
            let (_, mark) = tag.strip_prefix('"').and_then(|t| t.split_once('"')).expect("quotes");
            assert_eq!(mark.strip_prefix(';').unwrap_or_default(), coding, "{tag:?}");
        }
        Validator::Weak { mtime, tag } => {
            assert!(mtime.is_some() || tag.is_some());
            assert!(coding.is_empty() || tag.as_ref().is_some_and(|t| t.contains(&coding)));
            assert!(tag.as_ref().is_none_or(|t| !t.contains(['\n', '\r', '\0'])));
            assert_eq!(mtime.is_some(), last_modified(headers).is_some());
        }
        Validator::Unknown => assert!(coding.is_empty(), "coded bytes are another version"),
        other => panic!("no answer can say {other:?}"),
    }
    assert!(m.mtime.is_none_or(|t| t >= UNIX_EPOCH));
    assert!(m.identity.agrees(&m.identity));
}

fuzz_target!(|head: &[u8]| {
    let (status, headers) = read(head);
    let announced = announced(&headers);

    let all = whole(&headers, announced);
    check(&all, &headers);
    assert_eq!((all.span.start, all.span.end), (0, announced));
    assert_eq!((all.identity.len, all.owed, all.partial), (announced, announced, false));
    assert!(!all.offers_ranges || (accepts_ranges(&headers) && content_coding(&headers).is_empty()));

    match partial(&headers, announced) {
        Ok(part) => {
            check(&part, &headers);
            assert!(content_coding(&headers).is_empty(), "a part of coded bytes cannot be placed");
            let len = part.span.len().expect("a part has an end");
            assert!(len > 0 && part.owed == Some(len) && announced.is_none_or(|a| a == len));
            assert!(part.identity.len.is_none_or(|l| part.span.end.is_some_and(|e| e <= l)));
            assert!(part.partial && part.offers_ranges);
        }
        Err((kind, why)) => {
            assert!(matches!(kind, Kind::Protocol | Kind::RangeIgnored) && !why.is_empty());
        }
    }
    if transfer_coding(&headers).is_ok() {
        assert!(headers.get_all(header::TRANSFER_ENCODING).iter().count() <= 1);
    }

    let at: Locator = "https://me:S3cr3t@host/a?b".parse().expect("it is one");
    let no = refusal(&at, status, &headers);
    assert!(!no.to_string().chars().any(char::is_control) && !no.to_string().contains("S3cr3t"));
    if let Retry::After(pause) = no.retry() {
        assert!(pause <= DAY && matches!(status.as_u16(), 429 | 503));
    }
    if let Ok(to) = location(&at, &headers)
        && let Err(e) = next(&at, to, Rules { limit: 5, allow_downgrade: false })
    {
        assert!(!e.to_string().chars().any(char::is_control) && !e.to_string().contains("S3cr3t"));
    }
});
