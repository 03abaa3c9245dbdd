//! A sink of one's own: bytes are counted and hashed as they come, and kept nowhere. The source is one's own too, so
//! that this runs without a network:
//!
//! ```text
//! cargo run -p dlm-core --example custom_sink
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Accept, Algorithm, Backend, Batch, Binding, Body, Caps, Cx, Discovery, DiscoveryStream, Engine, Error,
    FileId, FileSpec, From, Hasher, Hint, Identity, JobSpec, Keep, Kind, Locator, MemoryJournal, ObjectId,
    ObjectSpec, Prepared, RangeSource, Ranged, RelPath, Result, Sink, SinkCaps, SourceInfo, Span, Target,
    Validator,
};
use futures::stream;

/// Counts bytes and hashes them.
#[derive(Debug)]
struct HashSink(Mutex<State>);

#[derive(Debug)]
struct State {
    algorithm: Algorithm,
    hasher: Hasher,
    bytes: u64,
    files: Vec<FileSpec>,
    /// One line for each file that is done.
    results: Vec<String>,
}

impl HashSink {
    fn new(algorithm: Algorithm) -> Arc<Self> {
        let hasher = algorithm.hasher();
        Arc::new(Self(Mutex::new(State {
            algorithm,
            hasher,
            bytes: 0,
            files: Vec::new(),
            results: Vec::new(),
        })))
    }

    fn results(&self) -> Vec<String> {
        self.lock().results.clone()
    }

    // Held for moments only and never across an await.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn start_over(&mut self) {
        self.hasher = self.algorithm.hasher();
        self.bytes = 0;
    }
}

#[async_trait]
impl Sink for HashSink {
    /// A hash only goes forward: the engine puts bytes in order, and holds back what comes too early.
    fn caps(&self) -> SinkCaps {
        SinkCaps::ORDERED
    }

    async fn prepare(&self, added: &[FileSpec]) -> Vec<(FileId, Result<Prepared>)> {
        self.lock().files.extend_from_slice(added);
        added.iter().map(|f| (f.id, Ok(Prepared::Ready))).collect()
    }

    async fn set_len(&self, _: ObjectId, _: u64) -> Result<()> {
        Ok(())
    }

    async fn write(&self, batch: Batch) -> Result<()> {
        let mut state = self.lock();
        if batch.at != state.bytes {
            return Err(Error::new(Kind::Bug, "hash").because("these are not the next bytes"));
        }
        for piece in &batch.bufs {
            state.hasher.push(piece);
        }
        state.bytes += batch.len;
        Ok(())
    }

    async fn read(&self, _: ObjectId, _: Range<u64>) -> Result<Bytes> {
        Err(Error::new(Kind::Unsupported, "read back").because("nothing is kept"))
    }

    async fn sync(&self, _: &[ObjectId]) -> Result<()> {
        Ok(())
    }

    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)> {
        let mut state = self.lock();
        for id in files {
            let digest = state.hasher.clone().finish();
            let path =
                state.files.iter().find(|f| f.id == *id).map(|f| f.path.to_string()).unwrap_or_default();
            let line = format!("{path}: {} bytes, {digest}", state.bytes);
            state.results.push(line);
            // The next object of this job begins with its first byte.
            state.start_over();
        }
        files.iter().map(|id| (*id, Ok(()))).collect()
    }

    async fn truncate(&self, _: ObjectId) -> Result<()> {
        // Nothing has left: the count simply begins again.
        self.lock().start_over();
        Ok(())
    }

    async fn abort(&self, _: Keep) -> Result<()> {
        Ok(())
    }
}

/// Something in memory, as a source of ranges.
#[derive(Debug, Clone)]
struct Memory(Bytes);

#[async_trait]
impl RangeSource for Memory {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("memory", "memory", "memory")
    }

    async fn open(&self, _: &Target, want: Span, _: &Identity, _: &Cx) -> Result<Body> {
        let len = self.0.len() as u64;
        let range = want.intersect(&Span::new(0, len)).to_range();
        let bytes = self.0.slice(range.start as usize..range.end as usize);
        // It could come in any pieces.
        let pieces: Vec<_> = bytes.chunks(10_000).map(|c| Ok(bytes.slice_ref(c))).collect();
        Ok(Body::new(range.into(), identity(len), Box::pin(stream::iter(pieces))))
    }
}

/// Memory does not change: one version, known by a tag.
fn identity(len: u64) -> Identity {
    Identity::new(Some(len), Validator::Strong("v1".into()))
}

#[async_trait]
impl Backend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn accepts(&self, hint: &Hint<'_>) -> Accept {
        if hint.locator.scheme() == "memory" { Accept::Yes } else { Accept::No }
    }

    async fn resolve(&self, from: From, cx: &Cx) -> Result<DiscoveryStream> {
        let From::Locator(locator) = from else {
            return Err(Error::new(Kind::Unsupported, "read the document"));
        };
        let (object, len) = (cx.new_object(), self.0.len() as u64);
        let path = RelPath::from_server(&locator.file_name().unwrap_or_default());
        let source = Arc::new(Ranged::new(self.clone()));
        let target = Target::new(object, locator);
        Ok(Box::pin(stream::iter([
            Ok(Discovery::Object(ObjectSpec::new(object, "", Some(len)))),
            Ok(Discovery::File(FileSpec::whole(cx.new_file(), path, object, Some(len)))),
            Ok(Discovery::Bind(Binding::new(source, target, Caps::RANGES, identity(len)))),
        ])))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let data: Bytes = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let engine = Engine::builder().backend(Memory(data.clone())).build();
    let sink = HashSink::new(Algorithm::Sha256);
    let spec = JobSpec::new("memory://here/numbers.bin".parse::<Locator>()?).connections(4);
    let outcome = engine.start(spec, sink.clone(), Arc::new(MemoryJournal::new())).await?;
    for line in sink.results() {
        println!("{line}");
    }
    let expected = Algorithm::Sha256.hasher().update(&data).finish();
    println!("expected: {} bytes, {expected}; {} came twice", outcome.bytes, outcome.duplicate);
    Ok(())
}
