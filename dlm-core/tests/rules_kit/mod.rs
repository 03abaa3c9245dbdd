//! Parts that count what the engine does with them, and jobs of any shape: for the tests of the engine's rules.

#![allow(dead_code, unused_imports, reason = "each test uses some of it")]

mod server;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Accept, Ask, Asker, Backend, Batch, BindingId, Board, BoardEvent, Caps, Checkpoint, Cx, Discovery,
    DiscoveryStream, Engine, FileId, FileSpec, From, Grant, Hint, Identity, JobSpec, Journal, Keep, Locator,
    ObjectId, Order, Outcome, Prepared, Result, Saved, Scheduler, Sink, SinkCaps, Target,
};
use tokio::time::Instant;

pub(crate) use self::server::{Served, Server};

/// What is called at each call of a part, with the call's name.
pub(crate) type Hook = Arc<dyn Fn(&'static str) + Send + Sync>;

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn nowhere() -> Locator {
    "test://object/".parse().unwrap()
}

/// A backend that finds what a function says.
pub(crate) struct Found<F>(pub(crate) F);

impl<F> fmt::Debug for Found<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Found")
    }
}

#[async_trait]
impl<F: Fn(&Cx) -> DiscoveryStream + Send + Sync + 'static> Backend for Found<F> {
    fn name(&self) -> &'static str {
        "test"
    }
    fn accepts(&self, _: &Hint<'_>) -> Accept {
        Accept::Yes
    }
    async fn resolve(&self, _: From, cx: &Cx) -> Result<DiscoveryStream> {
        Ok((self.0)(cx))
    }
}

/// These discoveries, one after the other.
pub(crate) fn all(found: Vec<Discovery>) -> DiscoveryStream {
    Box::pin(futures::stream::iter(found.into_iter().map(Ok)))
}

/// A sink that counts, and calls a hook first. Clones share it.
#[derive(Clone)]
pub(crate) struct CountedSink {
    inner: Arc<dyn Sink>,
    hook: Hook,
    pub(crate) seen: Arc<Mutex<SinkSeen>>,
}

#[derive(Debug, Default)]
pub(crate) struct SinkSeen {
    pub(crate) reads: Vec<Range<u64>>,
    pub(crate) writes: Vec<Range<u64>>,
    pub(crate) prepared: usize,
    pub(crate) committed: usize,
    /// The most files that were prepared and not committed at one moment.
    pub(crate) most_open: usize,
}

impl CountedSink {
    pub(crate) fn new(inner: impl Sink) -> Self {
        Self::with_hook(inner, Arc::new(|_| {}))
    }
    pub(crate) fn with_hook(inner: impl Sink, hook: Hook) -> Self {
        Self { inner: Arc::new(inner), hook, seen: Arc::default() }
    }
    pub(crate) fn seen(&self) -> MutexGuard<'_, SinkSeen> {
        lock(&self.seen)
    }
    pub(crate) fn bytes_read(&self) -> u64 {
        self.seen().reads.iter().map(|r| r.end - r.start).sum()
    }
}

impl fmt::Debug for CountedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountedSink").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for CountedSink {
    fn caps(&self) -> SinkCaps {
        self.inner.caps()
    }
    async fn set_aside(&self, files: &[FileSpec]) -> Vec<(FileId, Result<()>)> {
        (self.hook)("Sink::set_aside");
        self.inner.set_aside(files).await
    }
    async fn prepare(&self, added: &[FileSpec]) -> Vec<(FileId, Result<Prepared>)> {
        (self.hook)("Sink::prepare");
        {
            let mut seen = self.seen();
            seen.prepared += added.len();
            seen.most_open = seen.most_open.max(seen.prepared - seen.committed);
        }
        self.inner.prepare(added).await
    }
    async fn set_len(&self, object: ObjectId, len: u64) -> Result<()> {
        (self.hook)("Sink::set_len");
        self.inner.set_len(object, len).await
    }
    async fn write(&self, batch: Batch) -> Result<()> {
        (self.hook)("Sink::write");
        self.seen().writes.push(batch.range());
        self.inner.write(batch).await
    }
    async fn read(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes> {
        (self.hook)("Sink::read");
        self.seen().reads.push(range.clone());
        self.inner.read(object, range).await
    }
    async fn sync(&self, objects: &[ObjectId]) -> Result<()> {
        (self.hook)("Sink::sync");
        self.inner.sync(objects).await
    }
    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)> {
        (self.hook)("Sink::commit");
        self.seen().committed += files.len();
        self.inner.commit(files).await
    }
    async fn truncate(&self, object: ObjectId) -> Result<()> {
        (self.hook)("Sink::truncate");
        self.inner.truncate(object).await
    }
    async fn abort(&self, keep: Keep) -> Result<()> {
        (self.hook)("Sink::abort");
        self.inner.abort(keep).await
    }
}

/// A journal that counts, and calls a hook first. Clones share it.
#[derive(Clone)]
pub(crate) struct CountedJournal {
    inner: Arc<dyn Journal>,
    hook: Hook,
    seen: Arc<Mutex<(usize, usize)>>,
}

impl CountedJournal {
    pub(crate) fn new(inner: impl Journal) -> Self {
        Self::with_hook(inner, Arc::new(|_| {}))
    }
    pub(crate) fn with_hook(inner: impl Journal, hook: Hook) -> Self {
        Self { inner: Arc::new(inner), hook, seen: Arc::default() }
    }
    pub(crate) fn loads(&self) -> usize {
        lock(&self.seen).0
    }
    pub(crate) fn records(&self) -> usize {
        lock(&self.seen).1
    }
}

impl fmt::Debug for CountedJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountedJournal").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[async_trait]
impl Journal for CountedJournal {
    async fn load(&self) -> Result<Option<Saved>> {
        (self.hook)("Journal::load");
        lock(&self.seen).0 += 1;
        self.inner.load().await
    }
    async fn record(&self, checkpoint: &Checkpoint) -> Result<()> {
        (self.hook)("Journal::record");
        lock(&self.seen).1 += 1;
        self.inner.record(checkpoint).await
    }
    async fn close(&self, keep: Keep) -> Result<()> {
        (self.hook)("Journal::close");
        self.inner.close(keep).await
    }
}

/// How often a policy was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) grants: u64,
    pub(crate) events: u64,
    pub(crate) ticks: u64,
}

type Look = dyn Fn(&Board) + Send + Sync;
type Answer = dyn Fn(Asker, &Board, Grant) -> Grant + Send + Sync;

/// A policy that counts, shows the board to a test, and lets it change answers.
pub(crate) struct Watched {
    inner: Box<dyn Scheduler>,
    pub(crate) calls: Arc<Mutex<Calls>>,
    look: Arc<Look>,
    answer: Arc<Answer>,
}

impl Watched {
    pub(crate) fn new(inner: impl Scheduler) -> Self {
        Self {
            inner: Box::new(inner),
            calls: Arc::default(),
            look: Arc::new(|_| {}),
            answer: Arc::new(|_, _, g| g),
        }
    }
    pub(crate) fn counting(mut self, calls: &Arc<Mutex<Calls>>) -> Self {
        self.calls = calls.clone();
        self
    }
    /// Called each time the policy is, with the board.
    pub(crate) fn look(mut self, look: &Arc<impl Fn(&Board) + Send + Sync + 'static>) -> Self {
        self.look = look.clone();
        self
    }
    /// Called with each answer; gives the one to use.
    pub(crate) fn answer(
        mut self,
        answer: &Arc<impl Fn(Asker, &Board, Grant) -> Grant + Send + Sync + 'static>,
    ) -> Self {
        self.answer = answer.clone();
        self
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Scheduler for Watched {
    fn grant(&mut self, now: Instant, who: Asker, ask: &Ask, board: &Board) -> Grant {
        lock(&self.calls).grants += 1;
        (self.look)(board);
        let answer = self.inner.grant(now, who, ask, board);
        (self.answer)(who, board, answer)
    }
    fn on_event(&mut self, now: Instant, event: &BoardEvent, board: &Board) {
        lock(&self.calls).events += 1;
        (self.look)(board);
        self.inner.on_event(now, event, board);
    }
    fn tick(&mut self, now: Instant, board: &Board, out: &mut Vec<Order>) -> Option<Instant> {
        lock(&self.calls).ticks += 1;
        (self.look)(board);
        self.inner.tick(now, board, out)
    }
}

/// An object and its file, of `len` bytes.
pub(crate) fn object(cx: &Cx, name: &str, len: u64) -> (ObjectId, Vec<Discovery>) {
    let id = cx.new_object();
    let path = dlm_core::RelPath::name(name).unwrap();
    let found = vec![
        Discovery::Object(dlm_core::ObjectSpec::new(id, name, Some(len))),
        Discovery::File(FileSpec::whole(cx.new_file(), path, id, Some(len))),
    ];
    (id, found)
}

/// A binding of such an object.
pub(crate) fn bind(
    source: &Arc<dyn dlm_core::Source>,
    object: ObjectId,
    caps: Caps,
    identity: &Identity,
) -> Discovery {
    let target = Target::new(object, nowhere());
    Discovery::Bind(dlm_core::Binding::new(source.clone(), target, caps, identity.clone()))
}

/// Runs a job to its end, or fails where that takes more than an hour of virtual time.
pub(crate) async fn run(
    engine: &Engine,
    spec: JobSpec,
    sink: Arc<dyn Sink>,
    journal: Arc<dyn Journal>,
) -> Result<Outcome> {
    let mut handle = engine.start(spec, sink, journal);
    tokio::time::timeout(Duration::from_hours(1), handle.outcome()).await.expect("the job ends")
}

/// The binding a board has of a source that may be any.
pub(crate) fn bindings(board: &Board) -> Vec<BindingId> {
    (0..64).map(BindingId).filter(|b| board.binding(*b).is_some()).collect()
}
