//! What happened: events with sequence numbers, and a snapshot that is always up to date.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::digest::Algorithm;
use crate::error::Error;
use crate::object::{FileId, JobId, ObjectId};

/// Something that happened to a job.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event {
    /// Sequence number of the engine: it only grows, and no two events share one. (That of [`EventKind::Lagged`] says
    /// where a gap ends, and may be the number of an event that is gone, or of another job's.)
    pub seq: u64,
    /// Which job.
    pub job: JobId,
    /// When.
    pub at: SystemTime,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventKind {
    /// The job went into another state.
    State(JobState),
    /// A file was found.
    Found {
        /// Which file.
        file: FileId,
        /// Its path, as the source suggests it.
        path: String,
        /// Its length in bytes, when it is known.
        len: Option<u64>,
    },
    /// A partial from an earlier run is continued.
    Resumed {
        /// Of which object.
        object: ObjectId,
        /// Bytes that were found good.
        bytes: u64,
        /// Bytes that were claimed and found damaged.
        damaged: u64,
    },
    /// An object starts over, and why.
    Restarted {
        /// Which object.
        object: ObjectId,
        /// Why.
        why: Error,
    },
    /// A source failed in a way that may pass; it is tried again after this long.
    Retrying {
        /// The source's label.
        source: Arc<str>,
        /// What went wrong.
        error: Error,
        /// The pause.
        after: Duration,
    },
    /// A source is given up for this job.
    SourceFailed {
        /// The source's label.
        source: Arc<str>,
        /// Why.
        error: Error,
    },
    /// Wrong bytes, and who delivered them.
    Blamed {
        /// The parties' labels.
        suspects: Vec<Arc<str>>,
        /// Of which object.
        object: ObjectId,
        /// Which bytes.
        range: Range<u64>,
    },
    /// A party delivered wrong bytes beyond doubt, and may deliver nothing more.
    Banned {
        /// Its label.
        party: Arc<str>,
    },
    /// A file is in place, verified.
    Committed {
        /// Which file.
        file: FileId,
    },
    /// The reader was too slow and missed this many events, or more happened at once than were kept: look at the
    /// snapshot. All of this job's events up to this one's number that did not come are gone.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobState {
    /// Finding out what there is.
    Resolving,
    /// Checking what an earlier run left.
    Checking,
    /// Fetching.
    Running,
    /// Every byte is there; the last proofs are made.
    Verifying,
    /// Everything is in place.
    Done,
    /// It failed.
    Failed,
}

/// What verified an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerifiedBy {
    /// Framing, length and validators only.
    Transport,
    /// A digest of the whole.
    Digest(Algorithm),
    /// Digests of its pieces.
    Pieces,
}

/// How far a job is; replaced several times a second, never queued.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot {
    /// Where it stands.
    pub state: JobState,
    /// The length of everything found so far, when all of it is known, in bytes.
    pub total: Option<u64>,
    /// Bytes written or verified.
    pub done: u64,
    /// Bytes accepted from sources in this run, duplicates not counted.
    pub received: u64,
    /// Bytes that came although somebody else had delivered them already.
    pub duplicate: u64,
    /// Recent speed in bytes a second.
    pub speed: u64,
    /// Leases that run.
    pub leases: u32,
    /// Files found, and files in place.
    pub files: (u32, u32),
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            state: JobState::Resolving,
            total: None,
            done: 0,
            received: 0,
            duplicate: 0,
            speed: 0,
            leases: 0,
            files: (0, 0),
        }
    }
}
