//! What a source can do beside claiming: read what is proven, be charged for what it gives away, take back a promise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Algorithm, Ask, Binding, Caps, Cx, Engine, Exit, FileSink, FixedPieces, JobSpec, Kind, MemoryJournal,
    MemorySink, NewsItem, ObjectId, Result, Seek, Sink, Source, SourceInfo, StreamSink, Target, Trust, Work,
    WorkBench, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};
use futures::poll;
use rules_kit::{Found, all, bind, lock, nowhere, object};
use tokio::time::Instant;

const LEN: u64 = 400_000;
const PIECE: u64 = 100_000;

fn data() -> Bytes {
    fixtures::bytes(82, LEN as usize)
}

fn part(from: u64, to: u64) -> Bytes {
    data().slice(from as usize..to as usize)
}

fn proof() -> Arc<FixedPieces> {
    let data = data();
    let digests = data.chunks(PIECE as usize).map(|c| Algorithm::Sha256.hasher().update(c).finish());
    Arc::new(FixedPieces::new(PIECE, LEN, digests.collect()).unwrap())
}

/// A source that does nothing by itself: the test holds its [`Work`].
#[derive(Debug)]
struct Idle;

#[async_trait]
impl Source for Idle {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("test", "idle", "idle")
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        work.stopped().await;
        Ok(Exit::Done)
    }
}

async fn bench(sink: Arc<dyn Sink>, caps: Caps) -> (WorkBench, Work) {
    let bench = WorkBench::new(sink, Some(LEN), 4 << 20, Cx::new()).await.unwrap();
    let target = Target::new(bench.object(), nowhere());
    let work = bench.add(Binding::new(Arc::new(Idle), target, caps, strong(Some(LEN)))).unwrap();
    (bench, work)
}

/// Delivers exactly these bytes.
fn deliver(work: &Work, object: ObjectId, from: u64, bytes: &Bytes) {
    let WorkClaim::Lease(mut lease) = work.try_claim(object, from..from + bytes.len() as u64) else {
        panic!("{from} is free");
    };
    lease.agree(&strong(Some(LEN))).unwrap();
    let put = lease.put(from, bytes.clone()).unwrap();
    assert_eq!(u64::from(put.taken), bytes.len() as u64);
}

async fn refused(work: &Work, object: ObjectId, from: u64, to: u64) -> Kind {
    work.read_verified(object, from..to).await.expect_err("it is not there").kind()
}

#[tokio::test(start_paused = true)]
async fn only_pieces_that_passed_their_proof_are_read() {
    let (mut bench, work) = bench(Arc::new(MemorySink::new()), Caps::RANGES).await;
    bench.proof(proof(), Trust::Locator);
    let object = bench.object();
    assert_eq!(refused(&work, object, 0, 1).await, Kind::Busy, "nothing has come");

    deliver(&work, object, 0, &part(0, PIECE + 50_000));
    bench.settle().await;
    assert_eq!(work.read_verified(object, 0..PIECE).await.unwrap(), part(0, PIECE));
    assert_eq!(work.read_verified(object, 7..99).await.unwrap(), part(7, 99), "a part of a piece");
    assert_eq!(refused(&work, object, PIECE, PIECE + 1).await, Kind::Busy, "written, and not proven");
    assert_eq!(refused(&work, object, 0, PIECE + 1).await, Kind::Busy, "it sticks out");

    deliver(&work, object, PIECE + 50_000, &part(PIECE + 50_000, 2 * PIECE));
    bench.settle().await;
    assert_eq!(
        work.read_verified(object, 50..2 * PIECE).await.unwrap(),
        part(50, 2 * PIECE),
        "over a border"
    );

    deliver(&work, object, 3 * PIECE, &vec![0; PIECE as usize].into());
    bench.settle().await;
    assert_eq!(refused(&work, object, 3 * PIECE, LEN).await, Kind::Busy, "it was wrong");
    assert_eq!(refused(&work, object, LEN - 1, LEN + 1).await, Kind::Busy, "behind the end");
    assert_eq!(refused(&work, ObjectId(77), 0, 1).await, Kind::Busy, "there is no such object");
}

#[tokio::test(start_paused = true)]
async fn without_a_proof_what_was_written_is_read() {
    let (mut bench, work) = bench(Arc::new(MemorySink::new()), Caps::RANGES).await;
    let object = bench.object();
    deliver(&work, object, 1000, &part(1000, 3000));
    assert_eq!(refused(&work, object, 1000, 3000).await, Kind::Busy, "held, and not yet written");
    bench.settle().await;
    assert_eq!(work.read_verified(object, 1000..3000).await.unwrap(), part(1000, 3000));
    assert_eq!(refused(&work, object, 999, 3000).await, Kind::Busy);
    assert_eq!(refused(&work, object, 1000, 3001).await, Kind::Busy);
}

#[tokio::test(start_paused = true)]
async fn what_went_down_a_pipe_cannot_be_read() {
    let (mut bench, work) = bench(Arc::new(StreamSink::new(tokio::io::sink())), Caps::RANGES).await;
    let object = bench.object();
    deliver(&work, object, 0, &part(0, 1000));
    bench.settle().await;
    assert_eq!(refused(&work, object, 0, 1000).await, Kind::Unsupported);
}

/// Fetches its object, and gives it to others once the file is in place: what a swarm does.
#[derive(Debug)]
struct Seeder {
    /// The final name.
    file: PathBuf,
    read: Mutex<Option<Result<Bytes>>>,
}

#[async_trait]
impl Source for Seeder {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("test", "seeder", "seeder")
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        // The job goes on while it seeds.
        let _more = work.discovering();
        let mut news = work.news();
        deliver(&work, ObjectId(0), 0, &data());
        while let Some(item) = news.next().await {
            if matches!(item, NewsItem::Verified { .. }) {
                break;
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(self.file.exists(), "it is in place by now");
        *lock(&self.read) = Some(work.read_verified(ObjectId(0), 10..LEN).await);
        Ok(Exit::Done)
    }
}

/// A job of one object that this source has and a digest judges.
async fn seeded(source: Arc<dyn Source>, sink: Arc<dyn Sink>) {
    let found = Found(move |cx: &Cx| {
        let (id, mut found) = object(cx, "object", LEN);
        let what = dlm_core::Evidence::Pieces { window: dlm_core::Span::ALL, proof: proof() };
        found.push(dlm_core::Discovery::Evidence { object: id, what, trust: Trust::Locator });
        found.push(bind(&source, id, Caps::RANGES, &strong(Some(LEN))));
        all(found)
    });
    let engine = Engine::builder().backend(found).build();
    let outcome =
        rules_kit::run(&engine, JobSpec::new(nowhere()), sink, Arc::new(MemoryJournal::new())).await;
    assert_eq!(outcome.expect("the job ends well").bytes, LEN);
}

#[tokio::test]
async fn a_file_that_is_in_place_is_still_read() {
    // Real files: their reads are on other threads, which virtual time does not wait for.
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::builder(dir.path()).build().unwrap();
    let seeder = Arc::new(Seeder { file: dir.path().join("object"), read: Mutex::default() });
    tokio::time::pause();
    seeded(seeder.clone(), sink).await;
    let read = lock(&seeder.read).take().expect("it was read");
    assert_eq!(read.expect("a committed file can be read"), part(10, LEN));
    assert_eq!(std::fs::read(dir.path().join("object")).unwrap(), data());
}

/// Gives so many bytes to others, in parts, and notes how long that took.
#[derive(Debug)]
struct Giver {
    parts: u32,
    each: u32,
    took: Mutex<Option<Duration>>,
}

#[async_trait]
impl Source for Giver {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("test", "giver", "giver")
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let began = Instant::now();
        for _ in 0..self.parts {
            work.charge_upload(self.each).await;
        }
        *lock(&self.took) = Some(began.elapsed());
        deliver(&work, ObjectId(0), 0, &data());
        Ok(Exit::Done)
    }
}

/// Seconds that 100 × 10,000 bytes take under this limit.
fn giving(rate: Option<u64>) -> f64 {
    block_on(async {
        let giver = Arc::new(Giver { parts: 100, each: 10_000, took: Mutex::default() });
        let source: Arc<dyn Source> = giver.clone();
        let found = Found(move |cx: &Cx| {
            let (id, mut found) = object(cx, "object", LEN);
            found.push(bind(&source, id, Caps::RANGES, &strong(Some(LEN))));
            all(found)
        });
        let engine = Engine::builder().backend(found).limit_rate(rate).deterministic().build();
        let (sink, journal) = (MemorySink::new(), MemoryJournal::new());
        let outcome =
            rules_kit::run(&engine, JobSpec::new(nowhere()), Arc::new(sink), Arc::new(journal)).await;
        outcome.expect("the job ends well");
        lock(&giver.took).take().expect("it gave").as_secs_f64()
    })
}

#[test]
fn what_is_given_away_waits_for_the_engines_limit() {
    assert!(giving(None) < 0.001, "no limit, no wait");
    for rate in [100_000, 500_000] {
        let (took, want) = (giving(Some(rate)), 1e6 / rate as f64);
        assert!((want * 0.95..want * 1.05).contains(&took), "{took} s, and should be {want}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_can_do_less_gets_less() {
    let (bench, work) = bench(Arc::new(MemorySink::new()), Caps::RANGES).await;
    let WorkClaim::Lease(first) = work.claim(Ask::ANY).await else { panic!("there is work") };
    let WorkClaim::Lease(second) = work.try_claim(bench.object(), 300_000..310_000) else {
        panic!("two at once are fine so far");
    };
    drop(second);
    first.downgrade(Caps::RANGES.max_parallel(1));
    assert!(
        matches!(work.try_claim(bench.object(), 300_000..310_000), WorkClaim::Busy),
        "one at a time from now on"
    );
    let mut next = Box::pin(work.claim(Ask::ANY));
    assert!(poll!(&mut next).is_pending());
    // What it could do is not given back by saying more.
    first.downgrade(Caps::RANGES);
    assert!(
        matches!(work.try_claim(bench.object(), 300_000..310_000), WorkClaim::Busy),
        "it can only become less"
    );
    drop(first);
    assert!(matches!(next.await, WorkClaim::Lease(_)), "the next in turn");
    bench.check().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_cannot_seek_any_more_gets_no_middle() {
    let (mut bench, work) = bench(Arc::new(MemorySink::new()), Caps::RANGES).await;
    let object = bench.object();
    let WorkClaim::Lease(mut lease) = work.claim(Ask::ANY).await else { panic!("there is work") };
    lease.agree(&strong(Some(LEN))).unwrap();
    lease.put(0, part(0, 10_000)).unwrap();
    lease.downgrade(Caps::RANGES.seek(Seek::None));
    drop(lease);
    bench.settle().await;
    // The only one there is cannot continue: the object starts over, from its first byte.
    let mut next = Box::pin(work.claim(Ask::ANY));
    assert!(poll!(&mut next).is_pending(), "it starts over first");
    bench.settle().await;
    let WorkClaim::Lease(lease) = next.await else { panic!("there is work again") };
    assert_eq!((lease.range().start, lease.object()), (0, object));
    assert!(bench.done().is_empty(), "{:?}", bench.done());
    bench.check().unwrap();
}
