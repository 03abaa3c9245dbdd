//! Verdicts: pieces, whole digests, blame.
//!
//! A whole digest follows a frontier: bytes that are written just there are hashed while they are in memory, others are
//! read back when the frontier reaches them. A piece is judged when all of it is written (in memory, where the sink
//! cannot be read). A verdict is applied only after the writes it speaks of have returned.

mod blame;
mod memory;
mod pieces;
mod whole;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Permit;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind};
use crate::event::VerifiedBy;
use crate::object::{ObjectId, SourceId, Span, Trust};
use crate::verify::{Piece, Proof, Verdict};

use self::pieces::Finished;
use super::{Ledger, ObjectView, RangeSet};

/// Bytes that are read back at a time.
const STEP: u64 = 1 << 20;

/// Evidence and its author.
#[derive(Debug)]
pub(crate) struct Judgement<T> {
    pub(crate) what: T,
    pub(crate) trust: Trust,
    pub(crate) author: Option<SourceId>,
}

/// Pieces, and which of them were found right.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) window: Span,
    pub(crate) proof: Arc<dyn Proof>,
    pub(crate) good: RangeSet,
}

impl Table {
    /// The piece that holds `at`, if it can be judged.
    fn piece(&self, at: u64) -> Option<Range<u64>> {
        match self.proof.piece_at(at) {
            Piece::At(r) if r.contains(&at) && inside(&r, &self.window) => Some(r),
            _ => None,
        }
    }

    /// Where the answer for `at`, which is in no such piece, may change.
    fn behind(&self, at: u64) -> u64 {
        let next = match self.proof.piece_at(at) {
            Piece::At(r) => Some(r.end),
            _ => self.proof.next_after(at),
        };
        next.filter(|n| *n > at).unwrap_or(u64::MAX)
    }
}

/// What judges one object.
#[derive(Debug)]
pub(crate) struct Judge {
    pieces: Vec<Judgement<Table>>,
    digests: Vec<Judgement<Digest>>,
    whole: Option<Whole>,
    /// Pieces found right in memory, on their way to a sink that cannot be read.
    good: RangeSet,
    readable: bool,
    /// Bytes of several sources stood side by side and the digest did not match.
    unmixed: bool,
}

/// Hashes along the frontier.
#[derive(Debug)]
struct Whole {
    /// With a worker while one runs.
    hashers: Option<Vec<Hasher>>,
    hashed_to: u64,
    /// Where the next bytes offered would have to begin.
    queued_to: u64,
    queue: VecDeque<(Vec<Bytes>, Arc<Permit>)>,
    busy: bool,
}

/// Something to check, apart from the lock.
#[derive(Debug)]
pub(crate) enum Check {
    Whole {
        object: ObjectId,
        generation: u32,
        whole: Vec<Hasher>,
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
            good: RangeSet::new(),
            readable,
            unmixed: false,
        }
    }

    pub(crate) fn add_digest(&mut self, d: Judgement<Digest>) {
        if self.digests.iter().any(|x| x.what == d.what && x.trust == d.trust) {
            return;
        }
        self.digests.push(d);
        // Another algorithm needs the bytes from the start.
        if self.whole.as_ref().is_none_or(|w| !w.busy) {
            self.whole = None;
        }
        self.make_whole();
    }

    pub(crate) fn add_pieces(&mut self, p: Judgement<Table>) {
        self.pieces.push(p);
    }

    fn make_whole(&mut self) {
        if self.whole.is_none() && !self.digests.is_empty() {
            let hashers = self.digests.iter().map(|d| d.what.algorithm().hasher()).collect();
            self.whole = Some(Whole {
                hashers: Some(hashers),
                hashed_to: 0,
                queued_to: 0,
                queue: VecDeque::new(),
                busy: false,
            });
        }
    }

    pub(crate) fn reset(&mut self) {
        self.whole = None;
        self.good.clear();
        self.pieces.iter_mut().for_each(|p| p.what.good.clear());
        self.make_whole();
    }

    pub(crate) fn busy(&self) -> bool {
        self.whole.as_ref().is_some_and(|w| w.busy)
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
                        good &= t.good.covers(&r);
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

    /// The trusted pieces that lie in `range`, and who judges each.
    fn pieces_within(&self, range: &Range<u64>) -> Vec<(Range<u64>, Arc<dyn Proof>)> {
        let mut out = Vec::new();
        for t in self.trusted() {
            let mut at = range.start;
            while at < range.end {
                let Some(r) = t.piece(at) else {
                    at = t.behind(at);
                    continue;
                };
                at = r.end;
                if r.start >= range.start && r.end <= range.end {
                    out.push((r, t.proof.clone()));
                }
            }
        }
        out
    }

    /// Bytes are missing again: what was said of pieces with them is void.
    pub(crate) fn forget(&mut self, range: &Range<u64>) {
        self.pieces.iter_mut().for_each(|p| p.what.good.remove(range));
    }

    /// As far as this no trusted piece begins behind `at`, which is in none.
    pub(crate) fn unproven_to(&self, at: u64) -> u64 {
        self.trusted()
            .filter_map(|Table { window, proof, .. }| {
                match proof.piece_at(at) {
                    _ if window.start > at => Some(window.start),
                    // One that sticks out of the window.
                    Piece::At(r) => Some(r.end),
                    _ => proof.next_after(at),
                }
            })
            .filter(|next| *next > at)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Bytes are on their way to the sink: if they are just what the digest waits for, it takes them along. Returns
    /// the hashers for a worker where none runs.
    pub(crate) fn offer(
        &mut self,
        at: u64,
        bufs: &[Bytes],
        len: u64,
        permit: &Arc<Permit>,
    ) -> Option<Vec<Hasher>> {
        let w = self.whole.as_mut().filter(|w| w.queued_to == at)?;
        w.queue.push_back((bufs.to_vec(), permit.clone()));
        w.queued_to += len;
        if w.busy {
            return None;
        }
        w.busy = true;
        w.hashers.take()
    }

    /// Starts a worker where bytes that were written wait for the digest.
    fn catch_up(&mut self, v: &ObjectView) -> Option<Vec<Hasher>> {
        let readable = self.readable;
        let w = self.whole.as_mut().filter(|w| readable && !w.busy)?;
        if written_to(v, w.hashed_to) <= w.hashed_to {
            return None;
        }
        w.busy = true;
        w.hashers.take()
    }
}

fn inside(r: &Range<u64>, window: &Span) -> bool {
    r.start >= window.start && window.end.is_none_or(|e| r.end <= e)
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
            Check::Whole { object, generation, whole } => {
                self.clone().hash_along(object, generation, whole).await;
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
