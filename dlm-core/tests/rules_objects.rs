//! One job of many objects: a bounded number is open at a time, each costs the same, and small files leave no journal.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlm_core::{
    Adaptive, Board, Caps, Cx, Discovery, Engine, FileSink, FileSpec, JobSpec, Kind, MemoryJournal,
    MemorySink, ObjectId, Outcome, Ranged, RelPath, Result, Scheduler, Sink, Source,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};
use rules_kit::{
    Calls, CountedJournal, CountedSink, Found, Served, Server, Watched, all, bind, lock, nowhere, object, run,
};

/// Length of a small file.
const SMALL: u64 = 3_000;
/// Objects open at a time, as the rule has it.
const AHEAD: usize = 1000;

/// What a job of many files cost.
#[derive(Debug, Default)]
struct Cost {
    calls: Arc<Mutex<Calls>>,
    /// The most objects on the board, and the most that a source could find work in, at one moment.
    board: Arc<AtomicUsize>,
    index: Arc<AtomicUsize>,
    /// Objects looked at over all looks.
    looked: Arc<AtomicUsize>,
}

/// How many entries the board's index of what can be claimed has. It is no public fact, and printing is.
fn index(board: &Board) -> usize {
    let text = format!("{board:?}");
    text.split("open: {").nth(1).map_or(0, |t| t.matches("(Reverse(").count())
}

fn policy(cost: &Cost) -> impl Fn(dlm_core::SinkOrder) -> Box<dyn Scheduler> + Send + Sync + 'static {
    let (calls, most, largest, looked) =
        (cost.calls.clone(), cost.board.clone(), cost.index.clone(), cost.looked.clone());
    move |_| {
        let (most, largest, looked) = (most.clone(), largest.clone(), looked.clone());
        let turn = AtomicUsize::new(0);
        let look = Arc::new(move |board: &Board| {
            let n = board.objects().count();
            most.fetch_max(n, Ordering::Relaxed);
            looked.fetch_add(n, Ordering::Relaxed);
            if turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(64) {
                largest.fetch_max(index(board), Ordering::Relaxed);
            }
        });
        Box::new(Watched::new(Adaptive::new()).counting(&calls).look(&look))
    }
}

/// A job of `n` small files from one server, found one by one.
fn many(n: usize, cost: &Cost, sink: &CountedSink, journal: &CountedJournal) -> Result<Outcome> {
    let server = Server::new("a", fixtures::bytes(1, SMALL as usize), 1e6);
    let source: Arc<dyn Source> = Arc::new(Ranged::new(server));
    let found = Found(move |cx: &Cx| -> dlm_core::DiscoveryStream {
        let (cx, source) = (cx.clone(), source.clone());
        let one = move |i| {
            let (id, mut found) = object(&cx, &format!("file {i}"), SMALL);
            found.push(bind(&source, id, Caps::RANGES, &strong(Some(SMALL))));
            futures::stream::iter(found.into_iter().map(Ok))
        };
        Box::pin(futures::StreamExt::flat_map(futures::stream::iter(0..n), one))
    });
    let engine = Engine::builder().backend(found).policy(policy(cost)).deterministic().build();
    let spec = JobSpec::new(nowhere());
    block_on(run(&engine, spec, Arc::new(sink.clone()), Arc::new(journal.clone())))
}

fn cost_of(n: usize) -> (Cost, usize, usize) {
    let (cost, sink) = (Cost::default(), CountedSink::new(MemorySink::new()));
    let journal = CountedJournal::new(MemoryJournal::new());
    let outcome = many(n, &cost, &sink, &journal).unwrap();
    assert_eq!(outcome.files.len(), n);
    let writes = sink.seen().writes.len();
    (cost, writes, journal.loads())
}

#[test]
fn each_of_many_files_is_fetched_and_put_in_place() {
    let sink = MemorySink::new();
    let journal = CountedJournal::new(MemoryJournal::new());
    let outcome = many(300, &Cost::default(), &CountedSink::new(sink.clone()), &journal).unwrap();
    assert_eq!((outcome.files.len(), outcome.bytes), (300, 300 * SMALL));
    for i in [0, 1, 150, 299] {
        assert_eq!(sink.file(&format!("file {i}")).unwrap(), fixtures::bytes(1, SMALL as usize), "file {i}");
    }
}

#[test]
fn objects_are_let_go_once_they_are_in_place() {
    let (cost, sink) = (Cost::default(), CountedSink::new(MemorySink::new()));
    let n = AHEAD + 500;
    let journal = CountedJournal::new(MemoryJournal::new());
    let outcome = many(n, &cost, &sink, &journal).expect("more objects than may be open at a time");
    assert_eq!(outcome.files.len(), n);
    assert!(cost.board.load(Ordering::Relaxed) <= AHEAD + 1, "{cost:?}");
}

#[test]
fn the_index_of_what_can_be_claimed_forgets_what_is_finished() {
    let (cost, n) = (Cost::default(), 400);
    let slow = Arc::new(AtomicUsize::new(0));
    let source: Arc<dyn Source> =
        Arc::new(Ranged::new(Server::new("a", fixtures::bytes(1, SMALL as usize), 1e6)));
    let found = Found(move |cx: &Cx| -> dlm_core::DiscoveryStream {
        let (cx, source, slow) = (cx.clone(), source.clone(), slow.clone());
        let one = move |i| {
            let (id, mut found) = object(&cx, &format!("file {i}"), SMALL);
            found.push(bind(&source, id, Caps::RANGES, &strong(Some(SMALL))));
            let slow = slow.clone();
            // One is found when the one before is long in place.
            futures::StreamExt::then(futures::stream::iter(found), move |d| {
                let pause = if slow.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) { 200 } else { 0 };
                async move {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    Ok(d)
                }
            })
        };
        Box::pin(futures::StreamExt::flat_map(futures::stream::iter(0..n), one))
    });
    let engine = Engine::builder().backend(found).policy(policy(&cost)).deterministic().build();
    let sink = Arc::new(MemorySink::new());
    block_on(run(&engine, JobSpec::new(nowhere()), sink, Arc::new(MemoryJournal::new()))).unwrap();
    let largest = cost.index.load(Ordering::Relaxed);
    assert!((1..=8).contains(&largest), "{largest} entries for what is not finished, of {n} files");
}

#[test]
fn a_file_among_many_costs_what_one_among_few_does() {
    let ((few, w1, l1), (many, w2, l2)) = (cost_of(50), cost_of(400));
    let calls = |c: &Cost| {
        let c = *lock(&c.calls);
        c.grants + c.events + c.ticks
    };
    // Eight times as many files: eight times the work, and a half more for luck.
    let (a, b) = (calls(&few), calls(&many));
    assert!(b <= 12 * a, "the policy was called {a} and {b} times");
    assert!(w2 <= 12 * w1, "writes: {w1} and {w2}");
    assert!(l2 <= 12 * l1, "the journal was read {l1} and {l2} times");
}

#[test]
fn the_journal_is_not_read_again_for_each_object() {
    // To read it costs what all objects together left in it.
    let ((_, _, few), (_, _, many)) = (cost_of(10), cost_of(200));
    assert_eq!(few, many, "times that it was read, for 10 objects and for 200");
    assert!(many <= 2);
}

#[test]
#[ignore = "takes minutes: run in a release build"]
fn one_job_of_100_000_small_files() {
    let (cost, _, _) = cost_of(100_000);
    assert!(cost.board.load(Ordering::Relaxed) <= AHEAD + 1, "{cost:?}");
}

/// A server that never answers, and an endless list of its files: what was looked at and prepared after a while.
fn taken_of_an_endless_list(server: Server) -> (usize, usize) {
    let polled = Arc::new(AtomicUsize::new(0));
    let source: Arc<dyn Source> = Arc::new(Ranged::new(server));
    let p = polled.clone();
    let found = Found(move |cx: &Cx| -> dlm_core::DiscoveryStream {
        let (cx, source, polled) = (cx.clone(), source.clone(), p.clone());
        let one = move |i| {
            polled.fetch_add(1, Ordering::Relaxed);
            let (id, mut found) = object(&cx, &format!("file {i}"), SMALL);
            found.push(bind(&source, id, Caps::RANGES, &strong(Some(SMALL))));
            futures::stream::iter(found.into_iter().map(Ok))
        };
        Box::pin(futures::StreamExt::flat_map(futures::stream::iter(0u64..), one))
    });
    let engine = Engine::builder().backend(found).deterministic().build();
    let sink = CountedSink::new(MemorySink::new());
    block_on(async {
        let mut spec = JobSpec::new(nowhere());
        spec.timeouts = dlm_core::Timeouts::new(Duration::from_hours(9), Duration::from_hours(9));
        let mut handle = engine.start(spec, Arc::new(sink.clone()), Arc::new(MemoryJournal::new()));
        let ended = tokio::time::timeout(Duration::from_secs(2), handle.outcome()).await;
        assert!(ended.is_err(), "{ended:?}");
    });
    let most = sink.seen().most_open;
    (polled.load(Ordering::Relaxed), most)
}

#[test]
fn at_most_a_thousand_objects_are_prepared_ahead_and_a_list_is_read_no_further() {
    let mut server = Server::new("a", fixtures::bytes(1, SMALL as usize), 1e6);
    server.delay = Duration::from_hours(5);
    let (polled, prepared) = taken_of_an_endless_list(server);
    assert!((AHEAD - 10..=AHEAD).contains(&prepared), "{prepared} were prepared");
    assert!(polled <= prepared + 1, "{polled} were taken from the list, {prepared} prepared");
}

fn two_hundred_files() -> Arc<Mutex<Served>> {
    let server = Server::new("a", fixtures::bytes(1, SMALL as usize), 1e5);
    let served: Arc<Mutex<Served>> = server.served();
    let source: Arc<dyn Source> = Arc::new(Ranged::new(server));
    let found = Found(move |cx: &Cx| {
        let mut found = Vec::<Discovery>::new();
        for i in 0..200 {
            let (id, mut one) = object(cx, &format!("file {i}"), SMALL);
            one.push(bind(&source, id, Caps::RANGES, &strong(Some(SMALL))));
            found.append(&mut one);
        }
        all(found)
    });
    let engine = Engine::builder().backend(found).deterministic().build();
    let sink = Arc::new(MemorySink::new());
    let outcome =
        block_on(run(&engine, JobSpec::new(nowhere()), sink, Arc::new(MemoryJournal::new()))).unwrap();
    assert_eq!(outcome.sources.len(), 1, "one source, one run of it");
    served
}

#[test]
fn the_workers_of_one_source_serve_all_its_objects() {
    let served = two_hundred_files();
    let served = lock(&served);
    assert_eq!(served.requests.len(), 200, "a request each");
    assert!(served.most > 1, "several files at once");
}

#[test]
fn many_objects_do_not_mean_many_connections_to_one_origin() {
    let served = two_hundred_files();
    let most = lock(&served).most;
    assert!(most <= 64, "{most} connections at once to one origin");
}

/// Runs a job of one file of this length; returns how many records its journal got.
fn records_of_a_file(len: u64) -> usize {
    let server = Server::new("a", fixtures::bytes(1, len as usize), 2e6);
    let source: Arc<dyn Source> = Arc::new(Ranged::new(server));
    let found = Found(move |cx: &Cx| {
        let (id, mut found) = object(cx, "file", len);
        found.push(bind(&source, id, Caps::RANGES, &strong(Some(len))));
        all(found)
    });
    let engine = Engine::builder().backend(found).deterministic().build();
    let journal = CountedJournal::new(MemoryJournal::new());
    let (sink, j) = (Arc::new(MemorySink::new()), Arc::new(journal.clone()));
    block_on(run(&engine, JobSpec::new(nowhere()), sink, j)).unwrap();
    journal.records()
}

#[test]
fn a_large_file_has_a_journal() {
    assert!(records_of_a_file(20 << 20) > 0);
}

#[test]
fn a_small_file_needs_no_journal() {
    for len in [1, SMALL, 16 << 10] {
        assert_eq!(records_of_a_file(len), 0, "a file of {len} bytes");
    }
}

#[tokio::test]
async fn two_processes_are_kept_apart_by_the_partial_and_not_by_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    let file =
        || FileSpec::whole(dlm_core::FileId(0), RelPath::name("file").unwrap(), ObjectId(0), Some(SMALL));
    let (one, other) =
        (FileSink::builder(dir.path()).build().unwrap(), FileSink::builder(dir.path()).build().unwrap());
    one.prepare(&[file()]).await.remove(0).1.unwrap();
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["file.part"], "nothing but the partial is there before the first record");
    let refused = other.prepare(&[file()]).await.remove(0).1.unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
}
