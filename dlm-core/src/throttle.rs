//! Rate limits: a bucket each for engine, job and politeness key, in a chain.
//!
//! A bucket is kept as one instant, the moment at which its debt is paid (the generic cell rate algorithm). Charging
//! never waits; waiting is done before the next read, so the bytes of one read may run ahead and are paid for after.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What may be saved up while nothing is read.
const BURST: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Bucket(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Bytes a second; `None`: no limit.
    rate: Option<u64>,
    paid_at: Option<Instant>,
}

impl Bucket {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self(Mutex::new(State { rate, paid_at: None }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limit; debt already made is forgotten.
    pub(crate) fn set_rate(&self, rate: Option<u64>) {
        let mut s = self.lock();
        s.rate = rate;
        s.paid_at = None;
    }

    pub(crate) fn charge(&self, bytes: u64, now: Instant) {
        let mut s = self.lock();
        let Some(rate) = s.rate else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let floor = now.checked_sub(BURST).unwrap_or(now);
        s.paid_at = Some(s.paid_at.map_or(floor, |t| t.max(floor)) + cost);
    }

    /// When the next read may begin; `None`: at once.
    pub(crate) fn ready_at(&self, now: Instant) -> Option<Instant> {
        let s = self.lock();
        s.rate?;
        s.paid_at.filter(|t| *t > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_average_is_the_rate() {
        let b = Bucket::new(Some(1000));
        let start = Instant::now();
        for _ in 0..100 {
            if let Some(t) = b.ready_at(Instant::now()) {
                tokio::time::sleep_until(t).await;
            }
            b.charge(100, Instant::now());
        }
        let took = start.elapsed().as_secs_f64();
        assert!((9.7..=10.1).contains(&took), "{took}");
        b.set_rate(None);
        b.charge(1 << 40, Instant::now());
        assert_eq!(b.ready_at(Instant::now()), None);
    }
}
