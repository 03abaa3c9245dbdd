//! A rate limit that several connections share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Lets bytes pass at a steady rate; whoever comes is put behind those who came before.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: f64,
    free_at: Mutex<Option<Instant>>,
}

impl Bucket {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { rate: bytes_per_second.max(1) as f64, free_at: Mutex::new(None) }
    }

    /// Waits until this many bytes may pass.
    pub(super) async fn take(&self, bytes: usize) {
        let now = Instant::now();
        let turn = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = free_at.map_or(now, |t| t.max(now));
            *free_at = Some(turn + Duration::from_secs_f64(bytes as f64 / self.rate));
            turn
        };
        if turn > now {
            sleep_until(turn).await;
        }
    }
}
