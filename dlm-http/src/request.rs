//! What is asked.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use dlm_core::{Error, Identity, Kind, Locator, Result, Span, Validator};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Uri};
use http_body_util::Empty;

use crate::options::Secrets;
use crate::wire::Outgoing;

/// Which bytes, and of which version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    /// `None`: all, without a `Range` field.
    pub(crate) range: Option<Span>,
    /// Sent only together with a range.
    pub(crate) if_range: Option<HeaderValue>,
}

impl Ask {
    /// All of it, in the way that every server understands.
    pub(crate) const PLAIN: Self = Self { range: None, if_range: None };

    /// A range, of the version that is held already if that can be said (RFC 9110, 13.1.5): a strong entity tag, or
    /// a modification time where there is no tag.
    pub(crate) fn range(span: Span, held: Option<&Identity>) -> Self {
        let if_range = held.and_then(|h| match &h.validator {
            Validator::Strong(tag) if tag.starts_with('"') && tag.ends_with('"') && tag.len() > 1 => {
                HeaderValue::from_bytes(tag.as_bytes()).ok()
            }
            Validator::Weak { mtime: Some(secs), tag } if tag.as_ref().is_none_or(|t| is_tag(t)) => {
                // The largest date that the format can say.
                let date = (*secs <= 253_402_300_799).then(|| UNIX_EPOCH + Duration::from_secs(*secs))?;
                HeaderValue::try_from(httpdate::fmt_http_date(date)).ok()
            }
            _ => None,
        });
        Self { range: Some(span), if_range }
    }
}

/// Not one of our own marks for a coded body ([`crate::answer`]): the server would not know it.
fn is_tag(tag: &str) -> bool {
    tag.ends_with('"')
}

/// The request for `locator`. Its userinfo and its fragment are not in it.
pub(crate) fn build(
    locator: &Locator,
    ask: &Ask,
    agent: &HeaderValue,
    secrets: Option<&Secrets>,
) -> Result<Outgoing> {
    let url = locator.reveal();
    let wrong = |why: &dyn std::fmt::Display| Error::new(Kind::Invalid, "fetch").on(locator).because(why);
    let mut target = url.path().to_owned();
    if let Some(query) = url.query() {
        target.push('?');
        target.push_str(query);
    }
    let target: Uri = target.parse().map_err(|e| wrong(&format_args!("the address cannot be sent: {e}")))?;
    let mut host = url.host_str().unwrap_or_default().to_owned();
    if let Some(port) = url.port() {
        let _ = write!(host, ":{port}");
    }
    let host = HeaderValue::try_from(host).map_err(|e| wrong(&e))?;

    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::HOST, host);
    headers.insert(header::USER_AGENT, agent.clone());
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(span) = ask.range {
        let range = match span.end {
            // An empty span has no last byte; a byte more than asked is allowed.
            Some(end) => format!("bytes={}-{}", span.start, end.saturating_sub(1).max(span.start)),
            None => format!("bytes={}-", span.start),
        };
        headers.insert(header::RANGE, HeaderValue::try_from(range).map_err(|e| wrong(&e))?);
        if let Some(tag) = &ask.if_range {
            headers.insert(header::IF_RANGE, tag.clone());
        }
    }
    if let Some(secrets) = secrets {
        if let Some(authorization) = &secrets.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        for name in secrets.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &secrets.headers {
            headers.append(name, value.clone());
        }
    }
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::HttpOptions;

    fn sent(locator: &str, ask: &Ask, options: &HttpOptions) -> Outgoing {
        let locator: Locator = locator.parse().unwrap();
        let secrets = Secrets::of(&locator, None, Some(options)).unwrap();
        build(&locator, ask, &HeaderValue::from_static("dlm/1"), secrets.as_deref()).unwrap()
    }

    #[test]
    fn addresses() {
        for (locator, target, host) in [
            ("http://h", "/", "h"),
            ("http://u:p@h:80/a b?q=1#f", "/a%20b?q=1", "h"),
            ("https://[::1]:8443/%2f/\"{}|", "/%2f/%22%7B%7D|", "[::1]:8443"),
            ("http://h/?\"'<>[]^`{|}", "/?%22%27%3C%3E[]^`{|}", "h"),
        ] {
            let r = sent(locator, &Ask::PLAIN, &HttpOptions::new());
            assert_eq!(
                (r.uri().to_string().as_str(), r.headers()[header::HOST].to_str().unwrap()),
                (target, host)
            );
            assert_eq!(r.headers()[header::ACCEPT_ENCODING], "identity");
            assert!(!r.headers().contains_key(header::RANGE) && !r.headers().contains_key(header::REFERER));
        }
    }

    #[test]
    fn the_users_fields_replace_ours() {
        let options = HttpOptions::new()
            .header("Host", "other")
            .unwrap()
            .header("Cookie", "a")
            .unwrap()
            .header("cookie", "b")
            .unwrap();
        let r = sent("http://h/", &Ask::PLAIN, &options);
        assert_eq!(r.headers().get_all(header::HOST).iter().collect::<Vec<_>>(), ["other"]);
        assert_eq!(r.headers().get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn ranges() {
        let none = HttpOptions::new();
        for (span, want) in
            [(Span::from(5), "bytes=5-"), (Span::new(5, 10), "bytes=5-9"), (Span::new(5, 5), "bytes=5-5")]
        {
            assert_eq!(sent("http://h/", &Ask::range(span, None), &none).headers()[header::RANGE], want);
        }
        let weak = |mtime, tag: Option<&str>| Validator::Weak { mtime, tag: tag.map(Into::into) };
        for (validator, want) in [
            (Validator::Strong("\"x\"".into()), Some("\"x\"")),
            (Validator::Strong("\"x\";gzip".into()), None),
            (Validator::Strong("\"".into()), None),
            (weak(Some(784_111_777), None), Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            (weak(Some(784_111_777), Some("\"w\"")), Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            (weak(Some(784_111_777), Some(";gzip")), None),
            (weak(None, Some("\"w\"")), None),
            (weak(Some(u64::MAX), None), None),
            (Validator::Unknown, None),
        ] {
            let ask = Ask::range(Span::from(1), Some(&Identity::new(None, validator)));
            assert_eq!(ask.if_range.as_ref().map(|v| v.to_str().unwrap()), want);
        }
    }
}
