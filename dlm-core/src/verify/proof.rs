//! Proofs: what a right piece is.

use std::fmt::Debug;
use std::ops::Range;

/// What a proof says of the piece that holds an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Piece {
    /// The piece is these bytes of the object.
    At(Range<u64>),
    /// It will be known later (layers of a hash tree, part sizes that come with the last answer).
    ///
    /// It is asked again when bytes of the piece are written, with each new evidence for the object (a source that has
    /// learnt more passes the same proof to [`Work::learn`](crate::Work::learn) again), and once every byte is there.
    /// Until then nobody judges these bytes; a file with such bytes waits while somebody holds a
    /// [`discovering`](crate::Work::discovering) guard, and no longer. In what leaves in order they are not judged at
    /// all.
    NotYet,
    /// This proof says nothing about that offset.
    Never,
}

/// A judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The bytes are right.
    Good,
    /// The bytes are wrong.
    Bad,
    /// This proof cannot tell.
    CannotTell,
}

/// Hashes of pieces of an object, of one length or of many.
///
/// [`piece_at`](Self::piece_at) and [`next_after`](Self::next_after) run under the job's lock: O(log n), no blocking.
/// Nothing else does.
/// Offsets are in bytes of the object.
pub trait Proof: Debug + Send + Sync + 'static {
    /// Which piece holds `offset`. The answers for the offsets of one piece are the same.
    fn piece_at(&self, offset: u64) -> Piece;

    /// Where the first piece begins that lies behind `offset`, for proofs with holes between their pieces: where they
    /// say [`Piece::Never`] or [`Piece::NotYet`]. `None`: there is no piece behind a hole.
    fn next_after(&self, offset: u64) -> Option<u64> {
        let _ = offset;
        None
    }

    /// A hasher for `piece`, one that [`piece_at`](Self::piece_at) gave, or `None` where it cannot be judged. Not under
    /// the lock.
    fn begin(&self, piece: &Range<u64>) -> Option<Box<dyn PieceHasher>>;

    /// For proofs that speak only of the whole (composite and combined checksums): asked once every byte is there and
    /// every piece was judged, without the job's lock. Quick: what it needs was gathered before.
    fn conclude(&self) -> Verdict {
        Verdict::CannotTell
    }
}

/// Judges one piece.
pub trait PieceHasher: Send {
    /// Takes bytes of the object from offset `at`. `false`: it cannot take this offset now (most hashes only go
    /// forward); the bytes are read back later and offered in order.
    fn update(&mut self, at: u64, bytes: &[u8]) -> bool;

    /// The verdict, once all of the piece was taken.
    fn finish(self: Box<Self>) -> Verdict;
}
