//! A lease: the right, and the duty, to deliver some bytes.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::object::{BindingId, Identity, LeaseId, ObjectId, PartyId, Span, Target, Validator};
use crate::origin::Origin;
use crate::range::Body;
use crate::source::Caps;

use super::Ledger;

/// What became of delivered bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Put {
    /// How many of them were taken; the others were not needed.
    pub taken: u32,
    /// What to do next.
    pub next: Next,
}

/// What a source should do after a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Go on.
    Continue,
    /// The bytes before this offset are not needed: skip them, by reading over them or by asking anew.
    From(u64),
    /// Nothing more of this lease is needed: drop it.
    Stop,
}

/// What a lease is made of, before its handle exists.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) id: LeaseId,
    pub(crate) binding: BindingId,
    pub(crate) party: PartyId,
    pub(crate) target: Target,
    pub(crate) span: Span,
    pub(crate) held: Identity,
    pub(crate) token: CancellationToken,
    pub(crate) origin: Arc<Origin>,
    pub(crate) reads_over: bool,
}

/// The right to deliver some bytes of an object.
///
/// The order of calls for each answer of the far side: [`agree`](Self::agree) once, then [`ready`](Self::ready) before
/// each read of the socket, then [`put`](Self::put) with what was read. Dropping a lease, at any moment, gives back what
/// was not delivered.
#[derive(Debug)]
pub struct Lease {
    ledger: Arc<Ledger>,
    seed: Seed,
    /// In a lock only so that a lease may be shared: a body is not `Sync`.
    first: Mutex<Option<Body>>,
    over: bool,
}

impl Lease {
    pub(crate) fn new(ledger: Arc<Ledger>, seed: Seed, first: Option<Body>) -> Self {
        Self { ledger, seed, first: Mutex::new(first), over: false }
    }

    /// Its number.
    pub fn id(&self) -> LeaseId {
        self.seed.id
    }
    /// By which binding.
    pub fn binding(&self) -> BindingId {
        self.seed.binding
    }
    /// Whom its bytes are blamed on.
    pub fn party(&self) -> PartyId {
        self.seed.party
    }
    /// Where the bytes are.
    pub fn target(&self) -> &Target {
        &self.seed.target
    }
    /// Which object.
    pub fn object(&self) -> ObjectId {
        self.seed.target.object
    }
    /// What to request.
    pub fn range(&self) -> Span {
        self.seed.span
    }
    /// What of it is still to be delivered: from the cursor on.
    pub fn rest(&self) -> Span {
        let start = self.ledger.with(|s, _| s.board.lease(self.seed.id).map(super::LeaseView::cursor));
        let end = self.seed.span.end;
        match start {
            Some(start) => Span { start: end.map_or(start, |e| start.min(e)), end },
            None => Span::new(self.seed.span.start, self.seed.span.start),
        }
    }
    /// Which version the bytes that are there belong to, as this binding reported it; `len` is the object's.
    pub fn held(&self) -> Identity {
        self.seed.held.clone()
    }
    /// Whether an answer may begin however far before what is asked: its bytes are read over.
    pub(crate) fn reads_over(&self) -> bool {
        self.seed.reads_over
    }
    /// The answer that is still open from resolving, if this lease is the one to use it.
    pub fn first(&mut self) -> Option<Body> {
        self.first.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Compares an answer's identity with what is held, before its first byte counts. The first answer of a binding
    /// whose identity is not known sets it.
    ///
    /// # Errors
    /// [`Kind::Changed`]: this answer speaks of another version. The ledger has already decided what follows (the
    /// binding is dropped, or the object starts over); drop the lease.
    pub fn agree(&mut self, seen: &Identity) -> Result<()> {
        let now = Instant::now();
        let r = self.ledger.with(|s, after| s.agree(self.seed.id, seen, now, after));
        if r.is_ok() && matches!(self.seed.held.validator, Validator::Unknown) {
            self.seed.held = seen.clone();
        }
        r
    }

    /// Waits until there is room for another chunk: budget, rate limits, the window of an ordered sink. Call it before
    /// reading the socket, so that the far side slows down. The lease at the frontier of an ordered object never
    /// waits for budget.
    ///
    /// Returns at once when the lease is revoked; the next [`put`](Self::put) then says so.
    ///
    /// **Cancellation.** May be dropped at any await: nothing is reserved, and the time it has waited counts as ours.
    /// **Bounds.** It has no time limit of its own: with a reader that stands still it waits until the lease is revoked.
    ///
    /// # Errors
    /// None so far: what ends a lease is told by [`put`](Self::put).
    pub async fn ready(&mut self) -> Result<()> {
        let mut waiting = None;
        while self.room(Instant::now()).is_some() {
            waiting.get_or_insert_with(|| Waiting::new(&self.ledger, self.seed.id));
            let revoked = self.seed.token.cancelled();
            // Both are in their queues before the state is looked at again, so that no change in between is missed.
            let (moved, freed) = (self.ledger.moved.notified(), self.ledger.budget.freed());
            tokio::pin!(moved, freed);
            moved.as_mut().enable();
            if futures::poll!(freed.as_mut()).is_ready() {
                continue;
            }
            let Some(wait) = self.room(Instant::now()) else { break };
            match wait {
                // A timer, because a limit may change meanwhile, and then `moved` is notified.
                Wait::Until(t) => tokio::select! {
                    biased;
                    () = revoked => break,
                    () = moved => {}
                    () = tokio::time::sleep_until(t) => {}
                },
                Wait::Moved => tokio::select! {
                    biased;
                    () = revoked => break,
                    () = moved => {}
                },
                Wait::Budget => {
                    // Whoever waits for budget writes what is gathered: otherwise all could wait for each other.
                    self.ledger.flush_all();
                    tokio::select! {
                        biased;
                        () = revoked => break,
                        () = freed => {}
                        () = moved => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn room(&self, now: Instant) -> Option<Wait> {
        if self.seed.token.is_cancelled() {
            return None;
        }
        let [engine, job] = &self.ledger.buckets;
        if let Some(t) =
            [engine, job, &self.seed.origin.bucket].into_iter().filter_map(|b| b.ready_at(now)).max()
        {
            return Some(Wait::Until(t));
        }
        let ordered = self.ledger.caps.order == crate::sink::Order::Next;
        if ordered {
            match self.ledger.with(|s, _| s.place_in_order(self.seed.id)) {
                Place::AtFrontier => return None,
                Place::InWindow => {}
                Place::Beyond => return Some(Wait::Moved),
            }
        }
        // In order, nothing that is ahead of the frontier can be written to make room: the window bounds it, however
        // few leases there are.
        let leases = if ordered { u64::MAX } else { self.ledger.leases.load(Ordering::Relaxed) };
        (!self.ledger.budget.has_room(leases)).then_some(Wait::Budget)
    }

    /// Delivers bytes of the object that begin at `at`, an offset of the object. Takes what is needed of them and never waits: call
    /// [`ready`](Self::ready) before reading.
    ///
    /// # Errors
    /// [`Kind::Bug`] when [`agree`](Self::agree) was not called for this answer.
    #[expect(clippy::needless_pass_by_value, reason = "the bytes are the ledger's from here on")]
    pub fn put(&mut self, at: u64, data: Bytes) -> Result<Put> {
        let now = Instant::now();
        let len = data.len() as u64;
        let [engine, job] = &self.ledger.buckets;
        for b in [engine, job, &self.seed.origin.bucket] {
            b.charge(len, now);
        }
        if self.seed.token.is_cancelled() {
            return Ok(Put { taken: 0, next: Next::Stop });
        }
        let budget = self.ledger.budget.clone();
        let caps = self.ledger.caps;
        self.ledger.with(|s, after| s.put(self.seed.id, at, &data, now, &budget, caps, after))
    }

    /// Resolves when the lease is taken back: others have its bytes, the policy wants it, the job stops. Never otherwise,
    /// and not because the lease is dropped.
    ///
    /// **Cancellation.** Cancel-safe: once it has resolved, another call resolves at once. It borrows nothing.
    pub fn revoked(&self) -> impl Future<Output = ()> + Send + use<> {
        self.seed.token.clone().cancelled_owned()
    }

    /// A new answer begins: its identity has to be compared first.
    pub fn reopen(&mut self) {
        self.ledger.with(|s, _| s.reopen(self.seed.id));
    }

    /// This binding turned out to be able to do less.
    pub fn downgrade(&self, caps: Caps) {
        let now = Instant::now();
        self.ledger.with(|s, after| s.downgrade(self.seed.binding, caps, now, after));
    }

    /// The answer said that the object ends at `len`, by ending there.
    ///
    /// # Errors
    /// [`Kind::Reset`] when it should be longer, [`Kind::Changed`] when it should be shorter. Either way the ledger has
    /// already decided what follows, as for a [`setback`](Self::setback) or a [`contradict`](Self::contradict)ion.
    pub fn end_of_object(mut self, len: u64) -> Result<()> {
        let now = Instant::now();
        let r = self.ledger.with(|s, after| s.end_of_object(self.seed.id, len, now, after));
        self.close();
        r
    }

    /// The answer failed in a way that may pass. The ledger counts it as a try without progress unless there was
    /// some, and either lets the binding rest for a while or gives it up. A refusal while other leases of the binding
    /// work only lowers their number.
    pub fn setback(mut self, error: &Error) {
        let now = Instant::now();
        let (id, binding) = (self.seed.id, self.seed.binding);
        self.ledger.with(|s, after| s.setback(id, binding, error, now, after));
        self.close();
    }

    /// This object by this binding: not again in this job.
    pub fn fail(mut self, error: Error) {
        let now = Instant::now();
        self.ledger.with(|s, after| s.fail_binding(self.seed.binding, error, now, after));
        self.close();
    }

    /// Reads up to `max` of the bytes just before `at` that are held already, to compare them with what an answer
    /// sends again. Empty where there are none, where their writes have not returned yet, where the sink cannot be read,
    /// or where reading fails: it is a comparison less, and no reason to stop. Offsets are the object's; all of it is in
    /// memory at once, and not counted as in flight, so `max` should be small (64 KiB).
    ///
    /// **Cancellation.** May be dropped at any await; nothing changes.
    pub async fn before(&self, at: u64, max: u64) -> Bytes {
        if !self.ledger.caps.readable {
            return Bytes::new();
        }
        let object = self.object();
        self.ledger.flush_all();
        let range = self.ledger.with(|s, _| s.written_before(object, at, max));
        match range {
            Some(r) if r.start < r.end => self.ledger.sink.read(object, r).await.unwrap_or_default(),
            _ => Bytes::new(),
        }
    }

    /// The answer's bytes do not fit what is held although its identity agrees: another version.
    pub fn contradict(mut self, error: Error) {
        let now = Instant::now();
        self.ledger.with(|s, after| s.changed(self.seed.binding, error, now, after));
        self.close();
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            let now = Instant::now();
            self.ledger.with(|s, after| s.release(self.seed.id, now, after));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.close();
    }
}

/// A lease waits for ourselves, until this is dropped.
struct Waiting {
    ledger: Arc<Ledger>,
    lease: LeaseId,
    began: Instant,
}

impl Waiting {
    fn new(ledger: &Arc<Ledger>, lease: LeaseId) -> Self {
        let began = Instant::now();
        ledger.with(|s, _| s.waits(lease, began));
        Self { ledger: ledger.clone(), lease, began }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let pause = self.began.elapsed();
        self.ledger.with(|s, _| s.waited(self.lease, pause));
    }
}

enum Wait {
    Until(Instant),
    Moved,
    Budget,
}

/// Where a lease stands when the sink takes only the next bytes.
pub(crate) enum Place {
    AtFrontier,
    InWindow,
    Beyond,
}

pub(crate) fn unagreed() -> Error {
    Error::new(Kind::Bug, "deliver bytes").because("the answer's identity was not compared first")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::{Claim, Work, WorkBench};
    use crate::{Binding, Cx, Exit, MemorySink, Source, SourceInfo};

    #[derive(Debug)]
    struct Idle;

    #[async_trait::async_trait]
    impl Source for Idle {
        fn info(&self) -> SourceInfo {
            SourceInfo::new("idle", "idle", "idle")
        }
        async fn run(self: Arc<Self>, _: Work) -> Result<Exit> {
            Ok(Exit::Done)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_dropped_is_over() {
        const LEN: u64 = 1 << 20;
        let limits = crate::Limits { rate: Some(1000), ..crate::Limits::default() };
        let sink = Arc::new(MemorySink::new());
        let bench = WorkBench::with_limits(sink, Some(LEN), LEN, Cx::new(), limits).await.unwrap();
        let target = Target::new(bench.object(), "x://a".parse().unwrap());
        let identity = Identity::new(Some(LEN), Validator::ContentAddressed);
        let work = bench.add(Binding::new(Arc::new(Idle), target, Caps::RANGES, identity)).unwrap();
        let Claim::Lease(mut lease) = work.try_claim(bench.object(), 0..LEN) else { panic!("no lease") };
        // Paid for in ten seconds; a source that does something else after two goes on.
        lease.put(0, Bytes::from(vec![0; 10_000])).unwrap();
        let two = Duration::from_secs(2);
        assert!(tokio::time::timeout(two, lease.ready()).await.is_err());
        tokio::time::sleep(two).await;
        let (id, now) = (lease.id(), Instant::now());
        let look = |f: fn(&crate::LeaseView, Instant) -> Duration| {
            lease.ledger.with(|s, _| s.board.lease(id).map(|l| f(l, now)).unwrap())
        };
        assert_eq!((look(crate::LeaseView::paused), look(crate::LeaseView::silent)), (two, two));
    }
}
