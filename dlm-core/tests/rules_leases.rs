//! Leases: what an answer has to say before its bytes count, who owns what, and what follows when one fails.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::job::{Gate, Parked, Scripted, add, bench, bind, found, object, start};
use dlm_core::{
    Ask, Body, Caps, Cx, Error, Identity, Kind, Lease, MemoryJournal, MemorySink, Next, RangeSource, Ranged,
    Result, Source, SourceInfo, Span, Target, Validator, Work, WorkBench, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};

const MB: u64 = 1 << 20;

fn lease(claim: WorkClaim) -> Lease {
    match claim {
        WorkClaim::Lease(l) => l,
        other => panic!("no lease: {other:?}"),
    }
}

fn busy(claim: &WorkClaim) -> bool {
    matches!(claim, WorkClaim::Busy)
}

/// A range of the bench's object, by somebody whose answer was compared.
fn take(work: &Work, bench: &WorkBench, range: std::ops::Range<u64>) -> Lease {
    let mut l = lease(work.try_claim(bench.object(), range));
    l.agree(&strong(None)).unwrap();
    l
}

#[test]
fn an_accepted_byte_is_the_jobs_whatever_becomes_of_its_lease_and_its_source() {
    block_on(async {
        let memory = MemorySink::new();
        let gate = Gate::new(Arc::new(memory.clone()));
        let mut bench = bench(Arc::new(gate.clone()), Some(MB), 4 * MB, 4).await;
        let data = fixtures::bytes(1, MB as usize);
        let (gone, other) = (
            add(&bench, "gone", Caps::RANGES, strong(Some(MB))),
            add(&bench, "other", Caps::RANGES, strong(Some(MB))),
        );
        let mut l = take(&gone, &bench, 0..MB);
        // So much that a write is on its way, and so little more that it is only gathered.
        for at in [0, 600_000] {
            assert_eq!(l.put(at as u64, data.slice(at..at + 100_000)).unwrap().taken, 100_000);
        }
        tokio::task::yield_now().await;
        assert!(!gate.begun().is_empty(), "a write is on its way");
        let mine = bench.done();
        drop(l);
        gone.give_up(&Error::new(Kind::Denied, "fetch"));
        bench.check().unwrap();
        assert_eq!((bench.done(), mine.covered()), (mine, 200_000), "it stays");
        assert!(busy(&other.try_claim(bench.object(), 0..10)), "nobody fetches it again");
        gate.open();
        bench.settle().await;
        let mut rest = take(&other, &bench, 100_000..600_000);
        rest.put(100_000, data.slice(100_000..600_000)).unwrap();
        let mut end = take(&other, &bench, 700_000..MB);
        end.put(700_000, data.slice(700_000..)).unwrap();
        bench.settle().await;
        assert!(bench.whole());
        assert_eq!(memory.bytes(bench.object()).as_deref(), Some(&data[..]));
        assert_eq!(bench.in_flight(), 0, "its permits came back");
    });
}

#[test]
fn what_a_lease_did_not_deliver_is_missing_again() {
    block_on(async {
        let bench = bench(Arc::new(MemorySink::new()), Some(MB), 4 * MB, 4).await;
        let work = add(&bench, "a", Caps::RANGES, strong(Some(MB)));
        let mut l = take(&work, &bench, 0..MB);
        l.put(0, fixtures::bytes(1, 1000)).unwrap();
        assert!(busy(&work.try_claim(bench.object(), 1000..2000)));
        drop(l);
        assert!(bench.reserved().is_empty());
        assert!(matches!(work.try_claim(bench.object(), 1000..2000), WorkClaim::Lease(_)));
        assert!(busy(&work.try_claim(bench.object(), 999..1000)), "what it did deliver is not");
    });
}

#[test]
fn no_byte_counts_before_its_answer_was_compared() {
    block_on(async {
        let bench = bench(Arc::new(MemorySink::new()), Some(MB), 4 * MB, 4).await;
        let work = add(&bench, "a", Caps::RANGES, strong(Some(MB)));
        let mut l = lease(work.try_claim(bench.object(), 0..MB));
        assert_eq!(l.put(0, fixtures::bytes(1, 1000)).unwrap_err().kind(), Kind::Bug);
        assert!(bench.done().is_empty());
        l.agree(&strong(Some(MB))).unwrap();
        assert_eq!(l.put(0, fixtures::bytes(1, 1000)).unwrap().taken, 1000);
        // Each answer by itself: the next one may be another machine's.
        l.reopen();
        assert_eq!(l.put(1000, fixtures::bytes(1, 1000)).unwrap_err().kind(), Kind::Bug);
        assert_eq!(bench.done().covered(), 1000);
    });
}

#[test]
fn an_answer_of_another_version_delivers_nothing() {
    block_on(async {
        for other in [
            Identity::new(Some(MB), Validator::Strong("\"another\"".into())),
            Identity::new(Some(MB), Validator::Unknown),
            Identity::new(Some(MB - 1), strong(None).validator),
        ] {
            let bench = bench(Arc::new(MemorySink::new()), Some(MB), 4 * MB, 4).await;
            let (a, b) = (
                add(&bench, "a", Caps::RANGES, strong(Some(MB))),
                add(&bench, "b", Caps::RANGES, strong(Some(MB))),
            );
            take(&a, &bench, 0..1000).put(0, fixtures::bytes(1, 1000)).unwrap();
            let mut l = lease(b.try_claim(bench.object(), 1000..MB));
            assert_eq!(l.agree(&other).unwrap_err().kind(), Kind::Changed, "{other:?}");
            if let Ok(put) = l.put(1000, fixtures::bytes(1, 1000)) {
                assert_eq!((put.taken, put.next), (0, Next::Stop), "{other:?}");
            }
            assert_eq!(bench.done().covered(), 1000, "{other:?}");
        }
    });
}

#[test]
fn until_an_identity_is_known_a_binding_has_one_lease() {
    block_on(async {
        let len = 64 * MB;
        let bench = bench(Arc::new(MemorySink::new()), Some(len), 4 * MB, 4).await;
        let work = add(&bench, "a", Caps::RANGES, Identity::UNKNOWN);
        let mut first = lease(work.claim(Ask::ANY).await);
        let asking = work.clone();
        let mut second = Parked::new(async move { asking.claim(Ask::ANY).await });
        assert!(second.poll().is_pending(), "the first answer may be of another version than the second");
        assert!(busy(&work.try_claim(bench.object(), len - 10..len)));
        first.agree(&strong(Some(len))).unwrap();
        assert_eq!(second.woken(), 1);
        assert!(second.poll().is_ready(), "now they can be compared");
        assert!(matches!(work.try_claim(bench.object(), len - 10..len), WorkClaim::Lease(_)));
    });
}

/// One origin with many files, some of which are not there.
#[derive(Debug, Default)]
struct Origin {
    files: BTreeMap<String, Bytes>,
    asked: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Shared(Arc<Origin>);

#[async_trait]
impl RangeSource for Shared {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("origin", "origin", "origin")
    }
    async fn open(&self, target: &Target, want: Span, _: &Identity, _: &Cx) -> Result<Body> {
        let name = target.remote.to_string();
        self.0.asked.lock().unwrap().push(name.clone());
        tokio::time::sleep(Duration::from_millis(1)).await;
        let Some(data) = self.0.files.get(&name) else {
            return Err(Error::new(Kind::NotFound, "fetch").on(name));
        };
        let len = data.len() as u64;
        let part = data.slice(want.start as usize..want.end.unwrap_or(len).min(len) as usize);
        let at = Span::new(want.start, want.start + part.len() as u64);
        let stream = futures::StreamExt::then(futures::stream::iter([part]), |p| async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Ok(p)
        });
        Ok(Body::new(at, strong(Some(len)), Box::pin(stream)))
    }
}

/// A job of 20 files, of which the third is not there. Returns what was asked for, and which files are in place.
fn one_of_twenty_is_missing() -> (Vec<String>, Vec<u32>, Option<Kind>) {
    block_on(async {
        let name = |i: u32| format!("test://host/{i}");
        let files = (0..20).filter(|i| *i != 3).map(|i| (name(i), fixtures::bytes(u64::from(i), 50_000)));
        let origin = Arc::new(Origin { files: files.collect(), asked: Mutex::default() });
        let source: Arc<dyn Source> = Arc::new(Ranged::new(Shared(origin.clone())));
        let backend = Scripted::new(move |_, cx| {
            let mut all = Vec::new();
            for i in 0..20 {
                let (id, found) = object(cx, &format!("f{i}"), Some(50_000));
                all.extend(found);
                all.push(bind(&source, id, Caps::RANGES, strong(Some(50_000))));
            }
            Ok(found(all))
        });
        let sink = MemorySink::new();
        let mut job = start(backend, Arc::new(sink.clone()), Arc::new(MemoryJournal::new()));
        let result = tokio::time::timeout(Duration::from_mins(10), job.outcome()).await.expect("it hung");
        let there = (0..20).filter(|i| sink.file(&format!("f{i}")).is_some()).collect();
        let asked = origin.asked.lock().unwrap().clone();
        (asked, there, result.err().map(|e| e.kind()))
    })
}

#[test]
fn a_404_on_one_object_does_not_come_back_at_once() {
    let (asked, ..) = one_of_twenty_is_missing();
    assert_eq!(asked.iter().filter(|n| n.ends_with("/3")).count(), 1, "{asked:?}");
}

#[test]
fn a_404_on_one_object_does_not_end_its_source() {
    let (asked, there, error) = one_of_twenty_is_missing();
    assert_eq!(there, (0..20).filter(|i| *i != 3).collect::<Vec<_>>(), "asked for {asked:?}");
    assert_eq!(error, Some(Kind::NotFound), "it is told all the same");
}

#[test]
fn what_failed_is_not_granted_again_and_the_others_of_its_leases_are_revoked() {
    block_on(async {
        let len = 64 * MB;
        let bench = bench(Arc::new(MemorySink::new()), Some(len), 4 * MB, 4).await;
        let work = add(&bench, "a", Caps::RANGES, strong(Some(len)));
        let other = add(&bench, "b", Caps::RANGES, strong(Some(len)));
        let mut twin = take(&work, &bench, 0..MB);
        let mut apart = take(&other, &bench, MB..2 * MB);
        let failing = lease(work.claim(Ask::ANY).await);
        let mut told = Parked::new(twin.revoked());
        assert!(told.poll().is_pending());
        failing.fail(Error::new(Kind::NotFound, "fetch"));
        assert!(told.poll().is_ready());
        assert_eq!(twin.put(0, fixtures::bytes(1, 1000)).unwrap().next, Next::Stop);
        drop(twin);
        assert!(busy(&work.try_claim(bench.object(), 0..1000)), "not by this binding");
        let mut again = Parked::new(async move { work.claim(Ask::ANY).await });
        assert!(again.poll().is_pending());
        assert_eq!(apart.put(MB, fixtures::bytes(1, 1000)).unwrap().taken, 1000, "the other goes on");
        assert!(
            matches!(other.try_claim(bench.object(), 0..MB), WorkClaim::Lease(_)),
            "and may have its part"
        );
        assert_eq!(bench.error().map(|e| e.kind()), Some(Kind::NotFound));
    });
}
