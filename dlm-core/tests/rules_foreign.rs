//! Under the job's lock runs no code of others but the policy and a proof's `piece_at`: no sink, no journal, no source, no
//! hasher, and nothing that is dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Algorithm, Binding, Body, Caps, Cx, Discovery, Engine, Evidence, Exit, FixedPieces, Identity, JobSpec,
    Kind, Lease, MemoryJournal, MemorySink, ObjectId, Piece, PieceHasher, Proof, Ranged, Result, Sink,
    Source, SourceInfo, Span, StreamSink, Target, Trust, Validator, Verdict, Work, WorkBench, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};
use rules_kit::{CountedJournal, CountedSink, Found, Hook, Server, all, bind, lock, nowhere, object, run};

const LEN: u64 = 12_000_000;

fn data() -> Bytes {
    fixtures::bytes(21, LEN as usize)
}

/// Asks from another thread whether the lock of the job can be had.
#[derive(Debug, Default)]
struct Probe {
    work: OnceLock<Work>,
    called: Mutex<BTreeSet<&'static str>>,
    locked: Mutex<BTreeSet<&'static str>>,
}

impl Probe {
    fn at(&self, call: &'static str) {
        let Some(work) = self.work.get().cloned() else { return };
        // A few of each are enough, and threads are not free.
        if !lock(&self.called).insert(call) {
            return;
        }
        let (tx, rx) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            work.party("probe");
            let _ = tx.send(());
        });
        if rx.recv_timeout(Duration::from_secs(5)).is_err() {
            lock(&self.locked).insert(call);
        }
    }
}

/// Tells the probe its work.
#[derive(Debug)]
struct Telling(Arc<Probe>, Arc<dyn Source>);

#[async_trait]
impl Source for Telling {
    fn info(&self) -> SourceInfo {
        self.1.info()
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let _ = self.0.work.set(work.clone());
        self.0.at("Source::run");
        self.1.clone().run(work).await
    }
}

/// A proof that tells the probe of each call.
#[derive(Debug)]
struct Told(Arc<Probe>, FixedPieces, bool);

impl Proof for Told {
    fn piece_at(&self, offset: u64) -> Piece {
        self.1.piece_at(offset)
    }
    fn next_after(&self, offset: u64) -> Option<u64> {
        self.1.next_after(offset)
    }
    fn begin(&self, piece: &Range<u64>) -> Option<Box<dyn PieceHasher>> {
        self.0.at("Proof::begin");
        Some(Box::new(ToldHasher(self.0.clone(), self.1.begin(piece)?)))
    }
    fn conclude(&self) -> Verdict {
        if self.2 {
            self.0.at("Proof::conclude");
        }
        self.1.conclude()
    }
}

struct ToldHasher(Arc<Probe>, Box<dyn PieceHasher>);

impl PieceHasher for ToldHasher {
    fn update(&mut self, at: u64, bytes: &[u8]) -> bool {
        self.0.at("PieceHasher::update");
        self.1.update(at, bytes)
    }
    fn finish(self: Box<Self>) -> Verdict {
        self.0.at("PieceHasher::finish");
        self.1.finish()
    }
}

fn probed(conclude: bool) -> Arc<Probe> {
    const PIECE: u64 = 300_000;
    let probe = Arc::new(Probe::default());
    let p = probe.clone();
    let hook: Hook = Arc::new(move |call| p.at(call));
    let digests =
        data().chunks(PIECE as usize).map(|c| Algorithm::Crc32c.hasher().update(c).finish()).collect();
    let proof = Told(probe.clone(), FixedPieces::new(PIECE, LEN, digests).unwrap(), conclude);
    // It is refused, then wrong, then stops early: so that every call is made.
    let server = Server::new("a", data(), 2e6).hook(&hook).wrong_once(5_000_000);
    let other: Arc<dyn Source> = Arc::new(Ranged::new(Server::new("b", data(), 2e6)));
    let telling: Arc<dyn Source> = Arc::new(Telling(probe.clone(), Arc::new(Ranged::new(server))));
    let proof: Arc<dyn Proof> = Arc::new(proof);
    let found = Found(move |cx: &Cx| {
        let (id, mut found) = object(cx, "object", LEN);
        for source in [&telling, &other] {
            found.push(bind(source, id, Caps::RANGES, &strong(Some(LEN))));
        }
        let what = Evidence::Pieces { window: Span::ALL, proof: proof.clone() };
        found.push(Discovery::Evidence { object: id, what, trust: Trust::Locator });
        all(found)
    });
    let engine = Engine::builder().backend(found).deterministic().build();
    let sink = MemorySink::new();
    let counted = CountedSink::with_hook(sink.clone(), hook.clone());
    let journal = CountedJournal::with_hook(MemoryJournal::new(), hook);
    let spec = JobSpec::new(nowhere()).durable(true);
    block_on(run(&engine, spec, Arc::new(counted), Arc::new(journal))).unwrap();
    assert_eq!(sink.file("object").unwrap(), data());
    probe
}

#[test]
fn sinks_journals_sources_and_hashers_run_without_the_lock() {
    let probe = probed(false);
    assert_eq!(*lock(&probe.locked), BTreeSet::new(), "called under the lock");
    for call in [
        "Sink::write",
        "Sink::read",
        "Sink::sync",
        "Sink::commit",
        "Journal::record",
        "Journal::close",
        "Proof::begin",
        "PieceHasher::update",
        "PieceHasher::finish",
        "Source::run",
        "RangeSource::open",
        "Stream::poll_next",
        "Stream::drop",
    ] {
        assert!(lock(&probe.called).contains(call), "{call} was never called: {:?}", probe.called);
    }
}

#[test]
fn a_proof_concludes_without_the_lock() {
    let probe = probed(true);
    assert!(lock(&probe.called).contains("Proof::conclude"));
    assert_eq!(*lock(&probe.locked), BTreeSet::new(), "called under the lock");
}

/// Tells the probe when it is dropped.
#[derive(Debug)]
struct Dropped(Arc<Probe>, &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.at(self.1);
    }
}

/// A read buffer, a proof, a source, and a body: somebody else's each.
#[derive(Debug)]
struct Theirs(Vec<u8>, #[expect(dead_code, reason = "it is there to be dropped")] Dropped);

impl AsRef<[u8]> for Theirs {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Proof for Theirs {
    fn piece_at(&self, _: u64) -> Piece {
        Piece::Never
    }
    fn begin(&self, _: &Range<u64>) -> Option<Box<dyn PieceHasher>> {
        None
    }
}

#[async_trait]
impl Source for Theirs {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("test", "theirs", "theirs")
    }
    async fn run(self: Arc<Self>, _: Work) -> Result<Exit> {
        Ok(Exit::Done)
    }
}

fn theirs(probe: &Arc<Probe>, len: u64, what: &'static str) -> Theirs {
    Theirs(vec![0; len as usize], Dropped(probe.clone(), what))
}

fn lease(work: &Work, object: ObjectId, range: Range<u64>) -> Lease {
    let WorkClaim::Lease(mut l) = work.try_claim(object, range) else { panic!("no lease") };
    l.agree(&strong(Some(LEN))).unwrap();
    l
}

/// A bench with one source, whose lock the probe tries.
async fn bench(sink: impl Sink, probe: &Arc<Probe>) -> (WorkBench, Work) {
    let bench = WorkBench::new(Arc::new(sink), Some(LEN), 8 << 20, Cx::new()).await.unwrap();
    let source: Arc<dyn Source> = Arc::new(Ranged::new(Server::new("a", data(), 1e6)));
    let target = Target::new(bench.object(), nowhere());
    let work = bench.add(Binding::new(source, target, Caps::RANGES, strong(Some(LEN)))).unwrap();
    let _ = probe.work.set(work.clone());
    (bench, work)
}

fn unlocked(probe: &Probe, what: &[&'static str]) {
    assert_eq!(*lock(&probe.called), what.iter().copied().collect(), "what was dropped");
    assert_eq!(*lock(&probe.locked), BTreeSet::new(), "dropped under the lock");
}

#[test]
fn what_is_found_and_not_used_is_dropped_without_the_lock() {
    let probe = Arc::new(Probe::default());
    block_on(async {
        let (bench, _work) = bench(MemorySink::new(), &probe).await;
        for (len, what) in [(LEN, ["a source", "a body"]), (LEN - 1, ["no source", "no body"])] {
            let source = Arc::new(theirs(&probe, 0, what[0]));
            let held = theirs(&probe, 0, what[1]);
            let stream = Box::pin(futures::stream::poll_fn(move |_| {
                let _held = &held;
                std::task::Poll::Pending
            }));
            let target = Target::new(bench.object(), nowhere());
            let binding = Binding::new(source, target, Caps::RANGES, strong(Some(len)))
                .with_first(Body::new(Span::ALL, strong(Some(len)), stream));
            assert_eq!(bench.add(binding).is_ok(), len == LEN);
        }
        unlocked(&probe, &["a source", "no source", "no body"]);
    });
}

/// Learns something of an object that nobody knows.
#[derive(Debug)]
struct Confused(Arc<Probe>, Arc<dyn Source>);

#[async_trait]
impl Source for Confused {
    fn info(&self) -> SourceInfo {
        self.1.info()
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let _ = self.0.work.set(work.clone());
        let what = Evidence::Pieces { window: Span::ALL, proof: Arc::new(theirs(&self.0, 0, "a proof")) };
        work.learn(Discovery::Evidence { object: ObjectId(77), what, trust: Trust::Claimed }).await?;
        self.1.clone().run(work).await
    }
}

#[test]
fn a_proof_of_nothing_is_dropped_without_the_lock() {
    let probe = Arc::new(Probe::default());
    let inner = Arc::new(Ranged::new(Server::new("a", data(), 2e6)));
    let source: Arc<dyn Source> = Arc::new(Confused(probe.clone(), inner));
    let found = Found(move |cx: &Cx| {
        let (id, mut found) = object(cx, "object", LEN);
        found.push(bind(&source, id, Caps::RANGES, &strong(Some(LEN))));
        all(found)
    });
    let engine = Engine::builder().backend(found).deterministic().build();
    let journal = Arc::new(MemoryJournal::new());
    block_on(run(&engine, JobSpec::new(nowhere()), Arc::new(MemorySink::new()), journal)).unwrap();
    unlocked(&probe, &["a proof"]);
}

#[test]
fn buffers_of_an_object_that_starts_over_are_dropped_without_the_lock() {
    const BUFFER: &str = "a buffer";
    let probe = Arc::new(Probe::default());
    block_on(async {
        let (_bench, work) = bench(MemorySink::new(), &probe).await;
        let mut l = lease(&work, ObjectId(0), 0..LEN);
        l.put(0, Bytes::from_owner(theirs(&probe, 16 << 10, BUFFER))).unwrap();
        assert!(lock(&probe.called).is_empty(), "it is gathered");
        l.reopen();
        let other = Identity::new(Some(LEN), Validator::Strong("another".into()));
        assert_eq!(l.agree(&other).unwrap_err().kind(), Kind::Changed);
        unlocked(&probe, &[BUFFER]);
    });
}

#[test]
fn buffers_of_a_wrong_piece_are_dropped_without_the_lock() {
    const BUFFER: &str = "a buffer";
    const PIECE: u64 = 32 << 10;
    let probe = Arc::new(Probe::default());
    block_on(async {
        let (mut bench, work) = bench(StreamSink::new(tokio::io::sink()), &probe).await;
        let digests =
            data().chunks(PIECE as usize).map(|c| Algorithm::Crc32c.hasher().update(c).finish()).collect();
        bench.proof(Arc::new(FixedPieces::new(PIECE, LEN, digests).unwrap()), Trust::Locator);
        let mut l = lease(&work, ObjectId(0), 0..PIECE);
        for at in [0, PIECE / 2] {
            l.put(at, Bytes::from_owner(theirs(&probe, PIECE / 2, BUFFER))).unwrap();
        }
        drop(l);
        bench.settle().await;
        assert!(bench.done().is_empty(), "the piece is missing again");
        unlocked(&probe, &[BUFFER]);
    });
}
