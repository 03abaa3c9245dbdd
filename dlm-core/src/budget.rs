//! Bytes in flight: accepted, and not yet written (or hashed).
//!
//! A job may use its own share even when others have used up the engine's, so one slow disk does not stop the rest.
//! Lengths are counted, not allocations: the ledger copies what is a small part of a delivery, or short by itself, since
//! it may hold on to a whole read buffer. A source whose buffers are much larger than what it delivers of them at a time
//! copies by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// What one lease may have in flight.
const LEASE: u64 = 3 << 19;
/// What every job of an engine may use however full the engine is.
const SHARE: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
    freed: Notify,
    parent: Option<Arc<Self>>,
}

impl Budget {
    pub(crate) fn engine(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0), freed: Notify::new(), parent: None })
    }

    pub(crate) fn job(parent: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            limit: parent.limit,
            used: AtomicU64::new(0),
            freed: Notify::new(),
            parent: Some(parent.clone()),
        })
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Whether one of `leases` may read another chunk. The chunk itself may overdraw.
    ///
    /// Few leases get less than the whole: more in flight than a write needs to keep up with only falls out of the
    /// processor's cache.
    pub(crate) fn has_room(&self, leases: u64) -> bool {
        let used = self.used();
        used < self.limit.min(LEASE.saturating_mul(leases.max(1)))
            && self.parent.as_ref().is_none_or(|p| p.used() < p.limit || used < SHARE.min(p.limit))
    }

    /// Takes permits, whether there is room or not: the bytes are in memory already.
    pub(crate) fn charge(self: &Arc<Self>, len: u64) -> Permit {
        self.used.fetch_add(len, Ordering::AcqRel);
        if let Some(p) = &self.parent {
            p.used.fetch_add(len, Ordering::AcqRel);
        }
        Permit { budget: self.clone(), len }
    }

    /// Resolves when permits come back, to this job or (where the engine is what is full) to any.
    /// Create it before looking at [`Self::has_room`], so that none is missed. Cancel-safe.
    pub(crate) async fn freed(&self) {
        match &self.parent {
            Some(p) => tokio::select! {
                biased;
                () = self.freed.notified() => {}
                () = p.freed.notified() => {}
            },
            None => self.freed.notified().await,
        }
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Arc<Budget>,
    len: u64,
}

impl Permit {
    /// Joins the permits of bytes that were gathered behind these.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.len += std::mem::take(&mut other.len);
    }

    /// Gives a part of these permits to bytes that go their own way.
    pub(crate) fn split(&mut self, len: u64) -> Self {
        let len = len.min(self.len);
        self.len -= len;
        Self { budget: self.budget.clone(), len }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        let b = &self.budget;
        b.used.fetch_sub(self.len, Ordering::AcqRel);
        b.freed.notify_waiters();
        if let Some(p) = &b.parent {
            p.used.fetch_sub(self.len, Ordering::AcqRel);
            p.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_come_back_and_a_job_keeps_its_share() {
        let engine = Budget::engine(4 << 20);
        let (a, b) = (Budget::job(&engine), Budget::job(&engine));
        let mut p = a.charge(3 << 20);
        p.merge(a.charge(2 << 20));
        assert!(!a.has_room(9) && b.has_room(9), "b has its share although the engine is full");
        let q = b.charge(SHARE);
        assert!(!b.has_room(9));
        let wait = b.freed();
        tokio::pin!(wait);
        assert!(futures::poll!(&mut wait).is_pending());
        drop(p);
        wait.await;
        assert!(a.has_room(1) && b.has_room(1));
        drop(q);
        assert_eq!((engine.used(), a.used(), b.used()), (0, 0, 0));
    }
}
