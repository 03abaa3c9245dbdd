//! Pieces with a digest each: of one length, or of many.

use std::ops::Range;

use super::proof::{Piece, PieceHasher, Proof, Verdict};
use crate::digest::{Digest, Hasher};

/// Pieces of one length; the last may be shorter.
#[derive(Debug, Clone)]
pub struct FixedPieces {
    piece: u64,
    total: u64,
    digests: Vec<Digest>,
}

impl FixedPieces {
    /// Pieces of `piece` bytes of an object of `total` bytes. `None` unless there is exactly one digest a piece, and a
    /// piece has a length. Holds the digests, and no more.
    pub fn new(piece: u64, total: u64, digests: Vec<Digest>) -> Option<Self> {
        (piece > 0 && total.div_ceil(piece) == digests.len() as u64).then_some(Self { piece, total, digests })
    }
}

impl Proof for FixedPieces {
    fn piece_at(&self, offset: u64) -> Piece {
        if offset >= self.total {
            return Piece::Never;
        }
        let start = offset - offset % self.piece;
        Piece::At(start..start.saturating_add(self.piece).min(self.total))
    }

    fn begin(&self, piece: &Range<u64>) -> Option<Box<dyn PieceHasher>> {
        if self.piece_at(piece.start) != Piece::At(piece.clone()) {
            return None;
        }
        let want = self.digests.get(usize::try_from(piece.start / self.piece).ok()?)?;
        Some(Box::new(InOrder {
            at: piece.start,
            end: piece.end,
            hasher: want.algorithm().hasher(),
            want: want.clone(),
        }))
    }
}

/// Pieces of any lengths, which need not touch each other: blocks of a hash tree, parts of an upload. More may be
/// added while the job runs, by handing in another proof.
#[derive(Debug, Clone, Default)]
pub struct VariablePieces {
    /// In order of offset, none overlapping another.
    pieces: Vec<(Range<u64>, Digest)>,
}

impl VariablePieces {
    /// `None` when a piece is empty or two overlap.
    pub fn new(mut pieces: Vec<(Range<u64>, Digest)>) -> Option<Self> {
        pieces.sort_by_key(|(r, _)| r.start);
        let good = pieces.iter().all(|(r, _)| r.start < r.end)
            && pieces.windows(2).all(|w| w[0].0.end <= w[1].0.start);
        good.then_some(Self { pieces })
    }

    fn find(&self, offset: u64) -> Option<&(Range<u64>, Digest)> {
        let i = self.pieces.partition_point(|(r, _)| r.end <= offset);
        self.pieces.get(i).filter(|(r, _)| r.contains(&offset))
    }
}

impl Proof for VariablePieces {
    fn piece_at(&self, offset: u64) -> Piece {
        self.find(offset).map_or(Piece::Never, |(r, _)| Piece::At(r.clone()))
    }

    fn next_after(&self, offset: u64) -> Option<u64> {
        let i = self.pieces.partition_point(|(r, _)| r.start <= offset);
        self.pieces.get(i).map(|(r, _)| r.start)
    }

    fn begin(&self, piece: &Range<u64>) -> Option<Box<dyn PieceHasher>> {
        let (r, want) = self.find(piece.start).filter(|(r, _)| r == piece)?;
        Some(Box::new(InOrder {
            at: r.start,
            end: r.end,
            hasher: want.algorithm().hasher(),
            want: want.clone(),
        }))
    }
}

struct InOrder {
    at: u64,
    end: u64,
    hasher: Hasher,
    want: Digest,
}

impl PieceHasher for InOrder {
    fn update(&mut self, at: u64, bytes: &[u8]) -> bool {
        if at != self.at || bytes.len() as u64 > self.end - at {
            return false;
        }
        self.hasher.push(bytes);
        self.at += bytes.len() as u64;
        true
    }

    fn finish(self: Box<Self>) -> Verdict {
        if self.at != self.end {
            Verdict::CannotTell
        } else if self.hasher.finish() == self.want {
            Verdict::Good
        } else {
            Verdict::Bad
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    fn digest(b: &[u8]) -> Digest {
        Algorithm::Sha1.hasher().update(b).finish()
    }

    #[test]
    fn fixed_pieces_judge_the_last_short_one() {
        let p = FixedPieces::new(4, 6, vec![digest(b"abcd"), digest(b"ef")]).unwrap();
        assert_eq!(p.piece_at(5), Piece::At(4..6));
        assert_eq!(p.piece_at(6), Piece::Never);
        let mut h = p.begin(&(4..6)).unwrap();
        assert!(!h.update(5, b"f"), "only forward");
        assert!(h.update(4, b"e") && h.update(5, b"f"));
        assert_eq!(h.finish(), Verdict::Good);
        let mut h = p.begin(&(0..4)).unwrap();
        assert!(h.update(0, b"abcx"));
        assert_eq!(h.finish(), Verdict::Bad);
        assert!(p.begin(&(0..6)).is_none());
        assert!(FixedPieces::new(4, 9, vec![digest(b""); 2]).is_none());
    }

    #[test]
    fn variable_pieces_leave_holes() {
        let p = VariablePieces::new(vec![(10..12, digest(b"xy")), (0..3, digest(b"abc"))]).unwrap();
        assert_eq!(p.piece_at(2), Piece::At(0..3));
        assert_eq!(p.piece_at(5), Piece::Never);
        assert!(VariablePieces::new(vec![(0..3, digest(b"")), (2..4, digest(b""))]).is_none());
        assert_eq!(p.begin(&(10..12)).unwrap().finish(), Verdict::CannotTell);
    }
}
