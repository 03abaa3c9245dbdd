//! Proofs that know more later, and proofs that come when bytes are there already: each byte is judged by them all the
//! same, and a digest that has seen a wrong one begins anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::job::{Acting, Gate, Scripted, add, bench, bind, found, locator, object};
use dlm_core::{
    Algorithm, Ask, Caps, Digest, Discovery, Engine, Evidence, Exit, FixedPieces, JobSpec, Journal, Kind,
    MemoryJournal, MemorySink, ObjectId, Outcome, Piece, PieceHasher, Proof, Result, Sink, Source, Span,
    Trust, Verdict, VerifiedBy, Work, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};

const LEN: u64 = 1_000_000;
const PIECE: u64 = 100_000;
const PIECES: u64 = LEN / PIECE;
const O: ObjectId = ObjectId(0);

fn data() -> Bytes {
    fixtures::bytes(9, LEN as usize)
}

/// The same but for one byte.
fn wrong_at(at: u64) -> Bytes {
    let mut other = data().to_vec();
    other[at as usize] ^= 1;
    other.into()
}

fn digest(algorithm: Algorithm, of: &[u8]) -> Digest {
    algorithm.hasher().update(of).finish()
}

/// A table of pieces that says nothing until it is told to.
#[derive(Debug)]
struct Layers {
    inner: FixedPieces,
    /// Where its pieces are.
    known: AtomicBool,
    /// How they should be.
    able: AtomicBool,
    begun: AtomicU64,
    conclusion: Verdict,
}

impl Layers {
    fn new(known: bool) -> Arc<Self> {
        Self::concluding(known, Verdict::CannotTell)
    }
    fn concluding(known: bool, conclusion: Verdict) -> Arc<Self> {
        let digests = data().chunks(PIECE as usize).map(|c| digest(Algorithm::Crc32c, c)).collect();
        Arc::new(Self {
            inner: FixedPieces::new(PIECE, LEN, digests).unwrap(),
            known: known.into(),
            able: true.into(),
            begun: AtomicU64::new(0),
            conclusion,
        })
    }
    fn learn(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }
}

impl Proof for Layers {
    fn piece_at(&self, offset: u64) -> Piece {
        if self.known.load(Ordering::Relaxed) { self.inner.piece_at(offset) } else { Piece::NotYet }
    }
    fn begin(&self, piece: &Range<u64>) -> Option<Box<dyn PieceHasher>> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.inner.begin(piece).filter(|_| self.able.load(Ordering::Relaxed))
    }
    fn conclude(&self) -> Verdict {
        self.conclusion
    }
}

fn evidence(proof: &Arc<Layers>, trust: Trust) -> Discovery {
    let what = Evidence::Pieces { window: Span::ALL, proof: proof.clone() };
    Discovery::Evidence { object: O, what, trust }
}

fn put(work: &Work, range: Range<u64>, of: &Bytes) {
    let WorkClaim::Lease(mut l) = work.try_claim(O, range.clone()) else { panic!("no lease of {range:?}") };
    l.agree(&strong(Some(LEN))).unwrap();
    l.put(range.start, of.slice(range.start as usize..range.end as usize)).unwrap();
}

/// Puts a range as soon as it is missing again.
async fn put_again(work: &Work, range: Range<u64>, of: &Bytes) {
    let mut news = work.news();
    loop {
        match work.try_claim(O, range.clone()) {
            WorkClaim::Lease(mut l) => {
                l.agree(&strong(Some(LEN))).unwrap();
                l.put(range.start, of.slice(range.start as usize..range.end as usize)).unwrap();
                return;
            }
            _ => {
                let _ = news.next().await;
            }
        }
    }
}

async fn run(
    source: Arc<dyn Source>,
    says: Vec<(Arc<Layers>, Trust)>,
    spec: JobSpec,
    sink: Arc<dyn Sink>,
    journal: Arc<dyn Journal>,
) -> Result<Outcome> {
    let backend = Scripted::new(move |_, cx| {
        let (id, mut all) = object(cx, "f", Some(LEN));
        assert_eq!(id, O);
        all.extend(says.iter().map(|(p, trust)| evidence(p, *trust)));
        all.push(bind(&source, id, Caps::RANGES, strong(Some(LEN))));
        Ok(found(all))
    });
    let engine = Engine::builder().backend(backend).deterministic().build();
    let mut handle = engine.start(spec, sink, journal);
    tokio::time::timeout(Duration::from_mins(2), handle.outcome()).await.expect("it hung")
}

/// A job of one source and one table, and the file that came of it.
fn job(source: Arc<dyn Source>, says: &Arc<Layers>, spec: JobSpec) -> (Result<Outcome>, Option<Bytes>) {
    let sink = MemorySink::new();
    let says = vec![(says.clone(), Trust::Locator)];
    let result = block_on(run(source, says, spec, Arc::new(sink.clone()), Arc::new(MemoryJournal::new())));
    (result, sink.file("f"))
}

fn plain() -> JobSpec {
    JobSpec::new(locator(""))
}

fn with_digest() -> JobSpec {
    plain().digest(digest(Algorithm::Sha256, &data()))
}

/// Delivers everything at once, as often as it is asked for.
fn quick(of: Bytes) -> Arc<dyn Source> {
    Acting::doing("quick", move |work| async move {
        while let WorkClaim::Lease(mut l) = work.claim(Ask::ANY).await {
            l.agree(&strong(Some(LEN)))?;
            l.put(0, of.clone())?;
        }
        Ok(Exit::Done)
    })
}

#[test]
fn new_evidence_asks_again_and_the_same_proof_is_not_asked_twice() {
    block_on(async {
        let mut bench = bench(Arc::new(MemorySink::new()), Some(LEN), 4 << 20, 4).await;
        let work = add(&bench, "a", Caps::RANGES, strong(Some(LEN)));
        let proof = Layers::new(false);
        bench.proof(proof.clone(), Trust::Locator);
        put(&work, 0..LEN, &data());
        bench.settle().await;
        proof.learn();
        bench.settle().await;
        assert_eq!(bench.verified().covered(), 0, "nobody has said that there is something to ask");
        for _ in 0..3 {
            bench.proof(proof.clone(), Trust::Locator);
            bench.settle().await;
            assert_eq!((bench.verified().covered(), proof.begun()), (LEN, PIECES));
        }
    });
}

#[test]
fn a_piece_that_could_not_be_told_is_asked_again_with_new_evidence_only() {
    block_on(async {
        let mut bench = bench(Arc::new(MemorySink::new()), Some(LEN), 4 << 20, 4).await;
        let work = add(&bench, "a", Caps::RANGES, strong(Some(LEN)));
        let proof = Layers::new(true);
        proof.able.store(false, Ordering::Relaxed);
        bench.proof(proof.clone(), Trust::Locator);
        put(&work, 0..LEN, &wrong_at(7));
        bench.settle().await;
        assert_eq!((bench.verified().covered(), proof.begun()), (0, PIECES));
        proof.able.store(true, Ordering::Relaxed);
        bench.proof(proof.clone(), Trust::Locator);
        bench.settle().await;
        assert_eq!((bench.verified().covered(), proof.begun()), (LEN - PIECE, 2 * PIECES));
        assert_eq!(bench.done().covered(), LEN - PIECE, "the wrong one is missing again");
    });
}

#[test]
fn a_write_asks_again() {
    block_on(async {
        let mut bench = bench(Arc::new(MemorySink::new()), Some(LEN), 4 << 20, 4).await;
        let work = add(&bench, "a", Caps::RANGES, strong(Some(LEN)));
        let proof = Layers::new(false);
        bench.proof(proof.clone(), Trust::Locator);
        put(&work, 0..PIECE + PIECE / 2, &data());
        bench.settle().await;
        proof.learn();
        put(&work, PIECE + PIECE / 2..2 * PIECE, &data());
        bench.settle().await;
        assert!(bench.verified().covers(&(PIECE..2 * PIECE)), "it is whole by this write");
        assert_eq!(proof.begun(), 1);
    });
}

#[test]
fn it_is_asked_once_every_byte_is_there() {
    for (bytes, right) in [(data(), true), (wrong_at(7), false)] {
        let proof = Layers::new(false);
        let (p, of) = (proof.clone(), bytes);
        let source = Acting::doing("a", move |work| async move {
            put(&work, 0..LEN - PIECE, &of);
            // Written, and nobody knows of its pieces.
            tokio::time::sleep(Duration::from_secs(1)).await;
            p.learn();
            put(&work, LEN - PIECE..LEN, &of);
            if !right {
                put_again(&work, 0..PIECE, &data()).await;
            }
            work.stopped().await;
            Ok(Exit::Done)
        });
        let (result, file) = job(source, &proof, plain());
        let outcome = result.unwrap();
        assert_eq!(file, Some(data()));
        assert_eq!(outcome.files[0].verified_by, VerifiedBy::Pieces);
        assert_eq!(proof.begun(), PIECES + u64::from(!right));
    }
}

#[test]
fn a_file_waits_for_a_proof_that_somebody_is_finding_out() {
    for found_out in [true, false] {
        let (proof, sink) = (Layers::new(false), MemorySink::new());
        let seen = Arc::new(Mutex::new(None));
        let (p, s, early) = (proof.clone(), sink.clone(), seen.clone());
        let source = Acting::doing("a", move |work| async move {
            let guard = work.discovering();
            put(&work, 0..LEN, &data());
            tokio::time::sleep(Duration::from_secs(5)).await;
            *early.lock().unwrap() = s.file("f");
            if found_out {
                p.learn();
                work.learn(evidence(&p, Trust::Locator)).await?;
            }
            drop(guard);
            work.stopped().await;
            Ok(Exit::Done)
        });
        let says = vec![(proof.clone(), Trust::Locator)];
        let journal = Arc::new(MemoryJournal::new());
        let outcome = block_on(run(source, says, plain(), Arc::new(sink.clone()), journal)).unwrap();
        assert_eq!(*seen.lock().unwrap(), None, "it was put in place too early");
        assert_eq!(sink.file("f"), Some(data()));
        let by = if found_out { VerifiedBy::Pieces } else { VerifiedBy::Transport };
        assert_eq!(outcome.files[0].verified_by, by, "no longer than somebody looks");
    }
}

#[test]
fn a_proof_that_can_tell_nothing_is_asked_once_and_holds_up_nothing() {
    for spec in [plain(), with_digest()] {
        let proof = Layers::new(true);
        proof.able.store(false, Ordering::Relaxed);
        let (result, _) = job(quick(data()), &proof, spec.clone());
        let by = result.unwrap().files[0].verified_by;
        assert_eq!(by == VerifiedBy::Transport, spec.digests.is_empty(), "{by:?}");
        assert_eq!(proof.begun(), PIECES);
    }
}

#[test]
fn what_a_proof_says_of_the_whole_counts() {
    let run = |v| job(quick(data()), &Layers::concluding(false, v), plain());
    assert_eq!(run(Verdict::Bad).0.unwrap_err().kind(), Kind::Corrupt);
    for (verdict, by) in [(Verdict::Good, VerifiedBy::Pieces), (Verdict::CannotTell, VerifiedBy::Transport)] {
        let (result, file) = run(verdict);
        assert_eq!((result.unwrap().files[0].verified_by, file), (by, Some(data())));
    }
}

#[test]
fn a_digest_that_has_seen_a_piece_which_is_wrong_begins_anew() {
    for trust in [Trust::Locator, Trust::Claimed] {
        let proof = Layers::new(false);
        let p = proof.clone();
        let source = Acting::doing("a", move |work| async move {
            put(&work, 0..LEN - PIECE, &wrong_at(PIECE + 7));
            // The digest has followed.
            tokio::time::sleep(Duration::from_secs(1)).await;
            p.learn();
            work.learn(evidence(&p, trust)).await?;
            put_again(&work, PIECE..2 * PIECE, &data()).await;
            put(&work, LEN - PIECE..LEN, &data());
            work.stopped().await;
            Ok(Exit::Done)
        });
        let sink = MemorySink::new();
        let journal = Arc::new(MemoryJournal::new());
        let outcome =
            block_on(run(source, Vec::new(), with_digest(), Arc::new(sink.clone()), journal)).unwrap();
        assert_eq!(sink.file("f"), Some(data()), "{trust:?}");
        assert_eq!(outcome.files[0].verified_by, VerifiedBy::Digest(Algorithm::Sha256));
        assert_eq!(outcome.received, LEN + PIECE, "{trust:?}: only the wrong piece came again");
    }
}

#[test]
fn a_digest_that_comes_while_another_is_computed_judges_too() {
    for right in [true, false] {
        let gate = Gate::new(Arc::new(MemorySink::new()));
        gate.open();
        let g = gate.clone();
        let source = Acting::doing("a", move |work| async move {
            let reads = g.reads.clone().write_owned().await;
            put(&work, PIECE..2 * PIECE, &data());
            put(&work, 0..PIECE, &data());
            // The first piece was hashed from memory, and the second is being read back.
            while g.log.count("read") == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let of = if right { data() } else { wrong_at(7) };
            let what = Evidence::Digest(digest(Algorithm::Sha1, &of));
            work.learn(Discovery::Evidence { object: O, what, trust: Trust::Locator }).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(reads);
            put(&work, 2 * PIECE..LEN, &data());
            // As often as it is asked for.
            while let WorkClaim::Lease(mut l) = work.claim(Ask::ANY).await {
                l.agree(&strong(Some(LEN)))?;
                l.put(0, data())?;
            }
            Ok(Exit::Done)
        });
        let journal = Arc::new(MemoryJournal::new());
        let result = block_on(run(source, Vec::new(), with_digest(), Arc::new(gate), journal));
        match result {
            Ok(outcome) => {
                assert!(right, "the second digest does not match");
                assert_eq!(outcome.files[0].verified_by, VerifiedBy::Digest(Algorithm::Sha256));
            }
            Err(e) => assert!(!right && e.kind() == Kind::Corrupt, "{e:?}"),
        }
    }
}

#[test]
fn what_an_earlier_run_left_is_judged_by_pieces_too() {
    let (sink, journal) = (MemorySink::new(), MemoryJournal::new());
    let half = Acting::doing("a", |work| async move {
        put(&work, 0..LEN - PIECE, &wrong_at(7));
        tokio::time::sleep(Duration::from_secs(5)).await;
        Err(dlm_core::Error::new(Kind::Reset, "go on"))
    });
    let first = run(half, Vec::new(), plain(), Arc::new(sink.clone()), Arc::new(journal.clone()));
    block_on(first).unwrap_err();
    let proof = Layers::new(true);
    let rest = Acting::doing("a", |work| async move {
        // It is found out before the rest has come.
        put_again(&work, 0..PIECE, &data()).await;
        put(&work, LEN - PIECE..LEN, &data());
        work.stopped().await;
        Ok(Exit::Done)
    });
    let says = vec![(proof, Trust::Locator)];
    let outcome = block_on(run(rest, says, plain(), Arc::new(sink.clone()), Arc::new(journal))).unwrap();
    assert_eq!(sink.file("f"), Some(data()));
    assert_eq!((outcome.resumed, outcome.received), (LEN - PIECE, 2 * PIECE));
    assert_eq!(outcome.files[0].verified_by, VerifiedBy::Pieces);
}
