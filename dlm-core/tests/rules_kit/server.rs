//! A server of ranges that costs only time, and notes what it was asked.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{Body, Cx, Identity, ObjectId, RangeSource, Result, SourceInfo, Span, Target};
use tokio::time::Instant;

use super::{Hook, lock};

/// One request that reached a [`Server`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) object: ObjectId,
    pub(crate) want: Span,
    /// When, and by which address there.
    pub(crate) at: Instant,
    pub(crate) remote: String,
}

/// What a [`Server`] did.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) requests: Vec<Request>,
    pub(crate) open: usize,
    /// The most answers that were open at one moment.
    pub(crate) most: usize,
    pub(crate) sent: u64,
}

type Refuse = dyn Fn(&Served) -> Option<dlm_core::Error> + Send + Sync;

/// A server of any number of objects that all have the same bytes, at a steady speed on each connection.
pub(crate) struct Server {
    pub(crate) key: &'static str,
    pub(crate) data: Bytes,
    pub(crate) identity: Identity,
    /// Bytes a second, and of a chunk.
    pub(crate) rate: f64,
    pub(crate) chunk: u64,
    /// From the request to the first byte.
    pub(crate) delay: Duration,
    /// The next chunk that holds one of these offsets has a wrong byte there.
    pub(crate) wrong: Arc<Mutex<Vec<u64>>>,
    pub(crate) refuse: Arc<Refuse>,
    pub(crate) hook: Hook,
    pub(crate) served: Arc<Mutex<Served>>,
}

impl Server {
    pub(crate) fn new(key: &'static str, data: Bytes, rate: f64) -> Self {
        let len = Some(data.len() as u64);
        Self {
            key,
            data,
            identity: dlm_testkit::sim::strong(len),
            rate,
            chunk: 16 << 10,
            delay: Duration::from_millis(20),
            wrong: Arc::default(),
            refuse: Arc::new(|_| None),
            hook: Arc::new(|_| {}),
            served: Arc::default(),
        }
    }
    pub(crate) fn chunk(mut self, bytes: u64) -> Self {
        self.chunk = bytes;
        self
    }
    pub(crate) fn identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }
    /// The byte at this offset is wrong once.
    pub(crate) fn wrong_once(self, at: u64) -> Self {
        lock(&self.wrong).push(at);
        self
    }
    pub(crate) fn refusing(
        mut self,
        refuse: impl Fn(&Served) -> Option<dlm_core::Error> + Send + Sync + 'static,
    ) -> Self {
        self.refuse = Arc::new(refuse);
        self
    }
    pub(crate) fn hook(mut self, hook: &Hook) -> Self {
        self.hook = hook.clone();
        self
    }
    pub(crate) fn served(&self) -> Arc<Mutex<Served>> {
        self.served.clone()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("key", &self.key).finish_non_exhaustive()
    }
}

/// An answer that is open.
struct Seat(Arc<Mutex<Served>>, Hook);

impl Drop for Seat {
    fn drop(&mut self) {
        (self.1)("Stream::drop");
        lock(&self.0).open -= 1;
    }
}

#[async_trait]
impl RangeSource for Server {
    fn info(&self) -> SourceInfo {
        (self.hook)("RangeSource::info");
        SourceInfo::new("test", self.key, self.key)
    }

    async fn open(&self, target: &Target, want: Span, _: &Identity, _: &Cx) -> Result<Body> {
        (self.hook)("RangeSource::open");
        let seat = {
            let mut served = lock(&self.served);
            let remote = target.remote.to_string();
            served.requests.push(Request { object: target.object, want, at: Instant::now(), remote });
            served.open += 1;
            served.most = served.most.max(served.open);
            Seat(self.served.clone(), self.hook.clone())
        };
        tokio::time::sleep(self.delay).await;
        let refused = (self.refuse)(&lock(&self.served));
        if let Some(e) = refused {
            return Err(e);
        }
        let len = self.data.len() as u64;
        let (start, end) = (want.start.min(len), want.end.unwrap_or(len).min(len));
        let wrong = self.wrong.clone();
        let (data, chunk, rate, hook) = (self.data.clone(), self.chunk, self.rate, self.hook.clone());
        let began = Instant::now();
        let stream = futures::stream::unfold((start, seat), move |(at, seat)| {
            let (data, hook, wrong) = (data.clone(), hook.clone(), wrong.clone());
            async move {
                hook("Stream::poll_next");
                if at >= end {
                    return None;
                }
                let next = (at + chunk).min(end);
                // From the beginning, so that rounding to the timer's grain does not add up.
                tokio::time::sleep_until(began + Duration::from_secs_f64((next - start) as f64 / rate)).await;
                let mut part = data.slice(at as usize..next as usize);
                for f in lock(&wrong).extract_if(.., |f| (at..next).contains(f)) {
                    let mut bad = part.to_vec();
                    bad[(f - at) as usize] ^= 0x20;
                    part = bad.into();
                }
                lock(&seat.0).sent += next - at;
                Some((Ok(part), (next, seat)))
            }
        });
        Ok(Body::new(Span::new(start, end), self.identity.clone(), Box::pin(stream)))
    }
}
