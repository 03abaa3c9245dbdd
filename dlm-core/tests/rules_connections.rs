//! How many connections there are: -x is for all sources of a file together, the policy decides, and what an origin asks
//! for holds for everybody who goes there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dlm_core::{
    Adaptive, Asker, Board, Caps, Cx, Engine, Error, Grant, JobHandle, JobSpec, Kind, MemoryJournal,
    MemorySink, Order, Ordered, Outcome, Ranged, Retry, Scheduler, Sink, SinkOrder, Source, StreamSink,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{Object, Peer, Plan, SimRanged, SimSwarm, block_on, strong};
use rules_kit::{Calls, Found, Served, Server, Watched, all, bind, lock, nowhere, object, run};
use tokio::time::Instant;

const LEN: u64 = 16_000_000;

fn data() -> Bytes {
    fixtures::bytes(41, LEN as usize)
}

type Shared = Arc<Mutex<Served>>;

fn ranged(server: Server) -> Arc<dyn Source> {
    Arc::new(Ranged::new(server))
}

/// One object of these sources, `files` times.
fn backend(sources: Vec<Arc<dyn Source>>, files: usize) -> impl dlm_core::Backend {
    Found(move |cx: &Cx| {
        let mut found = Vec::new();
        for i in 0..files {
            let (id, mut one) = object(cx, &format!("object {i}"), LEN);
            one.extend(sources.iter().map(|s| bind(s, id, Caps::RANGES, &strong(Some(LEN)))));
            found.append(&mut one);
        }
        all(found)
    })
}

fn both(order: SinkOrder) -> Box<dyn Scheduler> {
    match order {
        SinkOrder::Next => Box::new(Ordered::new()),
        _ => Box::new(Adaptive::new()),
    }
}

/// The most rolling leases that one object has at a moment, over all of its bindings.
fn counting(most: &Arc<AtomicUsize>) -> impl Fn(SinkOrder) -> Box<dyn Scheduler> + Send + Sync + 'static {
    let most = most.clone();
    move |order| {
        let most = most.clone();
        let look = Arc::new(move |board: &Board| {
            for o in board.objects() {
                most.fetch_max(board.leases_of(o.id()).filter(|l| l.rolling()).count(), Ordering::Relaxed);
            }
        });
        match order {
            SinkOrder::Next => Box::new(Watched::new(Ordered::new()).look(&look)),
            _ => Box::new(Watched::new(Adaptive::new()).look(&look)),
        }
    }
}

fn sinks() -> [Arc<dyn Sink>; 2] {
    [Arc::new(MemorySink::new()), Arc::new(StreamSink::new(tokio::io::sink()))]
}

fn fetch(engine: &Engine, spec: JobSpec, sink: Arc<dyn Sink>) -> Outcome {
    block_on(run(engine, spec, sink, Arc::new(MemoryJournal::new()))).unwrap()
}

#[test]
fn x_is_the_most_leases_over_all_bindings_of_a_file() {
    for n in [1, 2, 3, 5, 7] {
        for sink in sinks() {
            let ordered = sink.caps().order == SinkOrder::Next;
            let servers: Vec<Server> =
                ["a", "b", "c"].into_iter().map(|k| Server::new(k, data(), 1e6)).collect();
            let served: Vec<Shared> = servers.iter().map(Server::served).collect();
            let most = Arc::default();
            let sources = servers.into_iter().map(ranged).collect();
            let engine = Engine::builder()
                .backend(backend(sources, 1))
                .policy(counting(&most))
                .deterministic()
                .build();
            fetch(&engine, JobSpec::new(nowhere()).connections(n), sink);
            let most = most.load(Ordering::Relaxed);
            assert!(most <= n as usize, "-x {n}: {most} leases at once (ordered: {ordered})");
            assert!(most == n as usize || ordered, "-x {n}: all of them are used, not {most}");
            let open: usize = served.iter().map(|s| lock(s).most).sum();
            assert!(open <= 3 * n as usize, "-x {n}: {open} connections");
        }
    }
}

#[test]
fn x_is_for_each_file_and_not_for_all() {
    let most = Arc::default();
    let server = Server::new("a", data(), 1e6);
    let served = server.served();
    let engine = Engine::builder()
        .backend(backend(vec![ranged(server)], 2))
        .policy(counting(&most))
        .deterministic()
        .build();
    fetch(&engine, JobSpec::new(nowhere()).connections(2), Arc::new(MemorySink::new()));
    assert_eq!(most.load(Ordering::Relaxed), 2);
    assert_eq!(lock(&served).most, 4);
}

#[test]
fn x_changes_while_the_job_runs() {
    block_on(async {
        let server = Server::new("a", data(), 2e5);
        let served = server.served();
        let engine = Engine::builder().backend(backend(vec![ranged(server)], 1)).deterministic().build();
        let sink = Arc::new(MemorySink::new());
        let handle: JobHandle =
            engine.start(JobSpec::new(nowhere()).connections(2), sink, Arc::new(MemoryJournal::new()));
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(lock(&served).open, 2);
        let mut limits = dlm_core::Limits::default();
        limits.connections = Some(6);
        handle.set_limits(limits);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(lock(&served).open, 6);
    });
}

#[test]
fn the_policy_alone_decides_how_many_and_a_ranged_source_only_asks() {
    // It grants three and then makes everybody wait; nothing of the source's tries to have more.
    let calls: Arc<Mutex<Calls>> = Arc::default();
    let server = Server::new("a", data(), 1e6);
    let served = server.served();
    let c = calls.clone();
    let policy = move |_| -> Box<dyn Scheduler> {
        let three =
            |_: Asker, board: &Board, g: Grant| if board.leases().count() < 3 { g } else { Grant::Wait };
        Box::new(Watched::new(Adaptive::new()).counting(&c).answer(&Arc::new(three)))
    };
    let engine =
        Engine::builder().backend(backend(vec![ranged(server)], 1)).policy(policy).deterministic().build();
    fetch(&engine, JobSpec::new(nowhere()), Arc::new(MemorySink::new()));
    let served = lock(&served);
    assert_eq!(served.most, 3);
    assert!(lock(&calls).grants as usize > served.requests.len(), "it asked, and was told to wait");
}

fn swarm_and_server(object: Object) -> Plan {
    let peer = |i: u64| Peer { label: format!("peer {i}"), rate: 3e5, share: 1.0, corrupt: 0.0 };
    Plan::of(object)
        .source(SimSwarm { peers: (0..6).map(peer).collect() }.make())
        .source(SimRanged::new("server", 1e6).make())
}

fn shares_with_a_swarm(sink: Arc<dyn Sink>) -> (u64, u64) {
    let object = Object { data: data(), piece: Some(256 << 10), seed: 1 };
    let mut plan = swarm_and_server(object);
    plan.spec = plan.spec.clone().connections(1);
    let report = block_on(plan.run_into(sink, Arc::new(MemoryJournal::new())));
    let sources = report.result.unwrap().sources;
    let of = |label: &str| sources.iter().find(|s| &*s.label == label).map_or(0, |s| s.bytes);
    (of("swarm"), of("server"))
}

#[test]
fn peers_of_a_swarm_do_not_count_against_x() {
    let (swarm, server) = shares_with_a_swarm(Arc::new(MemorySink::new()));
    // Six peers at 0.3 MB/s together, and the one connection at 1 MB/s.
    assert!(swarm > LEN / 2, "all peers work: {swarm}");
    assert!(server > LEN / 4, "and the connection does: {server}");
}

#[test]
fn peers_of_a_swarm_do_not_count_against_x_in_order() {
    let (swarm, server) = shares_with_a_swarm(Arc::new(StreamSink::new(tokio::io::sink())));
    assert!(swarm > LEN / 4, "all peers work: {swarm}");
    assert!(server > LEN / 8, "and the connection does: {server}");
}

#[test]
fn one_arc_is_one_source_with_one_run_however_many_bindings_it_has() {
    let server = Server::new("a", data(), 4e6);
    let served = server.served();
    let source = ranged(server);
    let engine = Engine::builder().backend(backend(vec![source.clone(), source], 3)).deterministic().build();
    let outcome = fetch(&engine, JobSpec::new(nowhere()), Arc::new(MemorySink::new()));
    assert_eq!(outcome.sources.len(), 1);
    assert_eq!((outcome.sources[0].bytes, lock(&served).sent >= 3 * LEN), (3 * LEN, true));
}

/// A server that asks for patience once its `n`th request comes.
fn asks_for_patience(key: &'static str, n: usize, pause: Duration) -> (Arc<dyn Source>, Shared) {
    let asked = AtomicUsize::new(0);
    let server = Server::new(key, data(), 1e6).refusing(move |served| {
        let now = served.requests.len() >= n && asked.fetch_add(1, Ordering::Relaxed) == 0;
        now.then(|| Error::new(Kind::Throttled, "fetch").with_retry(Retry::After(pause)))
    });
    let served = server.served();
    (ranged(server), served)
}

/// Whether a request came in the first part of the pause.
fn patient(served: &Shared, refused: usize, pause: Duration) -> Result<(), String> {
    let served = lock(served);
    let asked: Instant = served.requests[refused - 1].at;
    let soon: Vec<_> = served
        .requests
        .iter()
        .skip(refused)
        .map(|r| r.at - asked)
        // What was on its way when the answer came is no fault.
        .filter(|t| *t > Duration::from_millis(50) && *t < pause)
        .collect();
    if soon.is_empty() { Ok(()) } else { Err(format!("asked again after {soon:?}")) }
}

const PAUSE: Duration = Duration::from_secs(20);

#[test]
fn a_source_that_asks_for_patience_gets_it() {
    let (source, served) = asks_for_patience("a", 1, PAUSE);
    let engine = Engine::builder().backend(backend(vec![source], 1)).deterministic().build();
    fetch(&engine, JobSpec::new(nowhere()), Arc::new(MemorySink::new()));
    patient(&served, 1, PAUSE).unwrap();
}

#[test]
fn patience_holds_for_every_object_of_the_origin() {
    // The second object is found when the origin has just asked for patience because of the first.
    let (source, served) = asks_for_patience("a", 1, PAUSE);
    let found = Found(move |cx: &Cx| -> dlm_core::DiscoveryStream {
        let mut both = Vec::new();
        for (name, pause) in [("one", 0), ("other", 2)] {
            let (id, mut found) = object(cx, name, LEN);
            found.push(bind(&source, id, Caps::RANGES, &strong(Some(LEN))));
            both.extend(found.into_iter().map(|d| (pause, d)));
        }
        Box::pin(futures::StreamExt::then(futures::stream::iter(both), |(pause, d)| async move {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            Ok(d)
        }))
    });
    let engine = Engine::builder().backend(found).deterministic().build();
    fetch(&engine, JobSpec::new(nowhere()).connections(1), Arc::new(MemorySink::new()));
    patient(&served, 1, PAUSE).unwrap();
}

#[test]
fn patience_holds_for_every_job_of_the_engine() {
    let (source, served) = asks_for_patience("a", 1, PAUSE);
    let engine = Engine::builder().backend(backend(vec![source], 1)).deterministic().build();
    block_on(async {
        let job = || {
            engine.start(JobSpec::new(nowhere()), Arc::new(MemorySink::new()), Arc::new(MemoryJournal::new()))
        };
        let first = job();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let second = job();
        let (a, b) = tokio::join!(first.into_future(), second.into_future());
        a.unwrap();
        b.unwrap();
    });
    patient(&served, 1, PAUSE).unwrap();
}

#[test]
fn another_origin_need_not_be_patient() {
    let (source, _) = asks_for_patience("a", 1, PAUSE);
    let other = Server::new("b", data(), 1e6);
    let served = other.served();
    let engine = Engine::builder().backend(backend(vec![source, ranged(other)], 1)).deterministic().build();
    let took = block_on(async {
        let began = Instant::now();
        let (sink, journal) = (Arc::new(MemorySink::new()), Arc::new(MemoryJournal::new()));
        run(&engine, JobSpec::new(nowhere()).connections(1), sink, journal).await.unwrap();
        began.elapsed()
    });
    assert!(took < PAUSE && lock(&served).sent > LEN / 2, "{took:?}");
}

/// A server that allows two connections and refuses others. How often it had to.
fn allows_two() -> (Arc<dyn Source>, Arc<AtomicUsize>) {
    let refusals = Arc::new(AtomicUsize::new(0));
    let r = refusals.clone();
    let server = Server::new("a", data(), 1e6).refusing(move |served| {
        (served.open > 2).then(|| {
            r.fetch_add(1, Ordering::Relaxed);
            Error::new(Kind::Throttled, "fetch").because("two at once")
        })
    });
    (ranged(server), refusals)
}

#[test]
fn refusals_teach_how_many_connections_a_source_allows() {
    let (source, refusals) = allows_two();
    let engine = Engine::builder().backend(backend(vec![source], 1)).deterministic().build();
    fetch(&engine, JobSpec::new(nowhere()), Arc::new(MemorySink::new()));
    let n = refusals.load(Ordering::Relaxed);
    assert!((1..=4).contains(&n), "{n} refusals until it was learnt");
}

#[test]
fn what_was_learnt_holds_for_the_next_job_of_the_engine() {
    let (source, refusals) = allows_two();
    let engine = Engine::builder().backend(backend(vec![source], 1)).deterministic().build();
    fetch(&engine, JobSpec::new(nowhere()), Arc::new(MemorySink::new()));
    let learnt = refusals.swap(0, Ordering::Relaxed);
    assert!(learnt > 0);
    fetch(&engine, JobSpec::new(nowhere()), Arc::new(MemorySink::new()));
    assert_eq!(refusals.load(Ordering::Relaxed), 0, "the second job asks for no more than was allowed");
}

#[test]
fn a_policy_may_take_a_connection_back() {
    // Every lease is revoked after a second: the source stops each, asks again, and the file comes all the same.
    #[derive(Debug)]
    struct Taking(Adaptive, Arc<AtomicUsize>);
    impl Scheduler for Taking {
        fn grant(&mut self, now: Instant, who: Asker, ask: &dlm_core::Ask, board: &Board) -> Grant {
            self.0.grant(now, who, ask, board)
        }
        fn on_event(&mut self, now: Instant, event: &dlm_core::BoardEvent, board: &Board) {
            self.0.on_event(now, event, board);
        }
        fn tick(&mut self, now: Instant, board: &Board, out: &mut Vec<Order>) -> Option<Instant> {
            for l in board.leases().filter(|l| l.age(now) > Duration::from_secs(1)) {
                self.1.fetch_add(1, Ordering::Relaxed);
                out.push(Order::Revoke(l.id()));
            }
            self.0.tick(now, board, out)
        }
    }
    let taken = Arc::new(AtomicUsize::new(0));
    let t = taken.clone();
    let server = Server::new("a", data(), 5e5);
    let served = server.served();
    let engine = Engine::builder()
        .backend(backend(vec![ranged(server)], 1))
        .policy(move |_| Box::new(Taking(Adaptive::new(), t.clone())))
        .deterministic()
        .build();
    let outcome = fetch(&engine, JobSpec::new(nowhere()).connections(2), Arc::new(MemorySink::new()));
    assert!(taken.load(Ordering::Relaxed) > 10);
    assert!(lock(&served).requests.len() > 10);
    assert_eq!(outcome.received, LEN);
}

#[test]
fn without_a_number_the_policy_of_the_sink_is_used() {
    // Nothing of the above says anything if the default policies are not those that were tried.
    for sink in sinks() {
        let server = Server::new("a", data(), 1e6);
        let served = server.served();
        let engine =
            Engine::builder().backend(backend(vec![ranged(server)], 1)).policy(both).deterministic().build();
        fetch(&engine, JobSpec::new(nowhere()), sink.clone());
        let explicit = lock(&served).requests.iter().map(|r| r.want).collect::<Vec<_>>();
        let server = Server::new("a", data(), 1e6);
        let served = server.served();
        let engine = Engine::builder().backend(backend(vec![ranged(server)], 1)).deterministic().build();
        let again: Arc<dyn Sink> = match sink.caps().order {
            SinkOrder::Next => Arc::new(StreamSink::new(tokio::io::sink())),
            _ => Arc::new(MemorySink::new()),
        };
        fetch(&engine, JobSpec::new(nowhere()), again);
        let default = lock(&served).requests.iter().map(|r| r.want).collect::<Vec<_>>();
        assert_eq!(explicit, default);
    }
}
