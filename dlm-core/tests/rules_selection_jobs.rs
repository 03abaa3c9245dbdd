//! Selection over several objects, several runs, sources that cannot skip, and sources with an order of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::Pipe;
use common::job::{Scripted, bind, found, locator};
use dlm_core::{
    Algorithm, Caps, Cx, Discovery, Engine, Evidence, FileId, FileSink, FileSpec, FixedPieces, JobHandle,
    JobSpec, JobState, Journal, Kind, MemoryJournal, MemorySink, ObjectSpec, Outcome, RelPath, Result, Seek,
    Selection, Sink, Source, Span, StreamSink, Trust, Want,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{Object, Peer, Rng, SimRanged, SimSwarm, block_on, strong};

const FILE: u64 = 1_000_000;
const PIECE: u64 = 256 << 10;
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

fn plan() -> Object {
    Object { data: data(), piece: Some(PIECE), seed: 1 }
}

fn server(rate: f64) -> Arc<dyn Source> {
    SimRanged::new("server", rate).make()(&plan()).0
}

/// One object of four files.
fn together(cx: &Cx, sources: &[(Arc<dyn Source>, Caps)], pieces: bool) -> Vec<Discovery> {
    let id = cx.new_object();
    let mut all = vec![Discovery::Object(ObjectSpec::new(id, "all", Some(LEN)))];
    for (i, name) in NAMES.iter().enumerate() {
        let span = Span::new(range(i).start, range(i).end);
        let file = FileSpec::whole(cx.new_file(), RelPath::name(name).unwrap(), id, Some(LEN));
        all.push(Discovery::File(file.part(span)));
    }
    if pieces {
        let all_bytes = data();
        let digests = all_bytes.chunks(PIECE as usize).map(|c| Algorithm::Crc32c.hasher().update(c).finish());
        let proof = Arc::new(FixedPieces::new(PIECE, LEN, digests.collect()).unwrap());
        let what = Evidence::Pieces { window: Span::ALL, proof };
        all.push(Discovery::Evidence { object: id, what, trust: Trust::Locator });
    }
    all.extend(sources.iter().map(|(s, caps)| bind(s, id, *caps, strong(Some(LEN)))));
    all
}

fn engine(find: impl Fn(&Cx) -> Vec<Discovery> + Send + Sync + 'static) -> Engine {
    Engine::builder().backend(Scripted::new(move |_, cx| Ok(found(find(cx))))).deterministic().build()
}

fn only(files: &[u32]) -> Selection {
    files.iter().fold(Selection::none(), |s, f| s.file(FileId(*f), Want::NORMAL))
}

fn spec(selection: Selection) -> JobSpec {
    JobSpec::new(locator("")).select(selection)
}

fn start(engine: &Engine, selection: Selection, sink: impl Sink) -> JobHandle {
    engine.start(spec(selection), Arc::new(sink), Arc::new(MemoryJournal::new()))
}

async fn ended(job: &mut JobHandle) -> Result<Outcome> {
    tokio::time::timeout(Duration::from_hours(1), job.outcome()).await.expect("it hung")
}

fn placed(sink: &MemorySink) -> Vec<&'static str> {
    NAMES.into_iter().filter(|n| sink.file(n).is_some()).collect()
}

/// An object of its own for each name, all with the same bytes; those of `bound` have a source.
fn apart(names: &'static [&'static str], bound: &'static [usize], rate: f64) -> Engine {
    let source = server(rate);
    engine(move |cx| {
        let mut all = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let id = cx.new_object();
            all.push(Discovery::Object(ObjectSpec::new(id, *name, Some(LEN))));
            let path = RelPath::name(name).unwrap();
            all.push(Discovery::File(FileSpec::whole(cx.new_file(), path, id, Some(LEN))));
            if bound.contains(&i) {
                all.push(bind(&source, id, Caps::RANGES, strong(Some(LEN))));
            }
        }
        all
    })
}

#[test]
fn what_nobody_has_and_nobody_wants_does_not_hold_up_the_job() {
    block_on(async {
        let sink = MemorySink::new();
        let mut job = start(&apart(&["a", "b"], &[1], 1e6), only(&[1]), sink.clone());
        assert_eq!(ended(&mut job).await.unwrap().files.len(), 1);
        // And what is wanted and nobody has fails it, whatever else is left out.
        let mut job = start(&apart(&["a", "b"], &[0], 1e6), only(&[1]), sink.clone());
        assert!(ended(&mut job).await.is_err());
    });
}

#[test]
fn many_that_are_left_out_take_nobodys_place() {
    block_on(async {
        let source = server(1e6);
        let engine = engine(move |cx| {
            let mut all = Vec::new();
            for i in 0..2500 {
                let id = cx.new_object();
                all.push(Discovery::Object(ObjectSpec::new(id, format!("{i}"), Some(LEN))));
                let path = RelPath::name(&format!("f{i}")).unwrap();
                all.push(Discovery::File(FileSpec::whole(cx.new_file(), path, id, Some(LEN))));
                all.push(bind(&source, id, Caps::RANGES, strong(Some(LEN))));
            }
            all
        });
        let sink = MemorySink::new();
        let last = Selection::by(|f| if f.path.file_name() == "f2499" { Want::NORMAL } else { Want::Skip });
        let mut job = start(&engine, last, sink.clone());
        assert_eq!(ended(&mut job).await.unwrap().files.len(), 1);
        assert_eq!(sink.file("f2499"), Some(data()));
    });
}

/// An object rests once what was wanted of it is in place; another one keeps the job going.
#[test]
fn an_object_that_rests_is_gone_on_with() {
    block_on(async {
        let source = server(1e6);
        let slow = server(1e5);
        let engine = engine(move |cx| {
            let mut all = together(cx, &[(source.clone(), Caps::RANGES)], true);
            let id = cx.new_object();
            all.push(Discovery::Object(ObjectSpec::new(id, "other", Some(LEN))));
            let path = RelPath::name("other").unwrap();
            all.push(Discovery::File(FileSpec::whole(cx.new_file(), path, id, Some(LEN))));
            all.push(bind(&slow, id, Caps::RANGES, strong(Some(LEN))));
            all
        });
        let sink = MemorySink::new();
        let mut job = start(&engine, only(&[1, 4]), sink.clone());
        job.snapshot().wait_for(|s| s.files.1 == 1).await.unwrap();
        assert_eq!(placed(&sink), ["b"]);
        let received = job.snapshot().borrow().received;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(job.snapshot().borrow().state, JobState::Running);
        assert!(job.snapshot().borrow().received > received, "the other one comes");
        job.select([(FileId(2), Want::NORMAL), (FileId(1), Want::Skip)]);
        let done = ended(&mut job).await.unwrap();
        assert_eq!(done.files.len(), 3, "what is in place stays there: {:?}", done.files);
        assert_eq!(
            (sink.file("b"), sink.file("c"), sink.file("other")),
            (Some(of(1)), Some(of(2)), Some(data()))
        );
        assert_eq!(done.bytes, 2 * FILE + LEN);
        assert_eq!(done.duplicate, 0, "the piece that both share comes once");
    });
}

#[test]
fn who_can_only_read_from_the_beginning_reads_over_what_is_not_wanted() {
    block_on(async {
        let mut stream = SimRanged::new("stream", 1e6);
        stream.caps = Caps::STREAM;
        let stream = stream.make()(&plan()).0;
        let sink = MemorySink::new();
        let engine = engine(move |cx| together(cx, &[(stream.clone(), Caps::STREAM)], false));
        let mut job = start(&engine, only(&[2]), sink.clone());
        assert_eq!(ended(&mut job).await.unwrap().files.len(), 1);
        assert_eq!((placed(&sink), sink.file("c")), (vec!["c"], Some(of(2))));
        assert_eq!(Caps::STREAM.seek, Seek::None);
    });
}

#[test]
fn a_pipe_finishes_what_it_has_begun_and_leaves_out_what_it_has_not() {
    block_on(async {
        let pipe = Pipe::default();
        let one = apart(&["a"], &[0], 1e6);
        let mut job = start(&one, Selection::none(), StreamSink::new(pipe.clone()));
        assert_eq!(ended(&mut job).await.unwrap().files.len(), 0);
        assert!(pipe.got().is_empty());
        let mut job = start(&one, Selection::all(), StreamSink::new(pipe.clone()));
        job.snapshot().wait_for(|s| s.done > FILE).await.unwrap();
        job.select([(FileId(0), Want::Skip)]);
        assert_eq!(ended(&mut job).await.unwrap().files.len(), 1);
        assert_eq!(pipe.got(), data());
    });
}

fn ls(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// A run of the four files in a folder, which wants these of them.
fn into(dir: &Path, rate: f64, selection: Selection) -> JobHandle {
    let sources = [(server(rate), Caps::RANGES)];
    let backend = Scripted::new(move |_, cx| Ok(found(together(cx, &sources, true))));
    let sink = FileSink::builder(dir).build().unwrap();
    let journal: Arc<dyn Journal> = sink.journal();
    Engine::builder().backend(backend).build().start(spec(selection), sink, journal)
}

/// Stops a run that wants these once it has some of them.
async fn cut_short(dir: &Path, selection: Selection) {
    let mut job = into(dir, 5e5, selection.file(FileId(3), Want::Skip));
    job.snapshot().wait_for(|s| s.done > 700_000).await.unwrap();
    job.cancel();
    assert_eq!(ended(&mut job).await.unwrap_err().kind(), Kind::Cancelled);
}

#[tokio::test]
async fn another_run_wants_less() {
    let dir = tempfile::tempdir().unwrap();
    cut_short(dir.path(), Selection::all()).await;
    let before = ls(dir.path());
    assert!(before.contains("a.part") && before.contains("a.part.dlm"), "{before:?}");
    let done = ended(&mut into(dir.path(), 1e9, only(&[1]))).await.unwrap();
    assert!(done.resumed > 0, "what is there is used again: {done:?}");
    assert_eq!(ls(dir.path()), BTreeSet::from(["b".to_owned()]), "nothing else is left");
    assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), of(1));
}

#[tokio::test]
async fn another_run_wants_more() {
    let dir = tempfile::tempdir().unwrap();
    cut_short(dir.path(), only(&[1, 2])).await;
    let done = ended(&mut into(dir.path(), 1e9, Selection::all())).await.unwrap();
    assert!(done.resumed > 0, "what is there is used again: {done:?}");
    assert_eq!(ls(dir.path()).len(), 4);
    for (i, name) in NAMES.iter().enumerate() {
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), of(i), "{name}");
    }
}

/// It is wanted, then it is not, then it is: over three runs, with a stranger's bytes in what was left of it.
#[tokio::test]
async fn what_was_left_of_an_unwanted_file_is_checked_before_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    cut_short(dir.path(), Selection::all()).await;
    cut_short(dir.path(), only(&[1, 2])).await;
    let part = dir.path().join("a.part");
    let mut foreign = std::fs::read(&part).expect("it is kept, in case it is wanted again");
    foreign.iter_mut().step_by(1000).for_each(|b| *b ^= 1);
    std::fs::write(&part, foreign).unwrap();
    ended(&mut into(dir.path(), 1e9, Selection::all())).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), of(0));
    assert_eq!(ls(dir.path()).len(), 4);
}

/// One name, several files of which one is wanted.
#[tokio::test]
async fn a_name_of_the_users_is_for_the_file_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let sources = [(server(1e9), Caps::RANGES)];
    let backend = Scripted::new(move |_, cx| Ok(found(together(cx, &sources, true))));
    let sink = FileSink::builder(dir.path()).name("mine").build().unwrap();
    let journal = sink.journal();
    let mut job = Engine::builder().backend(backend).build().start(spec(only(&[2])), sink, journal);
    ended(&mut job).await.unwrap();
    assert_eq!(ls(dir.path()), BTreeSet::from(["mine".to_owned()]));
    assert_eq!(std::fs::read(dir.path().join("mine")).unwrap(), of(2));
}

/// A swarm that chooses its own order, a liar in it, and a server of ranges, while the selection changes: what is wanted
/// at the end is in place and right, and nothing that was not wanted when it came is.
#[test]
fn a_swarm_and_a_server_with_selections_that_change() {
    for seed in 0..30 {
        block_on(async {
            let mut rng = Rng::new(seed);
            let peer = |label: &str, rate, corrupt| Peer { label: label.into(), rate, share: 0.8, corrupt };
            let peers = vec![
                peer("one", rng.between(1e5, 8e5), 0.0),
                peer("two", rng.between(1e5, 8e5), 0.0),
                peer("liar", 3e5, 1.0),
            ];
            let (swarm, caps, _) = SimSwarm { peers }.make()(&plan());
            let sources = [(server(rng.between(2e5, 1e6)), Caps::RANGES), (swarm, caps)];
            let sink = MemorySink::new();
            let want = |rng: &mut Rng| match rng.below(4) {
                0 | 1 => Want::Skip,
                n => Want::Fetch(n as i32 - 2),
            };
            let mut now: Vec<Want> = NAMES.iter().map(|_| want(&mut rng)).collect();
            let select = now.iter().zip(0..).fold(Selection::all(), |s, (w, f)| s.file(FileId(f), *w));
            let mut job = start(&engine(move |cx| together(cx, &sources, true)), select, sink.clone());
            let state = job.snapshot();
            let over = || matches!(state.borrow().state, JobState::Done | JobState::Failed);
            for _ in 0..rng.below(8) {
                tokio::time::sleep(Duration::from_millis(rng.below(700))).await;
                let file = rng.below(4) as usize;
                if over() {
                    break;
                }
                let new = want(&mut rng);
                // One that is in place stays there.
                if sink.file(NAMES[file]).is_none() {
                    now[file] = new;
                }
                job.select([(FileId(file as u32), new)]);
            }
            let done = ended(&mut job).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            for (i, name) in NAMES.iter().enumerate() {
                let expected = (now[i] != Want::Skip).then(|| of(i));
                assert!(sink.file(name) == expected, "seed {seed}: {name}, {now:?}");
            }
            let listed: BTreeSet<_> = done.files.iter().map(|f| f.path.clone()).collect();
            assert_eq!(listed, placed(&sink).into_iter().map(str::to_owned).collect(), "seed {seed}");
            assert_eq!(done.bytes, FILE * listed.len() as u64, "seed {seed}");
        });
    }
}
