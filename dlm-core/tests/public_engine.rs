//! What a program asks of an engine as a whole: a rate for all its jobs, an end for all its jobs, another policy.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Adaptive, Ask, Asker, Board, Caps, Engine, EngineBuilder, Exit, Grant, JobHandle, JobSpec, JobState,
    Keep, Kind, MemoryJournal, MemorySink, Ranged, Result, Source, SourceId, SourceInfo, Work,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};
use rules_kit::{Found, Server, Watched, all, bind, lock, nowhere, object};
use tokio::time::{Instant, timeout};

const LEN: u64 = 4_000_000;
/// Of one connection, bytes a second.
const FAST: f64 = 20e6;

fn data() -> Bytes {
    fixtures::bytes(81, LEN as usize)
}

/// A builder whose jobs find one object, which servers of these speeds have.
fn builder(speeds: &'static [f64]) -> EngineBuilder {
    let found = Found(move |cx: &dlm_core::Cx| {
        let (id, mut found) = object(cx, "object", LEN);
        for (speed, key) in speeds.iter().zip(["a", "b"]) {
            let source: Arc<dyn Source> = Arc::new(Ranged::new(Server::new(key, data(), *speed)));
            found.push(bind(&source, id, Caps::RANGES, &strong(Some(LEN))));
        }
        all(found)
    });
    Engine::builder().backend(found).deterministic()
}

fn start(engine: &Engine, sink: &MemorySink, journal: &MemoryJournal) -> JobHandle {
    engine.start(JobSpec::new(nowhere()), Arc::new(sink.clone()), Arc::new(journal.clone()))
}

/// Seconds that so many jobs at once take.
fn seconds(engine: EngineBuilder, jobs: usize) -> f64 {
    block_on(async {
        let engine = engine.build();
        let began = Instant::now();
        let all = (0..jobs).map(|_| start(&engine, &MemorySink::new(), &MemoryJournal::new()).into_future());
        for outcome in futures::future::join_all(all).await {
            assert_eq!(outcome.expect("the job ends well").bytes, LEN);
        }
        began.elapsed().as_secs_f64()
    })
}

#[test]
fn all_jobs_of_an_engine_share_its_rate() {
    let free = seconds(builder(&[FAST]), 2);
    assert!(free < 1.0, "without a limit the servers alone decide: {free}");
    for jobs in [1, 2, 4] {
        let took = seconds(builder(&[FAST]).limit_rate(Some(1_000_000)), jobs);
        let want = jobs as f64 * LEN as f64 / 1e6;
        // It may run ahead by what is read at once, and behind by the end of the last answer.
        assert!(
            (want * 0.9..want * 1.15).contains(&took),
            "{jobs} jobs took {took} s, and should take {want}"
        );
    }
    let lifted = seconds(builder(&[FAST]).limit_rate(Some(1_000)).limit_rate(None), 2);
    assert!((lifted - free).abs() < 0.2, "the last word counts: {lifted}, {free}");
}

#[test]
fn each_origin_has_a_rate_of_its_own_that_all_jobs_share() {
    // Of so many jobs each takes another one of so many origins in turn.
    let origins = |n: usize| {
        let next = AtomicUsize::new(0);
        let found = Found(move |cx: &dlm_core::Cx| {
            let key = ["a", "b"][next.fetch_add(1, Ordering::Relaxed) % n];
            let source: Arc<dyn Source> = Arc::new(Ranged::new(Server::new(key, data(), FAST)));
            let (id, mut found) = object(cx, "object", LEN);
            found.push(bind(&source, id, Caps::RANGES, &strong(Some(LEN))));
            all(found)
        });
        Engine::builder().backend(found).deterministic().limit_rate_of_origin(Some(1_000_000))
    };
    for (engine, jobs, want) in [
        (origins(1), 1, 4.0),
        (origins(1), 2, 8.0),
        (origins(2), 2, 4.0),
        // The least of all limits holds.
        (origins(2).limit_rate(Some(500_000)), 2, 16.0),
        (origins(2).limit_rate(Some(9_000_000)), 2, 4.0),
    ] {
        let took = seconds(engine, jobs);
        assert!(
            (want * 0.8..want * 1.15).contains(&took),
            "{jobs} jobs took {took} s, and should take {want}"
        );
    }
    let lifted = seconds(origins(1).limit_rate_of_origin(None), 2);
    assert!(lifted < 1.0, "{lifted}");
}

#[test]
fn a_job_keeps_its_own_rate_and_that_may_change_while_it_runs() {
    block_on(async {
        let engine = builder(&[FAST]).build();
        let took = async |spec: JobSpec, change: Option<Option<u64>>| {
            let began = Instant::now();
            let job = engine.start(spec, Arc::new(MemorySink::new()), Arc::new(MemoryJournal::new()));
            if let Some(rate) = change {
                job.snapshot().wait_for(|s| s.done > LEN / 4).await.expect("bytes come");
                let mut limits = dlm_core::Limits::default();
                limits.rate = rate;
                job.set_limits(limits);
            }
            assert_eq!(job.await.expect("the job ends well").bytes, LEN);
            began.elapsed().as_secs_f64()
        };
        let spec = || JobSpec::new(nowhere());
        let want = LEN as f64 / 1e6;
        let limited = took(spec().limit_rate(1_000_000), None).await;
        assert!((want * 0.9..want * 1.15).contains(&limited), "{limited} s, and should be {want}");
        assert!(took(spec(), None).await < 1.0, "another job of the engine has no such limit");
        let lifted = took(spec().limit_rate(1_000_000), Some(None)).await;
        assert!((want * 0.2..want * 0.5).contains(&lifted), "lifted after a quarter: {lifted} s");
        let put = took(spec().limit_rate(8_000_000), Some(Some(1_000_000))).await;
        assert!((want * 0.6..want).contains(&put), "lowered after a quarter: {put} s");
    });
}

#[test]
fn shutting_down_stops_every_job_of_this_engine_and_no_other() {
    block_on(async {
        let (mine, other) = (builder(&[1e6]).build(), builder(&[1e6]).build());
        let sinks = [MemorySink::new(), MemorySink::new(), MemorySink::new()];
        let journals = [MemoryJournal::new(), MemoryJournal::new(), MemoryJournal::new()];
        let mut stopped = [start(&mine, &sinks[0], &journals[0]), start(&mine, &sinks[1], &journals[1])];
        let untouched = start(&other, &sinks[2], &journals[2]);
        for job in &stopped {
            let mut snapshot = job.snapshot();
            snapshot.wait_for(|s| s.done > LEN / 8).await.expect("bytes come");
            assert!(snapshot.borrow().done < LEN);
        }

        let began = Instant::now();
        // A clone is the same engine.
        mine.clone().shut_down();
        for (job, sink) in stopped.iter_mut().zip(&sinks) {
            let outcome = timeout(Duration::from_secs(2), job.outcome()).await.expect("within two seconds");
            let kind = outcome.expect_err("it was stopped").kind();
            assert!(matches!(kind, Kind::Cancelled | Kind::Shutdown), "{kind:?}");
            assert_eq!(job.snapshot().borrow().state, JobState::Failed);
            assert_eq!((sink.aborted(), sink.committed().len()), (Some(Keep::Partial), 0));
        }
        assert!(began.elapsed() <= Duration::from_secs(2), "all at once");
        assert_eq!(untouched.await.expect("another engine's job goes on").bytes, LEN);

        // What it kept is good: another engine goes on from there.
        let again = start(&other, &sinks[0], &journals[0]).await.expect("it can be resumed");
        assert!(again.resumed > LEN / 16 && again.received < LEN, "{again:?}");
        assert_eq!(sinks[0].file("object"), Some(data()));
        assert_eq!(journals[0].closed(), Some(Keep::Nothing));
    });
}

#[test]
fn an_engine_that_was_shut_down_starts_nothing_more() {
    block_on(async {
        let engine = builder(&[FAST]).build();
        engine.shut_down();
        let sink = MemorySink::new();
        let mut job = start(&engine, &sink, &MemoryJournal::new());
        let outcome = timeout(Duration::from_secs(2), job.outcome()).await.expect("it ends at once");
        let kind = outcome.expect_err("it may not run").kind();
        assert!(matches!(kind, Kind::Cancelled | Kind::Shutdown), "{kind:?}");
        assert_eq!(sink.committed(), []);
    });
}

/// A policy that gives the sources that `who` picks nothing ever, and is [`Adaptive`] for the others.
fn retiring(who: fn(SourceId) -> bool) -> impl Fn(dlm_core::SinkOrder) -> Box<dyn dlm_core::Scheduler> {
    let answer =
        Arc::new(move |asker: Asker, _: &Board, grant| if who(asker.source) { Grant::Retire } else { grant });
    move |_| Box::new(Watched::new(Adaptive::new()).answer(&answer))
}

/// Asks for work once, and notes what it is told and when; never delivers.
#[derive(Debug, Default)]
struct Asks(Mutex<Option<(String, Instant)>>);

#[async_trait]
impl Source for Asks {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("test", "asks", "asks")
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let told = format!("{:?}", work.claim(Ask::ANY).await);
        *lock(&self.0) = Some((told, Instant::now()));
        Ok(Exit::Done)
    }
}

#[test]
fn a_source_that_the_policy_retires_is_told_at_once_and_the_others_finish() {
    let asks = Arc::new(Asks::default());
    let retired: Arc<dyn Source> = asks.clone();
    let found = Found(move |cx: &dlm_core::Cx| {
        let (id, mut found) = object(cx, "object", LEN);
        let server: Arc<dyn Source> = Arc::new(Ranged::new(Server::new("a", data(), 1e6)));
        for source in [&retired, &server] {
            found.push(bind(source, id, Caps::RANGES, &strong(Some(LEN))));
        }
        all(found)
    });
    let engine = Engine::builder().backend(found).deterministic();
    let engine = engine.policy(retiring(|source| source == SourceId(0))).build();
    let sink = MemorySink::new();
    block_on(async {
        let began = Instant::now();
        let mut job = start(&engine, &sink, &MemoryJournal::new());
        let outcome = timeout(Duration::from_mins(1), job.outcome()).await.expect("it does not hang");
        let sources = outcome.expect("the other has every byte").sources;
        assert_eq!(sources.iter().map(|s| s.bytes).collect::<Vec<_>>(), [0, LEN]);
        let (told, when) = lock(&asks.0).take().expect("it was answered");
        assert_eq!(told, "Retire");
        assert!(when - began < Duration::from_millis(100) && began.elapsed() > Duration::from_secs(1));
    });
    assert_eq!(sink.file("object"), Some(data()));
}

#[test]
fn a_job_whose_only_source_is_retired_ends() {
    let engine = builder(&[FAST]).policy(retiring(|_| true)).build();
    let sink = MemorySink::new();
    let outcome = block_on(async {
        let mut job = start(&engine, &sink, &MemoryJournal::new());
        timeout(Duration::from_mins(1), job.outcome()).await.expect("it does not hang")
    });
    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!((sink.committed().len(), sink.aborted()), (0, Some(Keep::Partial)));
}
