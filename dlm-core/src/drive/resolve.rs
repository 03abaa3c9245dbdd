//! Locators become discoveries; mirrors are asked once it is known what they should have.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::task::JoinSet;

use crate::backend::{Cx, Discovery, DiscoveryStream, From, Hint, ResumeHint};
use crate::engine::Shared;
use crate::error::{Error, Kind, Result};
use crate::event::EventKind;
use crate::job::JobSpec;
use crate::ledger::Discovering;
use crate::locator::Locator;
use crate::object::{Evidence, ObjectId, Role, Span, Trust, Validator};
use crate::registry::Registry;
use crate::retry::Backoff;
use crate::source::Source;

use super::{Driver, Followed, cancelled};

/// How long one locator may keep silent before the next is asked beside it.
const PATIENCE: Duration = Duration::from_secs(3);

/// The number of a locator, and what came of it.
type Asked = (usize, Result<DiscoveryStream>);

/// What was found, and the source that the same stream bound last: the author of what it says next.
pub(super) type Signed = (Discovery, Option<Arc<dyn Source>>);
pub(super) type SignedStream = Pin<Box<dyn Stream<Item = Result<Signed>> + Send>>;

fn signed(stream: DiscoveryStream) -> SignedStream {
    let mut by = None;
    Box::pin(stream.map(move |item| {
        item.map(|found| {
            if let Discovery::Bind(b) = &found {
                by = Some(b.source.clone());
            }
            (found, by.clone())
        })
    }))
}

impl Driver {
    pub(super) fn context(shared: &Arc<Shared>, spec: &JobSpec) -> Cx {
        let registry = shared.registry.clone();
        // The user named this one locator: what secrets the options hold belong to its origin, whoever else is asked.
        let base = Cx::new()
            .with_timeouts(spec.timeouts)
            .with_options(spec.options.clone())
            .with_origin(spec.locator.clone());
        let inner = base.clone();
        base.with_fetch(move |locator, max| {
            let (registry, cx) = (registry.clone(), inner.clone());
            async move {
                let backend = registry.find(&Hint::new(&locator))?;
                small(backend.resolve(From::Locator(locator.clone()), &cx).await?, &locator, max).await
            }
        })
    }

    /// Resolves the locator, or failing that the first mirror that answers. One that keeps silent is not waited for
    /// alone: the next is asked beside it.
    pub(super) async fn resolve_first(&mut self) -> Result<()> {
        let all: Vec<Locator> =
            std::iter::once(self.spec.locator.clone()).chain(self.spec.mirrors.iter().cloned()).collect();
        let stop = self.ledger.stop.clone();
        let (mut asked, mut failed) = (JoinSet::new(), Vec::new());
        let mut begun = 0;
        loop {
            if asked.is_empty() && begun == all.len() {
                return Err(self.first_error.clone().unwrap_or_else(cancelled));
            }
            if let (true, Some(locator)) = (asked.is_empty(), all.get(begun)) {
                asked.spawn(self.ask(begun, locator.clone()));
                begun += 1;
            }
            // The losers are kept, but for the timer, which begins anew whenever somebody was asked.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(cancelled()),
                Some((i, r)) = next_asked(&mut asked) => match r {
                    Ok(stream) => {
                        self.stream = Some((signed(stream), Discovering::new(self.ledger.clone())));
                        let others = all.into_iter().enumerate().filter(|(n, _)| *n != i && !failed.contains(n));
                        self.spec.mirrors = others.map(|(_, l)| l).collect();
                        return Ok(());
                    }
                    Err(e) if matches!(e.kind(), Kind::Cancelled | Kind::Shutdown) => return Err(e),
                    Err(e) => {
                        failed.push(i);
                        if let (true, Some(locator)) = (all.len() > 1, all.get(i)) {
                            let source = locator.to_string().into();
                            self.say(EventKind::SourceFailed { source, error: e.clone() });
                        }
                        self.first_error.get_or_insert(e);
                    }
                },
                () = tokio::time::sleep(PATIENCE), if begun < all.len() => {
                    if let Some(locator) = all.get(begun) {
                        asked.spawn(self.ask(begun, locator.clone()));
                        begun += 1;
                    }
                }
            }
        }
    }

    /// Resolves one locator as the job's own, with its retries.
    fn ask(&self, number: usize, locator: Locator) -> impl Future<Output = Asked> + Send + use<> {
        let cx = self.cx.clone().with_resume(self.resume_hint(&locator));
        let registry = self.shared.registry.clone();
        let (most, max_pause) = self.ledger.retries();
        let backoff = Backoff::new(most, max_pause, self.id.0.wrapping_add(number as u64));
        let (shared, id, events) = (self.shared.clone(), self.id, self.events.clone());
        async move {
            let retrying = |error, after| {
                let kind = EventKind::Retrying { source: locator.to_string().into(), error, after };
                // Nobody listening is no error.
                let _ = events.send(shared.event(id, kind));
            };
            (number, patiently(&registry, &locator, &cx, backoff, retrying).await)
        }
    }

    /// Where the first request should start, by what an earlier run of the same locator left.
    fn resume_hint(&self, locator: &Locator) -> Option<ResumeHint> {
        let saved = self.saved.as_ref()?.object("")?;
        let mut at = 0;
        for c in &saved.claims {
            if c.range.start > at {
                break;
            }
            at = at.max(c.range.end);
        }
        let fits = *saved.remote == *locator.to_string() && saved.identity.validator != Validator::Unknown;
        let whole = saved.identity.len == Some(at);
        (fits && at > 0 && !whole).then(|| ResumeHint { at, identity: saved.identity.clone() })
    }

    /// Once the object is known, the other locators are resolved as sources of the same bytes.
    pub(super) fn ask_mirrors(&mut self) {
        if self.mirrors_asked || self.stream.is_some() {
            return;
        }
        let first = self.ledger.with(|s, _| s.objects.keys().next().copied());
        let Some(object) = first else { return };
        self.mirrors_asked = true;
        for (i, locator) in std::mem::take(&mut self.spec.mirrors).into_iter().enumerate() {
            self.follow(locator, Role::SameBytes { object, window: Span::ALL }, i as u32 + 1);
        }
    }

    /// Resolves a locator beside the job. Another source of the same bytes may come or not; anything else is a part of
    /// the job, which does not end without it.
    pub(super) fn follow(&mut self, locator: Locator, role: Role, rank: u32) {
        let mirror = matches!(role, Role::SameBytes { .. });
        let guard = (!mirror).then(|| Discovering::new(self.ledger.clone()));
        let cx = self.cx.clone().with_role(role, rank);
        let registry = self.shared.registry.clone();
        let (most, max_pause) = self.ledger.retries();
        let backoff = Backoff::new(most, max_pause, self.id.0.wrapping_add(u64::from(rank)));
        self.resolving
            .spawn(async move { (patiently(&registry, &locator, &cx, backoff, |_, _| {}).await, guard) });
    }

    pub(super) fn other_resolved(&mut self, r: std::result::Result<Followed, tokio::task::JoinError>) {
        match r {
            // Read beside everything else: it may take its time.
            Ok((Ok(stream), guard)) => {
                self.beside.push(Box::pin(signed(stream).map(move |item| (guard.is_some(), item))));
            }
            Ok((Err(e), guard)) => self.other_failed(e, guard.is_some()),
            Err(e) => {
                let e = Error::new(Kind::Bug, "resolve a mirror").because("its task failed").caused_by(e);
                self.other_failed(e, false);
            }
        }
    }

    pub(super) fn other_failed(&mut self, error: Error, needed: bool) {
        if needed {
            return self.lose(error);
        }
        self.say(EventKind::SourceFailed { source: error.subject().into(), error: error.clone() });
        self.first_error.get_or_insert(error);
    }

    /// Digests that the user gave judge the first object.
    pub(super) fn user_digests(&self, object: ObjectId) {
        self.ledger.with(|s, after| {
            for d in &self.spec.digests {
                s.add_evidence(object, Evidence::Digest(d.0.clone()), Trust::User, None, after);
            }
        });
    }
}

/// The next locator that was resolved, or was not.
async fn next_asked(asked: &mut JoinSet<Asked>) -> Option<Asked> {
    let ended = asked.join_next().await?;
    Some(ended.unwrap_or_else(|e| {
        let e = Error::new(Kind::Bug, "resolve a locator").because("its task failed").caused_by(e);
        (usize::MAX, Err(e))
    }))
}

/// Resolves a locator by whichever backend serves it, as often as it may be tried.
async fn patiently(
    registry: &Registry,
    locator: &Locator,
    cx: &Cx,
    mut backoff: Backoff,
    retrying: impl Fn(Error, Duration),
) -> Result<DiscoveryStream> {
    let backend = registry.find(&Hint::new(locator))?;
    loop {
        let error = match backend.resolve(From::Locator(locator.clone()), cx).await {
            Ok(stream) => return Ok(stream),
            Err(e) => e,
        };
        let Some(after) = backoff.pause(&error) else { return Err(error) };
        retrying(error, after);
        tokio::time::sleep(after).await;
    }
}

/// Reads a small document to its end.
async fn small(mut stream: DiscoveryStream, locator: &Locator, max: usize) -> Result<Bytes> {
    let too_large = || {
        Error::new(Kind::Invalid, "fetch").on(locator).because(format_args!("it is larger than {max} bytes"))
    };
    while let Some(d) = stream.next().await {
        let Discovery::Bind(b) = d? else { continue };
        let Some(mut body) = b.first else { continue };
        if body.identity.len.is_some_and(|l| l > max as u64) {
            return Err(too_large());
        }
        let mut out = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), body.stream.next()).await;
            match next.map_err(|_| {
                Error::new(Kind::Timeout, "fetch").on(locator).because("nothing came for 30 s")
            })? {
                Some(chunk) => out.extend_from_slice(&chunk?),
                None => return Ok(out.into()),
            }
            if out.len() > max {
                return Err(too_large());
            }
        }
    }
    Err(Error::new(Kind::Unsupported, "fetch").on(locator).because("it is no document"))
}
