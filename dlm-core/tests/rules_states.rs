//! Every byte is in exactly one state, whatever sources do in whatever order, and one good copy of it reaches the sink.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::job::{Gate, add, bench};
use common::{Pipe, Watched};
use dlm_core::{
    Algorithm, Ask, Binding, Caps, Cx, Error, FixedPieces, Identity, Kind, Lease, MemorySink, NewsItem,
    Proof, Sink, Source, StreamSink, Target, Trust, Work, WorkBench, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{Object, Plan, SimRanged, block_on, strong};
use proptest::prelude::*;
use tokio::task::JoinHandle;

const LEN: u64 = 700_001;
const PIECE: u64 = 100_000;

#[derive(Debug, Clone)]
enum Op {
    /// A party asks and waits at most for a moment.
    Claim(usize),
    /// A party asks and waits in the queue.
    Wait(usize),
    /// Somebody who waits gives up, or takes what it got.
    Collect(usize),
    /// A party asks for a range.
    TryClaim(usize, u64, u64),
    /// The lease delivers what is next, so much of it, right or wrong.
    Put(usize, u64, bool),
    /// The lease delivers some other bytes of the object.
    PutAt(usize, u64, u64),
    Drop(usize),
    Setback(usize, Kind),
    Fail(usize),
    /// An answer begins, and speaks of the right version, or of another.
    Agree(usize, bool),
    Settle,
    Sleep(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0usize..4;
    let which = 0usize..6;
    let kinds = vec![Kind::Reset, Kind::Timeout, Kind::Denied, Kind::NotFound, Kind::RangeIgnored];
    prop_oneof![
        4 => who.clone().prop_map(Op::Claim),
        2 => who.clone().prop_map(Op::Wait),
        3 => which.clone().prop_map(Op::Collect),
        4 => (who, 0..LEN, 1u64..200_000).prop_map(|(w, at, n)| Op::TryClaim(w, at, n)),
        16 => (which.clone(), 1u64..90_000, prop::bool::weighted(0.06)).prop_map(|(l, n, b)| Op::Put(l, n, b)),
        2 => (which.clone(), 0..LEN, 1u64..50_000).prop_map(|(l, at, n)| Op::PutAt(l, at, n)),
        3 => which.clone().prop_map(Op::Drop),
        2 => (which.clone(), prop::sample::select(kinds)).prop_map(|(l, k)| Op::Setback(l, k)),
        1 => which.clone().prop_map(Op::Fail),
        2 => (which, prop::bool::weighted(0.9)).prop_map(|(l, g)| Op::Agree(l, g)),
        2 => Just(Op::Settle),
        3 => (0u64..40).prop_map(Op::Sleep),
    ]
}

/// What is tried, and on what.
struct Run {
    bench: WorkBench,
    data: Bytes,
    works: Vec<Work>,
    waiting: Vec<JoinHandle<WorkClaim>>,
    leases: Vec<Lease>,
    /// Whether wrong bytes can be found out.
    proof: bool,
}

impl Run {
    async fn new(sink: Arc<dyn Sink>, proof: bool, memory: u64) -> (Self, Arc<dyn Source>, Work) {
        let data = fixtures::bytes(11, LEN as usize);
        let bench = WorkBench::new(sink, Some(LEN), memory, Cx::new()).await.unwrap();
        if proof {
            let digests =
                data.chunks(PIECE as usize).map(|c| Algorithm::Crc32c.hasher().update(c).finish()).collect();
            let pieces: Arc<dyn Proof> = Arc::new(FixedPieces::new(PIECE, LEN, digests).unwrap());
            bench.proof(pieces, Trust::Locator);
        }
        let object = Object { data: data.clone(), piece: None, seed: 1 };
        let add = |label: &str| {
            let (source, caps, identity) = SimRanged::new(label, 5e6).make()(&object);
            let target = Target::new(bench.object(), "sim://object/".parse().unwrap());
            let work = bench.add(Binding::new(source.clone(), target, caps, identity)).unwrap();
            (source, work)
        };
        let (good, work) = add("good");
        let (_, a) = add("a");
        let (_, b) = add("b");
        // Two sources, and two peers of one of them.
        let works = vec![a, b.clone(), b.party("peer"), b.party("other peer")];
        (Self { bench, data, works, waiting: Vec::new(), leases: Vec::new(), proof }, good, work)
    }

    fn take(&mut self, claim: WorkClaim) {
        if let WorkClaim::Lease(mut lease) = claim {
            lease.agree(&strong(Some(LEN))).unwrap();
            self.leases.push(lease);
        }
    }

    fn lease(&mut self, i: usize) -> Option<&mut Lease> {
        let n = self.leases.len();
        if n == 0 { None } else { self.leases.get_mut(i % n) }
    }

    fn part(&self, at: u64, n: u64) -> Bytes {
        self.data.slice(at as usize..(at + n).min(LEN) as usize)
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Claim(w) => {
                let claim = tokio::time::timeout(Duration::ZERO, self.works[w].claim(Ask::ANY)).await;
                if let Ok(claim) = claim {
                    self.take(claim);
                }
            }
            Op::Wait(w) => {
                let work = self.works[w].clone();
                self.waiting.push(tokio::spawn(async move { work.claim(Ask::ANY).await }));
                tokio::task::yield_now().await;
            }
            Op::Collect(i) if !self.waiting.is_empty() => {
                let task = self.waiting.swap_remove(i % self.waiting.len());
                task.abort();
                if let Ok(claim) = task.await {
                    self.take(claim);
                }
            }
            Op::TryClaim(w, at, n) => {
                let claim = self.works[w].try_claim(self.bench.object(), at..(at + n).min(LEN));
                self.take(claim);
            }
            Op::Put(i, n, bad) => {
                let bad = bad && self.proof;
                let Some(at) = self.lease(i).map(|l| l.rest()).filter(|r| !r.is_empty()).map(|r| r.start)
                else {
                    return;
                };
                let mut bytes = self.part(at, n);
                if bad && !bytes.is_empty() {
                    let mut wrong = bytes.to_vec();
                    wrong[n as usize % bytes.len()] ^= 4;
                    bytes = wrong.into();
                }
                if let Some(l) = self.lease(i) {
                    l.put(at, bytes).map_or_else(|e| assert_eq!(e.kind(), Kind::Bug), drop);
                }
            }
            Op::PutAt(i, at, n) => {
                let bytes = self.part(at, n);
                if let Some(l) = self.lease(i) {
                    l.put(at, bytes).map_or_else(|e| assert_eq!(e.kind(), Kind::Bug), drop);
                }
            }
            Op::Drop(i) if !self.leases.is_empty() => {
                self.leases.swap_remove(i % self.leases.len());
            }
            Op::Setback(i, kind) if !self.leases.is_empty() => {
                self.leases.swap_remove(i % self.leases.len()).setback(&Error::new(kind, "fetch"));
            }
            Op::Fail(i) if !self.leases.is_empty() => {
                self.leases.swap_remove(i % self.leases.len()).fail(Error::new(Kind::NotFound, "fetch"));
            }
            Op::Agree(i, right) => {
                let seen = if right {
                    strong(Some(LEN))
                } else {
                    Identity::new(Some(LEN + 1), strong(None).validator)
                };
                if let Some(l) = self.lease(i) {
                    l.reopen();
                    let known = l.agree(&seen);
                    assert!(right || known.is_err());
                }
            }
            Op::Settle => self.bench.settle().await,
            Op::Sleep(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            _ => {}
        }
    }

    fn check(&self, after: &Op) {
        self.bench.check().unwrap_or_else(|e| panic!("after {after:?}: {e}"));
    }
}

async fn interleave(ops: Vec<Op>, inner: Arc<dyn Sink>, proof: bool, memory: u64) -> (Watched, u64) {
    let sink = Watched::new(inner, Duration::from_millis(3));
    let (mut run, good, work) = Run::new(Arc::new(sink.clone()), proof, memory).await;
    let mut news = work.news();
    for op in ops {
        run.step(op.clone()).await;
        run.check(&op);
    }
    run.leases.clear();
    run.waiting.drain(..).for_each(|t| t.abort());
    tokio::task::yield_now().await;
    run.check(&Op::Settle);
    assert!(run.bench.reserved().is_empty(), "nobody has a lease: {:?}", run.bench.reserved());
    let whole = run.bench.run(good, work, Duration::from_mins(5)).await;
    assert!(whole, "an honest source finishes it: {:?} {:?}", run.bench.done(), run.bench.error());
    run.check(&Op::Settle);
    assert_eq!(run.bench.in_flight(), 0, "nothing is left in memory");
    assert_eq!(sink.wrong(), Vec::<String>::new());
    let mut lost = 0;
    while let Ok(Some(item)) = tokio::time::timeout(Duration::ZERO, news.next()).await {
        match item {
            NewsItem::Lost { range, .. } => lost += range.end - range.start,
            NewsItem::Resync => lost = u64::MAX,
            _ => {}
        }
    }
    (sink, lost)
}

proptest! {
    #[test]
    fn a_byte_has_one_state_and_one_good_copy(ops in prop::collection::vec(op(), 1..120), proof in any::<bool>(), tight in any::<bool>()) {
        let memory = MemorySink::new();
        let sink: Arc<dyn Sink> = Arc::new(memory.clone());
        let (watched, lost) = block_on(interleave(ops, sink, proof, if tight { 300_000 } else { 4 << 20 }));
        let got = memory.bytes(dlm_core::ObjectId(0));
        prop_assert!(got.as_deref() == Some(&fixtures::bytes(11, LEN as usize)[..]), "the right bytes");
        if lost != u64::MAX {
            prop_assert_eq!(watched.written() - lost, LEN, "each byte was written once, and once more each time it was lost");
        }
    }

    #[test]
    fn in_order_a_byte_leaves_once_and_right(ops in prop::collection::vec(op(), 1..120), proof in any::<bool>(), tight in any::<bool>()) {
        let pipe = Pipe::default();
        let sink: Arc<dyn Sink> = Arc::new(StreamSink::new(pipe.clone()));
        let (watched, _) = block_on(interleave(ops, sink, proof, if tight { 300_000 } else { 4 << 20 }));
        prop_assert!(pipe.got() == fixtures::bytes(11, LEN as usize), "the right bytes");
        prop_assert_eq!(watched.written(), LEN);
    }
}

/// Another has taken the last of what is reserved, and a little behind it.
#[test]
fn a_reservation_that_begins_anew_has_no_hole() {
    let ops = vec![
        Op::Claim(0),
        Op::Claim(0),
        Op::Put(0, 57_545, false),
        Op::TryClaim(0, 264_251, 1),
        Op::PutAt(1, 236_974, 25_171),
        Op::Put(2, 54_928, false),
        Op::Put(2, 84_207, false),
        Op::Put(2, 40_294, false),
    ];
    let sink = Arc::new(StreamSink::new(Pipe::default()));
    block_on(interleave(ops, sink, false, 4 << 20));
}

fn take(work: &Work, bench: &WorkBench, range: std::ops::Range<u64>) -> Lease {
    match work.try_claim(bench.object(), range) {
        WorkClaim::Lease(mut l) => {
            l.agree(&strong(None)).unwrap();
            l
        }
        other => panic!("no lease: {other:?}"),
    }
}

fn gated() -> (MemorySink, Gate) {
    let memory = MemorySink::new();
    (memory.clone(), Gate::new(Arc::new(memory)))
}

#[test]
fn two_writes_of_one_range_are_never_in_flight() {
    block_on(async {
        let (memory, gate) = gated();
        let mut bench = bench(Arc::new(gate.clone()), Some(LEN), 4 << 20, 4).await;
        let data = fixtures::bytes(11, LEN as usize);
        let work = add(&bench, "a", Caps::RANGES, strong(Some(LEN)));
        let (mut one, mut two) = (take(&work, &bench, 0..400_000), take(&work, &bench, 400_000..LEN));
        assert_eq!(one.put(0, data.slice(..400_000)).unwrap().taken, 400_000);
        tokio::task::yield_now().await;
        assert_eq!(gate.begun().len(), 1, "it is on its way");
        // Another copy, and one that reaches into it: only what is new of it counts.
        assert_eq!(one.put(0, data.slice(..400_000)).unwrap().taken, 0);
        assert_eq!(u64::from(two.put(300_000, data.slice(300_000..)).unwrap().taken), LEN - 400_000);
        gate.open();
        bench.settle().await;
        let begun = gate.begun();
        assert_eq!(begun.iter().map(|r| r.end - r.start).sum::<u64>(), LEN, "each byte once: {begun:?}");
        assert_eq!(memory.bytes(bench.object()).as_deref(), Some(&data[..]));
    });
}

#[test]
fn a_verdict_waits_for_the_writes_that_it_speaks_of() {
    block_on(async {
        let (_, gate) = gated();
        let mut bench = bench(Arc::new(gate.clone()), Some(LEN), 4 << 20, 4).await;
        let data = fixtures::bytes(11, LEN as usize);
        let digests = data.chunks(350_000).map(|c| Algorithm::Sha1.hasher().update(c).finish()).collect();
        bench.proof(Arc::new(FixedPieces::new(350_000, LEN, digests).unwrap()), Trust::Locator);
        let work = add(&bench, "a", Caps::RANGES, strong(Some(LEN)));
        let [liar, honest] = ["liar", "honest"].map(|l| work.party(l));
        take(&honest, &bench, 0..200_000).put(0, data.slice(..200_000)).unwrap();
        take(&liar, &bench, 200_000..350_000).put(200_000, Bytes::from(vec![0; 150_000])).unwrap();
        gate.let_through(1);
        bench.settle().await;
        let first = gate.begun()[0].clone();
        assert_eq!(gate.log.count("wrote"), 1);
        assert_eq!(gate.log.count("read"), 0, "one half is written, and not judged: {first:?}");
        gate.open();
        // Wrong it is, but not fetched again before that is on record.
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(gate.log.count("read") > 0 && bench.verified().is_empty());
        assert!(matches!(honest.try_claim(bench.object(), 0..350_000), WorkClaim::Busy));
        bench.settle().await;
        take(&honest, &bench, 0..350_000).put(0, data.slice(..350_000)).unwrap();
        bench.settle().await;
        assert!(bench.verified().covers(&(0..350_000)));
        assert!(gate.log.last("wrote") < gate.log.last("read"));
        assert!(matches!(liar.try_claim(bench.object(), 350_000..LEN), WorkClaim::Retire));
    });
}

#[test]
fn writes_run_apart_from_who_delivered() {
    block_on(async {
        let (memory, gate) = gated();
        let mut bench = bench(Arc::new(gate.clone()), Some(LEN), 4 << 20, 4).await;
        let data = fixtures::bytes(11, LEN as usize);
        let work = add(&bench, "a", Caps::RANGES, strong(Some(LEN)));
        // All of it is delivered, and its source is gone, while not one write has returned.
        let source = async {
            let mut l = take(&work, &bench, 0..LEN);
            for at in (0..LEN).step_by(50_000) {
                l.ready().await.unwrap();
                l.put(at, data.slice(at as usize..(at + 50_000).min(LEN) as usize)).unwrap();
            }
        };
        assert!(futures::poll!(Box::pin(source)).is_ready(), "it never waits for a write");
        assert_eq!(gate.log.count("wrote"), 0);
        gate.open();
        bench.settle().await;
        assert_eq!(memory.bytes(bench.object()).as_deref(), Some(&data[..]));
        assert_eq!(bench.in_flight(), 0);
    });
}

#[test]
fn a_lease_that_stalls_keeps_nothing_from_the_others() {
    let mut stalling = SimRanged::new("stalling", 2e6);
    // In the middle of what is reserved for it, and of a batch.
    stalling.stall = Some(300_000);
    stalling.caps = Caps::RANGES.max_parallel(1);
    let plan = Plan::new(7, 6 << 20).source(stalling.make()).source(SimRanged::new("steady", 1e6).make());
    let (report, sink) = block_on(plan.run());
    report.result.unwrap();
    assert_eq!(sink.file("object"), Some(plan.object.data.clone()));
    // Nobody may have waited for it to be given up, which takes 30 s of silence.
    assert!(report.seconds < 15.0, "{} s\n{:#?}", report.seconds, report.trace);
}
