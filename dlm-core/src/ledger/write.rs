//! Writes: gathered bytes go to the sink apart from whoever delivered them.

use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Permit;
use crate::journal::Claim;
use crate::object::ObjectId;
use crate::sink::{Batch, Order};

use super::judge::Check;
use super::{After, Dirty, Ledger, State};

/// One write on its way to the sink.
#[derive(Debug)]
pub(crate) struct WriteJob {
    pub(crate) object: ObjectId,
    pub(crate) generation: u32,
    pub(crate) at: u64,
    pub(crate) bufs: Vec<Bytes>,
    pub(crate) len: u64,
    pub(crate) permit: Arc<Permit>,
}

impl State {
    /// Hands the gathered bytes that begin at `start` to the sink, and to a digest that waits for just them.
    pub(super) fn write_out(&mut self, object: ObjectId, start: u64, after: &mut After) {
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get(&object)) else {
            return;
        };
        let Some(seg) = s.pending.remove(&start) else { return };
        let permit = Arc::new(seg.permit);
        if let Some(worker) = s.judge.offer(start, &seg.bufs, seg.len, &permit) {
            after.checks.push(Check::Whole { object, generation: v.generation, worker });
        }
        after.writes.push(WriteJob {
            object,
            generation: v.generation,
            at: start,
            bufs: seg.bufs,
            len: seg.len,
            permit,
        });
    }

    /// For a sink that takes only the next bytes: one write at a time, of verified bytes where there is a proof.
    pub(super) fn flush_ordered(&mut self, object: ObjectId, after: &mut After) {
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get(&object)) else {
            return;
        };
        if s.out_busy || v.closed {
            return;
        }
        let at = s.next_out;
        let piece = s.judge.piece_holding(at);
        // Several leases may have delivered the piece: what they gathered is put together.
        let Some(whole) = s.join_pending(at, piece.as_ref().map_or(at, |p| p.end)) else { return };
        let end = match piece {
            // Everything of the piece has to be in memory before any of it may leave.
            Some(piece) if piece.start == at => {
                if whole >= piece.end && s.checking.is_empty() {
                    s.checking.entry(usize::MAX).or_default().insert(piece.clone());
                    let bufs = s.pending.get(&at).map_or_else(Vec::new, |seg| cut(&seg.bufs, piece.end - at));
                    after.checks.push(Check::Memory { object, generation: v.generation, piece, bufs });
                }
                return;
            }
            // It became known when some of it had left: the rest of it cannot be judged any more.
            Some(piece) => piece.end,
            None => s.judge.unproven_to(at),
        };
        self.write_piece_out(object, end.min(whole), after);
    }

    /// Bytes at the front of an ordered sink are right, or nothing judges them: they may leave.
    pub(super) fn write_piece_out(&mut self, object: ObjectId, end: u64, after: &mut After) {
        let Some(s) = self.objects.get_mut(&object) else { return };
        let at = s.next_out;
        let Some(mut seg) = s.pending.remove(&at) else { return };
        let len = end - at;
        if seg.len > len {
            // The rest stays gathered, with its own count.
            let rest = seg.len - len;
            let head = cut(&seg.bufs, len);
            let tail = cut_front(&seg.bufs, len);
            let permit = seg.permit.split(rest);
            s.pending
                .insert(end, super::segment::Segment { bufs: tail, len: rest, since: seg.since, permit });
            seg.bufs = head;
            seg.len = len;
        }
        s.pending.insert(at, seg);
        s.out_busy = true;
        self.write_out(object, at, after);
    }
}

/// The first `len` bytes of some buffers.
fn cut(bufs: &[Bytes], mut len: u64) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(bufs.len());
    for b in bufs {
        if len == 0 {
            break;
        }
        let n = len.min(b.len() as u64);
        out.push(b.slice(..n as usize));
        len -= n;
    }
    out
}

/// All but the first `len` bytes of some buffers.
fn cut_front(bufs: &[Bytes], mut len: u64) -> Vec<Bytes> {
    let mut out = Vec::with_capacity(bufs.len());
    for b in bufs {
        let n = len.min(b.len() as u64);
        len -= n;
        if n < b.len() as u64 {
            out.push(b.slice(n as usize..));
        }
    }
    out
}

/// The parts of buffers that begin at `start` which lie outside a range, with their offsets.
pub(crate) fn outside(bufs: &[Bytes], start: u64, r: &std::ops::Range<u64>) -> Vec<(u64, Vec<Bytes>)> {
    let len: u64 = bufs.iter().map(|b| b.len() as u64).sum();
    let mut out = Vec::new();
    if start < r.start {
        out.push((start, cut(bufs, r.start - start)));
    }
    if start + len > r.end {
        out.push((r.end.max(start), cut_front(bufs, r.end.saturating_sub(start))));
    }
    out
}

/// CRC-32C of some buffers.
pub(crate) fn crc32c(bufs: &[Bytes]) -> u32 {
    let mut d = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for b in bufs {
        d.update(b);
    }
    d.finalize() as u32
}

impl Ledger {
    /// Writes one batch and reports it. Until this has returned, the bytes are *held*.
    pub(super) async fn write(self: Arc<Self>, job: WriteJob) {
        let WriteJob { object, generation, at, bufs, len, permit } = job;
        let claim = self.caps.readable.then(|| Claim::new(at..at + len, crc32c(&bufs)));
        let result = self.sink.write(Batch::new(object, at, bufs)).await;
        drop(permit);
        let range = at..at + len;
        let caps = self.caps;
        self.with(|s, after| {
            s.running -= 1;
            after.wake_driver();
            let (Some(o), Some(v)) = (s.objects.get_mut(&object), s.board.objects.get_mut(&object)) else {
                return;
            };
            v.held.remove(&range);
            if caps.order == Order::Next {
                o.out_busy = false;
            }
            if let Err(e) = result {
                v.lose(&range);
                s.fail_job(e, after);
                return;
            }
            if caps.order == Order::Next {
                // It has left, whatever became of the object meanwhile.
                o.next_out = range.end;
                after.wake_moved = true;
            }
            if v.generation != generation {
                v.lose(&range);
                return;
            }
            if o.judge.knows_good(&range) {
                v.verified.insert(range.clone());
            } else {
                v.written.insert(range.clone());
            }
            if let Some(claim) = claim {
                s.dirty_bytes += len;
                s.dirty.push(Dirty { object, generation, claim });
            }
            s.judge_written(object, &range, after);
            s.settle(object, after);
            if caps.order == Order::Next {
                s.flush_ordered(object, after);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_loses_nothing() {
        let bufs: Vec<Bytes> =
            [&b"abc"[..], b"de", b"fghi"].iter().map(|b| Bytes::copy_from_slice(b)).collect();
        for n in 0..=9 {
            let mut all: Vec<u8> = cut(&bufs, n).concat();
            assert_eq!(all.len() as u64, n);
            all.extend(cut_front(&bufs, n).concat());
            assert_eq!(all, b"abcdefghi");
        }
    }

    #[test]
    fn crc_is_castagnoli() {
        assert_eq!(crc32c(&[Bytes::from_static(b"12345"), Bytes::from_static(b"6789")]), 0xe306_9283);
    }
}
