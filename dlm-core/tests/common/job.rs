//! Sources and backends that do what a test says, and a sink that stands still.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Accept, Backend, Batch, Binding, Caps, Checkpoint, Cx, Discovery, DiscoveryStream, Engine, Exit, FileId,
    FileSpec, From, Hint, Identity, JobHandle, JobSpec, Journal, Keep, Limits, Locator, MemoryJournal,
    ObjectId, ObjectSpec, Prepared, Record, RelPath, Result, Saved, Scheduler, Sink, SinkCaps, SinkOrder,
    Source, SourceInfo, Target, Work, WorkBench,
};
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

/// What happened, in order. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn say(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
    /// Where something with this beginning happened last.
    pub(crate) fn last(&self, start: &str) -> Option<usize> {
        self.all().iter().rposition(|l| l.starts_with(start))
    }
    /// How often something with this beginning happened.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.all().iter().filter(|l| l.starts_with(start)).count()
    }
}

/// A sink whose writes wait until they are let through. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    inner: Arc<dyn Sink>,
    may: Arc<Semaphore>,
    pub(crate) log: Log,
    begun: Arc<Mutex<Vec<Range<u64>>>>,
    buffers: Arc<AtomicUsize>,
    /// Held by whoever does not want anything to be read.
    pub(crate) reads: Arc<tokio::sync::RwLock<()>>,
}

impl Gate {
    /// Closed.
    pub(crate) fn new(inner: Arc<dyn Sink>) -> Self {
        let may = Arc::new(Semaphore::new(0));
        let (log, begun, buffers, reads) = Default::default();
        Self { inner, may, log, begun, buffers, reads }
    }
    /// So many writes go through.
    pub(crate) fn let_through(&self, n: usize) {
        self.may.add_permits(n);
    }
    /// All writes go through from now on.
    pub(crate) fn open(&self) {
        self.may.add_permits(1 << 20);
    }
    /// How many buffers all writes had together.
    pub(crate) fn buffers(&self) -> usize {
        self.buffers.load(Ordering::Relaxed)
    }
    /// The writes that have begun, in order.
    pub(crate) fn begun(&self) -> Vec<Range<u64>> {
        self.begun.lock().unwrap().clone()
    }
}

#[async_trait]
impl Sink for Gate {
    fn caps(&self) -> SinkCaps {
        self.inner.caps()
    }
    async fn prepare(&self, added: &[FileSpec]) -> Vec<(FileId, Result<Prepared>)> {
        self.inner.prepare(added).await
    }
    async fn set_len(&self, object: ObjectId, len: u64) -> Result<()> {
        self.inner.set_len(object, len).await
    }
    async fn write(&self, batch: Batch) -> Result<()> {
        self.begun.lock().unwrap().push(batch.range());
        self.buffers.fetch_add(batch.bufs.len(), Ordering::Relaxed);
        self.may.acquire().await.unwrap().forget();
        let what = format!("wrote {:?}", batch.range());
        let done = self.inner.write(batch).await;
        self.log.say(what);
        done
    }
    async fn read(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes> {
        self.log.say(format!("read {range:?}"));
        drop(self.reads.read().await);
        self.inner.read(object, range).await
    }
    async fn sync(&self, objects: &[ObjectId]) -> Result<()> {
        self.inner.sync(objects).await
    }
    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)> {
        self.log.say(format!("commit {files:?}"));
        self.inner.commit(files).await
    }
    async fn truncate(&self, object: ObjectId) -> Result<()> {
        self.log.say("truncate");
        self.inner.truncate(object).await
    }
    async fn abort(&self, keep: Keep) -> Result<()> {
        self.inner.abort(keep).await
    }
}

/// A journal that says what it is told, and keeps it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    inner: MemoryJournal,
    pub(crate) log: Log,
    pub(crate) records: Arc<Mutex<Vec<Record>>>,
}

impl Told {
    pub(crate) fn new(log: Log) -> Self {
        Self { log, ..Self::default() }
    }
}

#[async_trait]
impl Journal for Told {
    async fn load(&self) -> Result<Option<Saved>> {
        self.inner.load().await
    }
    async fn record(&self, checkpoint: &Checkpoint) -> Result<()> {
        for r in &checkpoint.records {
            self.log.say(format!("journal {r:?}"));
            self.records.lock().unwrap().push(r.clone());
        }
        self.inner.record(checkpoint).await
    }
    async fn close(&self, keep: Keep) -> Result<()> {
        self.inner.close(keep).await
    }
}

type Act = Box<dyn FnOnce(Work) -> BoxFuture<'static, Result<Exit>> + Send>;

/// A source that does just what a test says.
pub(crate) struct Acting {
    label: String,
    act: Mutex<Option<Act>>,
}

impl fmt::Debug for Acting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Acting({})", self.label)
    }
}

impl Acting {
    pub(crate) fn doing<F, R>(label: &str, act: F) -> Arc<dyn Source>
    where
        F: FnOnce(Work) -> R + Send + 'static,
        R: Future<Output = Result<Exit>> + Send + 'static,
    {
        let act: Act = Box::new(move |w| Box::pin(act(w)));
        Arc::new(Self { label: label.to_owned(), act: Mutex::new(Some(act)) })
    }
    /// One whose work a test does by hand.
    pub(crate) fn idle(label: &str) -> Arc<dyn Source> {
        Self::doing(label, |work| async move {
            work.stopped().await;
            Ok(Exit::Done)
        })
    }
}

#[async_trait]
impl Source for Acting {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("acting", self.label.as_str(), self.label.as_str())
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let act = self.act.lock().unwrap().take();
        match act {
            Some(act) => act(work).await,
            None => Ok(Exit::Done),
        }
    }
}

type Find = dyn Fn(&Locator, &Cx) -> Result<DiscoveryStream> + Send + Sync;

/// A backend that finds just what a test says.
#[derive(Clone)]
pub(crate) struct Scripted(Arc<Find>);

impl Scripted {
    pub(crate) fn new(
        find: impl Fn(&Locator, &Cx) -> Result<DiscoveryStream> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(find))
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

#[async_trait]
impl Backend for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }
    fn accepts(&self, _: &Hint<'_>) -> Accept {
        Accept::Yes
    }
    async fn resolve(&self, from: From, cx: &Cx) -> Result<DiscoveryStream> {
        match from {
            From::Locator(l) => (self.0)(&l, cx),
            _ => unreachable!("nothing else is resolved"),
        }
    }
}

pub(crate) fn locator(name: &str) -> Locator {
    format!("test://host/{name}").parse().unwrap()
}

/// A stream of what is found at once.
pub(crate) fn found(all: Vec<Discovery>) -> DiscoveryStream {
    Box::pin(futures::stream::iter(all.into_iter().map(Ok)))
}

/// An object of this name and its file.
pub(crate) fn object(cx: &Cx, name: &str, len: Option<u64>) -> (ObjectId, Vec<Discovery>) {
    let id = cx.new_object();
    let path = RelPath::name(name).unwrap();
    let all = vec![
        Discovery::Object(ObjectSpec::new(id, name, len)),
        Discovery::File(FileSpec::whole(cx.new_file(), path, id, len)),
    ];
    (id, all)
}

/// Says that a source has an object.
pub(crate) fn bind(source: &Arc<dyn Source>, object: ObjectId, caps: Caps, identity: Identity) -> Discovery {
    let target = Target::new(object, locator(&object.to_string()));
    Discovery::Bind(Binding::new(source.clone(), target, caps, identity))
}

/// Starts a job in virtual time, with the usual policies.
pub(crate) fn start(backend: Scripted, sink: Arc<dyn Sink>, journal: Arc<dyn Journal>) -> JobHandle {
    let engine = Engine::builder().backend(backend).deterministic().build();
    engine.start(JobSpec::new(locator("")), sink, journal)
}

/// The same, with a policy and so much memory.
pub(crate) fn start_with(
    backend: Scripted,
    sink: Arc<dyn Sink>,
    memory: u64,
    policy: impl Fn(SinkOrder) -> Box<dyn Scheduler> + Send + Sync + 'static,
    spec: JobSpec,
) -> JobHandle {
    let engine = Engine::builder().backend(backend).memory(memory).policy(policy).deterministic().build();
    engine.start(spec, sink, Arc::new(MemoryJournal::new()))
}

/// A bench with so many connections at most.
pub(crate) async fn bench(sink: Arc<dyn Sink>, len: Option<u64>, memory: u64, connections: u32) -> WorkBench {
    let mut limits = Limits::default();
    limits.connections = Some(connections);
    WorkBench::with_limits(sink, len, memory, Cx::new(), limits).await.unwrap()
}

/// Adds a source to a bench, whose work the test does by hand.
pub(crate) fn add(bench: &WorkBench, label: &str, caps: Caps, identity: Identity) -> Work {
    let target = Target::new(bench.object(), locator(label));
    bench.add(Binding::new(Acting::idle(label), target, caps, identity)).unwrap()
}

/// Counts how often what waits is woken.
#[derive(Debug, Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A future that is polled by hand.
pub(crate) struct Parked<T> {
    future: BoxFuture<'static, T>,
    wakes: Arc<Wakes>,
}

impl<T> Parked<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { future: Box::pin(future), wakes: Arc::default() }
    }
    pub(crate) fn poll(&mut self) -> Poll<T> {
        let waker = Waker::from(self.wakes.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
    /// Times it was woken.
    pub(crate) fn woken(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }
}
