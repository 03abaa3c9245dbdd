//! Bytes in flight: room is asked for before the socket is read, waiting for it never deadlocks, and one number bounds
//! the memory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::Pipe;
use common::job::{Gate, Parked, Scripted, add, bench, bind, found, locator, object, start, start_with};
use dlm_core::{
    Adaptive, Ask, Asker, Board, BoardEvent, Body, Caps, Cx, Engine, Grant, Identity, JobSpec, Lease,
    LeaseView, MemoryJournal, MemorySink, Next, Order, RangeSource, Ranged, Result, Scheduler, Sink, Source,
    SourceInfo, Span, StreamSink, Target, Work, WorkBench, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{Plan, SimRanged, block_on, strong};
use tokio::time::Instant;

const KB: u64 = 1 << 10;
const MB: u64 = 1 << 20;

fn take(work: &Work, bench: &WorkBench, range: std::ops::Range<u64>) -> Lease {
    match work.try_claim(bench.object(), range) {
        WorkClaim::Lease(mut l) => {
            l.agree(&strong(None)).unwrap();
            l
        }
        other => panic!("no lease: {other:?}"),
    }
}

fn zeros(len: u64) -> Bytes {
    Bytes::from(vec![0; len as usize])
}

async fn gated(len: u64, memory: u64) -> (Gate, WorkBench, Work) {
    let gate = Gate::new(Arc::new(MemorySink::new()));
    let bench = bench(Arc::new(gate.clone()), Some(len), memory, 4).await;
    let work = add(&bench, "a", Caps::RANGES, strong(Some(len)));
    (gate, bench, work)
}

#[test]
fn put_takes_what_is_in_the_hand_however_little_room_there_is() {
    block_on(async {
        let (_gate, bench, work) = gated(64 * MB, 256 * KB).await;
        let mut l = take(&work, &bench, 0..32 * MB);
        for at in [0, MB] {
            let put = l.put(at, zeros(MB)).unwrap();
            assert_eq!((put.taken, put.next), (MB as u32, Next::Continue));
        }
        assert_eq!(bench.in_flight(), 2 * MB, "and it counts");
    });
}

/// A server without end that needs a while for each chunk, and counts what was read from it.
#[derive(Debug)]
struct Endless(Arc<AtomicU64>, Duration);

const CHUNK: u64 = 16 * KB;

#[async_trait]
impl RangeSource for Endless {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("endless", "endless", "endless")
    }
    async fn open(&self, _: &Target, want: Span, _: &Identity, _: &Cx) -> Result<Body> {
        let (read, pace) = (self.0.clone(), self.1);
        let stream = futures::stream::unfold((), move |()| {
            let read = read.clone();
            async move {
                tokio::time::sleep(pace).await;
                read.fetch_add(CHUNK, Ordering::Relaxed);
                Some((Ok(zeros(CHUNK)), ()))
            }
        });
        Ok(Body::new(want, strong(Some(1 << 40)), Box::pin(stream)))
    }
}

/// A backend that has just this.
fn endless(read: &Arc<AtomicU64>, pace: Duration) -> Scripted {
    let source: Arc<dyn Source> = Arc::new(Ranged::new(Endless(read.clone(), pace)));
    Scripted::new(move |_, cx| {
        let (id, mut all) = object(cx, "endless", Some(1 << 40));
        all.push(bind(&source, id, Caps::RANGES, strong(Some(1 << 40))));
        Ok(found(all))
    })
}

/// How much is read from the network when nothing can be written: by so many connections, with so much memory.
fn read_while_nothing_is_written(connections: u32, memory: Option<u64>) -> u64 {
    block_on(async {
        let read = Arc::new(AtomicU64::new(0));
        let backend = endless(&read, Duration::from_millis(1));
        let gate = Arc::new(Gate::new(Arc::new(MemorySink::new())));
        let spec = JobSpec::new(locator("")).connections(connections);
        let mut engine = Engine::builder().backend(backend).deterministic();
        if let Some(m) = memory {
            engine = engine.memory(m);
        }
        let _job = engine.build().start(spec, gate, Arc::new(MemoryJournal::new()));
        tokio::time::sleep(Duration::from_secs(20)).await;
        read.load(Ordering::Relaxed)
    })
}

#[test]
fn nothing_is_read_from_the_socket_while_there_is_no_room() {
    for (connections, memory) in [(1, 256 * KB), (4, MB), (8, 2 * MB)] {
        let read = read_while_nothing_is_written(connections, Some(memory));
        let most = memory + u64::from(connections) * CHUNK;
        assert!((memory..=most).contains(&read), "{connections} connections, {memory}: {read}");
    }
}

#[test]
fn eight_mebibytes_are_in_flight_unless_the_caller_says_otherwise() {
    let read = read_while_nothing_is_written(16, None);
    assert!((8 * MB..=8 * MB + 16 * CHUNK).contains(&read), "{read}");
}

#[test]
fn waiting_for_room_may_be_dropped_and_loses_nothing() {
    block_on(async {
        let (gate, mut bench, work) = gated(64 * MB, 256 * KB).await;
        let mut l = take(&work, &bench, 0..MB);
        l.put(0, zeros(300 * KB)).unwrap();
        for _ in 0..3 {
            let waited = tokio::time::timeout(Duration::from_millis(5), l.ready()).await;
            assert!(waited.is_err(), "there is no room");
        }
        assert_eq!((bench.in_flight(), bench.done().covered()), (300 * KB, 300 * KB));
        gate.open();
        l.ready().await.unwrap();
        l.put(300 * KB, zeros(10)).unwrap();
        bench.settle().await;
        assert_eq!((bench.in_flight(), bench.done().covered()), (0, 300 * KB + 10));
    });
}

#[test]
fn who_waits_for_room_writes_what_is_gathered_and_is_woken_by_that_write() {
    block_on(async {
        let (gate, bench, work) = gated(64 * MB, 256 * KB).await;
        // Pieces that touch nothing, each too small for a batch: nobody but the waiting one sees to them.
        let mut l = take(&work, &bench, 0..16 * MB);
        for i in 0..8 {
            l.put(i * MB, zeros(40 * KB)).unwrap();
        }
        tokio::task::yield_now().await;
        assert_eq!(gate.begun(), [], "all of it is gathered");
        let mut waiting = Parked::new(async move { l.ready().await });
        assert!(waiting.poll().is_pending());
        tokio::task::yield_now().await;
        assert_eq!(gate.begun().len(), 8);
        assert_eq!(waiting.woken(), 0, "nothing has changed yet");
        gate.let_through(1);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _ = waiting.poll();
        assert!(waiting.woken() > 0);
        gate.open();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(waiting.poll().is_ready());
    });
}

#[test]
fn who_waits_for_room_can_be_revoked() {
    block_on(async {
        let (_gate, bench, work) = gated(64 * MB, 256 * KB).await;
        let mut l = take(&work, &bench, 0..MB);
        l.put(0, zeros(300 * KB)).unwrap();
        let mut waiting = Parked::new(async move {
            l.ready().await.unwrap();
            l
        });
        assert!(waiting.poll().is_pending());
        work.give_up(&dlm_core::Error::new(dlm_core::Kind::Denied, "fetch"));
        assert!(waiting.woken() > 0);
        let std::task::Poll::Ready(mut l) = waiting.poll() else { panic!("it still waits") };
        assert_eq!(l.put(300 * KB, zeros(10)).unwrap(), l.put(0, zeros(0)).unwrap());
        assert_eq!(bench.done().covered(), 300 * KB);
    });
}

#[test]
fn the_frontier_of_an_object_never_waits_for_room() {
    block_on(async {
        let bench = bench(Arc::new(StreamSink::new(Pipe::default())), Some(64 * MB), MB, 4).await;
        let work = add(&bench, "a", Caps::RANGES, strong(Some(64 * MB)));
        let mut front = take(&work, &bench, 0..100 * KB);
        let mut ahead = take(&work, &bench, 100 * KB..2 * MB);
        ahead.put(100 * KB, zeros(1500 * KB)).unwrap();
        let mut behind = Parked::new(async move { ahead.ready().await });
        assert!(behind.poll().is_pending(), "there is no room");
        assert!(Parked::new(async move { front.ready().await }).poll().is_ready());
    });
}

#[test]
fn a_budget_smaller_than_leases_times_batch_does_not_deadlock() {
    // Batches of a file as long as the last are 64 KiB: all connections together gather four times the budget.
    for (connections, chunk, len) in
        [(1, 64, 6_000_000), (4, 16, 6_000_000), (16, 300, 6_000_000), (16, 16, 36_000_000)]
    {
        for ordered in [false, true] {
            let data = fixtures::bytes(5, len);
            let copy = data.clone();
            let mut plan = Plan::new(5, data.len()).source(move |_| {
                let memory = common::Memory {
                    data: copy.clone(),
                    caps: Caps::RANGES,
                    identity: strong(Some(copy.len() as u64)),
                    chunk: chunk << 10,
                };
                let source: Arc<dyn Source> = Arc::new(Ranged::new(memory));
                (source, Caps::RANGES, strong(Some(copy.len() as u64)))
            });
            plan.object.data = data.clone();
            plan = plan.source(SimRanged::new("slow", 3e5).make());
            plan.memory = 256 * KB;
            plan.spec = plan.spec.connections(connections);
            let what = format!("{connections} connections, chunks of {chunk} KiB, in order: {ordered}");
            if ordered {
                let pipe = Pipe::default();
                let sink = Arc::new(StreamSink::new(pipe.clone()));
                let report = block_on(plan.run_into(sink, Arc::new(MemoryJournal::new())));
                report.result.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(pipe.got(), data, "{what}");
            } else {
                let (report, sink) = block_on(plan.run());
                report.result.unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(sink.file("object"), Some(data), "{what}");
            }
        }
    }
}

/// The first batch that so many leases have written, with so much memory.
async fn first_batch(leases: u64, memory: u64) -> u64 {
    let len = 1 << 32;
    let (gate, bench, work) = gated(len, memory).await;
    let mut all: Vec<Lease> =
        (0..leases).map(|i| take(&work, &bench, i * 64 * MB..(i + 1) * 64 * MB)).collect();
    let mut at = 0;
    while gate.begun().is_empty() {
        all[0].put(at, zeros(4 * KB)).unwrap();
        at += 4 * KB;
        tokio::task::yield_now().await;
    }
    gate.begun()[0].end
}

#[test]
fn a_batch_is_a_leases_half_share_of_the_budget_within_bounds() {
    block_on(async {
        for (leases, memory, batch) in
            [(1, 8 * MB, 512 * KB), (16, 8 * MB, 256 * KB), (16, MB, 64 * KB), (1, 256 * KB, 128 * KB)]
        {
            assert_eq!(first_batch(leases, memory).await, batch, "{leases} leases, {memory}");
        }
    });
}

#[test]
fn lengths_are_counted_each_byte_once() {
    block_on(async {
        let (gate, mut bench, work) = gated(64 * MB, 4 * MB).await;
        let big = zeros(MB);
        let mut l = take(&work, &bench, 0..MB);
        l.put(0, big.slice(..10)).unwrap();
        assert_eq!(bench.in_flight(), 10);
        l.put(5, big.slice(..10)).unwrap();
        assert_eq!(bench.in_flight(), 15, "what was not taken does not count");
        gate.open();
        bench.settle().await;
        assert_eq!(bench.in_flight(), 0);
    });
}

/// A read buffer that says when nobody holds it any more.
struct Buffer(Vec<u8>, Arc<AtomicU64>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.1.fetch_sub(64 * KB, Ordering::Relaxed);
    }
}

#[test]
fn small_slices_of_a_big_read_buffer_are_copied() {
    block_on(async {
        let (_gate, bench, work) = gated(64 * MB, 4 * MB).await;
        let held = Arc::new(AtomicU64::new(0));
        let mut l = take(&work, &bench, 0..32 * MB);
        for i in 0..100 {
            held.fetch_add(64 * KB, Ordering::Relaxed);
            let buffer = Bytes::from_owner(Buffer(vec![0; 64 << 10], held.clone()));
            l.put(i * MB / 4, buffer.slice(..100)).unwrap();
        }
        let held = held.load(Ordering::Relaxed);
        assert!(held <= 4 * bench.in_flight(), "{} bytes hold on to {held}", bench.in_flight());
    });
}

#[test]
fn single_bytes_are_put_together() {
    block_on(async {
        let (gate, mut bench, work) = gated(64 * MB, 4 * MB).await;
        let mut l = take(&work, &bench, 0..32 * MB);
        let data = fixtures::bytes(5, 100_000);
        // A server whose chunks are one byte long: each by itself would cost a handle of 32 bytes and more.
        for at in 0..data.len() {
            l.put(at as u64, data.slice(at..=at)).unwrap();
        }
        gate.open();
        bench.settle().await;
        let most = data.len() / (8 << 10) + 2;
        assert!(gate.buffers() <= most, "{} buffers for {} bytes", gate.buffers(), data.len());
        assert_eq!(gate.read(bench.object(), 0..data.len() as u64).await.unwrap(), data);
    });
}

#[test]
fn a_little_of_much_is_copied() {
    block_on(async {
        let (_gate, bench, work) = gated(64 * MB, 4 * MB).await;
        let held = Arc::new(AtomicU64::new(64 * KB));
        let mut l = take(&work, &bench, 0..32 * MB);
        l.put(0, zeros(50 * KB)).unwrap();
        // All but the last of it has come before.
        l.put(0, Bytes::from_owner(Buffer(vec![0; 64 << 10], held.clone())).slice(..60 << 10)).unwrap();
        assert_eq!((bench.in_flight(), held.load(Ordering::Relaxed)), (60 * KB, 0));
    });
}

/// The usual policy, which notes the slowest speed that it sees of any lease in the end.
#[derive(Debug)]
struct Spy(Adaptive, Arc<AtomicU64>);

impl Scheduler for Spy {
    fn grant(&mut self, now: Instant, who: Asker, ask: &Ask, board: &Board) -> Grant {
        self.0.grant(now, who, ask, board)
    }
    fn on_event(&mut self, now: Instant, event: &BoardEvent, board: &Board) {
        self.0.on_event(now, event, board);
    }
    fn tick(&mut self, now: Instant, board: &Board, out: &mut Vec<Order>) -> Option<Instant> {
        if let Some(rate) = board.leases().filter_map(LeaseView::rate).reduce(f64::min) {
            self.1.store(rate as u64, Ordering::Relaxed);
        }
        self.0.tick(now, board, out)
    }
}

#[test]
fn time_in_ready_does_not_count_in_a_sources_rate() {
    // A source of 1.6 MB/s, and a job that wants a tenth of that, or a sink that is no faster.
    for limited in [true, false] {
        let rate = Arc::new(AtomicU64::new(0));
        let seen = rate.clone();
        block_on(async {
            let backend = endless(&Arc::default(), Duration::from_millis(10));
            let gate = Gate::new(Arc::new(MemorySink::new()));
            let mut spec = JobSpec::new(locator("")).connections(1);
            if limited {
                gate.open();
                spec = spec.limit_rate(160_000);
            }
            let policy = move |_| Box::new(Spy(Adaptive::new(), seen.clone())) as Box<dyn Scheduler>;
            let _job = start_with(backend, Arc::new(gate.clone()), 256 * KB, policy, spec);
            for _ in 0..100 {
                gate.let_through(1);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let rate = rate.load(Ordering::Relaxed);
        assert!((1_200_000..=2_000_000).contains(&rate), "limited: {limited}: {rate}");
    }
}

#[test]
fn what_is_gathered_does_not_wait_long_for_company() {
    block_on(async {
        let source = common::job::Acting::doing("a", |work| async move {
            let WorkClaim::Lease(mut l) = work.claim(Ask::ANY).await else { panic!("no lease") };
            l.agree(&strong(None))?;
            l.put(0, zeros(10 * KB))?;
            // A server that stalls holds on to nothing that it has delivered.
            work.stopped().await;
            Ok(dlm_core::Exit::Done)
        });
        let backend = Scripted::new(move |_, cx| {
            let (id, mut all) = object(cx, "f", Some(64 * MB));
            all.push(bind(&source, id, Caps::RANGES, strong(Some(64 * MB))));
            Ok(found(all))
        });
        let gate = Gate::new(Arc::new(MemorySink::new()));
        let _job = start(backend, Arc::new(gate.clone()), Arc::new(MemoryJournal::new()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(gate.begun().first() == Some(&(0..10 * KB)), "{:?}", gate.begun());
    });
}
