//! The bytes of one answer.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use dlm_core::{Error, Kind, Locator, Result, Retry};
use futures_core::Stream;
use hyper::body::{Body as _, Incoming};

use crate::error::lost;
use crate::pool::{Key, Pool};
use crate::wire::Wire;

/// A body that is being read. Frames are handed on as they came, without a copy. Read to its end it gives its
/// connection back to the pool; dropped before, it closes it.
pub(crate) struct Reading {
    body: Incoming,
    /// Gone once the body has ended.
    wire: Option<Box<Wire>>,
    pool: Arc<Pool>,
    key: Key,
    /// For errors.
    at: Locator,
    /// How much the answer still owes by its own account; `None` when it did not say.
    owed: Option<u64>,
    /// Bytes at the beginning that the reader does not want.
    skip: u64,
    /// How many bytes the reader still wants; `None`: all.
    wanted: Option<u64>,
}

impl Reading {
    pub(crate) fn new(body: Incoming, wire: Box<Wire>, pool: Arc<Pool>, key: Key, at: Locator) -> Self {
        let owed = body.size_hint().exact();
        Self { body, wire: Some(wire), pool, key, at, owed, skip: 0, wanted: None }
    }

    /// The announced length of the body (`Content-Length`), when hyper frames it by that.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The answer has to be this long: longer or shorter is an error.
    pub(crate) fn owe(mut self, len: Option<u64>) -> Self {
        self.owed = len;
        self
    }

    /// Leaves out the first `skip` bytes, and everything after `wanted` further ones.
    pub(crate) fn cut(mut self, skip: u64, wanted: Option<u64>) -> Self {
        (self.skip, self.wanted) = (skip, wanted);
        self
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<Bytes>>> {
        self.wire = None;
        Poll::Ready(Some(Err(error.on(&self.at))))
    }

    /// The next frame of data as it came, or the end.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        // The body changes only while the connection is polled, here: it needs no waker of its own.
        let mut quiet = Context::from_waker(Waker::noop());
        let mut moved = false;
        loop {
            match Pin::new(&mut self.body).poll_frame(&mut quiet) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers mean nothing here.
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                    continue;
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Some(Err(e))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if moved => return Poll::Pending,
                Poll::Pending => {}
            }
            if let Some(wire) = &mut self.wire {
                // An ended driver has put its last word into the body.
                let _ = wire.poll(cx);
            }
            moved = true;
        }
    }
}

impl Stream for Reading {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        let me = self.get_mut();
        loop {
            if me.wire.is_none() {
                return Poll::Ready(None);
            }
            if me.wanted == Some(0) && me.owed != Some(0) {
                // The rest is not wanted, and may be long.
                me.wire = None;
                return Poll::Ready(None);
            }
            let mut data = match me.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(data))) => data,
                Poll::Ready(Some(Err(e))) => return me.fail(lost(e)),
                Poll::Ready(None) => {
                    if me.owed.is_some_and(|o| o > 0) {
                        return me.fail(
                            Error::new(Kind::Reset, "fetch").because("the answer is shorter than it said"),
                        );
                    }
                    if let Some(wire) = me.wire.take() {
                        me.pool.put(me.key.clone(), wire);
                    }
                    return Poll::Ready(None);
                }
            };
            if let Some(owed) = me.owed {
                let Some(left) = owed.checked_sub(data.len() as u64) else {
                    let error =
                        Error::new(Kind::Protocol, "fetch").because("the answer is longer than it said");
                    return me.fail(error.with_retry(Retry::Elsewhere));
                };
                me.owed = Some(left);
            }
            if me.skip > 0 {
                let n = me.skip.min(data.len() as u64);
                me.skip -= n;
                data = data.split_off(n as usize);
            }
            if let Some(wanted) = &mut me.wanted {
                data.truncate(usize::try_from(*wanted).unwrap_or(usize::MAX));
                *wanted -= data.len() as u64;
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("at", &self.at).field("owed", &self.owed).finish_non_exhaustive()
    }
}
