//! How long to wait before the next try, and how many there are.

use std::time::Duration;

use crate::error::{Error, Retry};

/// Tries without progress, counted over all layers of an operation: there is one such budget a source and job, and
/// nothing below it retries by itself.
///
/// Pauses double from 0.2 s up to 5 s and differ by up to a quarter from one counter to the next, so that many jobs
/// which failed together do not come back together.
///
/// ```
/// use dlm_core::{Backoff, Error, Kind};
/// let mut b = Backoff::new(2, std::time::Duration::from_secs(30), 1);
/// let cut = Error::new(Kind::Reset, "fetch");
/// assert!(b.pause(&cut).is_some() && b.pause(&cut).is_some() && b.pause(&cut).is_none());
/// b.progress();
/// assert!(b.pause(&cut).is_some());
/// assert!(b.pause(&Error::new(Kind::NotFound, "fetch")).is_none());
/// ```
#[derive(Debug, Clone)]
pub struct Backoff {
    tries: u32,
    most: u32,
    max_pause: Duration,
    seed: u64,
}

impl Backoff {
    /// At most `most` tries after the first, none after a longer pause than `max_pause`.
    pub fn new(most: u32, max_pause: Duration, seed: u64) -> Self {
        Self { tries: 0, most, max_pause, seed }
    }

    /// Something was gained: the count begins anew.
    pub fn progress(&mut self) {
        self.tries = 0;
    }

    /// Tries without progress so far.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Counts a failure. `None`: give up, because trying again cannot help, has been done often enough, or would
    /// have to wait longer than allowed.
    pub fn pause(&mut self, error: &Error) -> Option<Duration> {
        let asked = match error.retry() {
            Retry::Backoff => Duration::ZERO,
            Retry::After(d) if d <= self.max_pause => d,
            _ => return None,
        };
        if self.tries >= self.most {
            return None;
        }
        self.tries += 1;
        let base = Duration::from_millis(200 << (self.tries - 1).min(5)).min(Duration::from_secs(5));
        // SplitMix64: any fixed mixing will do, it only has to differ between counters.
        let mut x = self.seed.wrapping_add(u64::from(self.tries).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let jitter = base.mul_f64(((x >> 40) as f64) / f64::from(1u32 << 24) / 4.0);
        Some((base + jitter).max(asked).min(self.max_pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn an_answer_that_asks_for_patience_is_obeyed_within_bounds() {
        let ask = |s| Error::new(Kind::Throttled, "fetch").with_retry(Retry::After(Duration::from_secs(s)));
        let mut b = Backoff::new(5, Duration::from_secs(30), 7);
        assert_eq!(b.pause(&ask(3)), Some(Duration::from_secs(3)));
        assert_eq!(b.pause(&ask(999_999)), None);
        let pauses: Vec<_> = (0..4).filter_map(|_| b.pause(&Error::new(Kind::Reset, "fetch"))).collect();
        assert_eq!(pauses.len(), 4);
        assert!(pauses.windows(2).all(|w| w[0] < w[1]), "{pauses:?}");
    }
}
