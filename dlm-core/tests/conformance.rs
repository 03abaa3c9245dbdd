//! The suites of the test kit, on everything that this crate implements.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::{Memory, Pipe};
use dlm_core::{
    Caps, Cx, FileId, FileSink, FileSpec, Identity, Journal, Keep, MemoryJournal, MemorySink, ObjectId,
    Ranged, RelPath, Seek, SidecarJournal, Sink, Source, StreamSink, Target, Validator,
};
use dlm_testkit::conformance::{self, RangeFixture, SourceFixture};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{Object, Peer, SimRanged, SimSwarm, SimTree, strong};

#[tokio::test]
async fn a_memory_sink() {
    conformance::sink(|| Arc::new(MemorySink::new())).await;
}

#[tokio::test]
async fn a_stream_sink() {
    conformance::sink(|| Arc::new(StreamSink::new(Pipe::default()))).await;
}

#[tokio::test]
async fn a_file_sink() {
    let folders = Mutex::new(Vec::new());
    conformance::sink(|| {
        let dir = tempfile::tempdir().unwrap();
        let sink = FileSink::builder(dir.path()).build().unwrap();
        folders.lock().unwrap().push(dir);
        sink
    })
    .await;
}

#[tokio::test]
async fn a_memory_journal() {
    let journal = MemoryJournal::new();
    conformance::journal(|| Arc::new(journal.clone())).await;
}

/// Only one at a time has the download, so the one before lets go of it when another opens it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sidecar_journal() {
    let dir = tempfile::tempdir().unwrap();
    let last: Mutex<Option<(Arc<FileSink>, Arc<SidecarJournal>)>> = Mutex::default();
    conformance::journal(|| {
        let before = last.lock().unwrap().take();
        let now = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                if let Some((sink, journal)) = before {
                    journal.close(Keep::Partial).await.unwrap();
                    drop(sink);
                }
                let sink = FileSink::builder(dir.path()).build().unwrap();
                // Of unknown length, so that no room is looked for.
                let file = FileSpec::whole(FileId(0), RelPath::name("file").unwrap(), ObjectId(0), None);
                sink.prepare(&[file]).await.remove(0).1.unwrap();
                let journal = sink.journal();
                (sink, journal)
            })
        });
        *last.lock().unwrap() = Some(now.clone());
        now.1
    })
    .await;
}

fn target(object: ObjectId) -> Target {
    Target::new(object, "memory://object/".parse().unwrap())
}

/// All that a range source may be able to do, and all that it may say of itself.
fn kinds() -> Vec<(Caps, Identity, Bytes)> {
    let mut all = Vec::new();
    for (i, caps) in [Caps::RANGES, Caps::RANGES.seek(Seek::StartOnly).max_parallel(1), Caps::STREAM]
        .into_iter()
        .enumerate()
    {
        let data = fixtures::bytes(i as u64, 300_000 + i);
        let len = Some(data.len() as u64);
        for identity in [
            strong(len),
            strong(None),
            Identity::new(len, Validator::Unknown),
            Identity::new(len, Validator::Weak { mtime: Some(1), tag: None }),
            Identity::UNKNOWN,
        ] {
            all.push((caps, identity, data.clone()));
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_range_source_in_memory() {
    for (caps, identity, data) in kinds() {
        let source = Arc::new(Memory { data: data.clone(), caps, identity, chunk: 7_000 });
        let cx = Cx::new();
        conformance::range_source(&RangeFixture { source, target: target(ObjectId(0)), data, caps, cx })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_over_it() {
    for (caps, identity, data) in kinds() {
        let (bytes, says) = (data.clone(), identity.clone());
        let make = move |object| {
            let memory = Memory { data: bytes.clone(), caps, identity: says.clone(), chunk: 7_000 };
            (Arc::new(Ranged::new(memory)) as Arc<dyn Source>, target(object))
        };
        conformance::source(&SourceFixture { make: Arc::new(make), data, caps, identity, proof: None }).await;
    }
}

async fn simulated(make: impl Fn(&Object) -> (Arc<dyn Source>, Caps, Identity) + Send + Sync + 'static) {
    let data = fixtures::bytes(9, 1_234_567);
    let object = Object { data: data.clone(), piece: Some(64 << 10), seed: 5 };
    let (_, caps, mut identity) = make(&object);
    // Nobody else is there to tell the bench.
    identity.len = Some(data.len() as u64);
    let make = move |id| (make(&object).0, target(id));
    conformance::source(&SourceFixture { make: Arc::new(make), data, caps, identity, proof: None }).await;
}

#[tokio::test(start_paused = true)]
async fn a_simulated_server() {
    simulated(SimRanged::new("server", 1e6).make()).await;
}

#[tokio::test(start_paused = true)]
async fn a_simulated_swarm() {
    let peer = |i: u64| Peer { label: format!("peer {i}"), rate: 3e5, share: 1.0, corrupt: 0.0 };
    simulated(SimSwarm { peers: (0..4).map(peer).collect() }.make()).await;
}

#[tokio::test(start_paused = true)]
async fn a_simulated_tree() {
    simulated(SimTree { rate: 2e6, leaf: 50_000 }.make()).await;
}
