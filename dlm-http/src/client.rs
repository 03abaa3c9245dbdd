//! Requests and redirects: from a locator to the answer at the end of its way.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dlm_core::{Cx, Error, Kind, Locator, Result, Retry};
use dlm_net::Dialer;
use futures_core::Stream;
use http::header::HeaderValue;
use http::response::Parts;
use tokio::time::timeout;

use crate::body::Reading;
use crate::finals::Finals;
use crate::options::{HttpOptions, Secrets};
use crate::pool::{Key, Pool, endpoint};
use crate::redirect::{Rules, is_redirect, location, next, refused};
use crate::request::{Ask, build};
use crate::wire::{Outgoing, Unanswered, Wire};

/// Bodies of redirects and refusals are read to their end to keep the connection, if they are at most this long…
const DRAIN: u64 = 64 * 1024;
/// …and take no longer than this.
const DRAIN_TIME: Duration = Duration::from_millis(250);

/// One address on the way of redirects.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    pub(crate) url: Locator,
    /// The way has not left the origin that it began at: secrets are sent.
    pub(crate) home: bool,
}

/// The answer at the end of a way.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) parts: Parts,
    pub(crate) body: Reading,
    pub(crate) hop: Hop,
}

/// Everything that the sources of one backend share.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) dialer: Dialer,
    pub(crate) agent: HeaderValue,
    pub(crate) rules: Rules,
    pub(crate) pool: Arc<Pool>,
    pub(crate) finals: Finals,
}

/// What all requests for one locator have in common.
pub(crate) struct Visit<'a> {
    pub(crate) client: &'a Client,
    pub(crate) cx: &'a Cx,
    locator: &'a Locator,
    secrets: Option<Arc<Secrets>>,
    options: Option<Arc<HttpOptions>>,
}

impl<'a> Visit<'a> {
    pub(crate) fn new(client: &'a Client, locator: &'a Locator, cx: &'a Cx) -> Result<Self> {
        let options = cx.options::<HttpOptions>();
        let secrets = Secrets::of(locator, cx.origin(), options.as_deref())?;
        Ok(Self { client, cx, locator, secrets, options })
    }

    /// Where the way begins.
    pub(crate) fn start(&self) -> Hop {
        Hop { url: self.locator.clone(), home: true }
    }

    /// Asks, and follows redirects from `hop` on. The answer may be a refusal.
    pub(crate) async fn fetch(&self, mut hop: Hop, ask: &Ask) -> Result<Reply> {
        let mut redirects = 0;
        loop {
            let reply = self.exchange(hop, ask).await?;
            if !is_redirect(reply.parts.status) {
                return Ok(reply);
            }
            let at = &reply.hop.url;
            if redirects == self.client.rules.limit {
                return Err(refused(
                    Kind::Protocol,
                    at,
                    &format!("there were more than {redirects} redirects"),
                ));
            }
            redirects += 1;
            let url = next(at, location(at, &reply.parts.headers)?, self.client.rules)?;
            hop = Hop { home: reply.hop.home && url.same_origin(at), url };
            reply.drain().await;
        }
    }

    /// One request, one answer.
    async fn exchange(&self, hop: Hop, ask: &Ask) -> Result<Reply> {
        let client = self.client;
        let secrets = if hop.home { self.secrets.clone() } else { None };
        let agent = self.options.as_ref().and_then(|o| o.agent()).unwrap_or(&client.agent);
        let request = || build(&hop.url, ask, agent, secrets.as_deref());
        let key = Key { endpoint: endpoint(&hop.url)?, secrets: secrets.clone() };

        // What was allowed when it was connected need not be any more.
        let allowed = |peer| client.dialer.allows(&key.endpoint, peer);
        if let Some(wire) = client.pool.take(&key, allowed) {
            match self.send(wire, request()?, &hop).await {
                // The server closed it meanwhile, without having seen the request: that is no failure.
                Err(Unanswered { silent: true, .. }) => {}
                Err(e) => return Err(e.error),
                Ok((parts, body, wire)) => return Ok(self.reply(parts, body, wire, key, hop)),
            }
        }
        let connection = client.dialer.connect(&key.endpoint, self.cx.timeouts().connect).await?;
        if connection.alpn().is_some_and(|p| p != b"http/1.1") {
            let error = Error::new(Kind::Invalid, "fetch").on(&hop.url);
            return Err(error.because("the dialer offered another protocol than HTTP/1.1"));
        }
        let wire = Wire::open(connection).await.map_err(|e| e.on(&hop.url))?;
        let (parts, body, wire) = self.send(wire, request()?, &hop).await.map_err(|e| e.error)?;
        Ok(self.reply(parts, body, wire, key, hop))
    }

    async fn send(
        &self,
        wire: Box<Wire>,
        request: Outgoing,
        hop: &Hop,
    ) -> Result<(Parts, hyper::body::Incoming, Box<Wire>), Unanswered> {
        let limit = self.cx.timeouts().idle;
        match timeout(limit, wire.request(request)).await {
            Ok(Ok((response, wire))) => {
                let (parts, body) = response.into_parts();
                Ok((parts, body, wire))
            }
            Ok(Err(e)) => Err(Unanswered { error: e.error.on(&hop.url), ..e }),
            Err(_) => {
                let error = Error::new(Kind::Timeout, "fetch").on(&hop.url);
                Err(Unanswered {
                    error: error.because(format_args!("no answer within {limit:?}")),
                    silent: false,
                })
            }
        }
    }

    fn reply(&self, parts: Parts, body: hyper::body::Incoming, wire: Box<Wire>, key: Key, hop: Hop) -> Reply {
        let body = Reading::new(body, wire, self.client.pool.clone(), key, hop.url.clone());
        Reply { parts, body, hop }
    }
}

impl Reply {
    /// Reads a short body to its end, so that the connection can be used again.
    pub(crate) async fn drain(self) {
        let mut body = self.body;
        let mut left = DRAIN;
        if body.announced().is_none_or(|n| n > left) {
            return;
        }
        let _ = timeout(DRAIN_TIME, async {
            while let Some(Ok(data)) = poll_fn(|cx| Pin::new(&mut body).poll_next(cx)).await {
                left = left.saturating_sub(data.len() as u64);
                if left == 0 {
                    return;
                }
            }
        })
        .await;
    }

    /// The error that a refusal is, once its body is out of the way.
    pub(crate) async fn refuse(self) -> Error {
        let error = crate::status::refusal(&self.hop.url, self.parts.status, &self.parts.headers);
        self.drain().await;
        error
    }
}

/// An error that another source may not have.
pub(crate) fn nonsense(at: &Locator, kind: Kind, why: &str) -> Error {
    Error::new(kind, "fetch").on(at).because(why).with_retry(Retry::Elsewhere)
}
