//! What a status that is no success means.

use std::time::SystemTime;

use dlm_core::{Error, Kind, Locator, Retry};
use http::{HeaderMap, StatusCode, header};

use crate::headers::{retry_after, single};

/// The error of an answer that is neither a success nor a redirect. The server's own reason phrase is not repeated.
pub fn refusal(at: &Locator, status: StatusCode, headers: &HeaderMap) -> Error {
    let kind = match status.as_u16() {
        404 | 410 => Kind::NotFound,
        412 => Kind::Changed,
        416 => Kind::RangeIgnored,
        // All of these may pass: a time-out, too many requests, a server or a gateway in trouble.
        408 | 425 | 429 | 500 | 502..=504 | 507..=509 | 520..=530 => Kind::Throttled,
        400..=499 => Kind::Denied,
        // A server that cannot do it (501, 505), and everything that makes no sense here.
        _ => Kind::Protocol,
    };
    let error = Error::new(kind, "fetch").on(at).because(words(status));
    match status.as_u16() {
        429 | 503 => match single(headers, &header::RETRY_AFTER)
            .and_then(|v| retry_after(v.as_bytes(), SystemTime::now()))
        {
            Some(pause) => error.with_retry(Retry::After(pause)),
            None => error,
        },
        401 => error.advise("give a user name and a password, or a token, that the server accepts"),
        407 => error.advise("the proxy wants a login"),
        _ => error,
    }
}

/// `the server says 404 Not Found`
pub(crate) fn words(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("the server says {} {reason}", status.as_str()),
        None => format!("the server says {}", status.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(status: u16, after: Option<&str>) -> Error {
        let mut headers = HeaderMap::new();
        if let Some(a) = after {
            headers.insert("retry-after", a.parse().unwrap());
        }
        refusal(&"http://h/f?sig=x".parse().unwrap(), StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn kinds() {
        for (status, kind, retry) in [
            (401, Kind::Denied, Retry::Elsewhere),
            (403, Kind::Denied, Retry::Elsewhere),
            (407, Kind::Denied, Retry::Elsewhere),
            (451, Kind::Denied, Retry::Elsewhere),
            (418, Kind::Denied, Retry::Elsewhere),
            (404, Kind::NotFound, Retry::Elsewhere),
            (410, Kind::NotFound, Retry::Elsewhere),
            (408, Kind::Throttled, Retry::Backoff),
            (425, Kind::Throttled, Retry::Backoff),
            (429, Kind::Throttled, Retry::Backoff),
            (500, Kind::Throttled, Retry::Backoff),
            (502, Kind::Throttled, Retry::Backoff),
            (503, Kind::Throttled, Retry::Backoff),
            (504, Kind::Throttled, Retry::Backoff),
            (416, Kind::RangeIgnored, Retry::Elsewhere),
            (412, Kind::Changed, Retry::Elsewhere),
            (304, Kind::Protocol, Retry::Elsewhere),
            (300, Kind::Protocol, Retry::Elsewhere),
            (501, Kind::Protocol, Retry::Elsewhere),
            (505, Kind::Protocol, Retry::Elsewhere),
            (999, Kind::Protocol, Retry::Elsewhere),
            (101, Kind::Protocol, Retry::Elsewhere),
        ] {
            let e = of(status, None);
            assert_eq!((e.kind(), e.retry()), (kind, retry), "{status}");
        }
        assert_eq!(
            of(503, None).to_string(),
            "cannot fetch http://h/f?sig=***: the server says 503 Service Unavailable"
        );
        assert_eq!(of(599, None).detail(), "the server says 599");
    }

    #[test]
    fn patience() {
        assert_eq!(of(503, Some("7")).retry(), Retry::After(Duration::from_secs(7)));
        assert_eq!(of(429, Some("0")).retry(), Retry::After(Duration::ZERO));
        assert_eq!(of(429, Some("soon")).retry(), Retry::Backoff);
        assert_eq!(of(404, Some("7")).retry(), Retry::Elsewhere);
    }
}
