//! Stealing or horizon: a request is long, little of it is reserved, and whoever is faster takes the rest over.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dlm_core::{
    AbortCost, Adaptive, Ask, Asker, Binding, BindingId, Board, Caps, Cx, Engine, Grant, JobSpec, Lease,
    LeaseId, MemoryJournal, MemorySink, Next, Outcome, Ranged, Scheduler, Source, Span, Target, Timeouts,
    Work, WorkBench, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{MakeSource, Object, Plan, SimRanged, block_on, strong};
use rules_kit::{Found, Served, Server, Watched, all, bind, lock, nowhere, object, run};
use tokio::time::Instant;

const LEN: u64 = 48_000_000;
/// A reservation is at least this long; a quarter of a second is what it should be otherwise.
const LEAST: u64 = 256 << 10;

fn data() -> Bytes {
    fixtures::bytes(51, LEN as usize)
}

/// A job of one object from these servers. What came of it, and the seconds it took.
fn fetch(
    servers: Vec<(Server, Caps)>,
    spec: JobSpec,
    policy: impl Fn() -> Box<dyn Scheduler> + Send + Sync + 'static,
) -> (Outcome, f64) {
    let len = servers[0].0.data.len() as u64;
    let sources: Vec<(Arc<dyn Source>, Caps)> =
        servers.into_iter().map(|(s, c)| (Arc::new(Ranged::new(s)) as Arc<dyn Source>, c)).collect();
    let found = Found(move |cx: &Cx| {
        let (id, mut found) = object(cx, "object", len);
        found.extend(sources.iter().map(|(s, caps)| bind(s, id, *caps, &strong(Some(len)))));
        all(found)
    });
    let engine = Engine::builder().backend(found).policy(move |_| policy()).deterministic().build();
    block_on(async {
        let began = Instant::now();
        let (sink, journal) = (Arc::new(MemorySink::new()), Arc::new(MemoryJournal::new()));
        let outcome = run(&engine, spec, sink, journal).await.unwrap();
        (outcome, began.elapsed().as_secs_f64())
    })
}

fn adaptive() -> Box<dyn Scheduler> {
    Box::new(Adaptive::new())
}

fn spec(connections: u32) -> JobSpec {
    JobSpec::new(nowhere()).connections(connections)
}

fn share(outcome: &Outcome, label: &str) -> u64 {
    outcome.sources.iter().filter(|s| &*s.label == label).map(|s| s.bytes).sum()
}

#[test]
fn only_a_horizon_is_reserved() {
    for rate in [2e5, 1e6, 1e7] {
        let wrong: Arc<Mutex<Vec<String>>> = Arc::default();
        let longest = Arc::new(Mutex::new(0));
        let (w, l) = (wrong.clone(), longest.clone());
        let policy = move || -> Box<dyn Scheduler> {
            let (wrong, longest) = (w.clone(), l.clone());
            let look = Arc::new(move |board: &Board| {
                for lease in board.leases() {
                    let reserved = lease.reserved().end - lease.reserved().start;
                    // A quarter of a second of its own speed, which is measured with some error.
                    let most = lease.rate().map_or(LEAST, |r| ((r * 0.25 * 1.1) as u64).max(LEAST));
                    if reserved > most {
                        lock(&wrong).push(format!("{reserved} reserved at {:?}", lease.rate()));
                    }
                    let mut longest = lock(&longest);
                    *longest = reserved.max(*longest);
                }
            });
            Box::new(Watched::new(Adaptive::new()).look(&look))
        };
        fetch(vec![(Server::new("a", data(), rate), Caps::RANGES)], spec(4), policy);
        assert_eq!(*lock(&wrong), Vec::<String>::new(), "at {rate} bytes a second");
        let longest = *lock(&longest);
        assert!(
            longest as f64 >= (rate / 8.0).min(LEAST as f64),
            "{longest} at {rate}: it runs ahead at all"
        );
    }
}

fn requests(rate: f64, connections: u32, caps: Caps) -> Vec<u64> {
    let server = Server::new("a", data(), rate);
    let served: Arc<Mutex<Served>> = server.served();
    fetch(vec![(server, caps)], spec(connections), adaptive);
    let served = lock(&served);
    served.requests.iter().map(|r| r.want.end.unwrap_or(LEN) - r.want.start).collect()
}

#[test]
fn one_connection_has_one_request() {
    assert_eq!(requests(1e6, 1, Caps::RANGES), [LEN]);
}

#[test]
fn a_request_is_long_and_there_are_few() {
    // Four connections at 1 MB/s: 12 s; requests of seconds, not of the 48 of 256 KiB that each would need.
    let all = requests(1e6, 4, Caps::RANGES);
    assert!((4..=24).contains(&all.len()), "{} requests: {all:?}", all.len());
}

/// What was granted, in seconds of the binding's own rate then.
fn granted(rate: f64, caps: Caps) -> Vec<f64> {
    let seconds: Arc<Mutex<Vec<f64>>> = Arc::default();
    let s = seconds.clone();
    let policy = move || -> Box<dyn Scheduler> {
        let seconds = s.clone();
        let answer = move |_: Asker, board: &Board, grant: Grant| {
            if let Grant::Fetch { binding, span } = &grant
                && let Some(rate) = board.binding(*binding).and_then(dlm_core::BindingView::rate)
            {
                lock(&seconds).push(span.len().unwrap_or(u64::MAX) as f64 / rate);
            }
            grant
        };
        Box::new(Watched::new(Adaptive::new()).answer(&Arc::new(answer)))
    };
    // The first requests, of which there are two, come before there is a rate.
    fetch(vec![(Server::new("a", data(), rate), caps)], spec(2), policy);
    lock(&seconds).clone()
}

#[test]
fn a_request_is_granted_by_the_bindings_own_rate() {
    for rate in [1e6, 2e6] {
        let seconds = granted(rate, Caps::RANGES);
        assert!(!seconds.is_empty());
        assert!(seconds.iter().all(|s| *s <= 4.5), "at {rate}: {seconds:?}");
        assert!(seconds[0] > 1.5, "at {rate}: {seconds:?}");
    }
}

#[test]
fn where_a_cut_costs_nothing_requests_are_about_two_seconds() {
    let cheap = granted(2e6, Caps::RANGES.abort(AbortCost::Stream));
    assert!(!cheap.is_empty() && cheap.iter().all(|s| *s <= 2.5), "{cheap:?}");
}

#[test]
fn a_fast_source_takes_over_the_tail_of_a_slow_one() {
    // Alone the slow one would need eight minutes, and it begins first.
    let slow = Server::new("slow", data(), 1e5);
    let fast = Server::new("fast", data(), 8e6);
    let (outcome, seconds) = fetch(
        vec![(slow, Caps::RANGES.max_parallel(1)), (fast, Caps::RANGES.max_parallel(1))],
        spec(2),
        adaptive,
    );
    let ideal = LEN as f64 / 8.1e6;
    assert!(seconds <= 1.25 * ideal, "{seconds} s, ideal {ideal} s: {outcome:?}");
    assert!(share(&outcome, "slow") > 100_000, "the slow one helps: {outcome:?}");
    assert!(outcome.duplicate <= 1 << 20, "{outcome:?}");
}

#[test]
fn a_slow_source_gives_its_connections_up_to_a_fast_one() {
    // It is found first, and takes all that -x allows.
    let slow = Server::new("slow", data(), 1e5);
    let fast = Server::new("fast", data(), 4e6);
    let (outcome, seconds) = fetch(vec![(slow, Caps::RANGES), (fast, Caps::RANGES)], spec(4), adaptive);
    // Four connections of the fast one: 3 s. Of the slow one: two minutes.
    assert!(seconds <= 12.0, "{seconds} s: {outcome:?}");
}

#[test]
fn sources_that_stall_on_every_connection_are_raced() {
    let mut stalls = SimRanged::new("stalls", 2e6);
    stalls.stall = Some(3_000_000);
    let plan = Plan::new(7, 16_000_000).source(stalls.make()).source(SimRanged::new("steady", 2e6).make());
    let (report, sink) = block_on(plan.run());
    let outcome = report.result.unwrap();
    assert_eq!(sink.file("object").as_ref(), Some(&plan.object.data));
    // Far sooner than its silence would be called a time-out.
    assert!(report.seconds < 12.0, "{} s: {outcome:?}", report.seconds);
}

/// One object from a server that stalls, from one that hardly moves, and from a steady one, a connection each.
fn stalled_and_steady(len: usize, policy: impl Fn() -> Box<dyn Scheduler> + Send + Sync + 'static) -> f64 {
    let server = |label: &str, rate| {
        let mut server = SimRanged::new(label, rate);
        server.caps = Caps::RANGES.max_parallel(1);
        server
    };
    let mut stalls = server("stalls", 4e5);
    stalls.stall = Some(500_000);
    let object = Object { data: fixtures::bytes(7, len), piece: None, seed: 7 };
    let (slow, steady) = (server("slow", 8e4), server("steady", 4e5));
    let makes: Vec<MakeSource> =
        vec![Arc::new(stalls.make()), Arc::new(slow.make()), Arc::new(steady.make())];
    let found = Found(move |cx: &Cx| {
        let (id, mut found) = rules_kit::object(cx, "object", len as u64);
        for make in &makes {
            let (source, caps, identity) = make(&object);
            found.push(bind(&source, id, caps, &identity));
        }
        all(found)
    });
    let engine = Engine::builder().backend(found).policy(move |_| policy()).deterministic().build();
    // Nothing else would end its silence in time.
    let spec =
        JobSpec::new(nowhere()).timeouts(Timeouts::new(Duration::from_hours(9), Duration::from_hours(9)));
    block_on(async {
        let began = Instant::now();
        run(&engine, spec, Arc::new(MemorySink::new()), Arc::new(MemoryJournal::new())).await.unwrap();
        began.elapsed().as_secs_f64()
    })
}

#[test]
fn a_short_rest_of_somebody_silent_is_raced() {
    // Two have about half of it each; of one half the last bytes never come.
    let mut stalls = SimRanged::new("stalls", 2e6);
    stalls.stall = Some(420_000);
    stalls.caps = Caps::RANGES.max_parallel(1);
    let plan = Plan::new(9, 1_000_000).source(stalls.make()).source(SimRanged::new("steady", 2e6).make());
    let (report, sink) = block_on(plan.run());
    let outcome = report.result.unwrap();
    assert_eq!(sink.file("object").as_ref(), Some(&plan.object.data));
    assert!(report.seconds < 6.0, "{} s: {outcome:?}", report.seconds);
}

#[test]
fn who_is_silent_is_raced() {
    let seconds = stalled_and_steady(4_000_000, adaptive);
    assert!(seconds < 15.0, "{seconds} s");
}

#[test]
fn who_is_overtaken_is_revoked() {
    // For how long a lease was there although others had delivered all that was left of it.
    let since: Arc<Mutex<BTreeMap<LeaseId, Instant>>> = Arc::default();
    let longest = Arc::new(Mutex::new((0, Duration::ZERO)));
    let (s, l) = (since, longest.clone());
    let policy = move || -> Box<dyn Scheduler> {
        let (since, longest) = (s.clone(), l.clone());
        let look = Arc::new(move |board: &Board| {
            let now = Instant::now();
            for lease in board.leases() {
                let o = board.binding(lease.binding()).and_then(|b| board.object(b.object())).unwrap();
                let end = lease.want().to_range().end.min(o.len().unwrap());
                if o.done().first_missing(lease.cursor()) >= end {
                    let began = *lock(&since).entry(lease.id()).or_insert(now);
                    let mut longest = lock(&longest);
                    *longest = (longest.0 + 1, longest.1.max(now - began));
                }
            }
        });
        // The one that stalls has a short request, so that it is over when there is still something to do.
        let short = Arc::new(|_: Asker, _: &Board, grant: Grant| match grant {
            Grant::Fetch { binding: BindingId(0), span } => {
                let end = Some(span.start + 900_000);
                Grant::Fetch { binding: BindingId(0), span: Span { start: span.start, end } }
            }
            other => other,
        });
        Box::new(Watched::new(Adaptive::new()).look(&look).answer(&short))
    };
    // When it has lost its race there is another to run.
    stalled_and_steady(4_000_000, policy);
    let (times, longest) = *lock(&longest);
    assert!(times > 0, "it was overtaken");
    assert!(longest <= Duration::from_millis(500), "and kept its connection for {longest:?}");
}

struct Two {
    bench: WorkBench,
    a: Work,
    b: Work,
    data: Bytes,
}

const SHORT: u64 = 4_000_000;

impl Two {
    async fn new(abort: AbortCost) -> Self {
        let sink = Arc::new(MemorySink::new());
        let bench = WorkBench::new(sink, Some(SHORT), 8 << 20, Cx::new()).await.unwrap();
        let data = fixtures::bytes(52, SHORT as usize);
        let add = |key| {
            let source: Arc<dyn Source> = Arc::new(Ranged::new(Server::new(key, data.clone(), 1e6)));
            let target = Target::new(bench.object(), nowhere());
            let caps = Caps::RANGES.abort(abort);
            bench.add(Binding::new(source, target, caps, strong(Some(SHORT)))).unwrap()
        };
        let (a, b) = (add("a"), add("b"));
        Self { bench, a, b, data }
    }
    async fn rolling(&self) -> Lease {
        let WorkClaim::Lease(mut lease) = self.a.claim(Ask::ANY).await else { panic!() };
        lease.agree(&strong(Some(SHORT))).unwrap();
        lease
    }
    fn exact(&self, range: std::ops::Range<u64>) -> Option<Lease> {
        match self.b.try_claim(self.bench.object(), range) {
            WorkClaim::Lease(mut lease) => {
                lease.agree(&strong(Some(SHORT))).unwrap();
                Some(lease)
            }
            _ => None,
        }
    }
    fn put(&self, lease: &mut Lease, range: std::ops::Range<u64>) -> Next {
        lease.put(range.start, self.data.slice(range.start as usize..range.end as usize)).unwrap().next
    }
}

#[test]
fn what_is_far_ahead_of_a_lease_is_free_for_others() {
    block_on(async {
        let two = Two::new(AbortCost::Connection).await;
        let lease = two.rolling().await;
        assert!(lease.range().len().unwrap() >= SHORT / 2, "the request is long: {:?}", lease.range());
        assert!(two.exact(LEAST / 2..LEAST).is_none(), "what is near is the lease's");
        assert!(two.exact(LEAST..2 * LEAST).is_some(), "what is far is nobody's");
        two.bench.check().unwrap();
    });
}

#[test]
fn who_meets_bytes_of_somebody_faster_stops() {
    block_on(async {
        let two = Two::new(AbortCost::Stream).await;
        let mut slow = two.rolling().await;
        // From the horizon to the end, somebody faster.
        let mut fast = two.exact(LEAST..SHORT).unwrap();
        two.put(&mut fast, LEAST..SHORT);
        assert_eq!(two.put(&mut slow, 0..LEAST - 1), Next::Continue);
        assert_eq!(two.put(&mut slow, LEAST - 1..LEAST), Next::Stop);
    });
}

#[test]
fn where_a_cut_costs_a_connection_a_small_hole_is_read_over() {
    block_on(async {
        for (abort, want) in
            [(AbortCost::Connection, Next::From(LEAST + 100_000)), (AbortCost::Stream, Next::Stop)]
        {
            let two = Two::new(abort).await;
            let mut lease = two.rolling().await;
            let mut other = two.exact(LEAST..LEAST + 100_000).unwrap();
            two.put(&mut other, LEAST..LEAST + 100_000);
            assert_eq!(two.put(&mut lease, 0..LEAST), want, "{abort:?}");
        }
    });
}

#[test]
fn a_large_hole_is_not_read_over() {
    block_on(async {
        let two = Two::new(AbortCost::Connection).await;
        let mut lease = two.rolling().await;
        let end = LEAST + (2 << 20);
        let mut other = two.exact(LEAST..end).unwrap();
        two.put(&mut other, LEAST..end);
        assert_eq!(two.put(&mut lease, 0..LEAST), Next::Stop);
    });
}

#[test]
fn of_two_that_race_each_byte_counts_once() {
    let slow = Server::new("slow", data(), 2e4);
    let fast = Server::new("fast", data(), 8e6);
    let (outcome, _) = fetch(vec![(slow, Caps::RANGES), (fast, Caps::RANGES)], spec(4), adaptive);
    assert_eq!(outcome.received, LEN);
    assert_eq!(share(&outcome, "slow") + share(&outcome, "fast"), LEN);
}
