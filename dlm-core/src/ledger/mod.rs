//! The ledger: one lock a job, and the state machine of every byte.
//!
//! A byte is missing, leased, *held* (accepted: the job's, in memory or being written), written, or verified. Sources
//! reach it through [`Work`] and [`Lease`]; the engine's driver does what takes time (journal, truncation, reading
//! back) outside the lock. Under the lock run only the policy and [`Proof::piece_at`](crate::Proof::piece_at) (with
//! [`next_after`](crate::Proof::next_after)); everything that could block, wake much or call foreign code is collected in [`After`] and done once it is released.
//!
//! Until its write has returned, an accepted byte belongs to the job: not to the lease, not to the source. No verdict,
//! restart or drop touches it sooner, and two writes of one range are never in flight.

mod accept;
mod bench;
mod board;
mod grant;
mod judge;
mod lease;
mod meter;
mod objects;
mod parties;
mod ranges;
mod segment;
mod select;
mod setback;
mod wanted;
mod work;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Discovery;
use crate::budget::Budget;
use crate::error::Error;
use crate::event::EventKind;
use crate::journal::Claim as JournalClaim;
use crate::object::{BindingId, FileId, LeaseId, ObjectId, PartyId, SourceId, Target};
use crate::origin::Origin;
use crate::range::Body;
use crate::retry::Backoff;
use crate::sched::Scheduler;
use crate::select::Want;
use crate::sink::{Sink, SinkCaps};
use crate::source::SourceInfo;
use crate::throttle::Bucket;

pub use bench::WorkBench;
pub use board::{BindingView, Board, LeaseView, Limits, ObjectView};
pub use lease::{Lease, Next, Put};
pub use ranges::RangeSet;
pub use work::{Ask, Claim, Discovering, News, NewsItem, Work};

pub(crate) use board::Dispute;
pub(crate) use judge::Conclusion;
pub(crate) use objects::ObjectState;
pub(crate) use parties::Parties;
pub(crate) use work::Waiter;
#[cfg(test)]
pub(crate) use write::crc32c;

/// How long gathered bytes may wait for company before they are written.
pub(crate) const GATHER: Duration = Duration::from_millis(10);

/// Where hashing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compute {
    /// On the runtime's blocking threads.
    Blocking,
    /// Where it is asked for: in a simulator, where threads would make runs differ.
    Inline,
}

impl Compute {
    pub(crate) async fn run<R: Send + 'static>(
        self,
        f: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Error> {
        match self {
            Self::Inline => Ok(f()),
            Self::Blocking => tokio::task::spawn_blocking(f).await.map_err(|e| {
                Error::new(crate::Kind::Bug, "compute").because("a worker thread failed").caused_by(e)
            }),
        }
    }
}

/// What a source found, and from whom. The job cannot end before it was taken in.
pub(crate) type Learnt = (SourceId, Discovery, Discovering);

/// What a ledger is made with.
pub(crate) struct Parts {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) policy: Box<dyn Scheduler>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) buckets: [Arc<Bucket>; 2],
    pub(crate) limits: Limits,
    pub(crate) retries: u32,
    pub(crate) max_pause: Duration,
    pub(crate) stop: CancellationToken,
    pub(crate) compute: Compute,
    pub(crate) found: mpsc::Sender<Learnt>,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    /// Something for the driver to look at.
    pub(crate) driver: Notify,
    /// An ordered frontier moved, or somebody has to look again.
    moved: Notify,
    pub(crate) budget: Arc<Budget>,
    buckets: [Arc<Bucket>; 2],
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) caps: SinkCaps,
    limits: watch::Sender<Limits>,
    news: broadcast::Sender<NewsItem>,
    pub(crate) stop: CancellationToken,
    compute: Compute,
    found: mpsc::Sender<Learnt>,
    retries: u32,
    max_pause: Duration,
    runtime: tokio::runtime::Handle,
    /// How many leases there are, for a look without the lock.
    leases: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) board: Board,
    policy: Box<dyn Scheduler>,
    pub(crate) objects: BTreeMap<ObjectId, ObjectState>,
    pub(crate) bindings: BTreeMap<BindingId, BindingState>,
    tokens: BTreeMap<LeaseId, CancellationToken>,
    pub(crate) parties: Parties,
    pub(crate) sources: Vec<SourceState>,
    waiters: Vec<Waiter>,
    next_lease: u64,
    next_waiter: u64,
    next_binding: u32,
    /// Objects of which nothing more is wanted, and that are kept because that may change.
    pub(crate) parked: BTreeSet<ObjectId>,
    /// Objects whose files say something else of what is wanted than their masks, and objects with a mask.
    pub(crate) unmasked: BTreeSet<ObjectId>,
    masked: BTreeSet<ObjectId>,
    /// What somebody wants otherwise, for the driver.
    pub(crate) asked: Vec<(FileId, Want)>,
    /// Guards and resolve streams that may still find something.
    pub(crate) discovering: u32,
    /// No claim is served any more.
    pub(crate) ended: bool,
    /// What ended the job.
    pub(crate) fatal: Option<Error>,
    /// Written and not yet in the journal.
    pub(crate) dirty: Vec<Dirty>,
    pub(crate) dirty_bytes: u64,
    /// Wrong, to be journaled before it may be granted again.
    pub(crate) retract: Vec<(ObjectId, u32, std::ops::Range<u64>)>,
    /// Writes, hashes and read-backs that run.
    pub(crate) running: u32,
    pub(crate) received: u64,
    pub(crate) duplicate: u64,
    /// For the driver to publish.
    pub(crate) events: Vec<EventKind>,
    /// Events that were too many to keep.
    pub(crate) unsaid: u64,
    pub(crate) max_pause: Duration,
    /// Numbers of objects that are in place and were let go; neighbours are one entry.
    pub(crate) finished: RangeSet,
}

#[derive(Debug)]
pub(crate) struct Dirty {
    pub(crate) object: ObjectId,
    pub(crate) generation: u32,
    pub(crate) claim: JournalClaim,
}

#[derive(Debug)]
pub(crate) struct BindingState {
    pub(crate) target: Target,
    pub(crate) first: Option<Body>,
    backoff: Backoff,
    pub(crate) error: Option<Error>,
}

#[derive(Debug)]
pub(crate) struct SourceState {
    pub(crate) info: SourceInfo,
    pub(crate) origin: Arc<Origin>,
    pub(crate) bytes: u64,
    pub(crate) error: Option<Error>,
    /// Its run has ended: it delivers nothing more unless it is run again.
    pub(crate) over: bool,
    /// Bytes accepted from it before its run began.
    pub(crate) before_run: u64,
}

/// What is done once the lock is released.
#[derive(Default)]
pub(crate) struct After {
    writes: Vec<write::WriteJob>,
    checks: Vec<judge::Check>,
    grants: Vec<(oneshot::Sender<Claim>, Option<grant::Granted>)>,
    garbage: Vec<Body>,
    /// Objects that were let go: what they hold is not freed under the lock.
    gone: Vec<ObjectState>,
    /// What may hold somebody else's code, which must not run under the lock when it is dropped.
    discarded: Vec<Box<dyn Send>>,
    cancel: Vec<CancellationToken>,
    news: Vec<NewsItem>,
    wake_driver: bool,
    wake_moved: bool,
}

impl After {
    pub(crate) fn wake_driver(&mut self) {
        self.wake_driver = true;
    }

    /// Drops this once the lock is released: buffers, permits (which wake), proofs, sources.
    pub(crate) fn discard(&mut self, what: impl Send + 'static) {
        self.discarded.push(Box::new(what));
    }
}

impl Ledger {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let caps = parts.sink.caps();
        Arc::new(Self {
            state: Mutex::new(State {
                board: Board { limits: parts.limits, ..Board::default() },
                policy: parts.policy,
                objects: BTreeMap::new(),
                bindings: BTreeMap::new(),
                tokens: BTreeMap::new(),
                parties: Parties::default(),
                sources: Vec::new(),
                waiters: Vec::new(),
                next_lease: 0,
                next_waiter: 0,
                next_binding: 0,
                parked: BTreeSet::new(),
                unmasked: BTreeSet::new(),
                masked: BTreeSet::new(),
                asked: Vec::new(),
                discovering: 0,
                ended: false,
                fatal: None,
                dirty: Vec::new(),
                dirty_bytes: 0,
                retract: Vec::new(),
                running: 0,
                received: 0,
                duplicate: 0,
                events: Vec::new(),
                unsaid: 0,
                max_pause: parts.max_pause,
                finished: RangeSet::new(),
            }),
            driver: Notify::new(),
            moved: Notify::new(),
            budget: parts.budget,
            buckets: parts.buckets,
            sink: parts.sink,
            caps,
            limits: watch::Sender::new(parts.limits),
            news: broadcast::Sender::new(256),
            stop: parts.stop,
            compute: parts.compute,
            found: parts.found,
            retries: parts.retries,
            max_pause: parts.max_pause,
            runtime: tokio::runtime::Handle::current(),
            leases: AtomicU64::new(0),
        })
    }

    /// Runs `f` under the lock, and afterwards what it asked for.
    pub(crate) fn with<R>(self: &Arc<Self>, f: impl FnOnce(&mut State, &mut After) -> R) -> R {
        let mut after = After::default();
        let result = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = f(&mut state, &mut after);
            let leases = state.board.leases.len() as u64;
            let before = self.leases.swap(leases, Ordering::Relaxed);
            // It sleeps long while nobody works.
            after.wake_driver |= before == 0 && leases > 0;
            state.running += (after.writes.len() + after.checks.len()) as u32;
            result
        };
        self.finish(after);
        result
    }

    fn finish(self: &Arc<Self>, after: After) {
        for job in after.writes {
            self.runtime.spawn(self.clone().write(job));
        }
        for check in after.checks {
            self.runtime.spawn(self.clone().check(check));
        }
        for (tx, seed) in after.grants {
            let claim = match seed {
                Some((seed, first)) => Claim::Lease(Lease::new(self.clone(), seed, first)),
                None => Claim::Retire,
            };
            // A grant to a claim that was dropped comes back here, and dropping the lease returns its range.
            let _ = tx.send(claim);
        }
        drop(after.gone);
        for token in after.cancel {
            token.cancel();
        }
        for item in after.news {
            // Nobody listening is no error.
            let _ = self.news.send(item);
        }
        if after.wake_moved {
            self.moved.notify_waiters();
        }
        if after.wake_driver {
            self.driver.notify_one();
        }
    }

    /// Changes the limits of the running job.
    pub(crate) fn set_limits(self: &Arc<Self>, limits: Limits) {
        self.buckets[1].set_rate(limits.rate);
        self.limits.send_replace(limits);
        let now = Instant::now();
        self.with(|s, after| {
            s.board.limits = limits;
            s.pump(now, after);
        });
        self.moved.notify_waiters();
    }

    /// No claim is served any more; every lease is revoked, everything gathered is written.
    pub(crate) fn end(self: &Arc<Self>) {
        let now = Instant::now();
        self.with(|s, after| {
            s.ended = true;
            after.cancel.extend(s.tokens.values().cloned());
            s.pump(now, after);
            let ids: Vec<_> = s.objects.keys().copied().collect();
            for o in ids {
                s.flush(o, None, self.caps, after);
            }
            after.wake_moved = true;
        });
    }
}

impl State {
    /// The first error that ends the job wins.
    pub(crate) fn fail_job(&mut self, error: Error, after: &mut After) {
        self.fatal.get_or_insert(error);
        after.wake_driver = true;
    }

    /// Objects with bytes to come.
    pub(crate) fn unfinished(&self) -> bool {
        self.objects.len() > self.parked.len()
    }

    /// Nobody is left who could deliver what is missing of it.
    pub(crate) fn is_lost(&self, object: ObjectId) -> bool {
        let all_there = self.board.objects.get(&object).is_some_and(|v| v.remaining() == Some(0));
        let complete = self.objects.get(&object).is_some_and(|o| o.complete);
        !complete && !all_there && self.sources_of(object).is_empty()
    }

    /// Why a source of it was given up.
    pub(crate) fn error_of(&self, object: ObjectId) -> Option<Error> {
        let bindings = self.board.objects.get(&object).into_iter().flat_map(|o| &o.bindings);
        bindings.filter_map(|b| self.bindings.get(b)).find_map(|b| b.error.clone())
    }

    /// The bindings through which an object may still come.
    pub(crate) fn sources_of(&self, object: ObjectId) -> BTreeSet<BindingId> {
        self.board
            .objects
            .get(&object)
            .map(|o| {
                o.bindings
                    .iter()
                    .copied()
                    .filter(|b| self.board.bindings.get(b).is_some_and(|v| !v.failed))
                    .collect()
            })
            .unwrap_or_default()
    }

    /// The invariants of one object: for tests.
    pub(crate) fn check(&self, object: ObjectId) -> Result<(), String> {
        let Some(v) = self.board.objects.get(&object) else { return Ok(()) };
        let (h, w, y) = (&v.held, &v.written, &v.verified);
        for (a, b, name) in
            [(h, w, "held and written"), (h, y, "held and verified"), (w, y, "written and verified")]
        {
            if let Some(r) = a.iter().find(|r| b.touches(r)) {
                return Err(format!("{r:?} is {name}"));
            }
        }
        if v.done.covered() != h.covered() + w.covered() + y.covered()
            || [h, w, y].iter().any(|s| s.iter().any(|r| !v.done.covers(&r)))
        {
            return Err(format!("done {:?} is not held {h:?} + written {w:?} + verified {y:?}", v.done));
        }
        if let Some(w) = &v.wanted {
            let mut left = w.all().clone();
            v.done.iter().for_each(|r| left.remove(&r));
            if *w.left() != left {
                return Err(format!("{:?} is wanted and missing, and the mask says {:?}", left, w.left()));
            }
        }
        let mut owned = RangeSet::new();
        for l in v.leases.iter().filter_map(|l| self.board.leases.get(l)) {
            if owned.touches(&l.reserved) {
                return Err(format!("{:?} is reserved twice", l.reserved));
            }
            owned.insert(l.reserved.clone());
        }
        if owned != v.reserved {
            return Err(format!("reserved {:?}, and leases own {owned:?}", v.reserved));
        }
        let gathered: u64 = self.objects.get(&object).map_or(0, |o| o.pending.values().map(|s| s.len).sum());
        if gathered > h.covered() {
            return Err(format!("{gathered} bytes are gathered, and only {} are held", h.covered()));
        }
        Ok(())
    }

    pub(crate) fn revoke_all(&self, object: ObjectId, after: &mut After) {
        let leases = self.board.objects.get(&object).into_iter().flat_map(|o| &o.leases);
        after.cancel.extend(leases.filter_map(|l| self.tokens.get(l)).cloned());
    }

    fn label(&self, party: PartyId) -> Arc<str> {
        self.parties.get(party).map_or_else(|| "?".into(), |p| p.label.clone())
    }
}
