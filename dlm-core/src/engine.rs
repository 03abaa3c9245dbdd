//! The engine: backends, shared limits, and the jobs that run on them.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::budget::Budget;
use crate::drive::Driver;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, EventKind, Snapshot};
use crate::job::{JobSpec, Outcome};
use crate::journal::Journal;
use crate::ledger::{Compute, Ledger, Limits, Parts};
use crate::object::{FileId, JobId};
use crate::origin::Origin;
use crate::registry::Registry;
use crate::sched::{Adaptive, Ordered, Scheduler};
use crate::select::Want;
use crate::sink::{Order, Sink};
use crate::throttle::Bucket;

/// Bytes in flight of a whole engine, unless it is told otherwise.
const MEMORY: u64 = 8 << 20;

type Policy = dyn Fn(Order) -> Box<dyn Scheduler> + Send + Sync;

pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) budget: Arc<Budget>,
    pub(crate) bucket: Arc<Bucket>,
    origins: Mutex<HashMap<Arc<str>, Arc<Origin>>>,
    origin_rate: Option<u64>,
    policy: Arc<Policy>,
    compute: Compute,
    seq: AtomicU64,
    jobs: AtomicU64,
    stop: CancellationToken,
}

impl Shared {
    /// What is known of everything with this politeness key.
    pub(crate) fn origin(&self, key: &Arc<str>) -> Arc<Origin> {
        let mut all = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > 4096 {
            all.retain(|_, o| Arc::strong_count(o) > 1);
        }
        all.entry(key.clone()).or_insert_with(|| Arc::new(Origin::new(self.origin_rate))).clone()
    }

    pub(crate) fn event(&self, job: JobId, kind: EventKind) -> Event {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        Event { seq, job, at: std::time::SystemTime::now(), kind }
    }
}

/// Runs jobs. Cheap to clone; clones are the same engine. Dropping the last one does not stop its jobs:
/// their handles do.
///
/// Must be used inside a tokio runtime.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("backends", &self.0.registry).finish_non_exhaustive()
    }
}

/// Makes an [`Engine`].
#[must_use]
pub struct EngineBuilder {
    registry: Registry,
    memory: u64,
    rate: Option<u64>,
    origin_rate: Option<u64>,
    policy: Option<Arc<Policy>>,
    compute: Compute,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("backends", &self.registry)
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}

impl EngineBuilder {
    /// Adds a backend.
    pub fn backend(mut self, backend: impl Backend) -> Self {
        self.registry.add(Arc::new(backend));
        self
    }
    /// Most bytes that all jobs together hold in memory between the socket and the disk; at least 256 KiB.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes.max(256 << 10);
        self
    }
    /// Most bytes a second over all jobs; `None`, as at first: no limit. What is given to others
    /// ([`Work::charge_upload`](crate::Work::charge_upload)) counts, too. A job has a limit of its own beside it
    /// ([`JobSpec::limit_rate`]).
    pub fn limit_rate(mut self, bytes_per_second: Option<u64>) -> Self {
        self.rate = bytes_per_second;
        self
    }
    /// Most bytes a second from each origin by itself (what shares a [`SourceInfo::key`](crate::SourceInfo)), over all
    /// jobs; `None`, as at first: no limit. It counts beside the other limits: the least of them holds.
    pub fn limit_rate_of_origin(mut self, bytes_per_second: Option<u64>) -> Self {
        self.origin_rate = bytes_per_second;
        self
    }
    /// Another policy than [`Adaptive`] (or [`Ordered`] for sinks that take only the next bytes), made anew for each
    /// job.
    pub fn policy(mut self, policy: impl Fn(Order) -> Box<dyn Scheduler> + Send + Sync + 'static) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }
    /// Hashes where the result is needed and not on other threads: for simulators, in which two runs must be the same.
    pub fn deterministic(mut self) -> Self {
        self.compute = Compute::Inline;
        self
    }
    /// The engine.
    pub fn build(self) -> Engine {
        let default: Arc<Policy> = Arc::new(|order| match order {
            Order::Any => Box::new(Adaptive::new()),
            Order::Next => Box::new(Ordered::new()),
        });
        Engine(Arc::new(Shared {
            registry: self.registry,
            budget: Budget::engine(self.memory),
            bucket: Arc::new(Bucket::new(self.rate)),
            origins: Mutex::default(),
            origin_rate: self.origin_rate,
            policy: self.policy.unwrap_or(default),
            compute: self.compute,
            seq: AtomicU64::new(0),
            jobs: AtomicU64::new(0),
            stop: CancellationToken::new(),
        }))
    }
}

impl Engine {
    /// An engine with nothing in it yet.
    pub fn builder() -> EngineBuilder {
        EngineBuilder {
            registry: Registry::new(),
            memory: MEMORY,
            rate: None,
            origin_rate: None,
            policy: None,
            compute: Compute::Blocking,
        }
    }

    /// Starts a job on the current runtime: bytes go to `sink`, what is needed to resume goes to `journal`.
    pub fn start(&self, spec: JobSpec, sink: Arc<dyn Sink>, journal: Arc<dyn Journal>) -> JobHandle {
        let shared = &self.0;
        let id = JobId(shared.jobs.fetch_add(1, Ordering::Relaxed));
        let stop = shared.stop.child_token();
        let order = sink.caps().order;
        let limits = Limits { connections: spec.connections, rate: spec.limit_rate };
        let (found_tx, found) = mpsc::channel(64);
        let ledger = Ledger::new(Parts {
            sink,
            policy: (shared.policy)(order),
            budget: Budget::job(&shared.budget),
            buckets: [shared.bucket.clone(), Arc::new(Bucket::new(spec.limit_rate))],
            limits,
            retries: spec.retries,
            max_pause: spec.max_pause,
            stop: stop.clone(),
            compute: shared.compute,
            found: found_tx,
        });
        let snapshot = watch::Sender::new(Snapshot::default());
        let events = broadcast::Sender::new(1024);
        let (result_tx, result) = watch::channel(None);
        let handle = JobHandle {
            id,
            stop,
            ledger: ledger.clone(),
            snapshot: snapshot.subscribe(),
            events: events.downgrade(),
            first: Mutex::new(Some(events.subscribe())),
            result,
        };
        let driver = Driver::new(shared.clone(), id, spec, ledger, journal, found, snapshot, events);
        tokio::spawn(async move {
            let outcome = Box::pin(driver.run()).await;
            let _ = result_tx.send(Some(outcome));
        });
        handle
    }

    /// Stops every job of this engine; each keeps what it has.
    pub fn shut_down(&self) {
        self.0.stop.cancel();
    }
}

/// A running job. Dropping it stops the job, which keeps what it has and can be resumed.
#[derive(Debug)]
pub struct JobHandle {
    id: JobId,
    stop: CancellationToken,
    ledger: Arc<Ledger>,
    snapshot: watch::Receiver<Snapshot>,
    events: broadcast::WeakSender<Event>,
    first: Mutex<Option<broadcast::Receiver<Event>>>,
    result: watch::Receiver<Option<Result<Outcome>>>,
}

impl JobHandle {
    /// Its number.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Waits for the end. Cancel-safe; may be called again and gives the same answer.
    ///
    /// # Errors
    /// Whatever made the job fail; [`Kind::Cancelled`] when it was stopped.
    pub async fn outcome(&mut self) -> Result<Outcome> {
        match self.result.wait_for(Option::is_some).await {
            Ok(r) => r.clone().unwrap_or_else(|| Err(lost())),
            Err(_) => Err(lost()),
        }
    }

    /// Events from the start of the job on the first call, from now on later ones. A reader that is slow loses the
    /// oldest and is told how many.
    pub fn events(&self) -> Events {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        Events {
            job: self.id,
            rx: first.or_else(|| self.events.upgrade().map(|s| s.subscribe())),
            held: None,
        }
    }

    /// How far it is: always the newest, replaced several times a second.
    pub fn snapshot(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }

    /// Limits of the running job.
    pub fn set_limits(&self, limits: Limits) {
        self.ledger.set_limits(limits);
    }

    /// Changes which files are wanted, and how urgently; of all others what was said before holds. A file that was not
    /// found yet gets what is said here when it is. One that is in place stays there.
    ///
    /// Returns at once; the job acts on it within moments, all of one call together. Transfers that serve nothing wanted
    /// any more are stopped. The job ends when every wanted file is in place, and then this does nothing. Bytes of a file
    /// that is no longer wanted are kept while the job runs, so wanting it again costs nothing twice.
    ///
    /// Where the sink takes only the next bytes, a file of which some have come is finished whatever is said here. A sink
    /// that cannot leave files out ([`Sink::set_aside`]) fails the job with [`Kind::Unsupported`].
    pub fn select(&self, files: impl IntoIterator<Item = (FileId, Want)>) {
        self.ledger.ask_for(files);
    }

    /// Stops it: leases are revoked, what is in memory is written and journaled. [`outcome`](Self::outcome) then gives
    /// [`Kind::Cancelled`] within two seconds. Starting the same job again resumes it.
    pub fn cancel(&self) {
        self.stop.cancel();
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn lost() -> Error {
    Error::new(Kind::Bug, "run the job").because("its task ended without a result")
}

/// A job's events, in order.
#[derive(Debug)]
pub struct Events {
    job: JobId,
    rx: Option<broadcast::Receiver<Event>>,
    /// The first one after a gap that was told of.
    held: Option<Event>,
}

impl Events {
    /// The next event; `None` once the job is over. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(e) = self.held.take() {
            return Some(e);
        }
        match self.rx.as_mut()?.recv().await {
            Ok(e) => Some(e),
            Err(broadcast::error::RecvError::Lagged(missed)) => self.gap(missed),
            Err(broadcast::error::RecvError::Closed) => {
                self.rx = None;
                None
            }
        }
    }

    /// Tells of a gap, which ends where the oldest event begins that is still there.
    fn gap(&mut self, mut missed: u64) -> Option<Event> {
        let next = loop {
            match self.rx.as_mut()?.try_recv() {
                Ok(e) => break e,
                Err(broadcast::error::TryRecvError::Lagged(more)) => missed += more,
                // Cannot be: what made others fall out is there.
                Err(_) => return None,
            }
        };
        let (seq, at) = (next.seq.saturating_sub(1), next.at);
        self.held = Some(next);
        Some(Event { seq, job: self.job, at, kind: EventKind::Lagged { missed } })
    }
}

/// Resolves to the outcome.
impl IntoFuture for JobHandle {
    type Output = Result<Outcome>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;
    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move { self.outcome().await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64) -> Event {
        Event {
            seq,
            job: JobId(1),
            at: std::time::SystemTime::now(),
            kind: EventKind::State(crate::JobState::Running),
        }
    }

    #[tokio::test]
    async fn who_missed_events_is_told_where_the_gap_ends() {
        let (tx, rx) = broadcast::channel(4);
        let mut events = Events { job: JobId(1), rx: Some(rx), held: None };
        for seq in (2..=20).step_by(2) {
            tx.send(event(seq)).unwrap();
        }
        let gap = events.next().await.unwrap();
        assert!(matches!(gap.kind, EventKind::Lagged { missed: 6 }), "{gap:?}");
        let mut last = gap.seq;
        assert_eq!(last, 13, "2 to 12 are gone, and 14 comes next");
        drop(tx);
        let mut rest = Vec::new();
        while let Some(e) = events.next().await {
            assert!(e.seq > last, "numbers only grow");
            last = e.seq;
            rest.push(e.seq);
        }
        assert_eq!(rest, [14, 16, 18, 20]);
    }
}
