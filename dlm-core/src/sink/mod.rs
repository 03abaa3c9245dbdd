//! Where bytes go.

pub(crate) mod file;
mod memory;
mod stream;

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::object::{FileId, FileSpec, ObjectId};

pub use file::{FileSink, FileSinkBuilder, IfExists};
pub use memory::MemorySink;
pub use stream::StreamSink;

/// In which order a sink takes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// Any.
    Any,
    /// Only the next byte of the object that is not finished yet: the engine reorders.
    Next,
}

/// What a sink can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkCaps {
    /// In which order it takes bytes.
    pub order: Order,
    /// Whether [`Sink::read`] works. Where it does not, pieces are verified before they are written.
    pub readable: bool,
    /// Most useful length of one write, in bytes.
    pub batch: usize,
}

impl SinkCaps {
    /// Takes any order and can be read.
    pub const RANDOM: Self = Self { order: Order::Any, readable: true, batch: 1 << 20 };
    /// A pipe.
    pub const ORDERED: Self = Self { order: Order::Next, readable: false, batch: 256 << 10 };
}

/// Contiguous bytes to write at one place.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Batch {
    /// Which object.
    pub object: ObjectId,
    /// The first byte's offset in the object.
    pub at: u64,
    /// The bytes, as they came from the socket, never empty ones.
    pub bufs: Vec<Bytes>,
    /// The sum of their lengths.
    pub len: u64,
}

impl Batch {
    /// A batch of these buffers; empty ones are left out.
    pub fn new(object: ObjectId, at: u64, mut bufs: Vec<Bytes>) -> Self {
        bufs.retain(|b| !b.is_empty());
        let len = bufs.iter().map(|b| b.len() as u64).sum();
        Self { object, at, bufs, len }
    }
    /// Which bytes of the object these are.
    pub fn range(&self) -> Range<u64> {
        self.at..self.at + self.len
    }
}

/// What to do with a partial result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Keep {
    /// Keep it, to go on later.
    Partial,
    /// Remove it.
    Nothing,
}

/// What [`Sink::prepare`] found for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Prepared {
    /// It can be written.
    Ready,
    /// The finished file is there already and is the right one (its digest, or its length and modification time,
    /// match): nothing needs to be fetched, and it will not be committed.
    Complete,
}

/// Where the bytes of one job go.
///
/// The engine never has two writes of one range in flight, and writes nothing before [`prepare`](Self::prepare) of a
/// file of that object succeeded. Every call may be dropped; a write that was dropped counts as not done, and may
/// still happen. An implementation does its blocking work on threads of its own.
#[async_trait]
pub trait Sink: Debug + Send + Sync + 'static {
    /// What it can do; asked once.
    fn caps(&self) -> SinkCaps;

    /// Makes place for files that were found: names are settled, locks taken, room is looked for. Called once for
    /// each file, before its first byte, with what is new. An answer for each, in the same order.
    ///
    /// # Errors (a file)
    /// [`Exists`](crate::Kind::Exists): the final name is taken. [`Busy`](crate::Kind::Busy): somebody else is at it.
    /// [`NoSpace`](crate::Kind::NoSpace), [`Io`](crate::Kind::Io).
    async fn prepare(&self, added: &[FileSpec]) -> Vec<(FileId, Result<Prepared>)>;

    /// An object's length became known, or another: what lies behind it is cut off.
    async fn set_len(&self, object: ObjectId, len: u64) -> Result<()>;

    /// Writes all of the batch, or fails.
    async fn write(&self, batch: Batch) -> Result<()>;

    /// Reads back what was written: all of `range`, or fails.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Kind::Unsupported) where [`SinkCaps::readable`] is false.
    async fn read(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes>;

    /// Makes what was written survive a power cut.
    async fn sync(&self, objects: &[ObjectId]) -> Result<()>;

    /// Puts finished, verified files under their final names, each by one atomic step. An answer for each, in the
    /// same order.
    ///
    /// # Errors (a file)
    /// As [`prepare`](Self::prepare); a file that failed keeps its partial.
    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)>;

    /// Forgets an object's bytes: it starts over.
    async fn truncate(&self, object: ObjectId) -> Result<()>;

    /// The job ends without having finished; what was committed stays.
    async fn abort(&self, keep: Keep) -> Result<()>;
}
