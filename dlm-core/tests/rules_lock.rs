//! The policy is asked seldom under the job's lock, and its answers may be stale. (What else may not run there:
//! `rules_foreign.rs`.)
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Adaptive, Algorithm, Ask, Asker, BindingId, Board, BoardEvent, Caps, Discovery, Engine, Evidence, Exit,
    FixedPieces, Grant, JobSpec, LeaseId, MemoryJournal, MemorySink, Order, Outcome, Proof, Ranged, Result,
    Scheduler, Seek, Source, SourceInfo, Span, Trust, Work, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};
use rules_kit::{Calls, CountedSink, Found, Server, Watched, all, bind, lock, nowhere, object, run};
use tokio::time::Instant;

const LEN: u64 = 12_000_000;

fn data() -> Bytes {
    fixtures::bytes(21, LEN as usize)
}

/// An engine with one object of these sources, and a policy of the test's.
fn engine<P: Scheduler>(
    sources: Vec<(Arc<dyn Source>, Caps)>,
    evidence: Vec<(Arc<dyn Proof>, Trust)>,
    policy: impl Fn() -> P + Send + Sync + 'static,
) -> Engine {
    let found = Found(move |cx: &dlm_core::Cx| {
        let (id, mut found) = object(cx, "object", LEN);
        for (proof, trust) in &evidence {
            let what = Evidence::Pieces { window: Span::ALL, proof: proof.clone() };
            found.push(Discovery::Evidence { object: id, what, trust: *trust });
        }
        for (source, caps) in &sources {
            found.push(bind(source, id, *caps, &strong(Some(LEN))));
        }
        all(found)
    });
    Engine::builder().backend(found).policy(move |_| Box::new(policy())).deterministic().build()
}

fn server(key: &'static str, rate: f64) -> Arc<dyn Source> {
    Arc::new(Ranged::new(Server::new(key, data(), rate)))
}

fn fetch(engine: &Engine, sink: &CountedSink) -> Outcome {
    let spec = JobSpec::new(nowhere());
    block_on(run(engine, spec, Arc::new(sink.clone()), Arc::new(MemoryJournal::new()))).unwrap()
}

/// Every second answer is one that no longer fits the board, of a kind that was tried seldom yet.
#[derive(Debug)]
struct Stale {
    inner: Adaptive,
    turn: u64,
    /// The kind of the answer that was given last, if it was stale.
    last: Option<&'static str>,
    tried: Arc<Mutex<BTreeMap<&'static str, u32>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Stale {
    fn kinds(who: Asker, board: &Board) -> Vec<(&'static str, Grant)> {
        let mut kinds = Vec::new();
        let all: Vec<_> = rules_kit::bindings(board).into_iter().filter_map(|b| board.binding(b)).collect();
        let Some(o) = all.first().and_then(|b| board.object(b.object())) else { return kinds };
        let Some(free) = o.gaps(0..u64::MAX).next() else { return kinds };
        let fetch = |b: BindingId, start, end| Grant::Fetch { binding: b, span: Span { start, end } };
        let mine = |b: &&&dlm_core::BindingView| b.source() == who.source;
        let whole = |b: &&&dlm_core::BindingView| b.caps().seek == Seek::Any && b.window() == Span::ALL;
        if let Some(b) = all.iter().filter(mine).find(whole) {
            // First of all, because it is seldom to be had.
            if let Some(r) = board.leases().find(|l| l.raced()) {
                kinds.push(("to race what is raced", Grant::Race { of: r.id(), from: 0, binding: b.id() }));
            }
            if o.frontier() > 0 {
                kinds.push(("of bytes that are there", fetch(b.id(), 0, Some(free.end))));
            }
            if let Some(l) = board.leases().find(|l| l.reserved().start < l.reserved().end) {
                kinds.push(("of reserved bytes", fetch(b.id(), l.reserved().end - 1, None)));
            }
            kinds.push(("behind the end", fetch(b.id(), LEN, None)));
            kinds.push(("of nothing", fetch(b.id(), free.start, Some(free.start))));
            if b.leases() >= b.caps().max_parallel {
                kinds.push(("of one connection too many", fetch(b.id(), free.start, None)));
            }
            let ended = LeaseId(1 << 40);
            kinds.push(("to race a lease that ended", Grant::Race { of: ended, from: 0, binding: b.id() }));
        }
        if let Some(b) = all.iter().filter(mine).find(|b| b.window().end.is_some_and(|e| e < free.end)) {
            kinds.push(("outside the window", fetch(b.id(), free.end - 1, None)));
        }
        if let Some(b) = all.iter().filter(mine).find(|b| b.caps().seek == Seek::None) {
            kinds.push(("in the middle of a stream", fetch(b.id(), free.start.max(1), None)));
        }
        if let Some(b) = all.iter().find(|b| b.source() != who.source) {
            kinds.push(("by somebody else's binding", fetch(b.id(), free.start, Some(free.end))));
            if let Some(l) = board.leases().find(|l| l.race_of().is_none() && !l.raced()) {
                kinds.push((
                    "to race by somebody else's",
                    Grant::Race { of: l.id(), from: 0, binding: b.id() },
                ));
            }
        }
        kinds.push(("by a binding that never was", fetch(BindingId(1 << 20), free.start, None)));
        kinds
    }
}

impl Scheduler for Stale {
    fn grant(&mut self, now: Instant, who: Asker, ask: &Ask, board: &Board) -> Grant {
        self.turn += 1;
        self.last = None;
        let answer = self.inner.grant(now, who, ask, board);
        let mut tried = lock(&self.tried);
        let seldom = Self::kinds(who, board).into_iter().min_by_key(|(k, _)| tried.get(k).copied());
        match seldom {
            Some((kind, grant)) if self.turn.is_multiple_of(2) => {
                *tried.entry(kind).or_default() += 1;
                self.last = Some(kind);
                grant
            }
            _ => answer,
        }
    }
    fn on_event(&mut self, now: Instant, event: &BoardEvent, board: &Board) {
        if let (BoardEvent::Leased(id), Some(kind)) = (event, self.last.take()) {
            lock(&self.wrong).push(format!("a grant {kind} became lease {id}"));
        }
        self.inner.on_event(now, event, board);
    }
    fn tick(&mut self, now: Instant, board: &Board, out: &mut Vec<Order>) -> Option<Instant> {
        self.last = None;
        self.inner.tick(now, board, out)
    }
}

#[test]
fn a_stale_grant_counts_as_wait() {
    let (tried, wrong) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), Arc::<Mutex<Vec<_>>>::default());
    let found = Found(|cx: &dlm_core::Cx| {
        let (id, mut found) = object(cx, "object", LEN);
        let a = server("a", 1e6);
        found.push(bind(&a, id, Caps::RANGES.max_parallel(2), &strong(Some(LEN))));
        let part = dlm_core::Target::new(id, nowhere()).window(Span::new(0, LEN / 2));
        found.push(Discovery::Bind(dlm_core::Binding::new(a, part, Caps::RANGES, strong(Some(LEN)))));
        found.push(bind(&server("b", 3e4), id, Caps::RANGES, &strong(Some(LEN))));
        found.push(bind(&server("c", 3e4), id, Caps::RANGES, &strong(Some(LEN))));
        found.push(bind(&server("stream", 1e5), id, Caps::STREAM, &strong(Some(LEN))));
        all(found)
    });
    let (t, w) = (tried.clone(), wrong.clone());
    let policy = move |_| -> Box<dyn Scheduler> {
        let inner = Adaptive::new();
        Box::new(Stale { inner, turn: 0, last: None, tried: t.clone(), wrong: w.clone() })
    };
    let engine = Engine::builder().backend(found).policy(policy).deterministic().build();
    let sink = MemorySink::new();
    let counted = CountedSink::new(sink.clone());
    let outcome = fetch(&engine, &counted);
    assert_eq!(*lock(&wrong), Vec::<String>::new());
    assert_eq!(outcome.received, LEN, "each byte was taken once");
    assert_eq!(sink.file("object").unwrap(), data());
    let want = [
        "behind the end",
        "by a binding that never was",
        "by somebody else's binding",
        "in the middle of a stream",
        "of bytes that are there",
        "of nothing",
        "of one connection too many",
        "of reserved bytes",
        "outside the window",
        "to race a lease that ended",
        "to race by somebody else's",
        "to race what is raced",
    ];
    let tried: Vec<_> = lock(&tried).keys().copied().collect();
    assert_eq!(tried, want, "every kind was tried");
}

fn calls_with_chunks_of(chunk: u64) -> Calls {
    let calls: Arc<Mutex<Calls>> = Arc::default();
    let source: Arc<dyn Source> = Arc::new(Ranged::new(Server::new("a", data(), 4e6).chunk(chunk)));
    let c = calls.clone();
    let engine =
        engine(vec![(source, Caps::RANGES)], Vec::new(), move || Watched::new(Adaptive::new()).counting(&c));
    fetch(&engine, &CountedSink::new(MemorySink::new()));
    *lock(&calls)
}

#[test]
fn a_put_asks_the_policy_nothing() {
    let (coarse, fine) = (calls_with_chunks_of(64 << 10), calls_with_chunks_of(1 << 10));
    // The driver looks around every few milliseconds; what 64 times as many deliveries add is not more than that.
    let sum = |c: Calls| c.grants + c.events + c.ticks;
    assert!(sum(fine) < 2 * sum(coarse), "{} deliveries: {fine:?}, {}: {coarse:?}", LEN >> 10, LEN >> 16);
}

/// Parties that all wait for anything, and take it by turns.
#[derive(Debug)]
struct Crowd {
    parties: usize,
    data: Bytes,
    delivered: AtomicUsize,
}

#[async_trait]
impl Source for Crowd {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("test", "crowd", "crowd")
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let member = |i: usize| {
            let work = work.party(&format!("member {i}"));
            let this = self.clone();
            async move {
                while let WorkClaim::Lease(mut lease) = work.claim(Ask::ANY).await {
                    lease.agree(&strong(Some(LEN)))?;
                    let start = lease.rest().start;
                    let end = lease.rest().to_range().end.min(start + (200 << 10)).min(LEN);
                    lease.ready().await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    lease.put(start, this.data.slice(start as usize..end as usize))?;
                    this.delivered.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, dlm_core::Error>(())
            }
        };
        futures::future::try_join_all((0..self.parties).map(member)).await?;
        Ok(Exit::Done)
    }
}

fn grants_for_a_crowd_of(parties: usize) -> (u64, usize) {
    let calls: Arc<Mutex<Calls>> = Arc::default();
    let crowd = Arc::new(Crowd { parties, data: data(), delivered: AtomicUsize::new(0) });
    let c = calls.clone();
    let source: Arc<dyn Source> = crowd.clone();
    let engine =
        engine(vec![(source, Caps::RANGES)], Vec::new(), move || Watched::new(Adaptive::new()).counting(&c));
    fetch(&engine, &CountedSink::new(MemorySink::new()));
    let grants = lock(&calls).grants;
    (grants, crowd.delivered.load(Ordering::Relaxed))
}

#[test]
fn a_hundred_times_as_many_that_wait_cost_no_more_questions() {
    let ((few, a), (many, b)) = (grants_for_a_crowd_of(8), grants_for_a_crowd_of(800));
    // For each lease one question that gave it, and one that was refused for all who wait; the first of each who comes.
    assert!(few < 10 * a as u64, "8 parties: {few} questions for {a} leases");
    assert!(many < 10 * b as u64 + 800, "800 parties: {many} questions for {b} leases");
}

#[test]
fn what_comes_in_small_records_is_written_in_batches_of_64_kib() {
    // So large that no record has to come early for the sake of a small file.
    let len = 40 << 20;
    // 16 KiB at a time, as TLS records come.
    let server = Server::new("a", fixtures::bytes(4, len as usize), 2e7);
    let source: Arc<dyn Source> = Arc::new(Ranged::new(server));
    let found = Found(move |cx: &dlm_core::Cx| {
        let (id, mut found) = object(cx, "object", len);
        found.push(bind(&source, id, Caps::RANGES.max_parallel(1), &strong(Some(len))));
        all(found)
    });
    let sink = CountedSink::new(MemorySink::new());
    fetch(&Engine::builder().backend(found).deterministic().build(), &sink);
    let mut lens: Vec<u64> = sink.seen().writes.iter().map(|r| r.end - r.start).collect();
    lens.sort_unstable();
    assert!(lens[lens.len() / 8] >= 64 << 10, "nearly all of them are at least a batch: {lens:?}");
    assert!(*lens.last().unwrap() <= 1 << 20, "and none holds memory up: {lens:?}");
}

#[test]
fn who_delivered_what_is_kept_in_merged_runs() {
    const PIECE: u64 = 4_000_000;
    let digests =
        data().chunks(PIECE as usize).map(|c| Algorithm::Crc32c.hasher().update(c).finish()).collect();
    let proof: Arc<dyn Proof> = Arc::new(FixedPieces::new(PIECE, LEN, digests).unwrap());
    let server = Server::new("a", data(), 4e6).chunk(4 << 10).wrong_once(4_100_000);
    let source: Arc<dyn Source> = Arc::new(Ranged::new(server));
    let engine =
        engine(vec![(source, Caps::RANGES.max_parallel(1))], vec![(proof, Trust::Locator)], Adaptive::new);
    let sink = CountedSink::new(MemorySink::new());
    fetch(&engine, &sink);
    let reads: Vec<_> =
        sink.seen().reads.iter().filter(|r| r.start >= PIECE && r.end <= 2 * PIECE).cloned().collect();
    // A wrong piece is read back twice by steps of 1 MiB, and once more for each run: a run is what one party delivered,
    // in however many chunks. Here that is one, not a thousand.
    assert!(reads.len() <= 2 * 4 + 4, "{} reads: {reads:?}", reads.len());
}
