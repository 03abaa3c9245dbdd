//! Verdicts: pieces, whole digests, blame.
//!
//! A whole digest follows a frontier: bytes that are written just there are hashed while they are in memory, others are
//! read back when the frontier reaches them. Bytes that a piece may still take back are hashed once it has been judged:
//! a digest sees every byte once. A piece is judged when all of it is written (in memory, where the sink
//! cannot be read). A verdict is applied only after the writes it speaks of have returned.

mod blame;
mod memory;
mod pieces;
mod table;
mod whole;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::event::VerifiedBy;
use crate::object::{ObjectId, SourceId, Trust};
use crate::verify::{Proof, Verdict};

use self::pieces::Finished;
pub(crate) use self::table::Table;
use self::whole::{Whole, Worker};
use super::{After, Ledger, ObjectView, RangeSet};

/// Bytes that are read back at a time.
const STEP: u64 = 1 << 20;

/// Evidence and its author.
#[derive(Debug)]
pub(crate) struct Judgement<T> {
    pub(crate) what: T,
    pub(crate) trust: Trust,
    pub(crate) author: Option<SourceId>,
}

/// What judges one object.
#[derive(Debug)]
pub(crate) struct Judge {
    pieces: Vec<Judgement<Table>>,
    digests: Vec<Judgement<Digest>>,
    whole: Option<Whole>,
    /// Workers that hash, those of a digest that was begun anew meanwhile counted, too.
    workers: u32,
    /// Digests that were begun.
    runs: u64,
    /// Pieces found right in memory, on their way to a sink that cannot be read.
    good: RangeSet,
    readable: bool,
    /// Bytes of several sources stood side by side and the digest did not match.
    unmixed: bool,
}

/// Something to check, apart from the lock.
#[derive(Debug)]
pub(crate) enum Check {
    Whole {
        object: ObjectId,
        generation: u32,
        worker: Worker,
    },
    Piece {
        object: ObjectId,
        generation: u32,
        piece: Range<u64>,
        proof: Arc<dyn Proof>,
        /// The number of its table.
        table: usize,
    },
    Memory {
        object: ObjectId,
        generation: u32,
        piece: Range<u64>,
        bufs: Vec<Bytes>,
    },
}

/// What the last proofs say of an object.
#[derive(Debug)]
pub(crate) enum Conclusion {
    /// Something still runs, or more is needed.
    Wait,
    Good(VerifiedBy),
    Bad(Error),
}

impl Judge {
    pub(crate) fn new(readable: bool) -> Self {
        Self {
            pieces: Vec::new(),
            digests: Vec::new(),
            whole: None,
            workers: 0,
            runs: 0,
            good: RangeSet::new(),
            readable,
            unmixed: false,
        }
    }

    pub(crate) fn add_digest(&mut self, d: Judgement<Digest>, after: &mut After) {
        if self.digests.iter().any(|x| x.what == d.what && x.trust == d.trust) {
            return;
        }
        self.digests.push(d);
        // Another algorithm needs the bytes from the start.
        self.hash_anew(after);
    }

    /// Judges by a table of pieces. One that is known already knows more by now: what it could not tell is asked again.
    pub(crate) fn add_pieces(&mut self, p: Judgement<Table>, after: &mut After) {
        let same = |x: &&mut Judgement<Table>| {
            x.trust == p.trust && x.author == p.author && x.what.is_the_same(&p.what)
        };
        match self.pieces.iter_mut().find(same) {
            Some(known) => {
                known.what.ask_again();
                after.discard(p);
            }
            None => self.pieces.push(p),
        }
    }

    /// The object starts over.
    pub(crate) fn reset(&mut self, after: &mut After) {
        self.good.clear();
        self.pieces.iter_mut().for_each(|p| p.what.forget(&(0..u64::MAX)));
        self.hash_anew(after);
    }

    pub(crate) fn busy(&self) -> bool {
        self.workers > 0
    }

    pub(crate) fn has_pieces(&self) -> bool {
        self.pieces.iter().any(|p| p.trust != Trust::Claimed)
    }

    /// Whether some proof lets bytes of several sources stand side by side.
    pub(crate) fn mixes(&self) -> bool {
        self.has_pieces() || (!self.unmixed && self.digests.iter().any(|d| d.trust != Trust::Claimed))
    }

    pub(crate) fn unmix(&mut self) {
        self.unmixed = true;
    }

    pub(crate) fn unmixed(&self) -> bool {
        self.unmixed
    }

    pub(crate) fn knows_good(&self, r: &Range<u64>) -> bool {
        self.good.covers(r)
    }

    fn trusted(&self) -> impl Iterator<Item = &Table> {
        self.pieces.iter().filter(|p| p.trust != Trust::Claimed).map(|p| &p.what)
    }

    /// The least that can be judged around `at`: one trusted piece, or several of which none crosses its borders.
    pub(crate) fn piece_holding(&self, at: u64) -> Option<Range<u64>> {
        let join = |a: Range<u64>, b: Range<u64>| a.start.min(b.start)..a.end.max(b.end);
        let mut whole = self.trusted().filter_map(|t| t.piece(at)).reduce(join)?;
        loop {
            let ends = [whole.start, whole.end - 1];
            let pieces = self.trusted().flat_map(|t| ends.map(|e| t.piece(e))).flatten();
            let wider = pieces.fold(whole.clone(), join);
            if wider == whole {
                return Some(whole);
            }
            whole = wider;
        }
    }

    /// The parts of `range` that every trusted table which speaks of them has found right.
    fn proven(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let (mut out, mut at) = (Vec::new(), range.start);
        while at < range.end {
            let (mut end, mut good) = (range.end, true);
            for t in self.trusted() {
                match t.piece(at) {
                    Some(r) => {
                        good &= t.is_good(&r);
                        end = end.min(r.end);
                    }
                    None => end = end.min(t.behind(at)),
                }
            }
            if good {
                out.push(at..end);
            }
            at = end;
        }
        out
    }

    /// The trusted pieces that lie in `range`, by the numbers of their tables.
    fn pieces_within(&self, range: &Range<u64>) -> Vec<(usize, Range<u64>)> {
        let mut out = Vec::new();
        for (n, t) in self.pieces.iter().enumerate().filter(|(_, p)| p.trust != Trust::Claimed) {
            let mut at = range.start;
            while at < range.end {
                let Some(r) = t.what.piece(at) else {
                    at = t.what.behind(at);
                    continue;
                };
                at = r.end;
                if r.start >= range.start && r.end <= range.end {
                    out.push((n, r));
                }
            }
        }
        out
    }

    /// Whether a trusted table will know more of `range` later.
    fn expects_more(&self, range: &Range<u64>) -> bool {
        self.trusted().any(|t| {
            let mut at = if t.is_told(range) { range.end } else { range.start };
            while at < range.end {
                if t.not_yet(at) {
                    return true;
                }
                at = t.piece(at).map_or_else(|| t.behind(at), |r| r.end);
            }
            false
        })
    }

    /// Bytes are missing again: what was said of pieces with them is void, and a digest that has seen them, too.
    pub(crate) fn forget(&mut self, range: &Range<u64>, after: &mut After) {
        self.pieces.iter_mut().for_each(|p| p.what.forget(range));
        if self.whole.as_ref().is_some_and(|w| w.has_seen(range)) {
            self.hash_anew(after);
        }
    }

    /// As far as this no trusted piece begins behind `at`, which is in none.
    pub(crate) fn unproven_to(&self, at: u64) -> u64 {
        self.trusted().filter_map(|t| t.begins_behind(at)).min().unwrap_or(u64::MAX)
    }
}

/// The end of the run that begins at `at` and whose writes have returned.
fn written_to(v: &ObjectView, at: u64) -> u64 {
    let end = v.done.first_missing(at);
    v.held.next_from(at).map_or(end, |h| end.min(h.max(at)))
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Corrupt, "verify the file")
        .because(why)
        .advise("check where the checksum came from, or try another source")
}

impl Ledger {
    pub(super) async fn check(self: Arc<Self>, check: Check) {
        match check {
            Check::Whole { object, generation, worker } => {
                self.clone().hash_along(object, generation, worker).await;
            }
            Check::Piece { object, generation, piece, proof, table } => {
                let verdict = self.judge_piece(object, &piece, &*proof).await;
                let runs =
                    self.crc_runs(object, &piece, verdict.as_ref().is_ok_and(|v| *v == Verdict::Good)).await;
                self.with(|s, after| match verdict {
                    Ok(verdict) => {
                        let f = Finished { object, generation, piece, table, verdict, runs };
                        s.judged(&f, after);
                    }
                    Err(e) => {
                        if let Some(o) = s.objects.get_mut(&object) {
                            o.checked(table, &piece);
                        }
                        s.fail_job(e, after);
                    }
                });
            }
            Check::Memory { object, generation, piece, bufs } => {
                self.check_memory(object, generation, piece, bufs).await;
            }
        }
        self.with(|s, after| {
            s.running -= 1;
            after.wake_driver();
        });
    }
}
