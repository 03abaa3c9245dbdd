//! How fast something delivers, smoothed.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest stretch that makes a sample.
const SAMPLE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    rate: Option<f64>,
    bytes: u64,
    since: Option<Instant>,
}

impl Meter {
    /// Bytes a second.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Counting begins, or goes on after we ourselves had to wait for `pause`.
    pub(crate) fn start(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Time that does not count.
    pub(crate) fn exclude(&mut self, pause: Duration) {
        if let Some(s) = &mut self.since {
            *s += pause;
        }
    }

    /// Bytes came. Returns a new sample when there is one.
    pub(crate) fn add(&mut self, bytes: u64, now: Instant) -> Option<f64> {
        let since = *self.since.get_or_insert(now);
        self.bytes += bytes;
        let took = now.saturating_duration_since(since);
        if took < SAMPLE {
            return None;
        }
        let sample = self.bytes as f64 / took.as_secs_f64();
        self.mix(sample);
        (self.bytes, self.since) = (0, Some(now));
        Some(sample)
    }

    /// Takes a sample that somebody else measured.
    pub(crate) fn mix(&mut self, sample: f64) {
        self.rate = Some(self.rate.map_or(sample, |r| r * 0.6 + sample * 0.4));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn our_own_waiting_does_not_look_like_a_slow_source() {
        let (mut a, mut b) = (Meter::default(), Meter::default());
        a.start(Instant::now());
        b.start(Instant::now());
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            a.add(1000, Instant::now());
            tokio::time::sleep(Duration::from_millis(30)).await;
            a.exclude(Duration::from_millis(30));
            b.add(1000, Instant::now());
        }
        let (a, b) = (a.rate().unwrap(), b.rate().unwrap());
        assert!((90e3..=110e3).contains(&a), "{a}");
        assert!((22e3..=28e3).contains(&b), "{b}");
    }
}
