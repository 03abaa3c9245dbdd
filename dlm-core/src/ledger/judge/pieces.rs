//! Pieces judged once all of them is written.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::error::{Kind, Result};
use crate::event::EventKind;
use crate::object::{ObjectId, PartyId, Trust};
use crate::verify::{Proof, Verdict};

use super::super::work::NewsItem;
use super::super::{After, Dispute, Ledger, State};
use super::{Check, STEP};

/// A piece that was judged.
pub(super) struct Finished {
    pub(super) object: ObjectId,
    pub(super) generation: u32,
    pub(super) piece: Range<u64>,
    pub(super) table: usize,
    pub(super) verdict: Verdict,
    /// CRC-32C of each run, to find out who lied once the right bytes are known.
    pub(super) runs: Vec<(Range<u64>, u32)>,
}

impl State {
    /// Bytes were written, or something new is known of them: pieces that are whole are judged, and a digest may catch
    /// up.
    pub(crate) fn judge_written(&mut self, object: ObjectId, range: &Range<u64>, after: &mut After) {
        let (Some(s), Some(v)) = (self.objects.get(&object), self.board.objects.get(&object)) else {
            return;
        };
        if v.closed && s.prepared {
            return;
        }
        let mut found = Vec::new();
        for (table, p) in s.judge.pieces.iter().enumerate().filter(|_| s.judge.readable) {
            let t = &p.what;
            for run in v.done.within(range.clone()).filter(|r| !t.is_told(r)) {
                let mut at = run.start;
                while at < run.end {
                    let Some(piece) = t.piece(at) else {
                        at = t.behind(at);
                        continue;
                    };
                    at = piece.end;
                    // Whatever others have said of it: each table is asked.
                    let there = v.done.covers(&piece) && !v.held.touches(&piece);
                    let asked = s.checking.get(&table).is_some_and(|c| c.touches(&piece));
                    if there && !asked && !t.is_told(&piece) {
                        found.push((table, piece));
                    }
                }
            }
        }
        let generation = v.generation;
        for (table, piece) in found {
            if self.vouched_for(object, table, &piece) {
                self.found_good(object, table, &piece, &[], after);
            } else if let Some(s) = self.objects.get_mut(&object)
                && let Some(p) = s.judge.pieces.get(table)
            {
                let proof = p.what.proof.clone();
                s.checking.entry(table).or_default().insert(piece.clone());
                after.checks.push(Check::Piece { object, generation, piece, proof, table });
            }
        }
        self.catch_up(object, after);
    }

    /// Whether all of a piece came from the author of its table, which checks whole pieces before it delivers them. By
    /// the tables of others it is hashed all the same, and a piece that was wrong before, too, to find out who lied.
    pub(super) fn vouched_for(&self, object: ObjectId, table: usize, piece: &Range<u64>) -> bool {
        let (Some(s), Some(v)) = (self.objects.get(&object), self.board.objects.get(&object)) else {
            return false;
        };
        let Some(author) = s.judge.pieces.get(table).and_then(|p| p.author) else { return false };
        let bindings = v.bindings.iter().filter_map(|b| self.board.bindings.get(b));
        let mut its = bindings.filter(|b| b.source == author).peekable();
        if its.peek().is_none() || !its.all(|b| b.caps.self_verifying) {
            return false;
        }
        if v.disputed.iter().any(|d| d.range.start < piece.end && piece.start < d.range.end) {
            return false;
        }
        let mut at = piece.start;
        for (r, party) in s.origin.within(piece.clone()) {
            let source = self.parties.source(*party);
            if r.start != at || source != Some(author) {
                return false;
            }
            at = r.end;
        }
        at == piece.end
    }

    pub(super) fn judged(&mut self, check: &Finished, after: &mut After) {
        let Finished { object, generation, piece, table, .. } = check;
        let (Some(s), Some(v)) = (self.objects.get_mut(object), self.board.objects.get(object)) else {
            return;
        };
        s.checked(*table, piece);
        after.wake_driver();
        if v.generation != *generation || v.closed {
            return;
        }
        let Some(p) = s.judge.pieces.get_mut(*table) else { return };
        // A claim judges only its author's bytes.
        let void = p.trust == Trust::Claimed && {
            let by: Vec<PartyId> = s.origin.within(piece.clone()).map(|(_, p)| *p).collect();
            let foreign = |x: &PartyId| self.parties.source(*x) != p.author;
            by.is_empty() || by.iter().any(foreign)
        };
        match check.verdict {
            Verdict::Good => self.found_good(*object, *table, piece, &check.runs, after),
            Verdict::Bad if !void => self.found_wrong(check, after),
            _ => p.what.tell(piece, false),
        }
        self.catch_up(*object, after);
        self.settle(*object, after);
    }

    fn found_good(
        &mut self,
        object: ObjectId,
        table: usize,
        piece: &Range<u64>,
        runs: &[(Range<u64>, u32)],
        after: &mut After,
    ) {
        let now = tokio::time::Instant::now();
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get_mut(&object)) else {
            return;
        };
        let Some(p) = s.judge.pieces.get_mut(table) else { return };
        p.what.tell(piece, true);
        if p.trust == Trust::Claimed {
            return;
        }
        for part in s.judge.proven(piece) {
            v.written.remove(&part);
            v.verified.insert(part);
        }
        let settled: Vec<Dispute> = v.disputed.iter().filter(|d| d.range == *piece).cloned().collect();
        v.disputed.retain(|d| d.range != *piece);
        after.news.push(NewsItem::Verified { object, range: piece.clone() });
        let guilty: BTreeSet<PartyId> = settled
            .iter()
            .flat_map(|d| &d.runs)
            .filter(|(r, _, crc)| runs.iter().any(|(x, c)| x == r && c != crc))
            .map(|(_, p, _)| *p)
            .collect();
        for p in guilty {
            self.convict(p, object, piece, now, after);
        }
    }

    fn found_wrong(&mut self, check: &Finished, after: &mut After) {
        let Finished { object, generation, piece, runs, .. } = check;
        let now = tokio::time::Instant::now();
        let (Some(s), Some(v)) = (self.objects.get_mut(object), self.board.objects.get_mut(object)) else {
            return;
        };
        if self.retract.iter().any(|(o, _, r)| o == object && r == piece) {
            return;
        }
        self.retract.push((*object, *generation, piece.clone()));
        let suspects: BTreeSet<PartyId> = s.origin.within(piece.clone()).map(|(_, p)| *p).collect();
        let seen: Vec<(Range<u64>, PartyId, u32)> = runs
            .iter()
            .filter_map(|(r, crc)| s.origin.within(r.clone()).next().map(|(_, p)| (r.clone(), *p, *crc)))
            .collect();
        match v.disputed.iter_mut().find(|d| d.range == *piece) {
            Some(d) => d.runs.extend(seen),
            None if suspects.len() > 1 => v.disputed.push(Dispute { range: piece.clone(), runs: seen }),
            None => {}
        }
        let labels = suspects.iter().map(|p| self.label(*p)).collect();
        self.say(EventKind::Blamed { suspects: labels, object: *object, range: piece.clone() }, after);
        if let (1, Some(p)) = (suspects.len(), suspects.first()) {
            self.convict(*p, *object, piece, now, after);
        }
    }
}

impl Ledger {
    pub(super) async fn judge_piece(
        &self,
        object: ObjectId,
        piece: &Range<u64>,
        proof: &dyn Proof,
    ) -> Result<Verdict> {
        let Some(mut hasher) = proof.begin(piece) else { return Ok(Verdict::CannotTell) };
        let mut at = piece.start;
        while at < piece.end {
            let end = piece.end.min(at + STEP);
            let bytes = match self.sink.read(object, at..end).await {
                Ok(b) => b,
                Err(e) if e.kind() == Kind::Corrupt => return Ok(Verdict::Bad),
                Err(e) => return Err(e),
            };
            let (h, took) = self
                .compute
                .run(move || {
                    let took = hasher.update(at, &bytes);
                    (hasher, took)
                })
                .await?;
            hasher = h;
            if !took {
                return Ok(Verdict::CannotTell);
            }
            at = end;
        }
        Ok(hasher.finish())
    }

    /// Checksums of the runs that matter for blame: who delivered what, while a piece is wrong; the disputed runs, once
    /// it is right.
    pub(super) async fn crc_runs(
        &self,
        object: ObjectId,
        piece: &Range<u64>,
        good: bool,
    ) -> Vec<(Range<u64>, u32)> {
        let runs: Vec<Range<u64>> = {
            let s = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if good {
                let v = s.board.objects.get(&object);
                let all = v.into_iter().flat_map(|v| v.disputed.iter()).filter(|d| d.range == *piece);
                all.flat_map(|d| d.runs.iter().map(|(r, ..)| r.clone())).collect()
            } else {
                s.objects
                    .get(&object)
                    .map(|o| o.origin.within(piece.clone()).map(|(r, _)| r).collect())
                    .unwrap_or_default()
            }
        };
        let mut out = Vec::with_capacity(runs.len());
        for r in runs {
            let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
            let mut at = r.start;
            // A run may be as long as the piece, and a piece longer than what may be in memory.
            while at < r.end {
                let end = r.end.min(at + STEP);
                let Ok(b) = self.sink.read(object, at..end).await else { break };
                crc.update(&b);
                at = end;
            }
            if at >= r.end {
                out.push((r, crc.finalize() as u32));
            }
        }
        out
    }
}
