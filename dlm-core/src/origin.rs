//! What an engine knows of one origin, whichever job found it out: how many connections it allows, when it wants rest.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::throttle::Bucket;

/// What was learnt of an origin's patience is tried again after this long: one bad day does not last for months.
const FORGET: Duration = Duration::from_mins(10);

/// One politeness key ([`SourceInfo::key`](crate::SourceInfo)), shared by all jobs of an engine.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) bucket: Bucket,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    rest_until: Option<Instant>,
    most: Option<(u32, Instant)>,
}

impl Origin {
    /// With so many bytes a second at most.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { bucket: Bucket::new(rate), known: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It asked not to be asked before this moment.
    pub(crate) fn rest(&self, until: Instant) {
        let mut k = self.lock();
        k.rest_until = Some(k.rest_until.map_or(until, |t| t.max(until)));
    }

    /// Until when it wants rest, if that is still to come.
    pub(crate) fn resting(&self, now: Instant) -> Option<Instant> {
        self.lock().rest_until.filter(|t| *t > now)
    }

    /// It refused another connection beside this many.
    pub(crate) fn allows(&self, most: u32, now: Instant) {
        let mut k = self.lock();
        let known = k.most.filter(|(_, at)| now.saturating_duration_since(*at) < FORGET);
        k.most = Some((known.map_or(most, |(m, _)| m.min(most)).max(1), now));
    }

    /// The most connections it is known to allow.
    pub(crate) fn allowed(&self, now: Instant) -> Option<u32> {
        self.lock().most.filter(|(_, at)| now.saturating_duration_since(*at) < FORGET).map(|(m, _)| m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_rest_and_the_least_number_hold_for_a_while() {
        let (o, now) = (Origin::new(None), Instant::now());
        assert_eq!((o.resting(now), o.allowed(now)), (None, None));
        o.rest(now + Duration::from_secs(9));
        o.rest(now + Duration::from_secs(3));
        assert_eq!(o.resting(now), Some(now + Duration::from_secs(9)));
        assert_eq!(o.resting(now + Duration::from_secs(9)), None);
        o.allows(4, now);
        o.allows(6, now);
        assert_eq!(o.allowed(now), Some(4));
        o.allows(0, now);
        assert_eq!(o.allowed(now), Some(1));
        assert_eq!(o.allowed(now + FORGET), None);
        o.allows(7, now + FORGET);
        assert_eq!(o.allowed(now + FORGET), Some(7));
    }
}
