//! A journal in memory: for tests, and for results that nobody wants to resume.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Checkpoint, Journal, Record, Saved};
use crate::error::Result;
use crate::sink::Keep;

/// Keeps records in memory. A clone shares them, so one can be given to a second job that resumes the first. Bounded
/// only by what is recorded.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    records: Vec<Record>,
    closed: Option<Keep>,
}

impl MemoryJournal {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that an earlier job has left.
    pub fn with(records: impl IntoIterator<Item = Record>) -> Self {
        let records = records.into_iter().collect();
        Self(Arc::new(Mutex::new(Inner { records, closed: None })))
    }

    /// What was recorded, in order.
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// How it was closed last, if it was.
    pub fn closed(&self) -> Option<Keep> {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn load(&self) -> Result<Option<Saved>> {
        let inner = self.lock();
        Ok((!inner.records.is_empty()).then(|| Saved::replay(&inner.records)))
    }

    async fn record(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.lock().records.extend_from_slice(&checkpoint.records);
        Ok(())
    }

    async fn close(&self, keep: Keep) -> Result<()> {
        let mut inner = self.lock();
        inner.closed = Some(keep);
        if keep == Keep::Nothing {
            inner.records.clear();
        }
        Ok(())
    }
}
