//! A job ends only when nothing more can be found: no resolve stream and no guard is open. Then it does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::job::{Acting, Scripted, bind, found, locator, object};
use dlm_core::{
    Ask, Caps, Discovery, DiscoveryStream, Engine, Error, Exit, JobHandle, JobSpec, Kind, MemoryJournal,
    MemorySink, Outcome, Result, Role, Source, Span, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{Object, SimRanged, block_on, strong};
use futures::StreamExt as _;
use tokio::time::Instant;

const LEN: u64 = 100_000;

fn data() -> Bytes {
    fixtures::bytes(4, LEN as usize)
}

fn server() -> Arc<dyn Source> {
    SimRanged::new("server", 1e6).make()(&Object { data: data(), piece: None, seed: 1 }).0
}

fn whole(cx: &dlm_core::Cx, name: &str, source: &Arc<dyn Source>) -> Vec<Discovery> {
    let (id, mut all) = object(cx, name, Some(LEN));
    all.push(bind(source, id, Caps::RANGES, strong(Some(LEN))));
    all
}

fn run(backend: Scripted, spec: JobSpec, sink: &MemorySink) -> JobHandle {
    let engine = Engine::builder().backend(backend).deterministic().build();
    engine.start(spec, Arc::new(sink.clone()), Arc::new(MemoryJournal::new()))
}

async fn ended(mut job: JobHandle) -> Result<Outcome> {
    tokio::time::timeout(Duration::from_hours(1), job.outcome()).await.expect("it hung")
}

/// What is found after a while.
fn later(after: Duration, all: Vec<Discovery>) -> DiscoveryStream {
    Box::pin(
        futures::stream::once(tokio::time::sleep(after))
            .flat_map(move |()| found(Vec::new()))
            .chain(found(all)),
    )
}

const AWHILE: Duration = Duration::from_mins(1);

#[test]
fn a_job_does_not_end_while_a_guard_is_open() {
    block_on(async {
        let began = Instant::now();
        let sink = MemorySink::new();
        let copy = sink.clone();
        let backend = Scripted::new(move |_, cx| {
            let (server, copy) = (server(), copy.clone());
            let finder = server.clone();
            let searching = Acting::doing("searching", move |work| async move {
                let open = work.discovering();
                tokio::time::sleep(AWHILE).await;
                assert!(copy.file("first").is_some(), "what was there is there");
                for d in whole(work.cx(), "second", &finder) {
                    work.learn(d).await?;
                }
                drop(open);
                Ok(Exit::Done)
            });
            let (id, mut all) = object(cx, "first", Some(LEN));
            all.push(bind(&server, id, Caps::RANGES, strong(Some(LEN))));
            all.push(bind(&searching, id, Caps::RANGES, strong(Some(LEN))));
            Ok(found(all))
        });
        let outcome = ended(run(backend, JobSpec::new(locator("")), &sink)).await.unwrap();
        assert!(began.elapsed() >= AWHILE);
        assert_eq!(outcome.files.len(), 2);
        assert_eq!(sink.file("second"), Some(data()));
    });
}

#[test]
fn nobody_being_left_is_no_end_while_a_guard_is_open() {
    block_on(async {
        let sink = MemorySink::new();
        let backend = Scripted::new(move |_, cx| {
            let (id, mut all) = object(cx, "f", Some(LEN));
            // It cannot deliver, and finds somebody who can.
            let searching = Acting::doing("searching", move |work| async move {
                let _open = work.discovering();
                let WorkClaim::Lease(l) = work.try_claim(id, 0..10) else { panic!("no lease") };
                l.fail(Error::new(Kind::NotFound, "fetch"));
                tokio::time::sleep(AWHILE).await;
                work.learn(bind(&server(), id, Caps::RANGES, strong(Some(LEN)))).await?;
                Ok(Exit::Done)
            });
            all.push(bind(&searching, id, Caps::RANGES, strong(Some(LEN))));
            Ok(found(all))
        });
        ended(run(backend, JobSpec::new(locator("")), &sink)).await.unwrap();
        assert_eq!(sink.file("f"), Some(data()));
    });
}

#[test]
fn a_job_does_not_end_while_a_resolve_stream_is_open() {
    block_on(async {
        let sink = MemorySink::new();
        let backend = Scripted::new(|_, cx| {
            let server = server();
            let first = found(whole(cx, "first", &server));
            Ok(Box::pin(first.chain(later(AWHILE, whole(cx, "second", &server)))))
        });
        ended(run(backend, JobSpec::new(locator("")), &sink)).await.unwrap();
        assert_eq!(sink.file("second"), Some(data()));
    });
}

/// Fetches the first object that it is given, and stops.
#[derive(Debug)]
struct OneEach(std::sync::atomic::AtomicUsize);

#[async_trait::async_trait]
impl Source for OneEach {
    fn info(&self) -> dlm_core::SourceInfo {
        dlm_core::SourceInfo::new("test", "one each", "one each")
    }
    async fn run(self: Arc<Self>, work: dlm_core::Work) -> Result<Exit> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let WorkClaim::Lease(mut lease) = work.claim(Ask::ANY).await else { return Ok(Exit::Done) };
        lease.agree(&strong(Some(LEN)))?;
        lease.ready().await?;
        let _ = lease.put(0, data())?;
        Ok(Exit::Done)
    }
}

#[test]
fn a_source_that_is_bound_again_after_it_stopped_runs_again() {
    block_on(async {
        let sink = MemorySink::new();
        let source = Arc::new(OneEach(0.into()));
        let bound: Arc<dyn Source> = source.clone();
        let backend = Scripted::new(move |_, cx| {
            let first = found(whole(cx, "first", &bound));
            Ok(Box::pin(first.chain(later(AWHILE, whole(cx, "second", &bound)))))
        });
        ended(run(backend, JobSpec::new(locator("")), &sink)).await.unwrap();
        assert_eq!((sink.file("first"), sink.file("second")), (Some(data()), Some(data())));
        assert_eq!(source.0.load(std::sync::atomic::Ordering::Relaxed), 2, "a run for each");
    });
}

/// Delivers everything and is done; in so many of its runs it is not right.
#[derive(Debug)]
struct Deliverer {
    wrong: usize,
    /// How long it takes to return.
    lingers: Duration,
    runs: std::sync::atomic::AtomicUsize,
}

#[async_trait::async_trait]
impl Source for Deliverer {
    fn info(&self) -> dlm_core::SourceInfo {
        dlm_core::SourceInfo::new("test", "deliverer", "deliverer")
    }
    async fn run(self: Arc<Self>, work: dlm_core::Work) -> Result<Exit> {
        let run = self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut left = LEN;
        while left > 0
            && let WorkClaim::Lease(mut l) = work.claim(Ask::ANY).await
        {
            l.agree(&strong(Some(LEN)))?;
            let range = l.rest().start as usize..l.rest().end.unwrap_or(LEN).min(LEN) as usize;
            let mut bytes = data().slice(range.clone()).to_vec();
            if run < self.wrong {
                bytes[0] ^= 1;
            }
            left -= u64::from(l.put(range.start as u64, bytes.into())?.taken);
        }
        tokio::time::sleep(self.lingers).await;
        Ok(Exit::Done)
    }
}

#[test]
fn a_source_that_was_done_runs_again_when_what_it_delivered_was_wrong() {
    let digest = dlm_core::Algorithm::Sha256.hasher().update(&data()).finish();
    for (wrong, runs, lingers) in [(0, 1, 0), (1, 2, 0), (1, 2, 500), (9, 2, 0), (9, 2, 500)] {
        let lingers = Duration::from_millis(lingers);
        block_on(async {
            let sink = MemorySink::new();
            let source = Arc::new(Deliverer { wrong, lingers, runs: 0.into() });
            let bound: Arc<dyn Source> = source.clone();
            let backend = Scripted::new(move |_, cx| Ok(found(whole(cx, "f", &bound))));
            let spec = JobSpec::new(locator("")).digest(digest.clone());
            let result = ended(run(backend, spec, &sink)).await;
            assert_eq!(source.runs.load(std::sync::atomic::Ordering::Relaxed), runs, "{wrong}: {result:?}");
            match result {
                Ok(_) => assert_eq!(sink.file("f"), Some(data())),
                Err(e) => assert!(wrong > 1 && e.kind() == Kind::Corrupt, "{e}"),
            }
        });
    }
}

#[test]
fn a_source_that_stops_before_everything_is_there_is_given_up() {
    block_on(async {
        let sink = MemorySink::new();
        let backend = Scripted::new(move |_, cx| {
            let quitter = Acting::doing("quitter", |_| async { Ok(Exit::Done) });
            Ok(found(whole(cx, "f", &quitter)))
        });
        let error = ended(run(backend, JobSpec::new(locator("")), &sink)).await.unwrap_err();
        assert!(error.to_string().contains("stopped before everything was there"), "{error}");
        assert_eq!(sink.file("f"), None);
    });
}

/// A backend whose locator is a list of other places.
fn list(at_last: impl Fn(&dlm_core::Cx) -> Result<DiscoveryStream> + Send + Sync + 'static) -> Scripted {
    Scripted::new(move |l, cx| {
        if l.to_string().ends_with("/elsewhere") {
            return at_last(cx);
        }
        let mut all = whole(cx, "first", &server());
        all.push(Discovery::Follow { locator: locator("elsewhere"), role: Role::Download, rank: 1 });
        Ok(found(all))
    })
}

#[test]
fn a_job_does_not_end_while_a_place_that_was_found_is_resolved() {
    block_on(async {
        let sink = MemorySink::new();
        let backend = list(|cx| Ok(later(AWHILE, whole(cx, "second", &server()))));
        ended(run(backend, JobSpec::new(locator("")), &sink)).await.unwrap();
        assert_eq!(sink.file("second"), Some(data()));
    });
}

#[test]
fn a_place_that_answers_slowly_holds_up_nothing_else() {
    block_on(async {
        let sink = MemorySink::new();
        let backend = list(|cx| Ok(later(AWHILE, whole(cx, "second", &server()))));
        let mut job = run(backend, JobSpec::new(locator("")), &sink);
        tokio::time::sleep(AWHILE / 2).await;
        assert_eq!(sink.file("first"), Some(data()), "it was there long ago");
        job.cancel();
        let result = tokio::time::timeout(Duration::from_secs(3), job.outcome()).await;
        assert_eq!(result.expect("it can be stopped").unwrap_err().kind(), Kind::Cancelled);
    });
}

#[test]
fn a_mirror_is_waited_for_before_a_job_is_given_up() {
    block_on(async {
        let sink = MemorySink::new();
        let backend = Scripted::new(|l, cx| {
            if l.to_string().ends_with("/mirror") {
                let Role::SameBytes { object, window } = *cx.role() else { panic!("{:?}", cx.role()) };
                assert_eq!(window, Span::ALL);
                let here = bind(&server(), object, Caps::RANGES, strong(Some(LEN)));
                return Ok(later(AWHILE, vec![here]));
            }
            let (id, mut all) = object(cx, "f", Some(LEN));
            let broken = Acting::doing("broken", move |work| async move {
                work.give_up(&Error::new(Kind::Denied, "fetch"));
                Ok(Exit::Done)
            });
            all.push(bind(&broken, id, Caps::RANGES, strong(Some(LEN))));
            Ok(found(all))
        });
        let spec = JobSpec::new(locator("")).mirror(locator("mirror"));
        ended(run(backend, spec, &sink)).await.unwrap();
        assert_eq!(sink.file("f"), Some(data()));
    });
}

#[test]
fn a_job_ends_as_soon_as_the_last_guard_is_gone() {
    // With everything done, and with nobody left to do it.
    for lost in [false, true] {
        block_on(async {
            let sink = MemorySink::new();
            let closed = Arc::new(Mutex::new(None));
            let told = closed.clone();
            let backend = Scripted::new(move |_, cx| {
                let told = told.clone();
                let (id, mut all) = object(cx, "f", Some(LEN));
                let searching = Acting::doing("searching", move |work| async move {
                    let open = work.discovering();
                    work.give_up(&Error::new(Kind::NotFound, "fetch"));
                    // At no moment at which the engine would look by itself.
                    tokio::time::sleep(Duration::from_millis(10_123)).await;
                    drop(open);
                    *told.lock().unwrap() = Some(Instant::now());
                    // Nothing else happens now that could make the engine look.
                    let end = work.claim(Ask::ANY).await;
                    assert!(matches!(end, WorkClaim::Retire), "{end:?}");
                    Ok(Exit::Done)
                });
                if !lost {
                    all.push(bind(&server(), id, Caps::RANGES, strong(Some(LEN))));
                }
                all.push(bind(&searching, id, Caps::RANGES, strong(Some(LEN))));
                Ok(found(all))
            });
            let mut job = run(backend, JobSpec::new(locator("")), &sink);
            let result = job.outcome().await;
            assert_eq!(result.is_err(), lost, "{result:?}");
            let closed = closed.lock().unwrap().expect("it was closed");
            let late = closed.elapsed();
            assert!(late < Duration::from_millis(20), "{late:?} late");
        });
    }
}
