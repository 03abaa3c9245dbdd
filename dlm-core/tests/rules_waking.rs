//! Waking: who waits is woken by what it waits for, and by nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use common::job::{Acting, Parked, Scripted, add, bench, bind, found, locator, object, start_with};
use dlm_core::{
    Adaptive, Algorithm, Ask, Asker, Board, BoardEvent, Caps, Discovery, Evidence, Exit, Grant, Identity,
    JobSpec, Lease, MemorySink, ObjectId, Order, Scheduler, Trust, Validator, Work, WorkBench, WorkClaim,
};
use dlm_testkit::sim::{block_on, strong};
use tokio::time::Instant;

const MB: u64 = 1 << 20;
const LEN: u64 = 64 * MB;
/// Long enough for everybody to run, and too short for a lease that delivers nothing to look stalled.
const SHORT: Duration = Duration::from_millis(100);

fn lease(claim: WorkClaim) -> Lease {
    match claim {
        WorkClaim::Lease(l) => l,
        other => panic!("no lease: {other:?}"),
    }
}

fn park(work: &Work) -> Parked<WorkClaim> {
    let work = work.clone();
    let mut claim = Parked::new(async move { work.claim(Ask::ANY).await });
    assert!(claim.poll().is_pending(), "there is no work now");
    claim
}

/// A bench that allows one connection, which somebody has, and two sources that could have more.
async fn full() -> (WorkBench, Lease, Work, Work) {
    let bench = bench(Arc::new(MemorySink::new()), Some(LEN), 8 * MB, 1).await;
    let a = add(&bench, "a", Caps::RANGES, strong(Some(LEN)));
    let b = add(&bench, "b", Caps::RANGES, strong(Some(LEN)));
    let mut l = lease(a.claim(Ask::ANY).await);
    l.agree(&strong(Some(LEN))).unwrap();
    (bench, l, a, b)
}

fn woken(all: &[Parked<WorkClaim>]) -> usize {
    all.iter().map(Parked::woken).sum()
}

#[test]
fn a_returned_range_wakes_only_whom_it_serves() {
    block_on(async {
        let (_bench, l, a, b) = full().await;
        let mut all: Vec<_> = (0..300).map(|i| park(if i % 2 == 0 { &a } else { &b })).collect();
        assert_eq!(woken(&all), 0);
        drop(l);
        assert_eq!(woken(&all), 1, "there is work for one");
        assert_eq!(all[0].woken(), 1, "the first that asked");
        let Poll::Ready(WorkClaim::Lease(l)) = all[0].poll() else { panic!("it has no lease") };
        drop(l);
        assert_eq!(woken(&all), 2);
        assert_eq!(all[1].woken(), 1, "in turn");
    });
}

#[test]
fn a_delivery_wakes_nobody() {
    block_on(async {
        let (_bench, mut l, a, b) = full().await;
        let all: Vec<_> = (0..300).map(|i| park(if i % 2 == 0 { &a } else { &b })).collect();
        for i in 0..500 {
            l.put(i * 16_384, Bytes::from(vec![0; 16_384])).unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(woken(&all), 0);
    });
}

#[test]
fn a_grant_to_a_dropped_claim_goes_back() {
    block_on(async {
        let (bench, l, a, b) = full().await;
        let (first, mut second) = (park(&a), park(&b));
        drop(l);
        assert_eq!((first.woken(), second.woken()), (1, 0));
        assert!(!bench.reserved().is_empty(), "it was granted");
        drop(first);
        assert_eq!(second.woken(), 1, "and goes on to the next");
        let Poll::Ready(WorkClaim::Lease(l)) = second.poll() else { panic!("it has no lease") };
        drop(l);
        assert!(bench.reserved().is_empty());
        bench.check().unwrap();
    });
}

#[test]
fn a_claim_that_is_dropped_leaves_the_queue() {
    block_on(async {
        let (bench, l, a, b) = full().await;
        let (first, mut second) = (park(&a), park(&b));
        drop(first);
        let before = l.id();
        drop(l);
        let Poll::Ready(WorkClaim::Lease(l)) = second.poll() else { panic!("it has no lease") };
        assert_eq!(l.id().0, before.0 + 1, "no lease was made for the one that has gone");
        drop(l);
        assert!(bench.reserved().is_empty());
    });
}

#[test]
fn the_end_wakes_everybody() {
    block_on(async {
        let (bench, l, a, b) = full().await;
        let mut all: Vec<_> = (0..10).map(|i| park(if i % 2 == 0 { &a } else { &b })).collect();
        let mut told = Parked::new(l.revoked());
        assert!(told.poll().is_pending());
        bench.end();
        for claim in &mut all {
            assert_eq!(claim.woken(), 1);
            assert!(matches!(claim.poll(), Poll::Ready(WorkClaim::Retire)));
        }
        assert!(told.poll().is_ready());
        assert!(matches!(a.try_claim(bench.object(), 0..1), WorkClaim::Retire));
    });
}

#[test]
fn a_ban_wakes_only_the_banned() {
    block_on(async {
        let bench = bench(Arc::new(MemorySink::new()), Some(LEN), 8 * MB, 1).await;
        let digests = vec![Algorithm::Crc32c.hasher().update(b"other").finish(); 64];
        let proof = dlm_core::FixedPieces::new(MB, LEN, digests).unwrap();
        bench.proof(Arc::new(proof), Trust::Locator);
        let mut bench = bench;
        let work = add(&bench, "swarm", Caps::RANGES, strong(Some(LEN)));
        let keep = lease(work.claim(Ask::ANY).await);
        let (liar, honest) = (work.party("liar"), work.party("honest"));
        let (mut liars, honests) = (park(&liar), park(&honest));
        let mut l = lease(liar.try_claim(bench.object(), 10 * MB..11 * MB));
        l.agree(&strong(Some(LEN))).unwrap();
        l.put(10 * MB, Bytes::from(vec![0; MB as usize])).unwrap();
        bench.settle().await;
        assert!(matches!(liars.poll(), Poll::Ready(WorkClaim::Retire)));
        assert_eq!(honests.woken(), 0);
        drop(keep);
    });
}

#[test]
fn a_claim_of_what_somebody_has_is_answered_at_once() {
    block_on(async {
        let (bench, l, a, _) = full().await;
        let id = bench.object();
        assert!(matches!(a.try_claim(id, l.range().start..MB), WorkClaim::Busy));
        assert!(matches!(a.try_claim(id, LEN..LEN + 1), WorkClaim::Busy), "there is nothing");
        assert!(matches!(a.try_claim(ObjectId(9), 0..1), WorkClaim::Busy));
        assert!(matches!(a.try_claim(id, 10 * MB..11 * MB), WorkClaim::Lease(_)));
    });
}

/// The usual policy, but for the questions that it asks by itself; counts the questions that it is asked.
#[derive(Debug)]
struct Quiet(Adaptive, Arc<AtomicUsize>);

impl Scheduler for Quiet {
    fn grant(&mut self, now: Instant, who: Asker, ask: &Ask, board: &Board) -> Grant {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.grant(now, who, ask, board)
    }
    fn on_event(&mut self, now: Instant, event: &BoardEvent, board: &Board) {
        self.0.on_event(now, event, board);
    }
    fn tick(&mut self, _: Instant, _: &Board, _: &mut Vec<Order>) -> Option<Instant> {
        None
    }
}

type Then = fn(ObjectId) -> Discovery;

/// A second source waits beside one that is at work, until something is found. Returns whether it got a lease then.
fn woken_by(identity: [Identity; 2], then: Then) -> bool {
    block_on(async {
        let (done, mut got) = tokio::sync::mpsc::channel(1);
        let backend = Scripted::new(move |_, cx| {
            let done = done.clone();
            let (id, mut all) = object(cx, "f", Some(LEN));
            let at_work = identity[0].clone();
            let a = Acting::doing("a", move |work| async move {
                let mut l = lease(work.claim(Ask::ANY).await);
                l.agree(&at_work)?;
                l.put(0, Bytes::from(vec![0; 1000]))?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                work.learn(then(id)).await?;
                work.stopped().await;
                drop(l);
                Ok(Exit::Done)
            });
            let b = Acting::doing("b", move |work| async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let mut claim = Box::pin(work.claim(Ask::ANY));
                let early = tokio::time::timeout(Duration::from_millis(500), &mut claim).await;
                assert!(early.is_err(), "it may not have it yet: {early:?}");
                let late = tokio::time::timeout(Duration::from_secs(10), &mut claim).await;
                done.send(matches!(late, Ok(WorkClaim::Lease(_)))).await.unwrap();
                work.stopped().await;
                Ok(Exit::Done)
            });
            all.push(bind(&a, id, Caps::RANGES, identity[0].clone()));
            all.push(bind(&b, id, Caps::RANGES, identity[1].clone()));
            Ok(found(all))
        });
        let policy = |_| Box::new(Quiet(Adaptive::new(), Arc::default())) as Box<dyn Scheduler>;
        let spec = JobSpec::new(locator(""));
        let mut job = start_with(backend, Arc::new(MemorySink::new()), 8 * MB, policy, spec);
        tokio::select! {
            biased;
            got = got.recv() => got.expect("an answer"),
            end = job.outcome() => panic!("{end:?}"),
        }
    })
}

fn weak(mtime: u64) -> Identity {
    Identity::new(Some(LEN), Validator::Weak { mtime: Some(mtime), tag: None })
}

#[test]
fn new_evidence_wakes_whom_it_serves() {
    // Nothing lets bytes of both stand side by side, until somebody can tell right from wrong.
    let found = |object| {
        let what = Evidence::Digest(Algorithm::Sha256.hasher().update(b"whatever").finish());
        Discovery::Evidence { object, what, trust: Trust::Locator }
    };
    assert!(woken_by([weak(1), weak(2)], found));
}

#[test]
fn parties_of_a_source_that_ask_the_same_cost_one_question() {
    block_on(async {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let (done, mut got) = tokio::sync::mpsc::channel(1);
        let backend = Scripted::new(move |_, cx| {
            let (id, mut all) = object(cx, "f", Some(LEN));
            let (count, done) = (count.clone(), done.clone());
            let swarm = Acting::doing("swarm", move |work| async move {
                let mut mine = lease(work.claim(Ask::ANY).await);
                mine.agree(&strong(Some(LEN)))?;
                let peers: Vec<_> = (0..300).map(|i| park(&work.party(&i.to_string()))).collect();
                // Pieces of others come and go.
                let before = count.load(Ordering::Relaxed);
                for i in 0..100 {
                    drop(lease(work.try_claim(id, 32 * MB + i * 16_384..32 * MB + (i + 1) * 16_384)));
                }
                done.send((count.load(Ordering::Relaxed) - before, woken(&peers))).await.unwrap();
                work.stopped().await;
                drop((peers, mine));
                Ok(Exit::Done)
            });
            all.push(bind(&swarm, id, Caps::RANGES, strong(Some(LEN))));
            Ok(found(all))
        });
        let counted = asked.clone();
        let policy = move |_| Box::new(Quiet(Adaptive::new(), counted.clone())) as Box<dyn Scheduler>;
        let spec = JobSpec::new(locator("")).connections(1);
        let _job = start_with(backend, Arc::new(MemorySink::new()), 8 * MB, policy, spec);
        let (questions, woken) = got.recv().await.unwrap();
        assert!((1..=100).contains(&questions), "{questions} questions for 100 ranges that came back");
        assert_eq!(woken, 0);
    });
}

#[test]
fn a_new_object_wakes_whom_it_serves() {
    block_on(async {
        let (done, mut got) = tokio::sync::mpsc::channel(1);
        let backend = Scripted::new(move |_, cx| {
            let (id, mut all) = object(cx, "first", Some(MB));
            let done = done.clone();
            let next = object(cx, "second", Some(LEN));
            let idle = Acting::idle("other");
            let pair = Arc::new(std::sync::Mutex::new(Some(next)));
            let source = Arc::new(std::sync::OnceLock::new());
            let me = source.clone();
            let acting = Acting::doing("a", move |work| async move {
                let first = lease(work.claim(Ask::ANY).await);
                let (mine, others) = (park(&work), park(&work.party("peer")));
                let (id, all) = pair.lock().unwrap().take().unwrap();
                for d in all {
                    work.learn(d).await?;
                }
                tokio::time::sleep(SHORT).await;
                assert_eq!(mine.woken() + others.woken(), 0, "nobody has it yet");
                work.learn(bind(me.get().unwrap(), id, Caps::RANGES.max_parallel(1), strong(Some(LEN))))
                    .await?;
                tokio::time::sleep(SHORT).await;
                done.send((mine.woken(), others.woken())).await.unwrap();
                work.stopped().await;
                drop((first, mine, others));
                Ok(Exit::Done)
            });
            let _ = source.set(acting.clone());
            all.push(bind(&acting, id, Caps::RANGES, strong(Some(MB))));
            all.push(bind(&idle, id, Caps::RANGES, strong(Some(MB))));
            Ok(found(all))
        });
        let policy = |_| Box::new(Quiet(Adaptive::new(), Arc::default())) as Box<dyn Scheduler>;
        let spec = JobSpec::new(locator(""));
        let mut job = start_with(backend, Arc::new(MemorySink::new()), 8 * MB, policy, spec);
        let woken = tokio::select! {
            biased;
            got = got.recv() => got.expect("an answer"),
            end = job.outcome() => panic!("{end:?}"),
        };
        assert_eq!(woken, (1, 0), "there is work for one");
    });
}

#[test]
fn another_source_of_an_object_that_is_open_is_served() {
    // What it binds by itself, while its claim waits: of a part that nobody else has.
    block_on(async {
        let (done, mut got) = tokio::sync::mpsc::channel(1);
        let backend = Scripted::new(move |_, cx| {
            let (id, mut all) = object(cx, "f", Some(LEN));
            let done = done.clone();
            let source = Arc::new(std::sync::OnceLock::new());
            let me = source.clone();
            let acting = Acting::doing("a", move |work| async move {
                let first = lease(work.claim(Ask::ANY).await);
                let mut more = park(&work);
                work.learn(bind(me.get().unwrap(), id, Caps::RANGES, strong(Some(LEN)))).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                done.send(more.poll().is_ready()).await.unwrap();
                work.stopped().await;
                drop((first, more));
                Ok(Exit::Done)
            });
            let _ = source.set(acting.clone());
            all.push(bind(&acting, id, Caps::RANGES.max_parallel(1), strong(Some(LEN))));
            Ok(found(all))
        });
        let policy = |_| Box::new(Quiet(Adaptive::new(), Arc::default())) as Box<dyn Scheduler>;
        let sink = Arc::new(MemorySink::new());
        let mut job = start_with(backend, sink, 8 * MB, policy, JobSpec::new(locator("")));
        let served = tokio::select! {
            biased;
            got = got.recv() => got.expect("an answer"),
            end = job.outcome() => panic!("{end:?}"),
        };
        assert!(served);
    });
}
