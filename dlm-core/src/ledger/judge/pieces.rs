//! Pieces judged once all of them is written.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::error::{Kind, Result};
use crate::event::EventKind;
use crate::object::{ObjectId, PartyId, Trust};
use crate::verify::{Proof, Verdict};

use super::super::work::NewsItem;
use super::super::write::crc32c;
use super::super::{After, Dispute, Ledger, State};
use super::{Check, Judgement, STEP};

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
    /// Bytes were written: pieces that are whole now are judged, and a digest may catch up.
    pub(crate) fn judge_written(&mut self, object: ObjectId, range: &Range<u64>, after: &mut After) {
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get(&object)) else {
            return;
        };
        if v.closed && s.prepared {
            return;
        }
        if let Some(whole) = s.judge.catch_up(v) {
            after.checks.push(Check::Whole { object, generation: v.generation, whole });
        }
        if !s.judge.readable {
            return;
        }
        let mut found = Vec::new();
        for (table, p) in s.judge.pieces.iter().enumerate() {
            let t = &p.what;
            for run in v.done.within(range.clone()) {
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
                    if there && !asked && !t.good.covers(&piece) {
                        s.checking.entry(table).or_default().insert(piece.clone());
                        let proof = t.proof.clone();
                        found.push(Check::Piece { object, generation: v.generation, piece, proof, table });
                    }
                }
            }
        }
        after.checks.append(&mut found);
    }

    pub(super) fn judged(&mut self, check: &Finished, after: &mut After) {
        let now = tokio::time::Instant::now();
        let Finished { object, generation, piece, table, .. } = check;
        let (Some(s), Some(v)) = (self.objects.get_mut(object), self.board.objects.get_mut(object)) else {
            return;
        };
        s.checked(*table, piece);
        after.wake_driver();
        if v.generation != *generation || v.closed {
            return;
        }
        let suspects: BTreeSet<PartyId> = s.origin.within(piece.clone()).map(|(_, p)| *p).collect();
        let Some(Judgement { what, trust, author }) = s.judge.pieces.get_mut(*table) else { return };
        let (claimed, author) = (*trust == Trust::Claimed, *author);
        if check.verdict == Verdict::Good {
            what.good.insert(piece.clone());
        }
        match check.verdict {
            Verdict::Good if !claimed => {
                for part in s.judge.proven(piece) {
                    v.written.remove(&part);
                    v.verified.insert(part);
                }
                let settled: Vec<Dispute> =
                    v.disputed.iter().filter(|d| d.range == *piece).cloned().collect();
                v.disputed.retain(|d| d.range != *piece);
                after.news.push(NewsItem::Verified { object: *object, range: piece.clone() });
                let guilty: BTreeSet<PartyId> = settled
                    .iter()
                    .flat_map(|d| &d.runs)
                    .filter(|(r, _, crc)| check.runs.iter().any(|(x, c)| x == r && c != crc))
                    .map(|(_, p, _)| *p)
                    .collect();
                for p in guilty {
                    self.convict(p, *object, piece, now, after);
                }
            }
            Verdict::Bad => {
                let foreign =
                    suspects.iter().any(|p| self.parties.get(p.0 as usize).map(|p| p.source) != author);
                if claimed && (foreign || suspects.is_empty()) {
                    // A claim judges only its author's bytes.
                    return;
                }
                if self.retract.iter().any(|(o, _, r)| o == object && r == piece) {
                    return;
                }
                self.retract.push((*object, *generation, piece.clone()));
                let seen: Vec<(Range<u64>, PartyId, u32)> = check
                    .runs
                    .iter()
                    .filter_map(|(r, crc)| {
                        s.origin.within(r.clone()).next().map(|(_, p)| (r.clone(), *p, *crc))
                    })
                    .collect();
                match v.disputed.iter_mut().find(|d| d.range == *piece) {
                    Some(d) => d.runs.extend(seen),
                    None if suspects.len() > 1 => {
                        v.disputed.push(Dispute { range: piece.clone(), runs: seen });
                    }
                    None => {}
                }
                let labels = suspects.iter().map(|p| self.label(*p)).collect();
                self.say(
                    EventKind::Blamed { suspects: labels, object: *object, range: piece.clone() },
                    after,
                );
                if let (1, Some(p)) = (suspects.len(), suspects.first()) {
                    self.convict(*p, *object, piece, now, after);
                }
            }
            _ => {}
        }
        self.settle(*object, after);
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
            if let Ok(b) = self.sink.read(object, r.clone()).await {
                out.push((r, crc32c(&[b])));
            }
        }
        out
    }
}
