//! An origin (scheme, host, port) as a source of ranges.

use std::sync::Arc;

use async_trait::async_trait;
use dlm_core::{Body, Cx, Error, Identity, Kind, Locator, RangeSource, Result, SourceInfo, Span, Target};
use http::{StatusCode, header};

use crate::answer::{Meaning, meaning};
use crate::client::{Client, Reply, Visit, nonsense};
use crate::headers::{single, unsatisfied_range};
use crate::pool::endpoint;
use crate::request::Ask;

/// One origin. Made by [`HttpBackend`](crate::HttpBackend), which gives the same one to all targets there.
///
/// A target's `remote` is the locator as the user gave it. Where its redirects led is remembered, so that the next
/// range goes there at once; when that place refuses (a signature has expired), the way is gone again from its
/// beginning.
#[derive(Debug)]
pub struct Origin {
    client: Arc<Client>,
    info: SourceInfo,
}

impl Origin {
    /// The origin that serves `at`.
    pub(crate) fn new(client: Arc<Client>, at: &Locator) -> Result<Self> {
        let end = endpoint(at)?;
        let key = format!("{}://{end}", at.scheme());
        let port = at.reveal().port().map_or_else(String::new, |p| format!(":{p}"));
        let label = format!("{}{port}", at.host().unwrap_or_default());
        Ok(Self { client, info: SourceInfo::new("http", key, label) })
    }
}

#[async_trait]
impl RangeSource for Origin {
    fn info(&self) -> SourceInfo {
        self.info.clone()
    }

    async fn open(&self, target: &Target, want: Span, held: &Identity, cx: &Cx) -> Result<Body> {
        let locator = &target.remote;
        let visit = Visit::new(&self.client, locator, cx)?;
        let remote = Span {
            start: target.remote_offset(want.start),
            end: want.end.or(target.window.end).map(|e| target.remote_offset(e)),
        };
        let ask = Ask::range(remote, Some(held));
        let mut reply = match self.client.finals.get(locator) {
            None => visit.fetch(visit.start(), &ask).await?,
            Some(hop) => match visit.fetch(hop, &ask).await {
                Ok(reply) if matches!(reply.parts.status.as_u16(), 401 | 403 | 404 | 410) => {
                    self.client.finals.forget(locator);
                    reply.drain().await;
                    visit.fetch(visit.start(), &ask).await?
                }
                Ok(reply) => reply,
                Err(e) => {
                    self.client.finals.forget(locator);
                    return Err(e);
                }
            },
        };
        if remote.start == 0 && is_range_refusal(&reply) {
            reply.drain().await;
            reply = visit.fetch(visit.start(), &Ask::PLAIN).await?;
        }
        if held.len.is_none()
            && remote.start > 0
            && target.remote_base == 0
            && ends_at(&reply) == Some(remote.start)
        {
            // Parts came without a total; that nothing lies behind them is how it is told.
            let said = Identity { len: Some(remote.start), ..held.clone() };
            return Ok(Body::new(Span::from(want.start), said, Box::pin(futures::stream::empty())));
        }
        if !reply.parts.status.is_success() {
            // The beginning of the way may know a better end the next time.
            self.client.finals.forget(locator);
            return Err(refusal(reply, held).await);
        }
        let mut said = meaning(&reply, true);
        if said.is_err() && remote.start == 0 && reply.parts.status == StatusCode::PARTIAL_CONTENT {
            // A part that cannot be used (compressed, in several parts): all of it may be said better.
            drop(reply);
            reply = visit.fetch(visit.start(), &Ask::PLAIN).await?;
            if !reply.parts.status.is_success() {
                return Err(refusal(reply, held).await);
            }
            said = meaning(&reply, false);
        }
        let meaning = said?;
        self.client.finals.put(locator, &reply.hop);
        body(reply, &meaning, target)
    }
}

/// Whether the refusal may be of the `Range` field, and not of the thing itself.
pub(crate) fn is_range_refusal(reply: &Reply) -> bool {
    matches!(reply.parts.status.as_u16(), 400 | 403 | 405 | 406 | 416 | 501)
}

/// How long the whole is, where that is why a range was refused.
fn ends_at(reply: &Reply) -> Option<u64> {
    if reply.parts.status.as_u16() != 416 {
        return None;
    }
    single(&reply.parts.headers, &header::CONTENT_RANGE).and_then(|range| unsatisfied_range(range.as_bytes()))
}

/// The error of a refused range. A length that is not the one we know means that the thing has changed.
async fn refusal(reply: Reply, held: &Identity) -> Error {
    if let (Some(now), Some(was)) = (ends_at(&reply), held.len)
        && now != was
    {
        return nonsense(
            &reply.hop.url,
            Kind::Changed,
            &format!("its length was {was}, and is {now} bytes now"),
        );
    }
    reply.refuse().await
}

/// The body as bytes of the target's object. What lies outside the target's window is cut off: it belongs to
/// something else.
pub(crate) fn body(reply: Reply, meaning: &Meaning, target: &Target) -> Result<Body> {
    let (window, base) = (target.window, target.remote_base);
    let mut identity = meaning.identity.clone();
    if window.end.is_some() || window.start != 0 || base != 0 {
        if base == 0
            && let (Some(len), Some(window_len)) = (identity.len, window.len())
            && len != window_len
        {
            let why = format!("it is {len} bytes long, and should be {window_len}");
            return Err(nonsense(&reply.hop.url, Kind::Changed, &why));
        }
        // The length is not the object's.
        identity.len = None;
    }
    // Bytes before the base are not the object's.
    let skip = base.saturating_sub(meaning.span.start);
    let to_object = |r: u64| r.saturating_sub(base).saturating_add(window.start);
    let at = Span { start: to_object(meaning.span.start), end: meaning.span.end.map(to_object) };
    let at = at.intersect(&Span { start: at.start, end: window.end });
    let wanted = if window.end.is_some() { at.len() } else { None };
    let stream = reply.body.owe(meaning.owed).cut(skip, wanted);
    Ok(Body::new(at, identity, Box::pin(stream)))
}
