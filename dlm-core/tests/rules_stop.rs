//! To pause is to stop: claims retire, leases are revoked, what is in memory is written and recorded; to go on is another
//! run of another job, which compares identities again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Ask, Batch, Binding, Caps, Cx, Engine, Exit, FileId, FileSpec, Identity, JobHandle, JobSpec, Keep, Kind,
    MemoryJournal, MemorySink, Next, ObjectId, Outcome, Prepared, Ranged, Result, Sink, SinkCaps, Source,
    SourceInfo, Target, Validator, Work, WorkBench, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};
use rules_kit::{Found, Server, all, bind, lock, nowhere, object};
use tokio::time::Instant;

const LEN: u64 = 8_000_000;

fn data() -> Bytes {
    fixtures::bytes(31, LEN as usize)
}

async fn bench() -> (WorkBench, MemorySink, Work) {
    let sink = MemorySink::new();
    let bench = WorkBench::new(Arc::new(sink.clone()), Some(LEN), 4 << 20, Cx::new()).await.unwrap();
    let source: Arc<dyn Source> = Arc::new(Ranged::new(Server::new("a", data(), 1e6)));
    let target = Target::new(bench.object(), nowhere());
    let work = bench.add(Binding::new(source, target, Caps::RANGES, strong(Some(LEN)))).unwrap();
    (bench, sink, work)
}

async fn lease(work: &Work) -> dlm_core::Lease {
    let WorkClaim::Lease(mut lease) = work.claim(Ask::ANY).await else { panic!("there is work") };
    lease.agree(&strong(Some(LEN))).unwrap();
    lease
}

#[test]
fn claims_retire_whether_they_wait_or_come_later() {
    block_on(async {
        let (bench, _, work) = bench().await;
        // Somebody who waits, because all that may run do.
        let mut held = Vec::new();
        while let Ok(WorkClaim::Lease(l)) =
            tokio::time::timeout(Duration::from_millis(1), work.claim(Ask::ANY)).await
        {
            held.push(l);
        }
        let waits = tokio::spawn({
            let work = work.clone();
            async move { work.claim(Ask::ANY).await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        bench.end();
        let answer = tokio::time::timeout(Duration::from_secs(1), waits).await.expect("it is answered");
        assert!(matches!(answer, Ok(WorkClaim::Retire)), "{answer:?}");
        drop(held);
        assert!(matches!(work.claim(Ask::ANY).await, WorkClaim::Retire), "a claim that comes later");
        assert!(matches!(work.try_claim(bench.object(), 0..10), WorkClaim::Retire), "one of a range");
    });
}

#[test]
fn leases_are_revoked_and_deliver_nothing_more() {
    block_on(async {
        let (mut bench, _, work) = bench().await;
        let mut lease = lease(&work).await;
        assert_eq!(lease.put(0, data().slice(..1000)).unwrap().taken, 1000);
        let revoked = tokio::spawn(lease.revoked());
        bench.end();
        tokio::time::timeout(Duration::from_secs(1), revoked).await.expect("it is revoked").unwrap();
        let put = lease.put(1000, data().slice(1000..2000)).unwrap();
        assert_eq!((put.taken, put.next), (0, Next::Stop));
        tokio::time::timeout(Duration::from_secs(1), lease.ready()).await.expect("nor does it wait").unwrap();
        drop(lease);
        bench.settle().await;
        assert_eq!(bench.done().covered(), 1000);
        assert!(bench.reserved().is_empty());
        bench.check().unwrap();
    });
}

#[test]
fn what_is_gathered_is_written() {
    block_on(async {
        let (bench, sink, work) = bench().await;
        let mut lease = lease(&work).await;
        // Far less than a batch: it waits for company.
        lease.put(0, data().slice(..1000)).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(sink.bytes(bench.object()).map(|b| b.len()), Some(0));
        bench.end();
        tokio::task::yield_now().await;
        assert_eq!(sink.bytes(bench.object()).as_deref(), Some(&data()[..1000]));
    });
}

/// An engine with one object of one source.
fn engine(source: &Arc<dyn Source>, identity: &Identity) -> Engine {
    let (source, identity) = (source.clone(), identity.clone());
    let found = Found(move |cx: &Cx| {
        let (id, mut found) = object(cx, "object", LEN);
        found.push(bind(&source, id, Caps::RANGES, &identity));
        all(found)
    });
    Engine::builder().backend(found).deterministic().build()
}

fn start(source: &Arc<dyn Source>, sink: &Arc<dyn Sink>, journal: &MemoryJournal) -> JobHandle {
    let engine = engine(source, &strong(Some(LEN)));
    engine.start(JobSpec::new(nowhere()), sink.clone(), Arc::new(journal.clone()))
}

/// Stops it after a while. How many bytes had come, and how long it took to stop.
async fn stop_after(handle: &mut JobHandle, ms: u64) -> (u64, Duration) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    let began = Instant::now();
    handle.cancel();
    let ended = tokio::time::timeout(Duration::from_mins(1), handle.outcome()).await.expect("it stops");
    assert_eq!(ended.unwrap_err().kind(), Kind::Cancelled);
    // What came until the very end counts, too.
    let received = handle.snapshot().borrow().received;
    (received, began.elapsed())
}

fn recorded(journal: &MemoryJournal) -> u64 {
    let saved = dlm_core::Saved::replay(&journal.records());
    saved.objects.iter().flat_map(|o| &o.claims).map(|c| c.range.end - c.range.start).sum()
}

async fn finish(source: &Arc<dyn Source>, sink: &Arc<dyn Sink>, journal: &MemoryJournal) -> Outcome {
    let mut handle = start(source, sink, journal);
    tokio::time::timeout(Duration::from_hours(1), handle.outcome()).await.expect("it ends").unwrap()
}

/// In chunks so small that a part of a batch is in memory at any moment.
fn server() -> Arc<dyn Source> {
    Arc::new(Ranged::new(Server::new("a", data(), 1e6).chunk(2_000)))
}

#[test]
fn every_byte_that_came_is_recorded_and_not_fetched_again() {
    for ms in [30, 137, 334, 1005] {
        block_on(async {
            let (memory, journal) = (MemorySink::new(), MemoryJournal::new());
            let sink: Arc<dyn Sink> = Arc::new(memory.clone());
            let mut handle = start(&server(), &sink, &journal);
            let (received, took) = stop_after(&mut handle, ms).await;
            assert!(ms == 30 || received > 0, "{ms}");
            assert!(took < Duration::from_millis(100), "an honest source stops at once: {took:?}");
            assert_eq!(recorded(&journal), received, "{ms}");
            assert_eq!(journal.closed(), Some(Keep::Partial));
            assert_eq!(memory.aborted(), Some(Keep::Partial));
            let outcome = finish(&server(), &sink, &journal).await;
            assert_eq!((outcome.resumed, outcome.received), (received, LEN - received), "{ms}");
            assert_eq!(memory.file("object").unwrap(), data());
        });
    }
}

/// A source that delivers a little and then does not look up any more.
#[derive(Debug, Default)]
struct Deaf {
    /// Returns this long after it was stopped.
    returns: Option<Duration>,
    returned: AtomicBool,
    dropped: Arc<AtomicBool>,
}

struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Source for Deaf {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("test", "deaf", "deaf")
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let _dropped = OnDrop(self.dropped.clone());
        let WorkClaim::Lease(mut lease) = work.claim(Ask::ANY).await else { return Ok(Exit::Done) };
        lease.agree(&strong(Some(LEN)))?;
        lease.put(0, data().slice(..100_000))?;
        work.stopped().await;
        match self.returns {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
        self.returned.store(true, Ordering::Relaxed);
        Ok(Exit::Done)
    }
}

async fn stop_the_deaf(returns: Option<u64>) -> (Arc<Deaf>, Duration, u64) {
    let deaf = Arc::new(Deaf { returns: returns.map(Duration::from_millis), ..Deaf::default() });
    let source: Arc<dyn Source> = deaf.clone();
    let (sink, journal): (Arc<dyn Sink>, _) = (Arc::new(MemorySink::new()), MemoryJournal::new());
    let mut handle = start(&source, &sink, &journal);
    let (received, took) = stop_after(&mut handle, 500).await;
    assert_eq!(received, 100_000);
    tokio::task::yield_now().await;
    (deaf, took, recorded(&journal))
}

#[test]
fn a_source_that_does_not_return_within_two_seconds_is_dropped() {
    block_on(async {
        let (deaf, took, recorded) = stop_the_deaf(None).await;
        assert!(Duration::from_millis(1900) <= took && took <= Duration::from_millis(2100), "{took:?}");
        assert!(deaf.dropped.load(Ordering::Relaxed) && !deaf.returned.load(Ordering::Relaxed));
        assert_eq!(recorded, 100_000, "it costs no byte that came");
    });
}

#[test]
fn a_source_that_returns_in_time_is_waited_for() {
    block_on(async {
        let (deaf, took, recorded) = stop_the_deaf(Some(1500)).await;
        assert!(deaf.returned.load(Ordering::Relaxed), "it came to its end");
        assert!(took <= Duration::from_millis(1600), "{took:?}");
        assert_eq!(recorded, 100_000);
    });
}

/// A sink whose writes take long.
#[derive(Debug, Clone)]
struct SlowSink(MemorySink, Duration);

#[async_trait]
impl Sink for SlowSink {
    fn caps(&self) -> SinkCaps {
        self.0.caps()
    }
    async fn prepare(&self, added: &[FileSpec]) -> Vec<(FileId, Result<Prepared>)> {
        self.0.prepare(added).await
    }
    async fn set_len(&self, object: ObjectId, len: u64) -> Result<()> {
        self.0.set_len(object, len).await
    }
    async fn write(&self, batch: Batch) -> Result<()> {
        tokio::time::sleep(self.1).await;
        self.0.write(batch).await
    }
    async fn read(&self, object: ObjectId, range: std::ops::Range<u64>) -> Result<Bytes> {
        self.0.read(object, range).await
    }
    async fn sync(&self, objects: &[ObjectId]) -> Result<()> {
        self.0.sync(objects).await
    }
    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)> {
        self.0.commit(files).await
    }
    async fn truncate(&self, object: ObjectId) -> Result<()> {
        self.0.truncate(object).await
    }
    async fn abort(&self, keep: Keep) -> Result<()> {
        self.0.abort(keep).await
    }
}

#[test]
fn writes_that_are_on_their_way_are_waited_for_and_recorded() {
    block_on(async {
        let slow: Arc<dyn Sink> = Arc::new(SlowSink(MemorySink::new(), Duration::from_secs(1)));
        let journal = MemoryJournal::new();
        let mut handle = start(&server(), &slow, &journal);
        let (received, took) = stop_after(&mut handle, 700).await;
        assert!(received > 0 && took <= Duration::from_millis(2100), "{received} bytes, {took:?}");
        assert_eq!(recorded(&journal), received);
    });
}

/// Counts its runs and keeps their works.
#[derive(Debug)]
struct Runs(Arc<dyn Source>, AtomicUsize, Mutex<Vec<Work>>);

#[async_trait]
impl Source for Runs {
    fn info(&self) -> SourceInfo {
        self.0.info()
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        self.1.fetch_add(1, Ordering::Relaxed);
        lock(&self.2).push(work.clone());
        self.0.clone().run(work).await
    }
}

#[test]
fn to_go_on_is_another_run_with_another_work() {
    block_on(async {
        let runs = Arc::new(Runs(server(), AtomicUsize::new(0), Mutex::default()));
        let source: Arc<dyn Source> = runs.clone();
        let (sink, journal): (Arc<dyn Sink>, _) = (Arc::new(MemorySink::new()), MemoryJournal::new());
        let mut handle = start(&source, &sink, &journal);
        stop_after(&mut handle, 500).await;
        let mut second = start(&source, &sink, &journal);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(runs.1.load(Ordering::Relaxed), 2);
        let works = lock(&runs.2).clone();
        let old = tokio::time::timeout(Duration::from_secs(1), works[0].claim(Ask::ANY)).await.unwrap();
        assert!(matches!(old, WorkClaim::Retire), "the work of before has no share in it");
        assert!(!matches!(works[1].try_claim(ObjectId(0), LEN - 10..LEN), WorkClaim::Retire));
        second.outcome().await.unwrap();
        drop(handle);
    });
}

fn version(tag: &str) -> Identity {
    Identity::new(Some(LEN), Validator::Strong(tag.into()))
}

#[test]
fn identities_are_compared_again() {
    block_on(async {
        let (memory, journal) = (MemorySink::new(), MemoryJournal::new());
        let sink: Arc<dyn Sink> = Arc::new(memory.clone());
        let old: Arc<dyn Source> =
            Arc::new(Ranged::new(Server::new("a", data(), 1e6).identity(version("\"one\""))));
        let mut handle = engine(&old, &version("\"one\"")).start(
            JobSpec::new(nowhere()),
            sink.clone(),
            Arc::new(journal.clone()),
        );
        let (received, _) = stop_after(&mut handle, 1000).await;
        assert!(received > 0);
        // The same length, and another version.
        let fresh = fixtures::bytes(32, LEN as usize);
        let new: Arc<dyn Source> =
            Arc::new(Ranged::new(Server::new("a", fresh.clone(), 1e6).identity(version("\"two\""))));
        let mut handle =
            engine(&new, &version("\"two\"")).start(JobSpec::new(nowhere()), sink, Arc::new(journal));
        let outcome = handle.outcome().await.unwrap();
        assert_eq!((outcome.resumed, outcome.received), (0, LEN));
        assert_eq!(memory.file("object").unwrap(), fresh);
    });
}

/// What the binding says is stale: only the answer itself tells that it is another version.
#[test]
fn identities_are_compared_again_in_each_answer() {
    block_on(async {
        let (memory, journal) = (MemorySink::new(), MemoryJournal::new());
        let sink: Arc<dyn Sink> = Arc::new(memory.clone());
        let mut handle = start(&server(), &sink, &journal);
        stop_after(&mut handle, 1000).await;
        let fresh = fixtures::bytes(32, LEN as usize);
        let new: Arc<dyn Source> =
            Arc::new(Ranged::new(Server::new("a", fresh.clone(), 1e6).identity(version("\"two\""))));
        let mut handle =
            engine(&new, &strong(Some(LEN))).start(JobSpec::new(nowhere()), sink, Arc::new(journal));
        let outcome = handle.outcome().await.unwrap();
        assert_eq!(outcome.received, LEN, "all of the new version");
        assert_eq!(memory.file("object").unwrap(), fresh);
    });
}

/// What has the name already is long, and would be compared for the better part of a minute.
#[tokio::test]
async fn a_job_that_compares_a_finished_file_stops_at_once() {
    const LONG: u64 = 64 << 30;
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("object");
    // Without a byte on the disk.
    std::fs::File::create(&name).unwrap().set_len(LONG).unwrap();
    let digest: dlm_core::Digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    let sink = dlm_core::FileSink::builder(dir.path()).digests(vec![digest]).build().unwrap();
    let source: Arc<dyn Source> = Arc::new(Ranged::new(Server::new("a", data(), 1e6)));
    let found = Found(move |cx: &Cx| {
        let (id, mut found) = object(cx, "object", LONG);
        found.push(bind(&source, id, Caps::RANGES, &strong(Some(LONG))));
        all(found)
    });
    let engine = Engine::builder().backend(found).build();
    let mut job = engine.start(JobSpec::new(nowhere()), sink, Arc::new(MemoryJournal::new()));
    let mut events = job.events();
    while !matches!(events.next().await.unwrap().kind, dlm_core::EventKind::Found { .. }) {}
    job.cancel();
    let end =
        tokio::time::timeout(Duration::from_secs(10), job.outcome()).await.expect("it goes on comparing");
    assert_eq!(end.unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(std::fs::metadata(&name).unwrap().len(), LONG, "what was there is untouched");
}
