//! One connection, and hyper's state machine over it, driven by whoever waits for its bytes.
//!
//! Nothing is spawned: the future of the connection is polled by the request and then by the body, in the task that
//! uses the bytes. That saves a wake-up across tasks for every frame, and a dropped body closes its connection at once.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use dlm_core::{Error, Kind};
use dlm_net::Connection;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{Flood, lost};

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Most fields in a head.
const MAX_FIELDS: usize = 256;
/// Once this many bytes have come and no answer has begun, no more is read: the interim answers (1xx) do not end. Must
/// be more than a head and one full read buffer of hyper (400 KiB), which may hold a head and a piece of the body.
const MAX_BEFORE_ANSWER: u64 = 512 * 1024;
/// Set in [`Guard::seen`] once the answer has begun.
const ANSWERED: u64 = 1 << 63;

pub(crate) type Outgoing = Request<Empty<Bytes>>;

/// A request that got no answer.
pub(crate) struct Unanswered {
    pub(crate) error: Error,
    /// Not one byte came: on a connection that was used before, the server had most likely closed it already.
    pub(crate) silent: bool,
}

/// A connection that takes one request at a time.
pub(crate) struct Wire {
    send: SendRequest<Empty<Bytes>>,
    drive: http1::Connection<TokioIo<Guard>, Empty<Bytes>>,
    /// The driver has ended: nothing more will happen.
    ended: bool,
    /// Bytes that came since the last request, and [`ANSWERED`].
    seen: Arc<AtomicU64>,
    peer: SocketAddr,
}

impl Wire {
    pub(crate) async fn open(connection: Connection) -> Result<Box<Self>, Error> {
        let (seen, peer) = (Arc::new(AtomicU64::new(0)), connection.peer());
        let io = TokioIo::new(Guard { io: connection, seen: seen.clone() });
        let mut builder = http1::Builder::new();
        // Only heads are bounded by these; the read buffer grows with the speed, up to about 400 KiB.
        builder.max_header_size(MAX_HEAD).max_headers(MAX_FIELDS);
        let (send, drive) = builder.handshake(io).await.map_err(lost)?;
        Ok(Box::new(Self { send, drive, ended: false, seen, peer }))
    }

    /// The address at its other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sends a request and waits for the head of its answer, without a time limit of its own.
    pub(crate) async fn request(
        mut self: Box<Self>,
        request: Outgoing,
    ) -> Result<(Response<Incoming>, Box<Self>), Unanswered> {
        self.seen.store(0, Ordering::Relaxed);
        let mut answer = pin!(self.send.send_request(request));
        let done = poll_fn(|cx| {
            let ended = poll_drive(&mut self.drive, &mut self.ended, cx);
            match answer.as_mut().poll(cx) {
                Poll::Pending if ended.is_ready() => Poll::Ready(None),
                other => other.map(Some),
            }
        })
        .await;
        let before = self.seen.fetch_or(ANSWERED, Ordering::Relaxed);
        match done {
            Some(Ok(response)) => Ok((response, self)),
            Some(Err(e)) => Err(Unanswered { error: lost(e), silent: before == 0 }),
            None => {
                let error = Error::new(Kind::Reset, "fetch").because("the connection ended early");
                Err(Unanswered { error, silent: before == 0 })
            }
        }
    }

    /// Moves the connection forward; bytes it reads turn up in the body.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_drive(&mut self.drive, &mut self.ended, cx)
    }

    /// Whether it can take another request: the last answer was read to its end, and the server has neither closed
    /// the connection nor sent anything that nobody asked for.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop())).is_pending() && self.send.is_ready()
    }
}

fn poll_drive<D: Future + Unpin>(drive: &mut D, ended: &mut bool, cx: &mut Context<'_>) -> Poll<()> {
    // What went wrong is told to the request or the body; the driver's own result adds nothing.
    *ended = *ended || Pin::new(drive).poll(cx).is_ready();
    if *ended { Poll::Ready(()) } else { Poll::Pending }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// Counts what comes, and stops reading when it is too much before an answer.
struct Guard {
    io: Connection,
    seen: Arc<AtomicU64>,
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let seen = self.seen.load(Ordering::Relaxed);
        if seen & ANSWERED != 0 {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        if seen > MAX_BEFORE_ANSWER {
            return Poll::Ready(Err(io::Error::other(Flood)));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        self.seen.store(seen + (buf.filled().len() - before) as u64, Ordering::Relaxed);
        result
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
