//! What survives of one job.

mod memory;
mod replay;
mod sidecar;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::object::Identity;
use crate::sink::Keep;

pub use memory::MemoryJournal;
pub use sidecar::SidecarJournal;

/// A claim: these bytes were written, and this was their CRC-32C then. A claim is checked before it is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// Which bytes of the object.
    pub range: Range<u64>,
    /// CRC-32C (Castagnoli) of them.
    pub crc: u32,
}

impl Claim {
    /// Both parts.
    pub const fn new(range: Range<u64>, crc: u32) -> Self {
        Self { range, crc }
    }

    /// This one and the one that follows it, where they touch and are no longer than `most` together.
    pub(crate) fn joined(&self, next: &Self, most: u64) -> Option<Self> {
        let range = self.range.start..next.range.end;
        if self.range.end != next.range.start || range.end - range.start > most {
            return None;
        }
        let crc = crc_fast::checksum_combine(
            crc_fast::CrcAlgorithm::Crc32Iscsi,
            u64::from(self.crc),
            u64::from(next.crc),
            next.range.end - next.range.start,
        );
        Some(Self { range, crc: crc as u32 })
    }
}

/// One thing that happened to an object, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// The object exists, has this length as far as known, and its bytes belong to this version. Recorded again when
    /// the length becomes known.
    Object {
        /// [`ObjectSpec::key`](crate::ObjectSpec::key).
        key: Arc<str>,
        /// Raised each time the object starts over.
        generation: u32,
        /// Which version.
        identity: Identity,
        /// Who had it: the locator, secrets masked.
        remote: Arc<str>,
    },
    /// Bytes were written (and synced, where durability is asked).
    Wrote {
        /// The object.
        key: Arc<str>,
        /// The object's generation when the bytes came.
        generation: u32,
        /// Which bytes.
        claims: Vec<Claim>,
    },
    /// Bytes that were claimed turned out wrong. Recorded before the range may be fetched again.
    Retract {
        /// The object.
        key: Arc<str>,
        /// The object's generation.
        generation: u32,
        /// Which bytes.
        ranges: Vec<Range<u64>>,
    },
    /// The object starts over with this generation; earlier claims are void. Recorded before the sink is truncated.
    Restart {
        /// The object.
        key: Arc<str>,
        /// The new generation.
        generation: u32,
    },
}

/// Records to append together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// In the order in which they happened.
    pub records: Vec<Record>,
    /// Whether the journal must survive a power cut once [`Journal::record`] returns.
    pub durable: bool,
}

impl Checkpoint {
    /// These records, without a sync.
    pub fn new(records: Vec<Record>) -> Self {
        Self { records, durable: false }
    }
    /// The same, and synced if asked.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }
}

/// What is left of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedObject {
    /// [`ObjectSpec::key`](crate::ObjectSpec::key).
    pub key: Arc<str>,
    /// The last generation.
    pub generation: u32,
    /// Which version its bytes belong to.
    pub identity: Identity,
    /// Who had it, secrets masked.
    pub remote: Arc<str>,
    /// What was written, retractions already applied, in order of offset, none overlapping another. A claim of which
    /// a part was retracted is gone whole: its checksum speaks of all of it.
    pub claims: Vec<Claim>,
}

/// What is left of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// In the order in which they were first recorded.
    pub objects: Vec<SavedObject>,
}

impl Saved {
    /// What is left after these records.
    #[allow(
        single_use_lifetimes,
        reason = "an anonymous lifetime is not allowed in an argument's impl Trait"
    )]
    pub fn replay<'r>(records: impl IntoIterator<Item = &'r Record>) -> Self {
        let mut replay = replay::Replay::default();
        records.into_iter().for_each(|r| replay.apply(r));
        replay.finish()
    }

    /// The object with this key.
    pub fn object(&self, key: &str) -> Option<&SavedObject> {
        self.objects.iter().find(|o| &*o.key == key)
    }
}

/// What survives of one job: an append-only list of what the sink has already written.
///
/// Losing the end of the list is harmless: bytes are fetched again. Every claim carries a checksum and is compared with
/// the sink before it is trusted, so that a journal that lies (an older one, a partial changed behind our back) costs a
/// fetch and never a wrong byte.
///
/// Calls of one job come one after the other. Offsets are in bytes of the object.
///
/// **Cancellation.** Every call may be dropped at any await; it may then have happened, or not, or still happen.
#[async_trait]
pub trait Journal: Debug + Send + Sync + 'static {
    /// Reads what is left: a damaged end is cut off, `None` when nothing usable is there. Called before the first
    /// locator is resolved and once more after [`Sink::prepare`](crate::Sink::prepare), when names are settled and locked.
    ///
    /// Changes nothing that a reader could miss: dropped, or called again, it gives the same.
    ///
    /// # Errors
    /// Only where recording would fail too: [`Io`](crate::Kind::Io), also where something has its name that is no
    /// journal; [`Busy`](crate::Kind::Busy) where another process has it. A damaged journal is `Ok(None)`.
    async fn load(&self) -> Result<Option<Saved>>;

    /// Appends. Holds only what the sink has already written (and synced, where durability is asked). A call that
    /// was dropped or has failed may have appended nothing, or all, or a part that the next `load` cuts off.
    ///
    /// # Errors
    /// [`NoSpace`](crate::Kind::NoSpace), [`Io`](crate::Kind::Io), [`Busy`](crate::Kind::Busy);
    /// [`Shutdown`](crate::Kind::Shutdown) after [`close`](Self::close) has removed it.
    async fn record(&self, checkpoint: &Checkpoint) -> Result<()>;

    /// The job ended. [`Keep::Nothing`]: what was recorded is removed. [`Keep::Partial`]: it stays for the next job.
    /// A second call changes nothing.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io): it could not be removed.
    async fn close(&self, keep: Keep) -> Result<()>;
}
