//! Pieces judged in memory, before they leave for a sink that cannot be read.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::event::EventKind;
use crate::object::{ObjectId, PartyId, Trust};
use crate::verify::{Piece, Verdict};

use super::super::work::NewsItem;
use super::super::{After, Dispute, Ledger, State};

impl Ledger {
    pub(super) async fn check_memory(
        self: &Arc<Self>,
        object: ObjectId,
        generation: u32,
        piece: Range<u64>,
        bufs: Vec<Bytes>,
    ) {
        let proof = self.with(|s, _| {
            let o = s.objects.get(&object)?;
            let mut all = o.judge.pieces.iter().filter(|p| p.trust != Trust::Claimed);
            all.find(|p| p.what.1.piece_at(piece.start) == Piece::At(piece.clone())).map(|p| p.what.1.clone())
        });
        let hasher = proof.and_then(|p| p.begin(&piece));
        let start = piece.start;
        let verdict = self
            .compute
            .run(move || {
                let Some(mut h) = hasher else { return Verdict::CannotTell };
                let mut at = start;
                for b in &bufs {
                    if !h.update(at, b) {
                        return Verdict::CannotTell;
                    }
                    at += b.len() as u64;
                }
                h.finish()
            })
            .await;
        self.with(|s, after| {
            let verdict = match verdict {
                Ok(v) => v,
                Err(e) => return s.fail_job(e, after),
            };
            let (Some(o), Some(v)) = (s.objects.get_mut(&object), s.board.objects.get_mut(&object)) else {
                return;
            };
            o.checking.remove(&piece);
            if v.generation != generation || v.closed {
                return;
            }
            if verdict == Verdict::Bad {
                s.drop_wrong_memory(object, &piece, after);
                return;
            }
            if verdict == Verdict::Good {
                o.judge.good.insert(piece.clone());
                v.disputed.retain(|d| d.range != piece);
                after.news.push(NewsItem::Verified { object, range: piece.clone() });
            }
            s.write_piece_out(object, piece.end, after);
        });
    }
}

impl State {
    /// A piece that never left memory is wrong: it is missing again, and its deliverers are suspects.
    pub(super) fn drop_wrong_memory(&mut self, object: ObjectId, piece: &Range<u64>, after: &mut After) {
        let now = tokio::time::Instant::now();
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get_mut(&object)) else {
            return;
        };
        let suspects: BTreeSet<PartyId> = s.origin.within(piece.clone()).map(|(_, p)| *p).collect();
        s.drop_pending(piece);
        s.origin.remove(piece);
        v.held.remove(piece);
        v.done.remove(piece);
        if suspects.len() > 1 && !v.disputed.iter().any(|d| d.range == *piece) {
            v.disputed.push(Dispute { range: piece.clone(), runs: Vec::new() });
        }
        let labels = suspects.iter().map(|p| self.label(*p)).collect();
        self.say(EventKind::Blamed { suspects: labels, object, range: piece.clone() }, after);
        if let (1, Some(p)) = (suspects.len(), suspects.first()) {
            self.convict(*p, object, piece, now, after);
        }
        self.pump(now, after);
    }
}
