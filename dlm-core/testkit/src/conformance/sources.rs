//! Rules for a [`Source`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dlm_core::{Caps, Cx, Identity, MemorySink, Proof, Source, Target, Trust, WorkBench};

/// Makes a source and its target for an object of that number.
pub type Make = dyn Fn(dlm_core::ObjectId) -> (Arc<dyn Source>, Target) + Send + Sync;

/// A source, and what it should deliver.
#[derive(Clone)]
pub struct SourceFixture {
    /// Makes it anew for each rule.
    pub make: Arc<Make>,
    /// The object's bytes.
    pub data: Bytes,
    /// What it can do.
    pub caps: Caps,
    /// What it says of its version.
    pub identity: Identity,
    /// What judges its bytes, where there is something.
    pub proof: Option<Arc<dyn Proof>>,
}

impl fmt::Debug for SourceFixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFixture")
            .field("len", &self.data.len())
            .field("caps", &self.caps)
            .finish_non_exhaustive()
    }
}

impl SourceFixture {
    async fn bench(&self, sink: &MemorySink) -> (WorkBench, Arc<dyn Source>, dlm_core::Work) {
        let bench = WorkBench::new(Arc::new(sink.clone()), self.identity.len, 1 << 20, Cx::new())
            .await
            .expect("bench");
        if let Some(p) = &self.proof {
            bench.proof(p.clone(), Trust::Locator);
        }
        let (source, target) = (self.make)(bench.object());
        let binding = dlm_core::Binding::new(source.clone(), target, self.caps, self.identity.clone());
        let work = bench.add(binding).expect("bench: binding");
        (bench, source, work)
    }
}

/// Every rule for a source. It is run several times, and has a minute to deliver each time. Dropped, a run that is under
/// way goes on by itself until the source ends it.
///
/// # Panics
/// When a rule is broken.
pub async fn source(f: &SourceFixture) {
    delivers(f).await;
    stops(f).await;
    may_be_dropped(f).await;
}

async fn delivers(f: &SourceFixture) {
    let sink = MemorySink::new();
    let (mut bench, source, work) = f.bench(&sink).await;
    assert_eq!(source.info(), source.info(), "info: it is the same at each call");
    let whole = bench.run(source, work, Duration::from_mins(1)).await;
    assert!(whole, "run: it ends with every byte there ({:?}, {:?})", bench.error(), bench.done());
    bench.check().expect("run: every byte is in one state");
    assert_eq!(sink.bytes(bench.object()).as_deref(), Some(&f.data[..]), "run: the right bytes");
    assert_eq!(bench.in_flight(), 0, "run: nothing is left in memory");
}

async fn stops(f: &SourceFixture) {
    let sink = MemorySink::new();
    let (bench, source, work) = f.bench(&sink).await;
    let run = tokio::spawn(source.run(work));
    tokio::time::sleep(Duration::from_millis(5)).await;
    bench.end();
    let ended = tokio::time::timeout(Duration::from_secs(2), run).await;
    ended
        .expect("stop: run returns within two seconds")
        .expect("stop: it does not panic")
        .expect("stop: it is no error");
    assert!(bench.reserved().is_empty(), "stop: every lease was given back: {:?}", bench.reserved());
    bench.check().expect("stop: every byte is in one state");
}

async fn may_be_dropped(f: &SourceFixture) {
    let sink = MemorySink::new();
    let (mut bench, source, work) = f.bench(&sink).await;
    // At many moments: dropping the future of `run` gives everything back, and another run finishes the rest.
    for ms in [0, 1, 3, 7, 20] {
        let run = source.clone().run(work.clone());
        let _ = tokio::time::timeout(Duration::from_millis(ms), run).await;
        // Tasks of the source's own end at their next await.
        for _ in 0..200 {
            if bench.reserved().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(bench.reserved().is_empty() || bench.whole(), "drop: every lease was given back");
        bench.settle().await;
        bench.check().expect("drop: every byte is in one state");
    }
    if !bench.whole() {
        let whole = bench.run(source, work, Duration::from_mins(1)).await;
        assert!(whole, "drop: another run finishes the rest ({:?})", bench.error());
    }
    assert_eq!(sink.bytes(bench.object()).as_deref(), Some(&f.data[..]), "drop: the right bytes");
}
