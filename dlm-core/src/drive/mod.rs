//! The driver of one job: everything that takes time and is not a source's business.
//!
//! One task: it resolves locators, prepares and commits files, checks what an earlier run left, appends to the journal
//! what was written, empties objects that start over, and publishes progress. It acts on the ledger's facts, so each
//! step may be repeated; it sleeps until the ledger, a timer or a discovery wakes it.

mod admit;
mod finish;
mod keep;
mod resolve;
mod select;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::SelectAll;
use futures::{Stream, StreamExt as _};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backend::{Cx, DiscoveryStream};
use crate::engine::Shared;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, EventKind, JobState, Snapshot};
use crate::job::{FileDone, JobSpec, Outcome, SourceReport};
use crate::journal::{Journal, Saved};
use crate::ledger::{Discovering, GATHER, Learnt, Ledger};
use crate::object::{FileId, JobId, ObjectId, SourceId, Span};
use crate::path::RelPath;
use crate::sink::Keep;
use crate::source::{Exit, Source};

use self::keep::Keeper;
use self::resolve::{Signed, SignedStream};
use self::select::Skipped;

/// Objects taken in and not finished, at most; the search waits meanwhile.
const ADMITTED: usize = 1000;
/// Snapshots come at most this often.
const SHOW: Duration = Duration::from_millis(100);

/// What came of another locator; with a guard where the job does not end without it.
type Followed = (Result<DiscoveryStream>, Option<Discovering>);
/// Another locator's discoveries, and whether the job needs them.
type Beside = Pin<Box<dyn Stream<Item = (bool, Result<Signed>)> + Send>>;

/// A file that is not in place yet.
#[derive(Debug)]
struct File {
    object: ObjectId,
    path: RelPath,
    range: Span,
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    id: JobId,
    spec: JobSpec,
    ledger: Arc<Ledger>,
    journal: Arc<dyn Journal>,
    found: mpsc::Receiver<Learnt>,
    snapshot: watch::Sender<Snapshot>,
    events: broadcast::Sender<Event>,
    cx: Cx,
    state: JobState,
    /// The locator's own discoveries, and the guard that keeps the job open while they come.
    stream: Option<(SignedStream, Discovering)>,
    sources: Vec<(Arc<dyn Source>, SourceId)>,
    runs: JoinSet<(SourceId, Result<Exit>)>,
    resolving: JoinSet<Followed>,
    /// What other locators have found; a stream that the job needs holds its guard.
    beside: SelectAll<Beside>,
    /// Files to come.
    files: BTreeMap<FileId, File>,
    /// Files that are not wanted.
    skipped: BTreeMap<FileId, Skipped>,
    /// There was one.
    left_out: bool,
    /// Without those that are not wanted.
    found_files: u32,
    first_object: Option<ObjectId>,
    saved: Option<Saved>,
    /// The journal was read since names are settled.
    reloaded: bool,
    keeper: Keeper,
    began: Instant,
    shown: Option<(Instant, u64)>,
    speed: f64,
    done: Vec<FileDone>,
    done_bytes: u64,
    resumed: u64,
    mirrors_asked: bool,
    first_error: Option<Error>,
    /// Why something of the job will be missing; the rest of it goes on.
    lost: Option<Error>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: JobId,
        spec: JobSpec,
        ledger: Arc<Ledger>,
        journal: Arc<dyn Journal>,
        found: mpsc::Receiver<Learnt>,
        snapshot: watch::Sender<Snapshot>,
        events: broadcast::Sender<Event>,
    ) -> Self {
        let cx = Self::context(&shared, &spec);
        let keeper = Keeper::new(spec.durable);
        Self {
            shared,
            id,
            spec,
            ledger,
            journal,
            found,
            snapshot,
            events,
            cx,
            state: JobState::Resolving,
            stream: None,
            sources: Vec::new(),
            runs: JoinSet::new(),
            resolving: JoinSet::new(),
            beside: SelectAll::new(),
            files: BTreeMap::new(),
            skipped: BTreeMap::new(),
            left_out: false,
            found_files: 0,
            first_object: None,
            saved: None,
            reloaded: false,
            keeper,
            began: Instant::now(),
            shown: None,
            speed: 0.0,
            done: Vec::new(),
            done_bytes: 0,
            resumed: 0,
            mirrors_asked: false,
            first_error: None,
            lost: None,
        }
    }

    pub(crate) async fn run(mut self) -> Result<Outcome> {
        let result = self.work().await;
        self.ledger.end();
        self.ledger.stop.cancel();
        let result = self.wind_up(result).await;
        self.enter(if result.is_ok() { JobState::Done } else { JobState::Failed });
        self.show(true);
        result
    }

    async fn work(&mut self) -> Result<Outcome> {
        self.enter(JobState::Resolving);
        if self.spec.resume {
            self.saved = self.journal.load().await?;
        }
        self.resolve_first().await?;
        loop {
            self.publish();
            self.step().await?;
            if self.finished() {
                return self.lost.take().map_or_else(|| Ok(self.outcome()), Err);
            }
            self.show(false);
            self.wait().await?;
        }
    }

    /// Everything that can be done now.
    async fn step(&mut self) -> Result<()> {
        let fatal = self.ledger.with(|s, _| s.fatal.clone());
        if let Some(e) = fatal {
            return Err(e);
        }
        self.reselect().await?;
        self.tell_lengths().await?;
        self.start_over().await?;
        self.retract().await?;
        self.checkpoint(false).await?;
        self.conclude().await?;
        self.ask_mirrors();
        self.run_again();
        self.check_stuck()
    }

    /// Sleeps until there is something to do.
    async fn wait(&mut self) -> Result<()> {
        let now = Instant::now();
        let tick = self.ledger.with(|s, after| s.tick(now, after));
        let busy = self.ledger.with(|s, _| {
            s.board.leases().next().is_some() || s.objects.values().any(|o| !o.pending.is_empty())
        });
        let mut until = now + if busy { GATHER } else { Duration::from_millis(500) };
        until = tick.map_or(until, |t| until.min(t.max(now + Duration::from_millis(1))));
        let room = self.has_room().await;
        let stop = self.ledger.stop.clone();
        let ledger = self.ledger.clone();
        // Every loser is kept: streams, channels and sets are polled again with nothing lost.
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(cancelled()),
            Some((source, d, _open)) = self.found.recv(), if room => self.absorb(d, Some(source)).await?,
            item = next_of(&mut self.stream), if room && self.stream.is_some() => match item {
                Some(Ok(d)) => self.absorb_signed(d).await?,
                // One entry of many: the others are delivered.
                Some(Err(e)) => self.lose(e),
                None => self.stream = None,
            },
            Some(item) = self.beside.next(), if room && !self.beside.is_empty() => match item {
                (_, Ok(d)) => self.absorb_signed(d).await?,
                (needed, Err(e)) => self.other_failed(e, needed),
            },
            Some(r) = self.resolving.join_next(), if !self.resolving.is_empty() => self.other_resolved(r),
            Some(r) = self.runs.join_next(), if !self.runs.is_empty() => self.source_ended(r),
            () = ledger.driver.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        if let Some(before) = Instant::now().checked_sub(GATHER) {
            self.ledger.flush_older(Some(before));
        }
        Ok(())
    }

    fn source_ended(&mut self, r: std::result::Result<(SourceId, Result<Exit>), tokio::task::JoinError>) {
        let now = Instant::now();
        match r {
            Ok((id, Ok(_))) => self.ledger.with(|s, after| s.source_over(id, now, after)),
            Ok((id, Err(e))) => self.ledger.with(|s, after| s.fail_source(id, &e, now, after)),
            Err(e) => {
                let e = Error::new(Kind::Bug, "run a source").because("its task failed").caused_by(e);
                self.ledger.with(|s, after| s.fail_job(e, after));
            }
        }
    }

    /// Whether more may be taken in. Objects that nobody can deliver make room.
    async fn has_room(&mut self) -> bool {
        if self.ledger.with(|s, _| s.objects.len() - s.parked.len()) < ADMITTED {
            return true;
        }
        let lost: Vec<(ObjectId, Option<Error>)> = self.ledger.with(|s, _| {
            let ids = s.objects.keys().filter(|id| s.error_of(**id).is_some() && s.is_lost(**id));
            ids.map(|id| (*id, s.error_of(*id))).collect()
        });
        if lost.is_empty() {
            return false;
        }
        // What they have is worth keeping; the error that matters is theirs.
        let _ = self.checkpoint(true).await;
        for (object, error) in lost {
            self.forget_object(object);
            if let Some(e) = error {
                self.lose(e);
            }
        }
        true
    }

    /// Something of the job cannot be had: the rest goes on, and the job fails in the end.
    fn lose(&mut self, error: Error) {
        self.say(EventKind::SourceFailed { source: error.subject().into(), error: error.clone() });
        self.lost.get_or_insert(error);
    }

    /// Nobody is left who could finish what is unfinished.
    fn check_stuck(&mut self) -> Result<()> {
        if self.stream.is_some() || !self.resolving.is_empty() || !self.beside.is_empty() {
            return Ok(());
        }
        let stuck: Option<(ObjectId, Option<Error>)> = self.ledger.with(|s, _| {
            if s.discovering > 0 {
                return None;
            }
            let mut lost = None;
            for id in s.objects.keys().filter(|id| !s.parked.contains(id)) {
                if !s.is_lost(*id) {
                    // One that cannot be had does not end the others.
                    return None;
                }
                lost.get_or_insert(*id);
            }
            lost.map(|id| (id, s.error_of(id)))
        });
        match stuck {
            None => Ok(()),
            Some((_, e)) => Err(e.or_else(|| self.first_error.clone()).unwrap_or_else(|| {
                Error::new(Kind::NotFound, "download")
                    .on(&self.spec.locator)
                    .because("no source is left to try")
            })),
        }
    }

    fn finished(&self) -> bool {
        // Mirrors that have not answered yet are not waited for: every byte is there.
        self.stream.is_none()
            && self.files.is_empty()
            && self.ledger.with(|s, _| s.discovering == 0 && !s.unfinished() && s.asked.is_empty())
    }

    fn outcome(&self) -> Outcome {
        let (received, duplicate, sources) = self.ledger.with(|s, _| {
            let sources = s.sources.iter();
            let reports = sources.map(|x| SourceReport {
                label: x.info.label.clone(),
                bytes: x.bytes,
                error: x.error.clone(),
            });
            (s.received, s.duplicate, reports.collect())
        });
        Outcome {
            bytes: self.done_bytes,
            files: self.done.clone(),
            received,
            duplicate,
            resumed: self.resumed,
            sources,
            elapsed: self.began.elapsed(),
        }
    }

    /// The job is over: writes return, the last record is made, the sink and the journal are closed.
    async fn wind_up(&mut self, result: Result<Outcome>) -> Result<Outcome> {
        let deadline = Instant::now() + Duration::from_secs(2);
        if result.is_err() {
            // What they still hold is worth keeping. After a success there is nothing, and dropping them is enough.
            let stop_runs = async { while self.runs.join_next().await.is_some() {} };
            let _ = tokio::time::timeout_at(deadline, stop_runs).await;
        }
        self.runs.abort_all();
        loop {
            let running = self.ledger.with(|s, _| s.running);
            if running == 0 || tokio::time::timeout_at(deadline, self.ledger.driver.notified()).await.is_err()
            {
                break;
            }
        }
        let error = match result {
            Ok(o) => {
                self.journal.close(Keep::Nothing).await?;
                if self.left_out {
                    // What was wanted is in place, whatever becomes of the rest.
                    let _ = self.ledger.sink.abort(Keep::Nothing).await;
                }
                self.publish();
                return Ok(o);
            }
            Err(e) => e,
        };
        // Bytes that were proven wrong are of no use to a later run.
        let keep =
            if matches!(error.kind(), Kind::Corrupt | Kind::Changed) { Keep::Nothing } else { Keep::Partial };
        if keep == Keep::Partial {
            // The error that ended the job is the one to tell.
            let _ = self.retract().await;
            let _ = self.checkpoint(true).await;
        }
        let sink = self.ledger.sink.clone();
        let _ = self.journal.close(keep).await;
        let _ = sink.abort(keep).await;
        self.publish();
        Err(error)
    }

    fn enter(&mut self, state: JobState) {
        if self.state != state || self.shown.is_none() {
            self.state = state;
            self.say(EventKind::State(state));
            self.show(true);
        }
    }

    fn say(&self, kind: EventKind) {
        // Nobody listening is no error.
        let _ = self.events.send(self.shared.event(self.id, kind));
    }

    /// Hands on what the ledger noted.
    fn publish(&self) {
        let (events, missed) =
            self.ledger.with(|s, _| (std::mem::take(&mut s.events), std::mem::take(&mut s.unsaid)));
        for e in events {
            self.say(e);
        }
        if missed > 0 {
            self.say(EventKind::Lagged { missed });
        }
    }

    fn show(&mut self, force: bool) {
        let now = Instant::now();
        let (then, before) = *self.shown.get_or_insert((now, 0));
        let passed = now.saturating_duration_since(then);
        if passed < SHOW && !force {
            return;
        }
        let files = (self.found_files, self.done.len() as u32);
        let mut snap = Snapshot { state: self.state, files, ..Snapshot::default() };
        let finished = self.done_bytes;
        self.ledger.with(|s, _| {
            let mut total = Some(finished);
            snap.done = finished;
            for o in s.board.objects().filter(|o| s.objects.get(&o.id).is_some_and(|x| !x.complete)) {
                let (of, done) = o.progress();
                total = total.zip(of).map(|(a, b)| a + b);
                snap.done += done;
            }
            snap.total = total.filter(|_| !s.objects.is_empty() || finished > 0);
            snap.received = s.received;
            snap.duplicate = s.duplicate;
            snap.leases = s.board.leases.len() as u32;
        });
        if passed >= SHOW {
            let sample = (snap.received.saturating_sub(before)) as f64 / passed.as_secs_f64();
            let weight = (passed.as_secs_f64() / 2.0).min(1.0);
            self.speed = if before == 0 { sample } else { self.speed * (1.0 - weight) + sample * weight };
            self.shown = Some((now, snap.received));
        }
        snap.speed = self.speed as u64;
        self.snapshot.send_replace(snap);
    }
}

async fn next_of(stream: &mut Option<(SignedStream, Discovering)>) -> Option<Result<Signed>> {
    match stream {
        Some((s, _)) => s.next().await,
        None => std::future::pending().await,
    }
}

pub(crate) fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "go on")
        .because("it was stopped")
        .advise("run the same command again to go on where it stopped")
}
