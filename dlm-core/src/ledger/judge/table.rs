//! A table of pieces: what its proof says of an object, and what was found of it so far.

use std::ops::Range;
use std::sync::Arc;

use crate::object::Span;
use crate::verify::{Piece, Proof};

use super::super::RangeSet;

/// Pieces, which of them were judged, and which were found right.
#[derive(Debug)]
pub(crate) struct Table {
    window: Span,
    pub(super) proof: Arc<dyn Proof>,
    good: RangeSet,
    /// Judged, and not to be taken back by this table: right, or nothing it could tell, or none of its business.
    told: RangeSet,
}

impl Table {
    pub(crate) fn new(window: Span, proof: Arc<dyn Proof>) -> Self {
        Self { window, proof, good: RangeSet::new(), told: RangeSet::new() }
    }

    pub(super) fn is_the_same(&self, other: &Self) -> bool {
        self.window == other.window && std::ptr::addr_eq(Arc::as_ptr(&self.proof), Arc::as_ptr(&other.proof))
    }

    /// The piece that holds `at`, if it can be judged.
    pub(super) fn piece(&self, at: u64) -> Option<Range<u64>> {
        match self.proof.piece_at(at) {
            Piece::At(r) if r.contains(&at) && self.holds(&r) => Some(r),
            _ => None,
        }
    }

    /// Whether the piece that holds `at` will be known later.
    pub(super) fn not_yet(&self, at: u64) -> bool {
        self.window.contains(at) && self.proof.piece_at(at) == Piece::NotYet
    }

    /// One that sticks out of the window cannot be judged.
    fn holds(&self, r: &Range<u64>) -> bool {
        r.start >= self.window.start && self.window.end.is_none_or(|e| r.end <= e)
    }

    /// Where the answer for `at`, which is in no such piece, may change.
    pub(super) fn behind(&self, at: u64) -> u64 {
        let next = match self.proof.piece_at(at) {
            Piece::At(r) => Some(r.end),
            _ => self.proof.next_after(at),
        };
        next.filter(|n| *n > at).unwrap_or(u64::MAX)
    }

    /// Where the first piece may begin that lies behind `at`, which is in none.
    pub(super) fn begins_behind(&self, at: u64) -> Option<u64> {
        let next = match self.proof.piece_at(at) {
            _ if self.window.start > at => Some(self.window.start),
            // One that sticks out of the window.
            Piece::At(r) => Some(r.end),
            _ => self.proof.next_after(at),
        };
        next.filter(|n| *n > at)
    }

    /// The piece was judged and stays: right, or not to be told.
    pub(super) fn tell(&mut self, piece: &Range<u64>, good: bool) {
        self.told.insert(piece.clone());
        if good {
            self.good.insert(piece.clone());
        }
    }

    pub(super) fn is_good(&self, piece: &Range<u64>) -> bool {
        self.good.covers(piece)
    }

    pub(super) fn is_told(&self, piece: &Range<u64>) -> bool {
        self.told.covers(piece)
    }

    /// What it could not tell it may be able to tell now.
    pub(super) fn ask_again(&mut self) {
        self.told = self.good.clone();
    }

    /// These bytes are missing again.
    pub(super) fn forget(&mut self, range: &Range<u64>) {
        self.good.remove(range);
        self.told.remove(range);
    }
}
