//! What several of these tests use.

#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod job;

use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Batch, Body, Caps, Cx, FileId, FileSpec, Identity, Keep, ObjectId, Prepared, RangeSource, Result, Seek,
    Sink, SinkCaps, SourceInfo, Span, Target,
};
use tokio::io::AsyncWrite;

/// A pipe whose other end keeps everything. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Pipe {
    pub(crate) fn got(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.lock().unwrap())
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        // Not all at once, as a pipe does.
        let n = buf.len().min(10_000);
        self.0.lock().unwrap().extend_from_slice(&buf[..n]);
        Poll::Ready(Ok(n))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A sink whose writes take their time, and which watches that no two of one range are in flight, and that nothing is
/// emptied under a write. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    inner: Arc<dyn Sink>,
    delay: Duration,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    flying: Vec<(ObjectId, Range<u64>)>,
    written: u64,
    wrong: Vec<String>,
}

impl Watched {
    pub(crate) fn new(inner: Arc<dyn Sink>, delay: Duration) -> Self {
        Self { inner, delay, seen: Arc::default() }
    }
    /// Bytes of all writes that have returned.
    pub(crate) fn written(&self) -> u64 {
        self.seen.lock().unwrap().written
    }
    /// Rules of a sink that its caller broke.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.seen.lock().unwrap().wrong.clone()
    }
}

#[async_trait]
impl Sink for Watched {
    fn caps(&self) -> SinkCaps {
        self.inner.caps()
    }
    async fn prepare(&self, added: &[FileSpec]) -> Vec<(FileId, Result<Prepared>)> {
        self.inner.prepare(added).await
    }
    async fn set_len(&self, object: ObjectId, len: u64) -> Result<()> {
        self.inner.set_len(object, len).await
    }
    async fn write(&self, batch: Batch) -> Result<()> {
        let mine = (batch.object, batch.range());
        {
            let mut seen = self.seen.lock().unwrap();
            let meets = |(o, r): &&(ObjectId, Range<u64>)| {
                *o == mine.0 && r.start < mine.1.end && mine.1.start < r.end
            };
            if let Some((_, other)) = seen.flying.iter().find(meets).cloned() {
                seen.wrong.push(format!("{:?} is written while {other:?} is", mine.1));
            }
            seen.flying.push(mine.clone());
        }
        tokio::time::sleep(self.delay).await;
        let done = self.inner.write(batch).await;
        let mut seen = self.seen.lock().unwrap();
        if let Some(i) = seen.flying.iter().position(|f| *f == mine) {
            seen.flying.swap_remove(i);
        }
        seen.written += mine.1.end - mine.1.start;
        done
    }
    async fn read(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes> {
        let flying = self.seen.lock().unwrap().flying.clone();
        if let Some((_, r)) =
            flying.iter().find(|(o, r)| *o == object && r.start < range.end && range.start < r.end)
        {
            self.seen.lock().unwrap().wrong.push(format!("{range:?} is read while {r:?} is written"));
        }
        self.inner.read(object, range).await
    }
    async fn sync(&self, objects: &[ObjectId]) -> Result<()> {
        self.inner.sync(objects).await
    }
    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)> {
        self.inner.commit(files).await
    }
    async fn truncate(&self, object: ObjectId) -> Result<()> {
        {
            let mut seen = self.seen.lock().unwrap();
            if seen.flying.iter().any(|(o, _)| *o == object) {
                seen.wrong.push("it is emptied while a write is on its way".to_owned());
            }
        }
        self.inner.truncate(object).await
    }
    async fn abort(&self, keep: Keep) -> Result<()> {
        self.inner.abort(keep).await
    }
}

/// As small as a range source can be.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) data: Bytes,
    pub(crate) caps: Caps,
    pub(crate) identity: Identity,
    /// Length of a chunk in bytes.
    pub(crate) chunk: usize,
}

#[async_trait]
impl RangeSource for Memory {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("memory", "memory", "memory")
    }

    async fn open(&self, _: &Target, want: Span, _held: &Identity, _: &Cx) -> Result<Body> {
        let len = self.data.len() as u64;
        let start = if self.caps.seek == Seek::None { 0 } else { want.start };
        let end = if self.caps.seek == Seek::Any { want.end.unwrap_or(len).min(len) } else { len };
        let part = self.data.slice(start as usize..end as usize);
        let size = self.chunk;
        let chunks = (0..part.len().div_ceil(size)).map(move |i| {
            let from = i * size;
            Ok(part.slice(from..(from + size).min(part.len())))
        });
        // The end of a range is told even where that of the object is not.
        let told = self.identity.len.is_some() || (self.caps.seek == Seek::Any && want.end.is_some());
        let at = if told { Span::new(start, end) } else { Span::from(start) };
        // As a network does: it takes a while to answer, and gives others their turn between two chunks.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let stream = futures::StreamExt::then(futures::stream::iter(chunks), |c| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            c
        });
        Ok(Body::new(at, self.identity.clone(), Box::pin(stream)))
    }
}
