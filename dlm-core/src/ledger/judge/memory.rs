//! Pieces judged in memory, before they leave for a sink that cannot be read.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::event::EventKind;
use crate::object::{ObjectId, PartyId};
use crate::verify::{PieceHasher, Proof, Verdict};

use super::super::work::NewsItem;
use super::super::{After, Dispute, Ledger, State};

/// A piece, and who judges it.
type Known = (Range<u64>, Option<Arc<dyn Proof>>);

impl Ledger {
    pub(super) async fn check_memory(
        self: &Arc<Self>,
        object: ObjectId,
        generation: u32,
        piece: Range<u64>,
        bufs: Vec<Bytes>,
    ) {
        // No proof where its author vouches for the piece.
        let pieces: Vec<Known> = self.with(|s, _| {
            let Some(judge) = s.objects.get(&object).map(|o| &o.judge) else { return Vec::new() };
            let all = judge.pieces_within(&piece).into_iter();
            all.filter_map(|(n, r)| {
                let proof = judge.pieces.get(n)?.what.proof.clone();
                let proof = (!s.vouched_for(object, n, &r)).then_some(proof);
                Some((r, proof))
            })
            .collect()
        });
        let pieces: Vec<_> = pieces.into_iter().map(|(r, p)| (r.clone(), p.map(|p| p.begin(&r)))).collect();
        let start = piece.start;
        let judged = self
            .compute
            .run(move || {
                let judge = |(r, h): (Range<u64>, Option<_>)| {
                    (h.map_or(Verdict::Good, |h| judge(h, &bufs, start, &r)), r)
                };
                pieces.into_iter().map(judge).collect::<Vec<_>>()
            })
            .await;
        self.with(|s, after| {
            let judged = match judged {
                Ok(j) => j,
                Err(e) => return s.fail_job(e, after),
            };
            let (Some(o), Some(v)) = (s.objects.get_mut(&object), s.board.objects.get_mut(&object)) else {
                return;
            };
            o.checked(usize::MAX, &piece);
            if v.generation != generation || v.closed {
                return;
            }
            let mut wrong = judged.iter().filter(|(v, _)| *v == Verdict::Bad).map(|(_, r)| r).peekable();
            if wrong.peek().is_some() {
                wrong.for_each(|r| s.drop_wrong_memory(object, r, after));
                return;
            }
            if judged.iter().any(|(v, _)| *v == Verdict::Good) {
                o.judge.good.insert(piece.clone());
                v.disputed.retain(|d| d.range.start < piece.start || d.range.end > piece.end);
                after.news.push(NewsItem::Verified { object, range: piece.clone() });
            }
            s.write_piece_out(object, piece.end, after);
        });
    }
}

/// What a piece's hasher says of it, in buffers that begin at `start`.
fn judge(hasher: Option<Box<dyn PieceHasher>>, bufs: &[Bytes], start: u64, piece: &Range<u64>) -> Verdict {
    let Some(mut h) = hasher else { return Verdict::CannotTell };
    let mut at = start;
    for b in bufs {
        let (from, to) = (at.max(piece.start), (at + b.len() as u64).min(piece.end));
        if from < to && !h.update(from, &b.slice((from - at) as usize..(to - at) as usize)) {
            return Verdict::CannotTell;
        }
        at += b.len() as u64;
    }
    h.finish()
}

impl State {
    /// A piece that never left memory is wrong: it is missing again, and its deliverers are suspects.
    pub(super) fn drop_wrong_memory(&mut self, object: ObjectId, piece: &Range<u64>, after: &mut After) {
        let now = tokio::time::Instant::now();
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get_mut(&object)) else {
            return;
        };
        let suspects: BTreeSet<PartyId> = s.origin.within(piece.clone()).map(|(_, p)| *p).collect();
        s.drop_pending(piece, after);
        s.origin.remove(piece);
        v.held.remove(piece);
        v.lose(piece);
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
