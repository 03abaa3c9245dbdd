//! Ordered output: the engine reorders, nothing leaves before it is verified, and a slow reader bounds the memory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::Pipe;
use common::job::{Acting, Gate, Scripted, add, bench, bind, found, locator, object, start, start_with};
use dlm_core::{
    Algorithm, Ask, Asker, Board, BoardEvent, Caps, Discovery, Evidence, Exit, FixedPieces, Grant, Identity,
    JobSpec, Kind, Lease, MemoryJournal, Next, Order, Scheduler, Source, Span, StreamSink, Trust, Validator,
    Work, WorkBench, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{Plan, Report, SimRanged, SimTree, block_on, strong};
use tokio::time::Instant;

const MB: u64 = 1 << 20;
const KB: u64 = 1 << 10;

fn run(plan: &Plan) -> (Report, Pipe) {
    let pipe = Pipe::default();
    let sink = Arc::new(StreamSink::new(pipe.clone()));
    (block_on(plan.run_into(sink, Arc::new(MemoryJournal::new()))), pipe)
}

#[test]
fn a_hash_tree_and_a_server_feed_one_pipe() {
    for seed in 0..20 {
        let mut server = SimRanged::new("server", 1e6);
        server.cut = (seed % 3 == 0).then_some(700_000);
        let mut plan = Plan::new(seed, 5_000_000 + seed as usize)
            .source(SimTree { rate: 2e6, leaf: 100_000 }.make())
            .source(server.make());
        plan.len_known = seed % 2 == 0;
        plan.memory = if seed % 5 == 4 { 512 << 10 } else { 4 << 20 };
        let (report, pipe) = run(&plan);
        let outcome = report.result.unwrap_or_else(|e| panic!("seed {seed}: {e}\n{:#?}", report.trace));
        assert_eq!(pipe.got(), plan.object.data, "seed {seed}");
        assert!(outcome.sources.iter().all(|s| s.bytes > 0), "seed {seed}: both delivered: {outcome:?}");
    }
}

#[test]
fn pieces_that_several_leases_deliver_leave_whole() {
    for piece in [10_000, 64 << 10, 300_000, 1 << 20, 6 << 20] {
        for memory in [256 << 10, 1 << 20, 8 << 20] {
            let mut plan = Plan::new(3, 12_000_000)
                .pieces(piece)
                .source(SimRanged::new("one", 1e6).make())
                .source(SimRanged::new("another", 2e6).make());
            plan.memory = memory;
            let (report, pipe) = run(&plan);
            let at = format!("pieces of {piece}, memory {memory}");
            report.result.unwrap_or_else(|e| panic!("{at}: {e}\n{:#?}", report.trace));
            assert_eq!(pipe.got(), plan.object.data, "{at}");
        }
    }
}

#[test]
fn a_wrong_piece_never_leaves_and_is_fetched_again() {
    for connections in [1, 4] {
        for seed in 0..10 {
            let mut liar = SimRanged::new("liar", 2e6);
            liar.corrupt = 0.02;
            let mut plan = Plan::new(seed, 3_000_000).pieces(100_000).source(liar.make());
            if seed % 2 == 0 {
                plan = plan.source(SimRanged::new("honest", 1e6).make());
            }
            plan.memory = 512 << 10;
            plan.spec = plan.spec.connections(connections);
            let (report, pipe) = run(&plan);
            let got = pipe.got();
            let at = format!("seed {seed}, {connections} connections");
            assert_eq!(got, plan.object.data.slice(..got.len()), "{at}: only right bytes leave");
            match report.result {
                Ok(_) => assert_eq!(got.len(), 3_000_000, "{at}"),
                // The only source may be given up; it may not hang.
                Err(e) => {
                    assert!(seed % 2 == 1 && e.kind() == Kind::Corrupt, "{at}: {e}\n{:#?}", report.trace);
                }
            }
        }
    }
}

fn lease(claim: WorkClaim) -> Lease {
    match claim {
        WorkClaim::Lease(mut l) => {
            l.agree(&strong(None)).unwrap();
            l
        }
        other => panic!("no lease: {other:?}"),
    }
}

/// A pipe that is read, behind a gate, and somebody to fill it.
async fn piped(len: u64, memory: u64) -> (Pipe, Gate, WorkBench, Work) {
    let pipe = Pipe::default();
    let gate = Gate::new(Arc::new(StreamSink::new(pipe.clone())));
    let bench = bench(Arc::new(gate.clone()), Some(len), memory, 4).await;
    let work = add(&bench, "a", Caps::RANGES, strong(Some(len)));
    (pipe, gate, bench, work)
}

fn put(work: &Work, bench: &WorkBench, data: &Bytes, range: std::ops::Range<u64>) {
    let mut l = lease(work.try_claim(bench.object(), range.clone()));
    l.put(range.start, data.slice(range.start as usize..range.end as usize)).unwrap();
}

#[test]
fn the_sink_gets_only_the_next_bytes_one_write_at_a_time() {
    block_on(async {
        let data = fixtures::bytes(1, MB as usize);
        let (pipe, gate, mut bench, work) = piped(MB, 4 * MB).await;
        for part in [3, 1, 2] {
            put(&work, &bench, &data, part * 100 * KB..(part + 1) * 100 * KB);
        }
        tokio::task::yield_now().await;
        assert_eq!(gate.begun(), [], "the first is missing");
        put(&work, &bench, &data, 0..100 * KB);
        for n in 1..=4 {
            // What comes meanwhile waits.
            put(&work, &bench, &data, (390 + n as u64 * 10) * KB..(400 + n as u64 * 10) * KB);
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(gate.begun().len() <= n, "one at a time: {:?}", gate.begun());
            gate.let_through(1);
        }
        bench.settle().await;
        let begun = gate.begun();
        assert!(begun.windows(2).all(|w| w[0].end == w[1].start) && begun[0].start == 0, "{begun:?}");
        assert!(pipe.got().len() >= 300 << 10);
        gate.open();
        put(&work, &bench, &data, 440 * KB..MB);
        bench.settle().await;
        assert_eq!(pipe.got(), data);
    });
}

#[test]
fn nothing_is_granted_beyond_the_frontier_and_half_the_budget() {
    block_on(async {
        let data = fixtures::bytes(1, 4 << 20);
        let (_, _, bench, work) = piped(4 * MB, MB).await;
        let id = bench.object();
        assert!(matches!(work.try_claim(id, MB / 2..MB), WorkClaim::Busy));
        assert!(matches!(work.try_claim(id, MB / 2 - 1..MB / 2), WorkClaim::Lease(_)));
        put(&work, &bench, &data, 1000..2000);
        assert!(matches!(work.try_claim(id, MB / 2..MB), WorkClaim::Busy), "the first byte is still missing");
        put(&work, &bench, &data, 0..1000);
        assert!(matches!(work.try_claim(id, MB / 2 + 1999..MB), WorkClaim::Lease(_)));
        assert!(matches!(work.try_claim(id, MB / 2 + 2000..MB), WorkClaim::Busy));
    });
}

/// A policy that knows no bounds.
#[derive(Debug)]
struct Far(Arc<AtomicU64>);

impl Scheduler for Far {
    fn grant(&mut self, now: Instant, who: Asker, _: &Ask, board: &Board) -> Grant {
        self.0.fetch_add(1, Ordering::Relaxed);
        let any = board.claimable(who.source, now).next();
        any.map_or(Grant::Wait, |(b, _)| Grant::Fetch { binding: b.id(), span: Span::from(8 * MB) })
    }
    fn on_event(&mut self, _: Instant, _: &BoardEvent, _: &Board) {}
    fn tick(&mut self, _: Instant, _: &Board, _: &mut Vec<Order>) -> Option<Instant> {
        None
    }
}

/// A job that writes to a pipe, of a source that does what a test says.
fn acting<F, R>(len: u64, says: Vec<Evidence>, act: F) -> Scripted
where
    F: Fn(Work) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = dlm_core::Result<Exit>> + Send + 'static,
{
    Scripted::new(move |_, cx| {
        let (id, mut all) = object(cx, "f", Some(len));
        let source = Acting::doing("a", act.clone());
        all.push(bind(&source, id, Caps::RANGES, strong(Some(len))));
        for what in says.clone() {
            all.push(Discovery::Evidence { object: id, what, trust: Trust::Locator });
        }
        Ok(found(all))
    })
}

#[test]
fn a_policy_that_grants_beyond_it_is_not_obeyed() {
    block_on(async {
        let (tx, mut rx) = tokio::sync::mpsc::channel(1);
        let backend = acting(64 * MB, vec![], move |work| {
            let tx = tx.clone();
            async move {
                let claim = tokio::time::timeout(Duration::from_secs(10), work.claim(Ask::ANY)).await;
                tx.send(claim.is_ok()).await.unwrap();
                Ok(Exit::Done)
            }
        });
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        let policy = move |_| Box::new(Far(count.clone())) as Box<dyn Scheduler>;
        let sink = Arc::new(StreamSink::new(Pipe::default()));
        let _job = start_with(backend, sink, 8 * MB, policy, JobSpec::new(locator("")));
        assert!(!rx.recv().await.unwrap(), "it was served");
        assert!(asked.load(Ordering::Relaxed) > 0);
    });
}

#[test]
fn a_reader_that_stands_still_bounds_the_memory() {
    for (connections, memory) in [(1, 256 * KB), (4, MB), (8, 4 * MB)] {
        block_on(async {
            let mut plan = Plan::new(1, 16 << 20);
            plan = plan.source(SimRanged::new("one", 4e6).make()).source(SimRanged::new("two", 9e6).make());
            let sources: Vec<_> = plan.sources.iter().map(|make| make(&plan.object).0).collect();
            let backend = Scripted::new(move |_, cx| {
                let (id, mut all) = object(cx, "f", Some(16 * MB));
                let strong = strong(Some(16 * MB));
                all.extend(
                    sources.iter().map(|s: &Arc<dyn Source>| bind(s, id, Caps::RANGES, strong.clone())),
                );
                Ok(found(all))
            });
            let gate = Gate::new(Arc::new(StreamSink::new(Pipe::default())));
            let spec = JobSpec::new(locator("")).connections(connections);
            let ordered = |_| Box::new(dlm_core::Ordered::new()) as Box<dyn Scheduler>;
            let job = start_with(backend, Arc::new(gate), memory, ordered, spec);
            tokio::time::sleep(Duration::from_secs(20)).await;
            let seen = job.snapshot().borrow().received;
            let most = memory + u64::from(connections) * 16 * KB;
            assert!(seen > 0 && seen <= most, "{connections} connections, {memory}: {seen}");
        });
    }
}

#[test]
fn bytes_with_a_piece_proof_leave_only_when_all_of_the_piece_is_right() {
    block_on(async {
        let data = fixtures::bytes(1, 400 << 10);
        let (pipe, gate, mut bench, work) = piped(400 * KB, 4 * MB).await;
        gate.open();
        let digests = data.chunks(100 << 10).map(|c| Algorithm::Sha1.hasher().update(c).finish()).collect();
        bench.proof(Arc::new(FixedPieces::new(100 * KB, 400 * KB, digests).unwrap()), Trust::Locator);
        let [liar, honest] = ["liar", "honest"].map(|l| work.party(l));
        put(&honest, &bench, &data, 0..60 * KB);
        bench.settle().await;
        assert_eq!(gate.begun(), [], "a part of a piece");
        put(&honest, &bench, &data, 60 * KB..150 * KB);
        bench.settle().await;
        assert_eq!(pipe.got(), data.slice(..100 << 10), "the whole piece, and no more");
        let zeros = Bytes::from(vec![0; 400 << 10]);
        put(&liar, &bench, &zeros, 200 * KB..300 * KB);
        put(&honest, &bench, &data, 150 * KB..200 * KB);
        bench.settle().await;
        assert_eq!(pipe.got(), data.slice(..200 << 10), "the wrong piece stays");
        assert!(matches!(liar.try_claim(bench.object(), 300 * KB..400 * KB), WorkClaim::Retire));
        put(&honest, &bench, &data, 200 * KB..400 * KB);
        bench.settle().await;
        assert_eq!(pipe.got(), data);
    });
}

#[test]
fn a_file_that_changes_after_bytes_have_left_ends_the_job() {
    for left in [true, false] {
        block_on(async {
            let (old, new) = (fixtures::bytes(1, 1 << 20), fixtures::bytes(2, 1 << 20));
            let other = Identity::new(Some(MB), Validator::Strong("\"another\"".into()));
            let (was, is) = (old.clone(), new.clone());
            let backend = acting(MB, vec![], move |work| {
                let (old, new, other) = (was.clone(), is.clone(), other.clone());
                async move {
                    let mut l = lease(work.claim(Ask::ANY).await);
                    // The front, or some bytes that have to wait for it.
                    let at = if left { 0 } else { 1000 };
                    l.put(at, old.slice(at as usize..60_000))?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    l.reopen();
                    assert!(l.agree(&other).is_err());
                    drop(l);
                    while let WorkClaim::Lease(mut l) = work.claim(Ask::ANY).await {
                        l.agree(&other)?;
                        let mut at = l.range().start;
                        loop {
                            l.ready().await?;
                            let end = (at + 16 * KB).min(MB);
                            let put = l.put(at, new.slice(at as usize..end as usize))?;
                            at = end;
                            if put.next == Next::Stop {
                                break;
                            }
                        }
                    }
                    Ok(Exit::Done)
                }
            });
            let pipe = Pipe::default();
            let sink = Arc::new(StreamSink::new(pipe.clone()));
            let mut job = start(backend, sink, Arc::new(MemoryJournal::new()));
            let result = tokio::time::timeout(Duration::from_mins(5), job.outcome()).await.expect("it hung");
            if left {
                assert_eq!(result.unwrap_err().kind(), Kind::Changed);
                assert_eq!(pipe.got(), old.slice(..60_000), "and nothing of the new one follows");
            } else {
                result.unwrap();
                assert_eq!(pipe.got(), new);
            }
        });
    }
}

#[test]
fn a_digest_that_does_not_match_after_bytes_have_left_ends_the_job() {
    let data = fixtures::bytes(1, 3_000_000);
    let digest = Algorithm::Sha256.hasher().update(b"another").finish();
    let mut plan = Plan::new(1, data.len()).source(SimRanged::new("server", 2e6).make());
    plan.object.data = data.clone();
    plan.spec = plan.spec.digest(digest);
    let (report, pipe) = run(&plan);
    assert_eq!(report.result.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(pipe.got(), data, "once, and not again");
    assert_eq!(report.restarts, 0);
}
