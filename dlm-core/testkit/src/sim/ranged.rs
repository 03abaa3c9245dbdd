//! A range source that costs only time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Body, Caps, Cx, Error, Identity, Kind, RangeSource, Ranged, Result, Seek, Source, SourceInfo, Span,
    Target,
};
use tokio::time::Instant;

use super::{Object, Rng, strong};

const CHUNK: u64 = 16 << 10;

/// A server with a speed, a delay, and faults.
#[derive(Debug, Clone)]
pub struct SimRanged {
    /// Its label.
    pub label: String,
    /// Bytes a second of one connection.
    pub rate: f64,
    /// From the request to the first byte.
    pub delay: Duration,
    /// Each answer is cut (reset) after this many bytes.
    pub cut: Option<u64>,
    /// After this many bytes of an answer nothing comes any more.
    pub stall: Option<u64>,
    /// Flips a bit in this share of the chunks.
    pub corrupt: f64,
    /// Says nothing of its length, and an answer just ends where the object does.
    pub lengthless: bool,
    /// What it can do.
    pub caps: Caps,
    /// What it says of its version.
    pub identity: Option<Identity>,
    /// More connections than this are refused.
    pub refuse_above: Option<u32>,
}

impl SimRanged {
    /// An honest one.
    pub fn new(label: &str, rate: f64) -> Self {
        Self {
            label: label.to_owned(),
            rate,
            delay: Duration::from_millis(20),
            cut: None,
            stall: None,
            corrupt: 0.0,
            lengthless: false,
            caps: Caps::RANGES,
            identity: None,
            refuse_above: None,
        }
    }

    /// As a source of the plan's object.
    pub fn make(self) -> impl Fn(&Object) -> (Arc<dyn Source>, Caps, Identity) + Send + Sync + 'static {
        move |object| {
            let len = (!self.lengthless).then_some(object.data.len() as u64);
            let identity = self.identity.clone().unwrap_or_else(|| strong(len));
            let server = Server {
                plan: self.clone(),
                data: object.data.clone(),
                identity: identity.clone(),
                open: Arc::default(),
                seed: AtomicU64::new(object.seed.wrapping_add(self.label.len() as u64)),
            };
            (Arc::new(Ranged::new(server)) as Arc<dyn Source>, self.caps, identity)
        }
    }
}

#[derive(Debug)]
struct Server {
    plan: SimRanged,
    data: Bytes,
    identity: Identity,
    open: Arc<AtomicU32>,
    seed: AtomicU64,
}

/// Counts an open answer.
#[derive(Debug)]
struct Seat(Arc<AtomicU32>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl RangeSource for Server {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("sim", self.plan.label.as_str(), self.plan.label.as_str())
    }

    async fn open(&self, _target: &Target, want: Span, _held: &Identity, _cx: &Cx) -> Result<Body> {
        let plan = self.plan.clone();
        let busy = self.open.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self.open.clone());
        tokio::time::sleep(plan.delay).await;
        if plan.refuse_above.is_some_and(|most| busy >= most) {
            return Err(Error::new(Kind::Denied, "fetch").on(&plan.label).because("too many connections"));
        }
        let len = self.data.len() as u64;
        let start = if plan.caps.seek == Seek::None { 0 } else { want.start };
        let end = if plan.caps.seek == Seek::Any { want.end.unwrap_or(len).min(len) } else { len };
        if start > len {
            return Err(Error::new(Kind::RangeIgnored, "fetch").on(&plan.label));
        }
        let data = self.data.clone();
        let mut rng = Rng::new(self.seed.fetch_add(0x1234_5678_9abc, Ordering::Relaxed) ^ start);
        let began = Instant::now();
        let stream = futures::stream::unfold((start, seat), move |(at, seat)| {
            let sent = at - start;
            let bad = rng.chance(plan.corrupt);
            let (data, plan) = (data.clone(), plan.clone());
            async move {
                if at >= end {
                    return None;
                }
                if plan.cut.is_some_and(|c| sent >= c) {
                    return Some((Err(Error::new(Kind::Reset, "fetch").on(&plan.label)), (end, seat)));
                }
                if plan.stall.is_some_and(|s| sent >= s) {
                    std::future::pending::<()>().await;
                }
                let next = (at + CHUNK).min(end);
                // From the beginning, so that rounding to the timer's grain does not add up.
                let due = began + Duration::from_secs_f64((next - start) as f64 / plan.rate);
                tokio::time::sleep_until(due).await;
                let mut chunk = data.slice(at as usize..next as usize);
                if bad {
                    let mut wrong = chunk.to_vec();
                    wrong[0] ^= 1;
                    chunk = wrong.into();
                }
                Some((Ok(chunk), (next, seat)))
            }
        });
        let at = if self.plan.lengthless { Span::from(start) } else { Span::new(start, end) };
        Ok(Body::new(at, self.identity.clone(), Box::pin(stream)))
    }
}
