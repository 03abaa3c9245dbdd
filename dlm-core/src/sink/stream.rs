//! A stream: bytes leave in order, and cannot be taken back.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::poll_fn;
use tokio::io::AsyncWrite;
use tokio::sync::Mutex;

use super::{Batch, Keep, Prepared, Sink, SinkCaps};
use crate::error::{Error, Kind, Result, Retry};
use crate::object::{FileId, FileKind, FileSpec, ObjectId};

type Out = Pin<Box<dyn AsyncWrite + Send>>;

/// Writes the bytes of one file after the other to a pipe, a socket or a terminal.
///
/// Takes only the next byte of the object that is not finished yet. When the object starts over after bytes have left,
/// that is [`Kind::Changed`]: nothing can be taken back. A write that was dropped may have sent a part of its bytes;
/// after that the stream is broken, and every later write fails.
pub struct StreamSink {
    out: Mutex<State>,
}

struct State {
    out: Out,
    files: BTreeMap<FileId, FileSpec>,
    /// The object that is being written, and how many of its bytes have left.
    current: Option<(ObjectId, u64)>,
    lens: BTreeMap<ObjectId, u64>,
    /// A write is on its way; stays when it was dropped or has failed.
    broken: bool,
}

impl StreamSink {
    /// A sink that writes to `out`, which is flushed at each commit.
    pub fn new(out: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            out: Mutex::new(State {
                out: Box::pin(out),
                files: BTreeMap::new(),
                current: None,
                lens: BTreeMap::new(),
                broken: false,
            }),
        }
    }
}

impl fmt::Debug for StreamSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamSink")
    }
}

fn bug(why: impl fmt::Display) -> Error {
    Error::new(Kind::Bug, "write to the stream").because(why)
}

impl State {
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        if self.broken {
            return Err(Error::new(Kind::Io, "write to the stream").because("an earlier write was cut"));
        }
        let left = match self.current {
            Some((o, left)) if o == batch.object => left,
            Some((_, _)) => return Err(bug("another object is not finished")),
            None if self.files.values().any(|f| f.object == batch.object) => 0,
            None => return Err(bug("no file of the object was prepared")),
        };
        if batch.at != left {
            return Err(bug(format_args!("byte {} came, byte {left} is next", batch.at)));
        }
        if self.lens.get(&batch.object).is_some_and(|len| batch.range().end > *len) {
            return Err(bug("the bytes lie behind the object's end"));
        }
        self.broken = true;
        let mut left = left;
        for buf in &batch.bufs {
            let mut rest = &buf[..];
            while !rest.is_empty() {
                match poll_fn(|cx| self.out.as_mut().poll_write(cx, rest)).await {
                    Ok(0) => return Err(failed(std::io::ErrorKind::WriteZero.into())),
                    Ok(n) => {
                        rest = &rest[n..];
                        left += n as u64;
                        // At once, so that it is true also when this call is dropped.
                        self.current = Some((batch.object, left));
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(failed(e)),
                }
            }
        }
        self.broken = false;
        Ok(())
    }

    async fn commit(&mut self, id: FileId) -> Result<()> {
        let f = self.files.get(&id).ok_or_else(|| bug("the file was not prepared"))?;
        let object = f.object;
        let left = match self.current {
            Some((o, left)) if o == object => left,
            // An empty file has no first byte.
            _ => 0,
        };
        let want = self.lens.get(&object).copied().or(f.len);
        if self.broken || want.is_some_and(|w| w != left) {
            return Err(Error::new(Kind::Corrupt, "finish the stream")
                .because(format_args!("{left} bytes have left, and not all that should")));
        }
        poll_fn(|cx| self.out.as_mut().poll_flush(cx)).await.map_err(failed)?;
        if self.current.is_some_and(|(o, _)| o == object) {
            self.current = None;
        }
        self.files.remove(&id);
        Ok(())
    }
}

fn failed(e: std::io::Error) -> Error {
    if e.kind() == std::io::ErrorKind::BrokenPipe {
        return Error::new(Kind::Io, "write to the stream").because("its reader has gone").caused_by(e);
    }
    Error::io("write to the stream", e)
}

#[async_trait]
impl Sink for StreamSink {
    fn caps(&self) -> SinkCaps {
        SinkCaps::ORDERED
    }

    /// # Errors (a file)
    /// [`Kind::Unsupported`] for a file that is only a part of its object.
    async fn prepare(&self, added: &[FileSpec]) -> Vec<(FileId, Result<Prepared>)> {
        let mut state = self.out.lock().await;
        added
            .iter()
            .map(|f| {
                let whole = f.range.start == 0 && (f.range.end.is_none() || f.range.end == f.len);
                if !whole || f.kind != FileKind::Data || state.files.values().any(|o| o.object == f.object) {
                    return (f.id, Err(part_of_it(f)));
                }
                state.files.insert(f.id, f.clone());
                (f.id, Ok(Prepared::Ready))
            })
            .collect()
    }

    /// Nothing of such files leaves.
    ///
    /// # Errors (a file)
    /// [`Kind::Unsupported`] for a file that is only a part of its object.
    async fn set_aside(&self, files: &[FileSpec]) -> Vec<(FileId, Result<()>)> {
        files
            .iter()
            .map(|f| {
                let whole = f.range.start == 0 && (f.range.end.is_none() || f.range.end == f.len);
                (f.id, if whole { Ok(()) } else { Err(part_of_it(f)) })
            })
            .collect()
    }

    async fn set_len(&self, object: ObjectId, len: u64) -> Result<()> {
        let mut state = self.out.lock().await;
        match state.current {
            Some((o, left)) if o == object && left > len => Err(gone(left)),
            _ => {
                state.lens.insert(object, len);
                Ok(())
            }
        }
    }

    async fn write(&self, batch: Batch) -> Result<()> {
        if batch.len == 0 {
            return Ok(());
        }
        self.out.lock().await.write(&batch).await
    }

    async fn read(&self, _: ObjectId, _: Range<u64>) -> Result<Bytes> {
        Err(Error::new(Kind::Unsupported, "read back").because("a stream cannot be read"))
    }

    /// Nothing: a stream keeps nothing.
    async fn sync(&self, _: &[ObjectId]) -> Result<()> {
        Ok(())
    }

    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)> {
        let mut state = self.out.lock().await;
        let mut done = Vec::with_capacity(files.len());
        for id in files {
            done.push((*id, state.commit(*id).await));
        }
        done
    }

    async fn truncate(&self, object: ObjectId) -> Result<()> {
        let mut state = self.out.lock().await;
        match state.current {
            Some((o, left)) if o == object && left > 0 => Err(gone(left)),
            _ => {
                state.lens.remove(&object);
                Ok(())
            }
        }
    }

    async fn abort(&self, _: Keep) -> Result<()> {
        let mut state = self.out.lock().await;
        state.broken = true;
        Ok(())
    }
}

fn part_of_it(f: &FileSpec) -> Error {
    let why = "a stream takes whole objects of one file only";
    Error::new(Kind::Unsupported, "write to the stream").on(&f.path).because(why)
}

/// What has left cannot be taken back.
fn gone(bytes: u64) -> Error {
    Error::new(Kind::Changed, "start over")
        .because(format_args!("{bytes} bytes have left already and cannot be taken back"))
        .with_retry(Retry::Never)
        .advise("discard the output and run the command again")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};
    use std::time::Duration;

    use super::*;
    use crate::path::RelPath;

    /// A pipe of so many bytes that nobody reads, or whose reader has gone; takes at most two bytes a call.
    #[derive(Clone)]
    struct Pipe {
        room: usize,
        closed: bool,
        got: Arc<Mutex<Vec<u8>>>,
    }

    impl AsyncWrite for Pipe {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
            let mut got = self.got.lock().unwrap();
            let n = buf.len().min(2).min(self.room - got.len());
            match n {
                _ if self.closed => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
                0 => Poll::Pending,
                n => {
                    got.extend_from_slice(&buf[..n]);
                    Poll::Ready(Ok(n))
                }
            }
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn pipe(room: usize) -> Pipe {
        Pipe { room, closed: false, got: Arc::default() }
    }

    fn spec(n: u32, len: Option<u64>) -> FileSpec {
        FileSpec::whole(FileId(n), RelPath::name(&format!("f{n}")).unwrap(), ObjectId(n), len)
    }

    fn batch(o: u32, at: u64, text: &'static str) -> Batch {
        Batch::new(ObjectId(o), at, text.as_bytes().chunks(2).map(Bytes::from_static).collect())
    }

    #[tokio::test]
    async fn one_after_the_other() {
        let out = pipe(64);
        let s = StreamSink::new(out.clone());
        assert!(
            s.prepare(&[spec(1, Some(5)), spec(2, None), spec(3, Some(0))])
                .await
                .iter()
                .all(|(_, r)| r.is_ok())
        );
        s.set_len(ObjectId(1), 5).await.unwrap();
        s.write(batch(1, 0, "hel")).await.unwrap();
        for wrong in
            [batch(1, 0, "h"), batch(1, 4, "o"), batch(2, 0, "x"), batch(1, 3, "lox"), batch(9, 0, "x")]
        {
            assert_eq!(s.write(wrong).await.unwrap_err().kind(), Kind::Bug);
        }
        assert_eq!(s.commit(&[FileId(1)]).await.remove(0).1.unwrap_err().kind(), Kind::Corrupt);
        s.write(batch(1, 3, "lo")).await.unwrap();
        s.commit(&[FileId(1)]).await.remove(0).1.unwrap();
        s.write(batch(2, 0, " you")).await.unwrap();
        assert!(s.commit(&[FileId(2), FileId(3)]).await.iter().all(|(_, r)| r.is_ok()));
        assert_eq!(s.read(ObjectId(2), 0..1).await.unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(*out.got.lock().unwrap(), b"hello you");
    }

    #[tokio::test]
    async fn nothing_is_taken_back() {
        let s = StreamSink::new(pipe(64));
        s.prepare(&[spec(1, None)]).await;
        s.truncate(ObjectId(1)).await.unwrap();
        s.write(batch(1, 0, "hel")).await.unwrap();
        let e = s.truncate(ObjectId(1)).await.unwrap_err();
        assert_eq!((e.kind(), e.retry()), (Kind::Changed, Retry::Never));
        assert_eq!(s.set_len(ObjectId(1), 2).await.unwrap_err().kind(), Kind::Changed);
    }

    #[tokio::test]
    async fn a_reader_that_goes_and_a_write_that_is_dropped() {
        let s = StreamSink::new(pipe(2));
        s.prepare(&[spec(1, None)]).await;
        let dropped = tokio::time::timeout(Duration::from_millis(20), s.write(batch(1, 0, "hello"))).await;
        assert!(dropped.is_err());
        assert_eq!(s.write(batch(1, 0, "hello")).await.unwrap_err().kind(), Kind::Io);
        assert!(s.commit(&[FileId(1)]).await[0].1.is_err());
        assert_eq!(
            s.truncate(ObjectId(1)).await.unwrap_err().kind(),
            Kind::Changed,
            "what has left is known"
        );

        let s = StreamSink::new(Pipe { closed: true, ..pipe(2) });
        s.prepare(&[spec(1, None)]).await;
        assert_eq!(s.write(batch(1, 0, "hello")).await.unwrap_err().kind(), Kind::Io);
        assert!(s.prepare(&[spec(2, Some(9)).part((1..4).into())]).await[0].1.is_err());
    }
}
