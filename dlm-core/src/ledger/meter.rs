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
    last: Option<Instant>,
    gap: Duration,
    /// Since when we keep it waiting, and how long we did before.
    waiting: Option<Instant>,
    paused: Duration,
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

    /// The longest it took from one delivery to the next, pauses of our own not counted.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.gap
    }

    /// Since when it waits for ourselves, if it does.
    pub(crate) fn waiting(&self) -> Option<Instant> {
        self.waiting
    }

    /// For how long it waited for ourselves, until now.
    pub(crate) fn paused(&self, now: Instant) -> Duration {
        self.paused + self.waiting.map_or(Duration::ZERO, |w| now.saturating_duration_since(w))
    }

    /// It begins to wait for ourselves: time that will not count.
    pub(crate) fn pause(&mut self, now: Instant) {
        self.waiting = Some(now);
    }

    /// It waited for ourselves for this long: time that does not count.
    pub(crate) fn exclude(&mut self, pause: Duration) {
        for t in [&mut self.since, &mut self.last].into_iter().flatten() {
            *t += pause;
        }
        self.waiting = None;
        self.paused += pause;
    }

    /// Bytes came. Returns a new sample when there is one.
    pub(crate) fn add(&mut self, bytes: u64, now: Instant) -> Option<f64> {
        let since = *self.since.get_or_insert(now);
        self.bytes += bytes;
        self.waiting = None;
        if let Some(last) = self.last.replace(now) {
            self.gap = self.gap.max(now.saturating_duration_since(last));
        }
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

    #[tokio::test(start_paused = true)]
    async fn a_gap_is_between_two_deliveries_and_a_pause_is_ours() {
        let ms = Duration::from_millis;
        let mut m = Meter::default();
        m.start(Instant::now());
        // Until the first bytes came it was no gap.
        tokio::time::sleep(ms(900)).await;
        m.add(1000, Instant::now());
        for (theirs, ours) in [(100, 0), (300, 500), (200, 200)] {
            m.pause(Instant::now());
            tokio::time::sleep(ms(ours)).await;
            m.exclude(ms(ours));
            tokio::time::sleep(ms(theirs)).await;
            m.add(1000, Instant::now());
        }
        m.pause(Instant::now());
        tokio::time::sleep(ms(50)).await;
        assert_eq!((m.longest_gap(), m.paused(Instant::now())), (ms(300), ms(750)));
    }
}
