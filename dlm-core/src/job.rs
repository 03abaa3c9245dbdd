//! What a job is asked to do, and what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Options, Timeouts};
use crate::digest::Digest;
use crate::error::Error;
use crate::event::VerifiedBy;
use crate::locator::Locator;
use crate::object::FileId;
use crate::select::Selection;

/// What to download, and how.
///
/// ```
/// # fn main() -> dlm_core::Result<()> {
/// let spec = dlm_core::JobSpec::new("https://host/file".parse()?)
///     .mirror("https://other/file".parse()?)
///     .digest("crc32c:e3069283".parse()?)
///     .connections(4);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JobSpec {
    /// What to download.
    pub locator: Locator,
    /// Other sources of the same bytes.
    pub mirrors: Vec<Locator>,
    /// Digests the result must have; all of them.
    pub digests: BTreeSet<DigestKey>,
    /// Most connections for one file over all its sources; `None`: as many as measured gain supports.
    pub connections: Option<u32>,
    /// Most bytes a second that are taken from the network.
    pub limit_rate: Option<u64>,
    /// Tries without progress, after the first one, before a source is given up.
    pub retries: u32,
    /// The longest pause before a try, also when the source asks for a longer one.
    pub max_pause: Duration,
    /// Time limits of every wait on the network.
    pub timeouts: Timeouts,
    /// Whether success waits until the data would survive a power cut.
    pub durable: bool,
    /// Whether to go on from what an earlier run left.
    pub resume: bool,
    /// Options that only a backend understands.
    pub options: Arc<Options>,
    /// Which files are wanted, and how urgently, before [`JobHandle::select`](crate::JobHandle::select) says otherwise.
    pub selection: Selection,
}

/// A digest, in an order that does not change from run to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestKey(pub Digest);

impl PartialOrd for DigestKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for DigestKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.algorithm(), self.0.value()).cmp(&(other.0.algorithm(), other.0.value()))
    }
}

impl JobSpec {
    /// One locator, with the defaults: 5 tries without progress, resumable, not durable.
    pub fn new(locator: Locator) -> Self {
        Self {
            locator,
            mirrors: Vec::new(),
            digests: BTreeSet::new(),
            connections: None,
            limit_rate: None,
            retries: 5,
            max_pause: Duration::from_secs(30),
            timeouts: Timeouts::default(),
            durable: false,
            resume: true,
            options: Arc::default(),
            selection: Selection::all(),
        }
    }
    /// Another source of the same bytes.
    pub fn mirror(mut self, locator: Locator) -> Self {
        self.mirrors.push(locator);
        self
    }
    /// A digest that the result must have.
    pub fn digest(mut self, digest: Digest) -> Self {
        self.digests.insert(DigestKey(digest));
        self
    }
    /// At most `n` connections for one file; 0 counts as 1.
    pub fn connections(mut self, n: u32) -> Self {
        self.connections = Some(n.max(1));
        self
    }
    /// At most this many bytes a second; 0 counts as 1.
    pub fn limit_rate(mut self, bytes: u64) -> Self {
        self.limit_rate = Some(bytes.max(1));
        self
    }
    /// How often a source is tried again without progress before it is given up; 0: never.
    pub fn retries(mut self, n: u32) -> Self {
        self.retries = n;
        self
    }
    /// The longest pause before a try. A source that asks for a longer one is given up.
    pub fn max_pause(mut self, pause: Duration) -> Self {
        self.max_pause = pause;
        self
    }
    /// Time limits.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
    /// Success waits for the disk.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }
    /// Whether to go on from what an earlier run left.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }
    /// Which files are wanted; without this, all. A digest of the whole cannot judge an object of which only a part is
    /// fetched: then [`FileDone::verified_by`] names what did.
    pub fn select(mut self, selection: Selection) -> Self {
        self.selection = selection;
        self
    }
    /// Options for a backend.
    pub fn options(mut self, options: Options) -> Self {
        self.options = Arc::new(options);
        self
    }
}

/// A file that is in place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FileDone {
    /// Its number in the job.
    pub id: FileId,
    /// The path that its source suggested; the sink knows where it really is.
    pub path: String,
    /// Its length in bytes.
    pub len: u64,
    /// What verified it.
    pub verified_by: VerifiedBy,
    /// It was there before, whole and right.
    pub existed: bool,
}

/// What one source did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SourceReport {
    /// Its label.
    pub label: Arc<str>,
    /// Bytes accepted from it.
    pub bytes: u64,
    /// Why it was given up, if it was.
    pub error: Option<Error>,
}

/// A job that is done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// The files in place.
    pub files: Vec<FileDone>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes accepted in this run.
    pub received: u64,
    /// Bytes that came twice.
    pub duplicate: u64,
    /// Bytes that an earlier run had left and that were good.
    pub resumed: u64,
    /// What each source did.
    pub sources: Vec<SourceReport>,
    /// Running time.
    pub elapsed: Duration,
}
