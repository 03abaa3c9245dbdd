//! Locators become discoveries; mirrors are asked once it is known what they should have.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;

use crate::backend::{Cx, Discovery, DiscoveryStream, From, Hint, ResumeHint};
use crate::engine::Shared;
use crate::error::{Error, Kind, Result};
use crate::event::EventKind;
use crate::job::JobSpec;
use crate::ledger::Discovering;
use crate::locator::Locator;
use crate::object::{Evidence, ObjectId, Role, Span, Trust, Validator};
use crate::retry::Backoff;

use super::{Driver, cancelled};

impl Driver {
    pub(super) fn context(shared: &std::sync::Arc<Shared>, spec: &JobSpec) -> Cx {
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

    /// Resolves the locator, or failing that the first mirror that answers.
    pub(super) async fn resolve_first(&mut self) -> Result<()> {
        let all: Vec<Locator> =
            std::iter::once(self.spec.locator.clone()).chain(self.spec.mirrors.iter().cloned()).collect();
        for (i, locator) in all.iter().enumerate() {
            let guard = Discovering::new(self.ledger.clone());
            let hint = self.resume_hint(locator);
            let cx = self.cx.clone().with_resume(hint);
            match self.resolve(locator, &cx).await {
                Ok(stream) => {
                    self.stream = Some((stream, guard));
                    self.spec.mirrors = all.into_iter().skip(i + 1).collect();
                    return Ok(());
                }
                Err(e) if matches!(e.kind(), Kind::Cancelled | Kind::Shutdown) => return Err(e),
                Err(e) => {
                    if all.len() > 1 {
                        self.say(EventKind::SourceFailed {
                            source: locator.to_string().into(),
                            error: e.clone(),
                        });
                    }
                    self.first_error.get_or_insert(e);
                }
            }
        }
        Err(self.first_error.clone().unwrap_or_else(cancelled))
    }

    async fn resolve(&mut self, locator: &Locator, cx: &Cx) -> Result<DiscoveryStream> {
        let backend = self.shared.registry.find(&Hint::new(locator))?;
        let (most, max_pause) = self.ledger.retries();
        let mut backoff = Backoff::new(most, max_pause, self.id.0);
        let stop = self.ledger.stop.clone();
        loop {
            // Dropping a resolve is always allowed.
            let r = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(cancelled()),
                r = backend.resolve(From::Locator(locator.clone()), cx) => r,
            };
            let error = match r {
                Ok(stream) => return Ok(stream),
                Err(e) => e,
            };
            let Some(after) = backoff.pause(&error) else { return Err(error) };
            self.say(EventKind::Retrying { source: locator.to_string().into(), error, after });
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(cancelled()),
                () = tokio::time::sleep(after) => {}
            }
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

    /// Resolves a locator beside the job.
    pub(super) fn follow(&mut self, locator: Locator, role: Role, rank: u32) {
        let guard = Discovering::new(self.ledger.clone());
        let cx = self.cx.clone().with_role(role, rank);
        let registry = self.shared.registry.clone();
        let (most, max_pause) = self.ledger.retries();
        let seed = self.id.0.wrapping_add(u64::from(rank));
        self.resolving.spawn(async move {
            let mut backoff = Backoff::new(most, max_pause, seed);
            let result = async {
                let backend = registry.find(&Hint::new(&locator))?;
                loop {
                    match backend.resolve(From::Locator(locator.clone()), &cx).await {
                        Ok(s) => return Ok(s),
                        Err(e) => match backoff.pause(&e) {
                            Some(pause) => tokio::time::sleep(pause).await,
                            None => return Err(e),
                        },
                    }
                }
            };
            (result.await, guard)
        });
    }

    pub(super) fn mirror_resolved(
        &mut self,
        r: std::result::Result<(Result<DiscoveryStream>, Discovering), tokio::task::JoinError>,
    ) {
        match r {
            // Read beside everything else: it may take its time.
            Ok((Ok(stream), guard)) => self.beside.push(Box::pin(stream.inspect(move |_| {
                let _open = &guard;
            }))),
            Ok((Err(e), _guard)) => self.mirror_failed(e),
            Err(e) => self.mirror_failed(
                Error::new(Kind::Bug, "resolve a mirror").because("its task failed").caused_by(e),
            ),
        }
    }

    pub(super) fn mirror_failed(&mut self, error: Error) {
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
