//! A source: an origin, a login, a bucket, a swarm. It asks the ledger for work and delivers bytes.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::ledger::Work;

/// Who a source is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SourceInfo {
    /// The backend's name: "http", "ftp".
    pub backend: &'static str,
    /// What shares connections, limits and patience: an origin, a login. Holds no secret.
    pub key: Arc<str>,
    /// For people; holds no secret.
    pub label: Arc<str>,
}

impl SourceInfo {
    /// All three parts.
    pub fn new(backend: &'static str, key: impl Into<Arc<str>>, label: impl Into<Arc<str>>) -> Self {
        Self { backend, key: key.into(), label: label.into() }
    }
}

/// Where a transfer may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Seek {
    /// Any range.
    Any,
    /// Any start, but then it runs to the end (FTP).
    StartOnly,
    /// Only from the first byte.
    None,
}

/// What it costs to stop a transfer early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AbortCost {
    /// Nothing worth counting (an HTTP/2 stream, a block).
    Stream,
    /// A connection, which has to be made again (HTTP/1.1, FTP).
    Connection,
}

/// What a binding can do, measured from its first answer. The ledger may take it back
/// ([`Lease::downgrade`](crate::Lease::downgrade)) when a later answer shows less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Caps {
    /// Where a transfer may start.
    pub seek: Seek,
    /// Most transfers at once that this source allows for this object; with 0 it never gets any work.
    pub max_parallel: u32,
    /// What it costs to stop early.
    pub abort: AbortCost,
    /// The source checks whole pieces itself before it delivers them, so the engine need not hash them again: a piece
    /// counts as proven by a table of pieces when all of it came from the table's author, which is the source that
    /// learnt it, or the one bound before it where it was found by resolving. By tables of others it is hashed.
    pub self_verifying: bool,
}

impl Caps {
    /// Any range, as many at once as the policy likes.
    pub const RANGES: Self =
        Self { seek: Seek::Any, max_parallel: u32::MAX, abort: AbortCost::Connection, self_verifying: false };
    /// One transfer from the start, and no other.
    pub const STREAM: Self =
        Self { seek: Seek::None, max_parallel: 1, abort: AbortCost::Connection, self_verifying: false };

    /// The same, with at most `n` transfers at once.
    pub const fn max_parallel(mut self, n: u32) -> Self {
        self.max_parallel = n;
        self
    }
    /// The same, with another cost of stopping.
    pub const fn abort(mut self, abort: AbortCost) -> Self {
        self.abort = abort;
        self
    }
    /// The same, starting elsewhere.
    pub const fn seek(mut self, seek: Seek) -> Self {
        self.seek = seek;
        self
    }
    /// The same, for a source that checks whole pieces itself.
    pub const fn self_verifying(mut self) -> Self {
        self.self_verifying = true;
        self
    }
}

/// How a source's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Exit {
    /// There was nothing left to do, or the job stopped.
    Done,
}

/// The long form of a source: it chooses its own order and claims what it chose.
///
/// Nearly every backend writes the shorter [`RangeSource`](crate::RangeSource) instead and gets workers, retry,
/// resume in mid-stream and identity checks from [`Ranged`](crate::Ranged).
///
/// **Cancellation.** The future of [`run`](Self::run) may be dropped at any await; every lease then gives back what
/// it had not delivered. After [`Work::stopped`] resolves, `run` returns within two seconds or is dropped.
#[async_trait]
pub trait Source: Debug + Send + Sync + 'static {
    /// Who this is. Two sources with one `key` share limits.
    fn info(&self) -> SourceInfo;

    /// Drives itself until there is nothing left to do. Called once a job; and again after it has returned, when it is
    /// bound to something new, or when something of what it has is missing (what it delivered was wrong, or it stopped
    /// early). A run that brings nothing is the last one: the source is given up.
    ///
    /// Runs on a task of its own. May be dropped at any await, as the trait says: what it has delivered is the job's.
    ///
    /// # Errors
    /// Only when the whole source is of no more use; one object failing is [`Lease::fail`](crate::Lease::fail).
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit>;
}
