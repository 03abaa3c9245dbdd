//! Evidence has an author: a claim judges only its author's own bytes, what the user or the locator says judges all of
//! them, and several proofs hold at once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::Pipe;
use common::job::{Acting, Scripted, add, bench, bind, found, locator, object};
use dlm_core::{
    Algorithm, Caps, Digest, Discovery, Engine, Error, EventKind, Evidence, Exit, FileSink, FixedPieces,
    Identity, IfExists, JobSpec, Kind, MemoryJournal, MemorySink, ObjectId, Outcome, Proof, Result, Sink,
    Source, Span, StreamSink, Trust, Validator, VariablePieces, VerifiedBy, Work, WorkBench, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{Object, SimRanged, block_on, strong};

const LEN: u64 = 1_000_000;
const PIECE: u64 = 100_000;

fn data() -> Bytes {
    fixtures::bytes(3, LEN as usize)
}

/// Other bytes: right but for one.
fn wrong() -> Bytes {
    let mut other = data().to_vec();
    other[LEN as usize / 2] ^= 1;
    other.into()
}

fn digest(algorithm: Algorithm, of: &[u8]) -> Digest {
    algorithm.hasher().update(of).finish()
}

fn whole(of: &[u8]) -> Evidence {
    Evidence::Digest(digest(Algorithm::Sha256, of))
}

fn table(piece: u64, of: &[u8]) -> Evidence {
    let digests = of.chunks(piece as usize).map(|c| digest(Algorithm::Crc32c, c)).collect();
    let proof: Arc<dyn Proof> = Arc::new(FixedPieces::new(piece, of.len() as u64, digests).unwrap());
    Evidence::Pieces { window: Span::ALL, proof }
}

/// A server with these bytes, which claims something as soon as it is asked for work.
fn server(label: &str, bytes: Bytes, rate: f64, claims: Vec<Evidence>) -> Arc<dyn Source> {
    let (inner, ..) = SimRanged::new(label, rate).make()(&Object { data: bytes, piece: None, seed: 1 });
    Acting::doing(label, move |work| async move {
        for what in claims {
            let object = ObjectId(0);
            work.learn(Discovery::Evidence { object, what, trust: Trust::Claimed }).await?;
        }
        inner.run(work).await
    })
}

struct Done {
    result: Result<Outcome>,
    file: Option<Bytes>,
    /// Suspects, in order.
    blamed: Vec<String>,
    banned: Vec<String>,
}

/// A job of these sources, with evidence that comes with the locator, or from the user.
fn job(sources: Vec<Arc<dyn Source>>, says: Vec<(Evidence, Trust)>, user: Option<Digest>) -> Done {
    let sink = MemorySink::new();
    let mut done = job_into(sources, says, user, Arc::new(sink.clone()));
    done.file = sink.file("f");
    done
}

fn job_into(
    sources: Vec<Arc<dyn Source>>,
    says: Vec<(Evidence, Trust)>,
    user: Option<Digest>,
    sink: Arc<dyn Sink>,
) -> Done {
    block_on(async {
        let backend = Scripted::new(move |_, cx| {
            let (id, mut all) = object(cx, "f", Some(LEN));
            for s in &sources {
                all.push(bind(s, id, Caps::RANGES, strong(Some(LEN))));
            }
            for (what, trust) in says.clone() {
                all.push(Discovery::Evidence { object: id, what, trust });
            }
            Ok(found(all))
        });
        let mut spec = JobSpec::new(locator(""));
        if let Some(d) = user {
            spec = spec.digest(d);
        }
        let engine = Engine::builder().backend(backend).deterministic().build();
        let mut handle = engine.start(spec, sink, Arc::new(MemoryJournal::new()));
        let mut events = handle.events();
        let result = tokio::time::timeout(Duration::from_mins(2), handle.outcome()).await.expect("it hung");
        drop(handle);
        let (mut blamed, mut banned) = (Vec::new(), Vec::new());
        while let Some(e) = events.next().await {
            match e.kind {
                EventKind::Blamed { suspects, .. } => blamed.extend(suspects.iter().map(ToString::to_string)),
                EventKind::Banned { party } => banned.push(party.to_string()),
                _ => {}
            }
        }
        Done { result, file: None, blamed, banned }
    })
}

#[test]
fn a_claimed_digest_does_not_convict_the_bytes_of_others() {
    let sources =
        vec![server("honest", data(), 1e5, vec![]), server("mirror", data(), 1e5, vec![whole(&wrong())])];
    let done = job(sources, vec![], None);
    let outcome = done.result.unwrap();
    assert!(outcome.sources.iter().all(|s| s.bytes > 0), "both have delivered: {outcome:?}");
    assert_eq!(done.file, Some(data()));
    assert_eq!((done.blamed, done.banned), (vec![], vec![]));
    assert_eq!(outcome.files[0].verified_by, VerifiedBy::Transport, "it has proven nothing");
}

#[test]
fn who_only_claims_convicts_nobody() {
    let claims = [whole(&wrong()), table(PIECE, &wrong())];
    let talker = Acting::doing("talker", |work| async move {
        for what in claims {
            let object = ObjectId(0);
            work.learn(Discovery::Evidence { object, what, trust: Trust::Claimed }).await?;
        }
        Ok(Exit::Done)
    });
    let done = job(vec![server("honest", data(), 1e6, vec![]), talker], vec![], None);
    done.result.unwrap();
    assert_eq!(done.file, Some(data()));
    assert_eq!((done.blamed, done.banned), (vec![], vec![]));
}

#[test]
fn a_claimed_digest_judges_its_own_source() {
    for claim in [whole(&wrong()), table(PIECE, &wrong())] {
        let done = job(vec![server("mirror", data(), 1e6, vec![claim.clone()])], vec![], None);
        assert_eq!(done.result.unwrap_err().kind(), Kind::Corrupt, "{claim:?}");
        assert_eq!(done.file, None);
        assert!(done.blamed.iter().all(|b| b == "mirror") && !done.blamed.is_empty());
    }
    let done = job(vec![server("mirror", data(), 1e6, vec![whole(&data())])], vec![], None);
    assert_eq!(done.result.unwrap().files[0].verified_by, VerifiedBy::Digest(Algorithm::Sha256));
}

#[test]
fn what_a_resolve_stream_claims_judges_the_source_that_it_bound() {
    let done =
        job(vec![server("mirror", data(), 1e6, vec![])], vec![(whole(&wrong()), Trust::Claimed)], None);
    assert_eq!(done.result.unwrap_err().kind(), Kind::Corrupt);
}

/// A job of a first source, and of a mirror that is found beside it and claims what is wrong.
fn with_a_mirror_that_claims(first: Arc<dyn Source>) -> Result<Outcome> {
    let mirror = server("mirror", data(), 1e5, vec![]);
    block_on(async {
        let backend = Scripted::new(move |l, cx| {
            if *l == locator("mirror") {
                let claim = |what| Discovery::Evidence { object: ObjectId(0), what, trust: Trust::Claimed };
                return Ok(found(vec![
                    bind(&mirror, ObjectId(0), Caps::RANGES, strong(Some(LEN))),
                    claim(whole(&wrong())),
                ]));
            }
            let (id, mut all) = object(cx, "f", Some(LEN));
            all.push(bind(&first, id, Caps::RANGES, strong(Some(LEN))));
            Ok(found(all))
        });
        let engine = Engine::builder().backend(backend).deterministic().build();
        let spec = JobSpec::new(locator("first")).mirror(locator("mirror"));
        let mut handle = engine.start(spec, Arc::new(MemorySink::new()), Arc::new(MemoryJournal::new()));
        tokio::time::timeout(Duration::from_mins(2), handle.outcome()).await.expect("it hung")
    })
}

#[test]
fn what_a_mirrors_stream_claims_judges_the_mirror_alone() {
    let outcome = with_a_mirror_that_claims(server("honest", data(), 1e5, vec![])).unwrap();
    assert!(outcome.sources.iter().all(|s| s.bytes > 0), "both have delivered: {outcome:?}");
    let gone = Acting::doing("gone", |_| async { Err(Error::new(Kind::NotFound, "begin")) });
    assert_eq!(with_a_mirror_that_claims(gone).unwrap_err().kind(), Kind::Corrupt);
}

#[test]
fn a_file_that_is_there_already_says_what_it_was_compared_by() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), data()).unwrap();
    let right = digest(Algorithm::Sha256, &data());
    for (if_exists, by) in
        [(IfExists::Fail, VerifiedBy::Digest(Algorithm::Sha256)), (IfExists::Skip, VerifiedBy::Transport)]
    {
        let sink =
            FileSink::builder(dir.path()).if_exists(if_exists).digests(vec![right.clone()]).build().unwrap();
        let sources = vec![server("a", data(), 1e6, vec![])];
        let done = job_into(sources, vec![], Some(right.clone()), sink);
        let file = &done.result.unwrap().files[0];
        assert_eq!((file.existed, file.verified_by), (true, by), "{if_exists:?}");
    }
}

#[test]
fn what_the_locator_or_the_user_says_judges_everybody() {
    let both = || vec![server("one", data(), 1e6, vec![]), server("two", data(), 1e6, vec![])];
    for trust in [Trust::Locator, Trust::User] {
        for what in [whole(&wrong()), table(PIECE, &wrong())] {
            let done = job(both(), vec![(what, trust)], None);
            assert_eq!(done.result.unwrap_err().kind(), Kind::Corrupt, "{trust:?}");
            assert_eq!(done.file, None, "{trust:?}");
        }
        let done = job(both(), vec![(whole(&data()), trust)], None);
        assert_eq!(done.result.unwrap().files[0].verified_by, VerifiedBy::Digest(Algorithm::Sha256));
    }
    let done = job(both(), vec![], Some(digest(Algorithm::Sha256, &wrong())));
    assert_eq!(done.result.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(done.file, None);
}

#[test]
fn a_claim_that_fits_does_not_excuse_bytes_that_the_locator_says_are_wrong() {
    let liar = server("liar", wrong(), 1e6, vec![whole(&wrong()), table(PIECE, &wrong())]);
    let done = job(
        vec![liar, server("honest", data(), 1e6, vec![])],
        vec![(table(PIECE, &data()), Trust::Locator)],
        None,
    );
    done.result.unwrap();
    assert_eq!(done.file, Some(data()));
    assert!(done.banned.iter().all(|b| b == "liar"), "{:?}", done.banned);
}

/// Two sources that say nothing strong of their version.
async fn doubtful() -> (WorkBench, Work, Work) {
    let bench = bench(Arc::new(MemorySink::new()), Some(LEN), 4 << 20, 4).await;
    let weak = |n| Identity::new(Some(LEN), Validator::Weak { mtime: Some(n), tag: None });
    let (a, b) = (add(&bench, "a", Caps::RANGES, weak(1)), add(&bench, "b", Caps::RANGES, weak(2)));
    (bench, a, b)
}

fn pieces(of: &[u8]) -> Arc<dyn Proof> {
    match table(PIECE, of) {
        Evidence::Pieces { proof, .. } => proof,
        _ => unreachable!("a table has pieces"),
    }
}

fn put(work: &Work, bench: &WorkBench, range: std::ops::Range<u64>, of: &Bytes) {
    let WorkClaim::Lease(mut l) = work.try_claim(bench.object(), range.clone()) else {
        panic!("no lease of {range:?}")
    };
    let held = l.held();
    l.agree(&held).unwrap();
    l.put(range.start, of.slice(range.start as usize..range.end as usize)).unwrap();
}

#[test]
fn a_claim_proves_nothing_and_mixes_nothing() {
    for trust in [Trust::Claimed, Trust::Locator, Trust::User] {
        block_on(async {
            let (mut bench, a, b) = doubtful().await;
            bench.proof(pieces(&data()), trust);
            put(&a, &bench, 0..PIECE, &data());
            bench.settle().await;
            let proven = trust != Trust::Claimed;
            assert_eq!(bench.verified().covers(&(0..PIECE)), proven, "{trust:?}");
            let second = b.try_claim(bench.object(), PIECE..2 * PIECE);
            assert_eq!(matches!(second, WorkClaim::Lease(_)), proven, "{trust:?}: {second:?}");
        });
    }
}

#[test]
fn only_the_liar_of_a_piece_of_two_is_convicted() {
    block_on(async {
        let mut bench = bench(Arc::new(MemorySink::new()), Some(LEN), 4 << 20, 4).await;
        bench.proof(pieces(&data()), Trust::Locator);
        let work = add(&bench, "swarm", Caps::RANGES, strong(Some(LEN)));
        let [honest, liar, third] = ["honest", "liar", "third"].map(|l| work.party(l));
        let at = LEN / 2 / PIECE * PIECE;
        put(&honest, &bench, at..at + 40_000, &data());
        put(&liar, &bench, at + 40_000..at + PIECE, &{
            let mut lie = data().to_vec();
            lie[at as usize + 50_000] ^= 1;
            lie.into()
        });
        bench.settle().await;
        assert!(bench.done().is_empty(), "the piece is missing again");
        put(&third, &bench, at..at + PIECE, &data());
        bench.settle().await;
        assert!(bench.verified().covers(&(at..at + PIECE)));
        assert!(matches!(liar.try_claim(bench.object(), 0..10), WorkClaim::Retire));
        assert!(matches!(honest.try_claim(bench.object(), 0..10), WorkClaim::Lease(_)));
    });
}

/// Proofs that agree on all but one byte: whichever comes first, what one of them says is wrong is wrong.
fn proofs() -> Vec<(&'static str, Evidence, Evidence)> {
    let odd = |of: &[u8]| {
        let mut pieces = Vec::new();
        let (mut at, mut n) = (0, 30_000);
        while at < LEN {
            let end = (at + n).min(LEN);
            pieces.push((at..end, digest(Algorithm::Sha1, &of[at as usize..end as usize])));
            (at, n) = (end, n + 1_000);
        }
        let proof: Arc<dyn Proof> = Arc::new(VariablePieces::new(pieces).unwrap());
        Evidence::Pieces { window: Span::ALL, proof }
    };
    vec![
        ("a table and a digest", table(PIECE, &data()), whole(&wrong())),
        ("a digest and a table", whole(&data()), table(PIECE, &wrong())),
        ("two digests", whole(&data()), Evidence::Digest(digest(Algorithm::Sha1, &wrong()))),
        ("two tables of the same pieces", table(PIECE, &data()), table(PIECE, &wrong())),
        ("small pieces and large ones", table(PIECE, &data()), table(4 * PIECE, &wrong())),
        ("large pieces and small ones", table(4 * PIECE, &data()), table(PIECE, &wrong())),
        ("pieces that meet at odd places", odd(&data()), table(PIECE, &wrong())),
    ]
}

#[test]
fn several_proofs_hold_at_once() {
    let mut broken = Vec::new();
    for (name, right, other) in proofs() {
        for says in [vec![right.clone(), other.clone()], vec![other, right]] {
            let says = says.into_iter().map(|e| (e, Trust::Locator)).collect();
            let done = job(vec![server("a", data(), 1e6, vec![])], says, None);
            match done.result {
                Err(e) if e.kind() == Kind::Corrupt => assert_eq!(done.file, None, "{name}"),
                other => broken.push(format!("{name}: {other:?}")),
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn several_proofs_hold_at_once_for_a_pipe() {
    let mut broken = Vec::new();
    for (name, right, other) in proofs() {
        for says in [vec![right.clone(), other.clone()], vec![other, right]] {
            let says = says.into_iter().map(|e| (e, Trust::Locator)).collect();
            let pipe = Pipe::default();
            let sink = Arc::new(StreamSink::new(pipe.clone()));
            let done = job_into(vec![server("a", data(), 1e6, vec![])], says, None, sink);
            match done.result {
                Err(e) if e.kind() == Kind::Corrupt => {}
                other => broken.push(format!("{name}: {other:?}")),
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn several_proofs_that_agree_are_all_satisfied() {
    for (_, what, _) in proofs() {
        let says = [table(PIECE, &data()), what, table(3 * PIECE, &data()), whole(&data())];
        let says = says.into_iter().map(|e| (e, Trust::Locator)).collect();
        let done = job(vec![server("a", data(), 1e6, vec![])], says, None);
        done.result.unwrap();
        assert_eq!(done.file, Some(data()));
    }
}
