//! Rules for a [`Sink`].

use std::sync::Arc;

use bytes::Bytes;
use dlm_core::{Batch, FileId, FileSpec, Keep, Kind, ObjectId, Prepared, RelPath, Sink, SinkOrder, Span};

use crate::fixtures;

const OBJECT: ObjectId = ObjectId(0);
const FILE: FileId = FileId(0);

fn spec(id: u32, object: ObjectId, name: &str, len: u64) -> FileSpec {
    FileSpec::whole(FileId(id), RelPath::name(name).expect("a plain name"), object, Some(len))
}

async fn prepared(sink: &Arc<dyn Sink>, spec: FileSpec) {
    let id = spec.id;
    match &sink.prepare(&[spec]).await[..] {
        [(got, Ok(Prepared::Ready))] if *got == id => {}
        other => panic!("prepare: one answer for the one file: {other:?}"),
    }
}

/// Every rule for a sink. `make` gives a new one, with nothing in it, at each call. Writes less than 1 MiB to each.
/// Dropped, it leaves what was written.
///
/// # Panics
/// When a rule is broken.
pub async fn sink(make: impl Fn() -> Arc<dyn Sink>) {
    let caps = make().caps();
    assert_eq!(caps, make().caps(), "caps: they are the same at each call");
    assert!(caps.batch > 0, "caps: a batch has a length");
    in_order(&make()).await;
    empty_file(&make()).await;
    keeps_and_forgets(&make()).await;
    if caps.order == SinkOrder::Any {
        any_order(&make()).await;
        starts_over(&make()).await;
        split_over_files(&make()).await;
    }
}

async fn in_order(sink: &Arc<dyn Sink>) {
    let data = fixtures::bytes(3, 200_000);
    prepared(sink, spec(0, OBJECT, "in-order.bin", 200_000)).await;
    sink.set_len(OBJECT, 200_000).await.expect("set_len");
    for at in (0..200_000usize).step_by(50_000) {
        // Several buffers, an empty one among them.
        let bufs = vec![data.slice(at..=at), Bytes::new(), data.slice(at + 1..at + 50_000)];
        sink.write(Batch::new(OBJECT, at as u64, bufs)).await.expect("write: in order");
    }
    if sink.caps().readable {
        for (a, b) in [(0, 200_000), (49_999, 50_001), (199_999, 200_000), (7, 7)] {
            let got = sink.read(OBJECT, a..b).await.expect("read: what was written");
            assert_eq!(got, data.slice(a as usize..b as usize), "read: {a}..{b}");
        }
        assert!(sink.read(OBJECT, 199_999..200_001).await.is_err(), "read: never less than was asked");
    } else {
        let e = sink.read(OBJECT, 0..1).await.expect_err("read: refused where it cannot");
        assert_eq!(e.kind(), Kind::Unsupported, "read: refused where it cannot");
    }
    sink.sync(&[OBJECT]).await.expect("sync");
    match &sink.commit(&[FILE]).await[..] {
        [(FILE, Ok(()))] => {}
        other => panic!("commit: one answer for the one file: {other:?}"),
    }
}

async fn empty_file(sink: &Arc<dyn Sink>) {
    prepared(sink, spec(0, OBJECT, "empty.bin", 0)).await;
    sink.set_len(OBJECT, 0).await.expect("set_len: 0");
    match &sink.commit(&[FILE]).await[..] {
        [(FILE, Ok(()))] => {}
        other => panic!("commit: an empty file is a file: {other:?}"),
    }
}

async fn keeps_and_forgets(sink: &Arc<dyn Sink>) {
    prepared(sink, spec(0, OBJECT, "kept.bin", 10)).await;
    sink.write(Batch::new(OBJECT, 0, vec![Bytes::from_static(b"01234")])).await.expect("write");
    sink.abort(Keep::Nothing).await.expect("abort");
}

async fn any_order(sink: &Arc<dyn Sink>) {
    let data = fixtures::bytes(4, 300_000);
    prepared(sink, spec(0, OBJECT, "any-order.bin", 300_000)).await;
    sink.set_len(OBJECT, 300_000).await.expect("set_len");
    let writes = [(200_000, 300_000), (0, 1), (100_000, 200_000), (1, 100_000)];
    let all = writes.map(|(a, b)| sink.write(Batch::new(OBJECT, a as u64, vec![data.slice(a..b)])));
    for r in futures::future::join_all(all).await {
        r.expect("write: several at once, in any order");
    }
    assert_eq!(
        sink.read(OBJECT, 0..300_000).await.expect("read"),
        data,
        "read: what was written in any order"
    );
    // The same place again, as after a retraction.
    sink.write(Batch::new(OBJECT, 5, vec![data.slice(5..10)])).await.expect("write: again");
    assert!(sink.commit(&[FILE]).await.iter().all(|(_, r)| r.is_ok()), "commit");
}

async fn starts_over(sink: &Arc<dyn Sink>) {
    let (old, new) = (fixtures::bytes(5, 100_000), fixtures::bytes(6, 60_000));
    prepared(sink, spec(0, OBJECT, "over.bin", 100_000)).await;
    sink.write(Batch::new(OBJECT, 0, vec![old])).await.expect("write");
    sink.truncate(OBJECT).await.expect("truncate");
    assert!(sink.read(OBJECT, 0..1).await.is_err(), "truncate: nothing is left to read");
    sink.set_len(OBJECT, 60_000).await.expect("set_len");
    sink.write(Batch::new(OBJECT, 0, vec![new.clone()])).await.expect("write: after starting over");
    assert_eq!(sink.read(OBJECT, 0..60_000).await.expect("read"), new, "truncate: only new bytes");
    assert!(sink.commit(&[FILE]).await.iter().all(|(_, r)| r.is_ok()), "commit");
}

async fn split_over_files(sink: &Arc<dyn Sink>) {
    let data = fixtures::bytes(7, 1_000);
    let files = [(0, "a.bin", 0..400), (1, "b.bin", 400..401), (2, "c.bin", 401..1_000)];
    for (id, name, r) in files.clone() {
        let whole = spec(id, OBJECT, name, 0);
        prepared(sink, whole.part(Span::new(r.start, r.end))).await;
    }
    sink.set_len(OBJECT, 1_000).await.expect("set_len");
    sink.write(Batch::new(OBJECT, 0, vec![data.slice(..700)])).await.expect("write: over a file's border");
    sink.write(Batch::new(OBJECT, 700, vec![data.slice(700..)])).await.expect("write");
    assert_eq!(
        sink.read(OBJECT, 300..900).await.expect("read"),
        data.slice(300..900),
        "read: over files' borders"
    );
    let ids: Vec<FileId> = files.iter().map(|f| FileId(f.0)).collect();
    let answers = sink.commit(&ids).await;
    assert_eq!(
        answers.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        ids,
        "commit: an answer each, in order"
    );
    assert!(answers.iter().all(|(_, r)| r.is_ok()), "commit: {answers:?}");
}
