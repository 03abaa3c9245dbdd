//! Selection is a mask of wanted ranges with priorities beside the states; a change revokes, and is told.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;
mod rules_kit;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::job::{Acting, Scripted, bind, found, locator};
use dlm_core::{
    Algorithm, Ask, Caps, Cx, Discovery, Engine, Evidence, Exit, FileId, FileSink, FileSpec, FixedPieces,
    JobHandle, JobSpec, Kind, MemoryJournal, MemorySink, NewsItem, ObjectId, ObjectSpec, Outcome, RelPath,
    Result, Selection, Sink, Source, Span, Trust, VerifiedBy, Want, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{Object, Rng, SimRanged, block_on, strong};
use rules_kit::CountedSink;

const FILE: u64 = 1_000_000;
const PIECE: u64 = 256 << 10;
/// The files of one object, end to end.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const LEN: u64 = FILE * NAMES.len() as u64;

fn data() -> Bytes {
    fixtures::bytes(12, LEN as usize)
}

fn range(file: usize) -> Range<u64> {
    file as u64 * FILE..(file as u64 + 1) * FILE
}

fn of(file: usize) -> Bytes {
    data().slice(range(file).start as usize..range(file).end as usize)
}

fn server(rate: f64) -> Arc<dyn Source> {
    SimRanged::new("server", rate).make()(&Object { data: data(), piece: None, seed: 1 }).0
}

/// One object with all files, of these sources; with pieces, or without.
fn discoveries(cx: &Cx, sources: &[Arc<dyn Source>], pieces: bool) -> Vec<Discovery> {
    let id = cx.new_object();
    let mut all = vec![Discovery::Object(ObjectSpec::new(id, "all", Some(LEN)))];
    for (i, name) in NAMES.iter().enumerate() {
        let path = RelPath::name(name).unwrap();
        let span = Span::new(range(i).start, range(i).end);
        all.push(Discovery::File(FileSpec::whole(cx.new_file(), path, id, Some(LEN)).part(span)));
    }
    if pieces {
        let digests =
            data().chunks(PIECE as usize).map(|c| Algorithm::Crc32c.hasher().update(c).finish()).collect();
        let proof = Arc::new(FixedPieces::new(PIECE, LEN, digests).unwrap());
        let what = Evidence::Pieces { window: Span::ALL, proof };
        all.push(Discovery::Evidence { object: id, what, trust: Trust::Locator });
    }
    all.extend(sources.iter().map(|s| bind(s, id, Caps::RANGES, strong(Some(LEN)))));
    all
}

fn start(sources: Vec<Arc<dyn Source>>, pieces: bool, spec: JobSpec, sink: impl Sink) -> JobHandle {
    let backend = Scripted::new(move |_, cx| Ok(found(discoveries(cx, &sources, pieces))));
    let engine = Engine::builder().backend(backend).deterministic().build();
    engine.start(spec, Arc::new(sink), Arc::new(MemoryJournal::new()))
}

async fn ended(mut job: JobHandle) -> Result<Outcome> {
    tokio::time::timeout(Duration::from_hours(1), job.outcome()).await.expect("it hung")
}

fn only(files: &[u32]) -> Selection {
    files.iter().fold(Selection::none(), |s, f| s.file(FileId(*f), Want::NORMAL))
}

fn spec() -> JobSpec {
    JobSpec::new(locator(""))
}

#[test]
fn what_is_not_wanted_is_not_fetched() {
    block_on(async {
        let sink = MemorySink::new();
        let job = start(vec![server(1e6)], false, spec().select(only(&[1, 3])), sink.clone());
        let done = ended(job).await.unwrap();
        assert_eq!((done.received, done.bytes), (2 * FILE, 2 * FILE));
        let names: Vec<_> = done.files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(names, ["b", "d"]);
        for (i, name) in NAMES.iter().enumerate() {
            assert_eq!(sink.file(name), (i % 2 == 1).then(|| of(i)), "{name}");
        }
    });
}

#[test]
fn a_wanted_byte_makes_all_of_its_piece_wanted() {
    block_on(async {
        let counted = CountedSink::new(MemorySink::new());
        let job = start(vec![server(1e6)], true, spec().select(only(&[1])), counted.clone());
        let done = ended(job).await.unwrap();
        let wide = FILE / PIECE * PIECE..(2 * FILE).div_ceil(PIECE) * PIECE;
        assert_eq!(done.received, wide.end - wide.start, "the pieces that file b touches, and no others");
        assert_eq!(done.files.len(), 1);
        assert_eq!(done.files[0].verified_by, VerifiedBy::Pieces, "{:?}", done.files);
        let written: BTreeSet<u64> =
            counted.seen().writes.iter().flat_map(|r| [r.start, r.end - 1]).collect();
        assert!(written.iter().all(|at| wide.contains(at)), "{written:?}");
    });
}

#[test]
fn the_more_urgent_comes_first() {
    block_on(async {
        let sink = CountedSink::new(MemorySink::new());
        let order = [(0, 0), (1, -1), (2, 7), (3, 1)];
        let select = order.iter().fold(Selection::all(), |s, (f, p)| s.file(FileId(*f), Want::Fetch(*p)));
        let job = start(vec![server(1e6)], false, spec().connections(1).select(select), sink.clone());
        ended(job).await.unwrap();
        let mut files: Vec<_> = sink.seen().writes.iter().map(|w| w.start / FILE).collect();
        files.dedup();
        assert_eq!(files, [2, 3, 0, 1]);
    });
}

/// A digest of the whole cannot judge a part.
#[test]
fn a_digest_of_the_whole_does_not_judge_a_part() {
    block_on(async {
        let wrong = Algorithm::Sha256.hasher().update(b"another").finish();
        let sink = MemorySink::new();
        let job =
            start(vec![server(1e6)], false, spec().digest(wrong.clone()).select(only(&[2])), sink.clone());
        let done = ended(job).await.unwrap();
        assert!(!matches!(done.files[0].verified_by, VerifiedBy::Digest(_)), "{:?}", done.files);
        assert_eq!(sink.file("c"), Some(of(2)));
        // And where everything is wanted it does.
        let job = start(vec![server(1e6)], false, spec().digest(wrong), MemorySink::new());
        assert_eq!(ended(job).await.unwrap_err().kind(), Kind::Corrupt);
    });
}

/// What is going on when the selection changes: a lease of file `a`, which nobody wants any more.
#[test]
fn a_change_revokes_and_is_told() {
    block_on(async {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (notes, (ready, mut is_ready)) = (told.clone(), tokio::sync::mpsc::channel(1));
        let source = Acting::doing("peer", move |work| async move {
            let mut news = work.news();
            let WorkClaim::Lease(mut lease) = work.try_claim(ObjectId(0), 0..FILE) else {
                panic!("no lease")
            };
            lease.agree(&strong(Some(LEN)))?;
            ready.send(()).await.unwrap();
            lease.revoked().await;
            drop(lease);
            assert!(matches!(work.try_claim(ObjectId(0), 0..FILE), WorkClaim::Busy), "it is not wanted");
            while let Some(item) = news.next().await {
                let is_it = matches!(item, NewsItem::Wanted { .. });
                notes.lock().unwrap().push(item);
                if is_it {
                    break;
                }
            }
            let WorkClaim::Lease(mut lease) = work.claim(Ask::ANY).await else { panic!("no lease") };
            lease.agree(&strong(Some(LEN)))?;
            let start = lease.range().start;
            assert_eq!(start, range(1).start, "what is wanted instead");
            lease.ready().await?;
            let _ = lease.put(start, of(1))?;
            work.stopped().await;
            Ok(Exit::Done)
        });
        let sink = MemorySink::new();
        let job = start(vec![source], false, spec().select(only(&[0])), sink.clone());
        is_ready.recv().await.unwrap();
        job.select([(FileId(0), Want::Skip), (FileId(1), Want::NORMAL)]);
        let done = ended(job).await.unwrap();
        assert_eq!(done.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(told.lock().unwrap().iter().any(|n| matches!(n, NewsItem::Wanted { .. })));
        assert_eq!((sink.file("a"), sink.file("b")), (None, Some(of(1))));
    });
}

#[test]
fn nothing_left_to_want_is_the_end_and_what_is_wanted_again_is_fetched() {
    block_on(async {
        let sink = MemorySink::new();
        let job = start(vec![server(1e6)], false, spec(), sink.clone());
        let mut snapshot = job.snapshot();
        snapshot.wait_for(|s| s.done > FILE / 4).await.unwrap();
        job.select((0..4).map(|f| (FileId(f), Want::Skip)));
        assert_eq!(ended(job).await.unwrap().files.len(), 0);

        let sink = MemorySink::new();
        let job = start(vec![server(1e6)], false, spec(), sink.clone());
        let mut snapshot = job.snapshot();
        snapshot.wait_for(|s| s.done > FILE / 4).await.unwrap();
        job.select([(FileId(3), Want::Skip), (FileId(2), Want::Skip)]);
        snapshot.wait_for(|s| s.total == Some(2 * FILE)).await.unwrap();
        job.select([(FileId(3), Want::NORMAL)]);
        let done = ended(job).await.unwrap();
        assert_eq!(done.files.len(), 3);
        assert_eq!((sink.file("c"), sink.file("d")), (None, Some(of(3))));
    });
}

/// Objects of their own need no place while they are left out, on a disk neither.
#[tokio::test]
async fn a_folder_holds_what_is_wanted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let source = server(1e9);
    let backend = Scripted::new(move |_, cx| {
        let mut all = Vec::new();
        for name in NAMES {
            let id = cx.new_object();
            all.push(Discovery::Object(ObjectSpec::new(id, name, Some(LEN))));
            let path = RelPath::name(name).unwrap();
            all.push(Discovery::File(FileSpec::whole(cx.new_file(), path, id, Some(LEN))));
            all.push(bind(&source, id, Caps::RANGES, strong(Some(LEN))));
        }
        Ok(found(all))
    });
    let engine = Engine::builder().backend(backend).build();
    let sink = FileSink::builder(dir.path()).build().unwrap();
    let job = engine.start(spec().select(only(&[1])), sink, Arc::new(MemoryJournal::new()));
    assert_eq!(ended(job).await.unwrap().files.len(), 1);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["b"]);
    assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), data());
}

/// The pieces of file `b` reach into its neighbours, which have no name on the disk; wanted later, they have it, with what
/// had come of them.
#[tokio::test]
async fn what_comes_of_an_unwanted_file_has_no_name() {
    let (dir, wide) =
        (tempfile::tempdir().unwrap(), FILE / PIECE * PIECE..(2 * FILE).div_ceil(PIECE) * PIECE);
    let ls = || {
        let names = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
        names.map(|n| n.into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    let begin = |rate| {
        let sources = vec![server(rate)];
        let backend = Scripted::new(move |_, cx| Ok(found(discoveries(cx, &sources, true))));
        let sink = FileSink::builder(dir.path()).build().unwrap();
        let journal = sink.journal();
        Engine::builder().backend(backend).build().start(spec().select(only(&[1])), sink, journal)
    };
    let done = ended(begin(1e9)).await.unwrap();
    assert_eq!((ls(), done.received), (BTreeSet::from(["b".to_owned()]), wide.end - wide.start));
    assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), of(1));

    std::fs::remove_file(dir.path().join("b")).unwrap();
    let job = begin(1.5e6);
    let mut snapshot = job.snapshot();
    snapshot.wait_for(|s| s.received > 600_000).await.unwrap();
    let meanwhile = ls();
    assert!(meanwhile.iter().all(|n| n == "b.part" || n == "b.part.dlm"), "{meanwhile:?}");
    job.select([(FileId(0), Want::NORMAL)]);
    let done = ended(job).await.unwrap();
    assert_eq!(ls(), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), of(0));
    assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), of(1));
    assert_eq!(done.received, wide.end, "what had come of it did not come again");
}

/// Whatever is wanted, and whenever that changes: every wanted byte comes once and right, and nothing else is put in place.
#[test]
fn selections_that_change_at_random_end_right() {
    for seed in 0..120 {
        block_on(async {
            let mut rng = Rng::new(seed);
            let sink = MemorySink::new();
            let mut sources: Vec<Arc<dyn Source>> = Vec::new();
            for i in 0..=rng.below(3) {
                let mut s = SimRanged::new(&format!("server {i}"), rng.between(2e5, 2e6));
                if rng.chance(0.3) {
                    s.cut = Some(300_000);
                }
                sources.push(s.make()(&Object { data: data(), piece: None, seed }).0);
            }
            let want = |rng: &mut Rng| {
                if rng.chance(0.5) { Want::Skip } else { Want::Fetch(rng.below(3) as i32 - 1) }
            };
            let mut now: Vec<Want> = NAMES.iter().map(|_| want(&mut rng)).collect();
            let select = now.iter().zip(0..).fold(Selection::all(), |s, (w, f)| s.file(FileId(f), *w));
            let pieces = rng.chance(0.5);
            let mut job = start(sources, pieces, spec().select(select), sink.clone());
            let mut in_time = true;
            for _ in 0..rng.below(6) {
                let pause = tokio::time::sleep(Duration::from_millis(rng.below(400)));
                tokio::select! {
                    biased;
                    _ = job.outcome() => { in_time = false; break }
                    () = pause => {}
                }
                let file = rng.below(4) as usize;
                if sink.file(NAMES[file]).is_some() {
                    continue;
                }
                now[file] = want(&mut rng);
                job.select([(FileId(file as u32), now[file])]);
            }
            let done = tokio::time::timeout(Duration::from_hours(1), job.outcome()).await;
            let done = done.unwrap_or_else(|_| panic!("seed {seed} hung"));
            let done = done.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            for (i, name) in NAMES.iter().enumerate() {
                let file = sink.file(name);
                assert!(file.is_none() || file == Some(of(i)), "seed {seed}: {name} is wrong");
                // The last word may come after the end.
                if in_time && now[i] == Want::Skip {
                    continue;
                }
                if in_time && !done.files.is_empty() && now.iter().all(|w| *w != Want::Skip) {
                    assert!(file.is_some(), "seed {seed}: {name} is missing");
                }
            }
            let listed: BTreeSet<_> = done.files.iter().map(|f| f.path.clone()).collect();
            let there: BTreeSet<_> =
                NAMES.iter().filter(|n| sink.file(n).is_some()).map(|n| (*n).to_owned()).collect();
            assert_eq!(listed, there, "seed {seed}");
        });
    }
}
