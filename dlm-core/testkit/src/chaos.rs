//! Wrappers that make every call fail once, in turn.
//!
//! A test runs a job with [`Failures::at`] 0, 1, 2, … until a run meets no failure any more; whatever call failed, the
//! job must end without a wrong byte, and the next run must finish it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Batch, Body, Checkpoint, Cx, Error, FileId, FileSpec, Identity, Journal, Keep, Kind, ObjectId, Prepared,
    RangeSource, Result, Saved, Sink, SinkCaps, SourceInfo, Span, Target,
};

/// Counts calls, and says which fails. Clones count together.
#[derive(Debug, Clone)]
pub struct Failures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    calls: AtomicU64,
    fails: u64,
    kind: Kind,
}

impl Failures {
    /// The call with this number fails, with an error of this kind; no other does.
    pub fn at(call: u64, kind: Kind) -> Self {
        Self(Arc::new(Inner { calls: AtomicU64::new(0), fails: call, kind }))
    }
    /// Whether the call that was to fail has come.
    pub fn happened(&self) -> bool {
        self.0.calls.load(Ordering::Relaxed) > self.0.fails
    }
    fn call(&self, op: &'static str) -> Result<()> {
        if self.0.calls.fetch_add(1, Ordering::Relaxed) == self.0.fails {
            return Err(Error::new(self.0.kind, op).because("the test says so"));
        }
        Ok(())
    }
}

/// A sink, journal or range source of which one call fails.
#[derive(Debug, Clone)]
pub struct Chaos<T: ?Sized> {
    failures: Failures,
    inner: Arc<T>,
}

impl<T: ?Sized> Chaos<T> {
    /// Wraps it.
    pub fn new(inner: Arc<T>, failures: Failures) -> Self {
        Self { failures, inner }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Sink + ?Sized> Sink for Chaos<T> {
    fn caps(&self) -> SinkCaps {
        self.inner.caps()
    }
    async fn prepare(&self, added: &[FileSpec]) -> Vec<(FileId, Result<Prepared>)> {
        match self.failures.call("prepare") {
            Ok(()) => self.inner.prepare(added).await,
            Err(e) => added.iter().map(|f| (f.id, Err(e.clone()))).collect(),
        }
    }
    async fn set_aside(&self, files: &[FileSpec]) -> Vec<(FileId, Result<()>)> {
        match self.failures.call("set aside") {
            Ok(()) => self.inner.set_aside(files).await,
            Err(e) => files.iter().map(|f| (f.id, Err(e.clone()))).collect(),
        }
    }
    async fn set_len(&self, object: ObjectId, len: u64) -> Result<()> {
        self.failures.call("set the length")?;
        self.inner.set_len(object, len).await
    }
    async fn write(&self, batch: Batch) -> Result<()> {
        self.failures.call("write")?;
        self.inner.write(batch).await
    }
    async fn read(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes> {
        self.failures.call("read")?;
        self.inner.read(object, range).await
    }
    async fn sync(&self, objects: &[ObjectId]) -> Result<()> {
        self.failures.call("sync")?;
        self.inner.sync(objects).await
    }
    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)> {
        match self.failures.call("commit") {
            Ok(()) => self.inner.commit(files).await,
            Err(e) => files.iter().map(|f| (*f, Err(e.clone()))).collect(),
        }
    }
    async fn truncate(&self, object: ObjectId) -> Result<()> {
        self.failures.call("truncate")?;
        self.inner.truncate(object).await
    }
    async fn abort(&self, keep: Keep) -> Result<()> {
        self.failures.call("abort")?;
        self.inner.abort(keep).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Journal + ?Sized> Journal for Chaos<T> {
    async fn load(&self) -> Result<Option<Saved>> {
        self.failures.call("load the journal")?;
        self.inner.load().await
    }
    async fn record(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.failures.call("record")?;
        self.inner.record(checkpoint).await
    }
    async fn close(&self, keep: Keep) -> Result<()> {
        self.failures.call("close the journal")?;
        self.inner.close(keep).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: RangeSource + ?Sized> RangeSource for Chaos<T> {
    fn info(&self) -> SourceInfo {
        self.inner.info()
    }
    async fn open(&self, target: &Target, want: Span, held: &Identity, cx: &Cx) -> Result<Body> {
        self.failures.call("open")?;
        let mut body = self.inner.open(target, want, held, cx).await?;
        // Each chunk is a call of its own.
        let failures = self.failures.clone();
        body.stream =
            Box::pin(futures::StreamExt::map(body.stream, move |item| failures.call("read").and(item)));
        Ok(body)
    }
}
