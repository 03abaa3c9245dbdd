//! Places: how many connections an object is worth, and who has them where there are not enough for all.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Binding, Body, Caps, Cx, Discovery, Engine, EngineBuilder, Identity, JobSpec, Kind, MemoryJournal,
    MemorySink, Outcome, RangeSource, Ranged, Result, Source, SourceInfo, Span, Target, Timeouts,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};
use rules_kit::{Found, all, lock, nowhere, object};
use tokio::time::Instant;

/// A server behind a line: so much a connection, so much all together.
#[derive(Debug, Clone)]
struct Line {
    key: &'static str,
    data: Bytes,
    /// Bytes a second of a connection, and of all.
    each: f64,
    total: f64,
    /// From the request to the first byte.
    delay: Duration,
    /// It sends in bursts, with this long between them.
    burst: Duration,
    /// After this many bytes an answer is silent for ever.
    stall: u64,
    /// Only the first so many answers are.
    stalls: usize,
    used: Arc<Mutex<Used>>,
}

#[derive(Debug, Default)]
struct Used {
    requests: usize,
    open: usize,
    most: usize,
    /// When the shared line is free again.
    free_at: Option<Instant>,
}

struct Seat(Arc<Mutex<Used>>);

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.0).open -= 1;
    }
}

impl Line {
    fn new(key: &'static str, len: usize, each: f64) -> Self {
        Self {
            key,
            data: fixtures::bytes(61, len),
            each,
            total: f64::INFINITY,
            delay: Duration::from_millis(20),
            burst: Duration::ZERO,
            stall: u64::MAX,
            stalls: usize::MAX,
            used: Arc::default(),
        }
    }

    fn total(mut self, rate: f64) -> Self {
        self.total = rate;
        self
    }

    fn stalling(mut self, after: u64, times: usize) -> Self {
        (self.stall, self.stalls) = (after, times);
        self
    }

    fn body(&self, start: u64, end: u64) -> Body {
        const CHUNK: u64 = 16 << 10;
        let mut used = lock(&self.used);
        used.open += 1;
        used.most = used.most.max(used.open);
        let stall = if used.requests <= self.stalls { self.stall } else { u64::MAX };
        let line = self.clone();
        let began = Instant::now();
        let stream = futures::stream::unfold((start, Seat(self.used.clone())), move |(at, seat)| {
            let line = line.clone();
            async move {
                if at >= end {
                    return None;
                }
                if at - start >= stall {
                    std::future::pending::<()>().await;
                }
                let next = (at + CHUNK).min(end);
                // From the beginning, so that rounding to the timer's grain does not add up.
                let mut due = began + Duration::from_secs_f64((next - start) as f64 / line.each);
                if !line.burst.is_zero() {
                    let n = (due - began).as_nanos() / line.burst.as_nanos() + 1;
                    due = began + line.burst * n as u32;
                }
                if line.total.is_finite() {
                    let mut used = lock(&line.used);
                    let from = used.free_at.unwrap_or(began).max(Instant::now());
                    let shared = from + Duration::from_secs_f64((next - at) as f64 / line.total);
                    used.free_at = Some(shared);
                    due = due.max(shared);
                }
                tokio::time::sleep_until(due).await;
                Some((Ok(line.data.slice(at as usize..next as usize)), (next, seat)))
            }
        });
        Body::new(Span::new(start, end), self.identity(), Box::pin(stream))
    }

    fn identity(&self) -> Identity {
        strong(Some(self.data.len() as u64))
    }
}

#[async_trait]
impl RangeSource for Line {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("test", self.key, self.key)
    }
    async fn open(&self, _: &Target, want: Span, _: &Identity, _: &Cx) -> Result<Body> {
        lock(&self.used).requests += 1;
        tokio::time::sleep(self.delay).await;
        let len = self.data.len() as u64;
        Ok(self.body(want.start.min(len), want.end.unwrap_or(len).min(len)))
    }
}

/// Whether the answer that found the file is still open when the job begins, as it is with HTTP.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Open,
    Gone,
}

async fn outcome(
    engine: EngineBuilder,
    spec: JobSpec,
    lines: &[(Line, Caps)],
    first: First,
) -> Result<Outcome> {
    let lines = lines.to_vec();
    let sources: Vec<Arc<dyn Source>> =
        lines.iter().map(|(l, _)| Arc::new(Ranged::new(l.clone())) as Arc<dyn Source>).collect();
    let found = Found(move |cx: &Cx| {
        let len = lines[0].0.data.len() as u64;
        let (id, mut found) = object(cx, "object", len);
        for (source, (line, caps)) in sources.iter().zip(&lines) {
            let mut binding =
                Binding::new(source.clone(), Target::new(id, nowhere()), *caps, line.identity());
            if first == First::Open {
                binding = binding.with_first(line.body(0, len));
            }
            found.push(Discovery::Bind(binding));
        }
        all(found)
    });
    let engine = engine.backend(found).deterministic().build();
    rules_kit::run(&engine, spec, Arc::new(MemorySink::new()), Arc::new(MemoryJournal::new())).await
}

/// Runs a job of one object from these lines: what came of it, and the seconds it took.
fn fetch(spec: JobSpec, lines: &[(Line, Caps)], first: First) -> (Outcome, f64) {
    block_on(async {
        let began = Instant::now();
        let outcome = outcome(Engine::builder(), spec, lines, first).await.unwrap();
        (outcome, began.elapsed().as_secs_f64())
    })
}

fn spec() -> JobSpec {
    JobSpec::new(nowhere())
}

fn ranges(line: &Line) -> (Line, Caps) {
    (line.clone(), Caps::RANGES)
}

fn share(outcome: &Outcome, label: &str) -> u64 {
    outcome.sources.iter().filter(|s| &*s.label == label).map(|s| s.bytes).sum()
}

#[test]
fn four_slow_connections_are_four_times_as_fast_from_the_start() {
    // One would take 20 s.
    for first in [First::Open, First::Gone] {
        let line = Line::new("a", 6_000_000, 3e5);
        let (_, seconds) = fetch(spec().connections(4), &[ranges(&line)], first);
        let used = lock(&line.used);
        println!("{seconds} {} {}", used.most, used.requests);
        assert_eq!(used.most, 4);
        assert!(seconds <= 6.0, "{seconds} s");
        assert!(used.requests <= 12, "{} requests", used.requests);
    }
}

#[test]
fn connections_grow_where_each_brings_more() {
    let line = Line::new("a", 40_000_000, 5e5);
    let (_, seconds) = fetch(spec(), &[ranges(&line)], First::Open);
    let most = lock(&line.used).most;
    println!("{seconds} {most} {}", lock(&line.used).requests);
    assert_eq!(most, 16);
    // Four: 20 s. Sixteen: 5 s, and they are sixteen after 2 s.
    assert!(seconds <= 9.0, "{seconds} s");
}

#[test]
fn connections_do_not_grow_where_more_bring_nothing() {
    let line = Line::new("a", 40_000_000, 1e6).total(2e6);
    let (_, seconds) = fetch(spec(), &[ranges(&line)], First::Open);
    let Used { most, requests, .. } = *lock(&line.used);
    println!("{seconds} {most} {requests}");
    assert!(most <= 9, "{most} connections");
    assert!(seconds <= 21.5, "{seconds} s");
    assert!(requests <= 40, "{requests} requests");
}

#[test]
fn a_rate_limit_is_no_reason_for_more_connections() {
    for limit in [2e5, 2e6] {
        for engine in [false, true] {
            let line = Line::new("a", (limit * 20.0) as usize, 1e7);
            let mut spec = spec();
            let mut builder = Engine::builder();
            if engine {
                builder = builder.limit_rate(Some(limit as u64));
            } else {
                spec = spec.limit_rate(limit as u64);
            }
            let seconds = block_on(async {
                let began = Instant::now();
                outcome(builder, spec, &[ranges(&line)], First::Open).await.unwrap();
                began.elapsed().as_secs_f64()
            });
            let used = lock(&line.used);
            println!("{limit} {engine}: {seconds} {} {}", used.most, used.requests);
            assert!(used.most <= 4, "{} connections at {limit}", used.most);
            assert!(used.requests <= 20, "{} requests", used.requests);
            assert!((19.0..=21.0).contains(&seconds), "{seconds} s");
        }
    }
}

#[test]
fn with_two_sources_each_has_a_place_and_the_faster_one_more() {
    for x in [Some(4), None] {
        let slow = Line::new("slow", 48_000_000, 2e5);
        let fast = Line::new("fast", 48_000_000, 4e6);
        let mut spec = spec();
        if let Some(x) = x {
            spec = spec.connections(x);
        }
        let (outcome, seconds) = fetch(spec, &[ranges(&slow), ranges(&fast)], First::Open);
        println!(
            "{x:?} {seconds} slow {} {} fast {} {}",
            share(&outcome, "slow"),
            lock(&slow.used).requests,
            lock(&fast.used).requests,
            share(&outcome, "fast")
        );
        assert!(seconds <= 6.5, "{seconds} s: {outcome:?}");
    }
}

#[test]
fn a_faster_source_takes_no_more_places_than_bring_something() {
    // Alone it is no faster with four connections than with one.
    let slow = Line::new("slow", 48_000_000, 3e5);
    let fast = Line::new("fast", 48_000_000, 2e6).total(2e6);
    let (outcome, seconds) = fetch(spec().connections(4), &[ranges(&slow), ranges(&fast)], First::Open);
    let (s, f) = (share(&outcome, "slow"), share(&outcome, "fast"));
    println!("{seconds} {s} {f} {} {}", lock(&slow.used).requests, lock(&fast.used).requests);
    assert!(seconds <= 21.0, "{seconds} s: slow {s}, fast {f}");
    assert!(lock(&slow.used).requests <= 20, "{} of the slow one", lock(&slow.used).requests);
}

#[test]
fn equals_do_not_take_places_from_each_other() {
    let (a, b) = (Line::new("a", 40_000_000, 1e6), Line::new("b", 40_000_000, 1e6));
    let (outcome, seconds) = fetch(spec().connections(4), &[ranges(&a), ranges(&b)], First::Open);
    println!("{seconds} {} {} {outcome:?}", lock(&a.used).requests, lock(&b.used).requests);
    assert!(seconds <= 10.8, "{seconds} s");
    assert!(share(&outcome, "b") > 0, "the mirror is tried out: {outcome:?}");
}

#[test]
fn stalled_connections_give_their_places_up() {
    for x in [1, 4] {
        let stalls = Line::new("stalls", 16_000_000, 2e6).stalling(3_000_000, usize::MAX);
        let steady = Line::new("steady", 16_000_000, 2e6);
        let (outcome, seconds) =
            fetch(spec().connections(x), &[ranges(&stalls), ranges(&steady)], First::Open);
        println!("{x} {seconds} {} {}", lock(&stalls.used).requests, lock(&steady.used).requests);
        assert!(seconds < 14.0, "-x {x}: {seconds} s: {outcome:?}");
    }
}

#[test]
fn a_stalled_connection_is_replaced_by_another_of_the_same_source() {
    let line = Line::new("a", 40_000_000, 1e6).stalling(500_000, 2);
    let (_, seconds) = fetch(spec().connections(4), &[ranges(&line)], First::Gone);
    println!("{seconds} {}", lock(&line.used).requests);
    assert!(seconds < 12.5, "{seconds} s");
}

#[test]
fn a_server_that_thinks_before_it_answers_keeps_its_places() {
    let mut line = Line::new("a", 40_000_000, 1e6);
    line.delay = Duration::from_secs(4);
    let mirror = Line::new("b", 40_000_000, 1e6);
    let (outcome, seconds) = fetch(spec().connections(4), &[ranges(&line), ranges(&mirror)], First::Gone);
    println!("{seconds} {} {} {outcome:?}", lock(&line.used).requests, lock(&mirror.used).requests);
    assert!(lock(&line.used).requests <= 20);
    assert!(share(&outcome, "a") > 0);
}

#[test]
fn who_sends_in_bursts_keeps_its_places() {
    let mut line = Line::new("a", 40_000_000, 1e6);
    line.burst = Duration::from_secs(3);
    let (outcome, seconds) = fetch(spec().connections(4), &[ranges(&line)], First::Gone);
    println!("{seconds} {} {outcome:?}", lock(&line.used).requests);
    assert!(lock(&line.used).requests <= 24, "{}", lock(&line.used).requests);
}

#[test]
fn dead_sources_are_given_up_and_do_not_take_turns() {
    for x in [1, 4] {
        let dead = |key| Line::new(key, 4_000_000, 1e6).stalling(0, usize::MAX);
        let lines = [ranges(&dead("a")), ranges(&dead("b"))];
        let timeouts = Timeouts::new(Duration::from_secs(20), Duration::from_secs(30));
        let spec = spec().connections(x).retries(1).timeouts(timeouts);
        block_on(async {
            let began = Instant::now();
            let e = outcome(Engine::builder(), spec, &lines, First::Gone).await.unwrap_err();
            println!("{x} {} s {e:?}", began.elapsed().as_secs_f64());
            assert_eq!(e.kind(), Kind::Timeout);
            assert!(began.elapsed() < Duration::from_mins(5), "{:?}", began.elapsed());
        });
    }
}
