//! Where bytes go.

pub(crate) mod file;
mod memory;
mod stream;

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::event::VerifiedBy;
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
    /// Most useful length of one write, in bytes; the engine gathers up to about this much.
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
    /// The finished file is there already and is the right one, by its digest, or (`Transport`) by its length and
    /// modification time or because the user says so: nothing needs to be fetched, and it will not be committed.
    Complete(VerifiedBy),
}

/// Where the bytes of one job go.
///
/// The engine never has two writes of one range in flight, and writes nothing before [`prepare`](Self::prepare) of a
/// file of that object succeeded. Offsets and lengths are in bytes, and offsets are those of the object.
///
/// **Blocking.** These calls run on the engine's own tasks. What can wait (for a disk, a lock, the network) belongs on
/// threads made for that ([`tokio::task::spawn_blocking`]). What is known to be short may be done at once: [`FileSink`]
/// writes up to 1 MiB in place while the writes before it took less than 2 ms, as writes into the page cache do.
///
/// **Cancellation.** Every call may be dropped at any await. Its effect is then unknown: nothing of it, a part of it or
/// all of it has happened, or will. The engine counts a write that was dropped as not done, and calls of one object
/// that follow may meet the end of it.
///
/// **Errors.** Beside those that a call names: [`Bug`](crate::Kind::Bug) for an object or a file that was not prepared,
/// [`Shutdown`](crate::Kind::Shutdown) where the runtime ends. A job does not go on after an error of
/// [`set_len`](Self::set_len), [`write`](Self::write), [`sync`](Self::sync) or [`truncate`](Self::truncate).
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

    /// Files that were found and are not wanted, each once, instead of [`prepare`](Self::prepare). No name is taken for
    /// them, and they are not committed. But a piece that reaches into one from a wanted file is fetched whole, so that it
    /// can be proven: such bytes are [written](Self::write) and [read](Self::read) as all others are, and are to be kept
    /// apart. A file that is wanted later is prepared then, and what is held of it goes along. An answer for each, in the
    /// same order.
    ///
    /// A job with such files ends with [`abort`](Self::abort)([`Keep::Nothing`]) also where it succeeds, so that what was
    /// kept apart, and what was begun of files that are no longer wanted, is removed.
    ///
    /// # Errors (a file)
    /// [`Unsupported`](crate::Kind::Unsupported), unless a sink says otherwise: it cannot leave files out.
    /// [`Busy`](crate::Kind::Busy), [`Io`](crate::Kind::Io).
    async fn set_aside(&self, files: &[FileSpec]) -> Vec<(FileId, Result<()>)> {
        let refuse = |f: &FileSpec| {
            let why = "this kind of output cannot leave out files";
            (f.id, Err(Error::new(Kind::Unsupported, "leave out the file").on(&f.path).because(why)))
        };
        files.iter().map(refuse).collect()
    }

    /// An object's length became known, or another: what lies behind it is cut off. May look for room for all of it.
    ///
    /// # Errors
    /// [`NoSpace`](crate::Kind::NoSpace) where so much does not fit; [`Changed`](crate::Kind::Changed) where what has
    /// left a pipe cannot be cut off any more; [`Io`](crate::Kind::Io).
    async fn set_len(&self, object: ObjectId, len: u64) -> Result<()>;

    /// Writes all of the batch, or fails. After a failure any part of it may be there.
    ///
    /// # Errors
    /// [`NoSpace`](crate::Kind::NoSpace), [`Io`](crate::Kind::Io); [`Bug`](crate::Kind::Bug) for bytes behind the
    /// object's length, or out of turn where [`Order::Next`] holds.
    async fn write(&self, batch: Batch) -> Result<()>;

    /// Reads back what was written: all of `range`, or fails. An empty range gives no bytes. Takes as much memory as
    /// the range is long; an implementation may refuse long ones.
    ///
    /// # Errors
    /// [`Unsupported`](crate::Kind::Unsupported) where [`SinkCaps::readable`] is false;
    /// [`Corrupt`](crate::Kind::Corrupt) where there are fewer bytes than that; [`Invalid`](crate::Kind::Invalid) for a
    /// range that is too long; [`Io`](crate::Kind::Io).
    async fn read(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes>;

    /// Makes what was written survive a power cut. Covers the writes that returned before it was called.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io), [`NoSpace`](crate::Kind::NoSpace): none of it may be claimed.
    async fn sync(&self, objects: &[ObjectId]) -> Result<()>;

    /// Puts finished, verified files under their final names, each by one atomic step. An answer for each, in the
    /// same order. Dropped in the middle, some of them may be in place and others not, and none half.
    ///
    /// # Errors (a file)
    /// As [`prepare`](Self::prepare); a file that failed keeps its partial.
    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)>;

    /// Forgets an object's bytes and its length: it starts over. No write of it is in flight.
    ///
    /// # Errors
    /// [`Changed`](crate::Kind::Changed) where bytes have left and cannot be taken back; [`Io`](crate::Kind::Io).
    async fn truncate(&self, object: ObjectId) -> Result<()>;

    /// The job ends without having finished, or with files that were not wanted; what was committed stays. Nothing is
    /// written after it.
    ///
    /// # Errors
    /// [`Io`](crate::Kind::Io) where a partial could not be kept or removed as asked; the job has ended all the same.
    async fn abort(&self, keep: Keep) -> Result<()>;
}
