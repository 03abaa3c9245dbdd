//! Rate limits: a bucket each for engine, job and politeness key, in a chain.
//!
//! A bucket is kept as one instant, the moment at which its debt is paid (the generic cell rate algorithm). Charging
//! never waits; waiting is done before the next read, so the bytes of one read may run ahead and are paid for after.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What may be saved up while nothing is read.
const BURST: Duration = Duration::from_millis(20);

/// Every chunk asks every bucket of its chain: one without a limit costs a load and no lock.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Bytes a second; 0: no limit.
    rate: AtomicU64,
    paid_at: Mutex<Option<Instant>>,
}

fn rate_of(limit: Option<u64>) -> u64 {
    limit.map_or(0, |r| r.max(1))
}

impl Bucket {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: AtomicU64::new(rate_of(rate)), paid_at: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.paid_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rate and the lock, where there is a limit. A change that is made meanwhile counts from the next call on.
    fn limited(&self) -> Option<(u64, MutexGuard<'_, Option<Instant>>)> {
        match self.rate.load(Ordering::Relaxed) {
            0 => None,
            rate => Some((rate, self.lock())),
        }
    }

    /// Changes the limit; debt already made is forgotten.
    pub(crate) fn set_rate(&self, rate: Option<u64>) {
        let mut paid_at = self.lock();
        *paid_at = None;
        self.rate.store(rate_of(rate), Ordering::Relaxed);
    }

    pub(crate) fn charge(&self, bytes: u64, now: Instant) {
        let Some((rate, mut paid_at)) = self.limited() else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let floor = now.checked_sub(BURST).unwrap_or(now);
        *paid_at = Some(paid_at.map_or(floor, |t| t.max(floor)) + cost);
    }

    /// When the next read may begin; `None`: at once.
    pub(crate) fn ready_at(&self, now: Instant) -> Option<Instant> {
        let (_, paid_at) = self.limited()?;
        paid_at.filter(|t| *t > now)
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

    #[test]
    fn without_a_limit_nobody_waits_for_anybody() {
        let b = std::sync::Arc::new(Bucket::new(None));
        let held = b.lock();
        let (tx, rx) = std::sync::mpsc::sync_channel(1);
        let other = b.clone();
        std::thread::spawn(move || {
            other.charge(1, Instant::now());
            let _ = tx.send(other.ready_at(Instant::now()));
        });
        assert_eq!(rx.recv_timeout(Duration::from_secs(10)), Ok(None), "it took the lock");
        drop(held);
    }
}
