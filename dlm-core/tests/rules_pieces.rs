//! Pieces of any size, digests and pieces together: what is hashed, what is read back, and how often.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dlm_core::{
    Algorithm, Caps, Discovery, Engine, Evidence, FixedPieces, JobSpec, MemoryJournal, MemorySink, Outcome,
    Piece, PieceHasher, Proof, Ranged, Source, Span, StreamSink, Trust, VerifiedBy, WorkBench,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};
use rules_kit::{CountedSink, Found, Hook, Server, all, bind, lock, nowhere, object, run};

const LEN: u64 = 12 << 20;

fn data() -> Bytes {
    fixtures::bytes(8, LEN as usize)
}

/// Pieces of one length, which count how often and how much is hashed.
#[derive(Debug)]
struct Counting {
    inner: FixedPieces,
    begun: AtomicU64,
    hashed: Arc<AtomicU64>,
}

impl Counting {
    fn new(piece: u64) -> Arc<Self> {
        let digests =
            data().chunks(piece as usize).map(|c| Algorithm::Crc32c.hasher().update(c).finish()).collect();
        let inner = FixedPieces::new(piece, LEN, digests).unwrap();
        Arc::new(Self { inner, begun: AtomicU64::new(0), hashed: Arc::default() })
    }
    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }
    fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }
}

impl Proof for Counting {
    fn piece_at(&self, offset: u64) -> Piece {
        self.inner.piece_at(offset)
    }
    fn next_after(&self, offset: u64) -> Option<u64> {
        self.inner.next_after(offset)
    }
    fn begin(&self, piece: &Range<u64>) -> Option<Box<dyn PieceHasher>> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(CountingHasher(self.inner.begin(piece)?, self.hashed.clone())))
    }
}

struct CountingHasher(Box<dyn PieceHasher>, Arc<AtomicU64>);

impl PieceHasher for CountingHasher {
    fn update(&mut self, at: u64, bytes: &[u8]) -> bool {
        self.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.0.update(at, bytes)
    }
    fn finish(self: Box<Self>) -> dlm_core::Verdict {
        self.0.finish()
    }
}

/// One job: an object, its pieces or a digest or both, and servers of it.
struct Job {
    servers: Vec<(Server, Caps)>,
    pieces: Option<Arc<Counting>>,
    /// Whose pieces they are.
    author: usize,
    digest: bool,
    memory: u64,
}

impl Job {
    fn of(server: Server) -> Self {
        Self {
            servers: vec![(server, Caps::RANGES)],
            pieces: None,
            author: 0,
            digest: false,
            memory: 8 << 20,
        }
    }
    fn pieces(mut self, pieces: &Arc<Counting>) -> Self {
        self.pieces = Some(pieces.clone());
        self
    }
    fn digest(mut self) -> Self {
        self.digest = true;
        self
    }
    fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }
    fn caps(mut self, caps: Caps) -> Self {
        self.servers[0].1 = caps;
        self
    }

    fn run(self, sink: &CountedSink) -> Outcome {
        let sources: Vec<(Arc<dyn Source>, Caps)> = self
            .servers
            .into_iter()
            .map(|(s, caps)| (Arc::new(Ranged::new(s)) as Arc<dyn Source>, caps))
            .collect();
        let (pieces, author) = (self.pieces, self.author);
        let found = Found(move |cx: &dlm_core::Cx| {
            let (id, mut found) = object(cx, "object", LEN);
            for (n, (source, caps)) in sources.iter().enumerate() {
                found.push(bind(source, id, *caps, &strong(Some(LEN))));
                if let Some(proof) = pieces.clone().filter(|_| n == author) {
                    let what = Evidence::Pieces { window: Span::ALL, proof };
                    found.push(Discovery::Evidence { object: id, what, trust: Trust::Locator });
                }
            }
            all(found)
        });
        let mut spec = JobSpec::new(nowhere());
        if self.digest {
            spec = spec.digest(Algorithm::Sha256.hasher().update(&data()).finish());
        }
        let engine = Engine::builder().backend(found).memory(self.memory).deterministic().build();
        block_on(run(&engine, spec, Arc::new(sink.clone()), Arc::new(MemoryJournal::new()))).unwrap()
    }
}

#[test]
fn a_piece_larger_than_the_memory_budget_is_verified() {
    const BUDGET: u64 = 256 << 10;
    let pieces = Counting::new(4 << 20);
    let memory = MemorySink::new();
    let sink = CountedSink::new(memory.clone());
    let server = Server::new("a", data(), 4e6).wrong_once(5 << 20);
    let outcome = Job::of(server).pieces(&pieces).memory(BUDGET).run(&sink);
    assert_eq!(outcome.files[0].verified_by, VerifiedBy::Pieces);
    assert_eq!(memory.file("object").unwrap(), data());
    // One wrong piece was found and fetched again, and nothing but that.
    assert_eq!((pieces.begun(), outcome.received), (4, LEN + (4 << 20)));
    let longest = sink.seen().writes.iter().map(|r| r.end - r.start).max().unwrap();
    assert!(longest <= BUDGET, "it was written in parts: {longest}");
}

fn longest_read(server: Server) -> u64 {
    let sink = CountedSink::new(MemorySink::new());
    Job::of(server).pieces(&Counting::new(4 << 20)).memory(256 << 10).run(&sink);
    let reads = &sink.seen().reads;
    reads.iter().map(|r| r.end - r.start).max().unwrap()
}

#[test]
fn a_piece_larger_than_the_memory_budget_is_read_back_in_parts() {
    let longest = longest_read(Server::new("a", data(), 4e6));
    assert!(longest <= 1 << 20, "{longest} bytes at once");
}

#[test]
fn a_large_piece_that_is_wrong_is_read_back_in_parts() {
    let longest = longest_read(Server::new("a", data(), 4e6).wrong_once(5 << 20));
    assert!(longest <= 1 << 20, "{longest} bytes at once");
}

#[test]
fn a_large_piece_is_written_before_it_is_whole_and_stays_within_the_budget() {
    const BUDGET: u64 = 512 << 10;
    block_on(async {
        let sink = MemorySink::new();
        let counted = CountedSink::new(sink.clone());
        let mut bench =
            WorkBench::new(Arc::new(counted.clone()), Some(LEN), BUDGET, dlm_core::Cx::new()).await.unwrap();
        let pieces = Counting::new(LEN);
        bench.proof(pieces.clone(), Trust::Locator);
        let most = Arc::new(Mutex::new(0));
        let source: Arc<dyn Source> = Arc::new(Ranged::new(Server::new("a", data(), 4e6)));
        let target = dlm_core::Target::new(bench.object(), nowhere());
        let binding = dlm_core::Binding::new(source, target, Caps::RANGES, strong(Some(LEN)));
        let work = bench.add(binding).unwrap();
        let dlm_core::WorkClaim::Lease(mut lease) = work.claim(dlm_core::Ask::ANY).await else { panic!() };
        lease.agree(&strong(Some(LEN))).unwrap();
        let (data, mut at) = (data(), 0);
        while at < LEN {
            lease.ready().await.unwrap();
            let end = (at + (16 << 10)).min(LEN);
            lease.put(at, data.slice(at as usize..end as usize)).unwrap();
            let mut most = lock(&most);
            *most = bench.in_flight().max(*most);
            at = end;
            if at == LEN / 2 {
                assert!(!counted.seen().writes.is_empty(), "half a piece, and nothing of it was written");
            }
        }
        bench.settle().await;
        assert!(bench.whole(), "{:?}", bench.error());
        assert_eq!(bench.verified().covered(), LEN);
        let most = *lock(&most);
        assert!(most <= BUDGET + (16 << 10), "{most} bytes were in memory");
    });
}

#[test]
fn each_byte_is_hashed_once_for_its_piece() {
    let pieces = Counting::new(300_000);
    Job::of(Server::new("a", data(), 4e6)).pieces(&pieces).run(&CountedSink::new(MemorySink::new()));
    assert_eq!((pieces.begun(), pieces.hashed()), (LEN.div_ceil(300_000), LEN));
}

#[test]
fn a_digest_of_what_comes_in_order_reads_nothing_back() {
    let sink = CountedSink::new(MemorySink::new());
    let outcome =
        Job::of(Server::new("a", data(), 4e6)).digest().caps(Caps::RANGES.max_parallel(1)).run(&sink);
    assert_eq!(outcome.files[0].verified_by, VerifiedBy::Digest(Algorithm::Sha256));
    assert_eq!(sink.bytes_read(), 0, "it was hashed while it was in memory");
}

#[test]
fn a_digest_of_what_comes_out_of_order_reads_each_byte_back_at_most_once() {
    let sink = CountedSink::new(MemorySink::new());
    let outcome = Job::of(Server::new("a", data(), 4e6)).digest().run(&sink);
    assert_eq!(outcome.files[0].verified_by, VerifiedBy::Digest(Algorithm::Sha256));
    assert!(sink.bytes_read() < LEN, "{} of {LEN} bytes were read back", sink.bytes_read());
    let mut seen = dlm_core::RangeSet::new();
    for r in &sink.seen().reads {
        assert!(!seen.touches(r), "{r:?} was read twice");
        seen.insert(r.clone());
    }
}

#[test]
fn a_refetched_piece_leaves_the_digest_right_and_reads_the_rest_no_second_time() {
    const PIECE: u64 = 300_000;
    let pieces = Counting::new(PIECE);
    let memory = MemorySink::new();
    let sink = CountedSink::new(memory.clone());
    let server = Server::new("a", data(), 4e6).wrong_once(4_000_000);
    let outcome = Job::of(server).pieces(&pieces).digest().caps(Caps::RANGES.max_parallel(1)).run(&sink);
    assert_eq!(memory.file("object").unwrap(), data());
    assert_eq!(outcome.files[0].verified_by, VerifiedBy::Digest(Algorithm::Sha256));
    assert!(outcome.received <= LEN + PIECE, "only the wrong piece came again: {}", outcome.received);
    // Every piece is read back for its own sake, the wrong one twice and once more for the blame; and the digest may
    // read once what it could not see in memory. What it may not do is begin anew for each piece that was wrong.
    let read = sink.bytes_read();
    assert!(read <= 2 * LEN + 4 * PIECE, "{read} bytes were read back of {LEN}");
}

#[test]
fn a_piece_of_a_source_that_verifies_itself_is_not_hashed_again() {
    let pieces = Counting::new(256 << 10);
    let memory = MemorySink::new();
    let sink = CountedSink::new(memory.clone());
    let caps = Caps::RANGES.self_verifying();
    let outcome = Job::of(Server::new("a", data(), 4e6)).pieces(&pieces).caps(caps).run(&sink);
    assert_eq!(memory.file("object").unwrap(), data());
    assert_eq!(outcome.files[0].verified_by, VerifiedBy::Pieces, "they count as proven all the same");
    assert_eq!((pieces.begun(), sink.bytes_read()), (0, 0));
}

#[test]
fn for_a_pipe_such_a_piece_is_not_hashed_again_either() {
    let pieces = Counting::new(256 << 10);
    let sink = CountedSink::new(StreamSink::new(tokio::io::sink()));
    let caps = Caps::RANGES.self_verifying();
    let outcome = Job::of(Server::new("a", data(), 4e6)).pieces(&pieces).caps(caps).run(&sink);
    assert_eq!((outcome.files[0].verified_by, pieces.begun()), (VerifiedBy::Pieces, 0));
}

#[test]
fn a_source_that_verifies_itself_does_not_vouch_for_what_others_say() {
    // The second source's pieces are right, and the first one has never heard of them.
    let pieces = Counting::new(1 << 20);
    let memory = MemorySink::new();
    let lying = Server::new("a", data(), 4e6).wrong_once(5 << 20);
    let mut job = Job::of(lying).pieces(&pieces).caps(Caps::RANGES.self_verifying());
    job.servers.push((Server::new("b", data(), 1e6), Caps::RANGES));
    job.author = 1;
    let outcome = job.run(&CountedSink::new(memory.clone()));
    assert_eq!(memory.file("object").unwrap(), data());
    assert_eq!(outcome.files[0].verified_by, VerifiedBy::Pieces);
    assert!(pieces.begun() > LEN >> 20, "the wrong one twice");
}

#[test]
fn a_piece_that_a_source_which_verifies_itself_did_not_deliver_whole_is_hashed() {
    // Pieces of a length that no request ends on, and a second server that does not verify anything, which lies.
    let pieces = Counting::new(1_000_000);
    let memory = MemorySink::new();
    let sink = CountedSink::new(memory.clone());
    let mut job = Job::of(Server::new("a", data(), 1e6)).pieces(&pieces);
    job = job.caps(Caps::RANGES.self_verifying().max_parallel(1));
    job.servers.push((Server::new("liar", data(), 1e6).wrong_once(9_000_000), Caps::RANGES));
    let outcome = job.run(&sink);
    assert_eq!(memory.file("object").unwrap(), data());
    assert_eq!(outcome.files[0].verified_by, VerifiedBy::Pieces);
    assert!(pieces.begun() > 0);
}

#[test]
fn hooks_see_each_read() {
    // The counts above mean something only if what is counted happens through them.
    let reads = Arc::new(AtomicU64::new(0));
    let r = reads.clone();
    let hook: Hook = Arc::new(move |call| {
        r.fetch_add(u64::from(call == "Sink::read"), Ordering::Relaxed);
    });
    let sink = CountedSink::with_hook(MemorySink::new(), hook);
    Job::of(Server::new("a", data(), 4e6)).pieces(&Counting::new(1 << 20)).run(&sink);
    assert_eq!((reads.load(Ordering::Relaxed), sink.bytes_read()), (LEN >> 20, LEN));
}
