//! Digests of the whole: hashed along a frontier, and what they say at the end.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Permit;
use crate::digest::Hasher;
use crate::error::Error;
use crate::event::{EventKind, VerifiedBy};
use crate::object::{ObjectId, PartyId, SourceId, Trust};
use crate::verify::Verdict;

use super::super::{After, Ledger, State};
use super::{Check, Conclusion, STEP, written_to, wrong};

enum Job {
    Hash(Vec<Bytes>, Arc<Permit>),
    Read(Range<u64>),
    Over,
}

impl State {
    /// What the last proofs say once every byte is there.
    pub(crate) fn conclude(&mut self, object: ObjectId, after: &mut After) -> Conclusion {
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get(&object)) else {
            return Conclusion::Wait;
        };
        let Some(len) = v.len else { return Conclusion::Wait };
        let pending = self.retract.iter().any(|(o, ..)| *o == object);
        if v.closed
            || pending
            || !v.done.covers(&(0..len))
            || !v.held.is_empty()
            || !s.checking.is_empty()
            || s.judge.busy()
        {
            return Conclusion::Wait;
        }
        if let Some(whole) = s.judge.catch_up(v) {
            after.checks.push(Check::Whole { object, generation: v.generation, whole });
            return Conclusion::Wait;
        }
        if s.judge.pieces.iter().any(|p| p.trust != Trust::Claimed && p.what.proof.conclude() == Verdict::Bad)
        {
            return Conclusion::Bad(wrong("the checksum of the whole is wrong"));
        }
        let authors: BTreeSet<SourceId> = s
            .origin
            .within(0..len)
            .filter_map(|(_, p)| self.parties.get(p.0 as usize))
            .map(|p| p.source)
            .collect();
        let own = |author: Option<SourceId>| {
            s.resumed == 0 && author.is_some_and(|a| authors.iter().all(|x| *x == a))
        };
        let mut by = if v.verified.covers(&(0..len)) && s.judge.has_pieces() {
            VerifiedBy::Pieces
        } else {
            VerifiedBy::Transport
        };
        if let Some(w) = &s.judge.whole {
            let Some(hashers) = w.hashers.as_ref().filter(|_| w.hashed_to == len) else {
                return Conclusion::Bad(wrong("its checksum could not be computed"));
            };
            for (d, h) in s.judge.digests.iter().zip(hashers) {
                if d.trust == Trust::Claimed && !own(d.author) {
                    continue;
                }
                let found = h.clone().finish();
                if found != d.what {
                    return Conclusion::Bad(wrong(format_args!(
                        "the checksum is {found} where {} is expected",
                        d.what
                    )));
                }
                by = match by {
                    VerifiedBy::Digest(a) if a > d.what.algorithm() => by,
                    _ => VerifiedBy::Digest(d.what.algorithm()),
                };
            }
        }
        Conclusion::Good(by)
    }

    /// The digest of the whole did not match. Decides whether to fetch it again, from whom, or to give up.
    pub(crate) fn mismatched(&mut self, object: ObjectId, error: Error, readable: bool, after: &mut After) {
        let now = tokio::time::Instant::now();
        let alive = self.sources_of(object);
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get(&object)) else {
            return;
        };
        s.mismatches += 1;
        let parties: BTreeSet<PartyId> = s.origin.within(0..u64::MAX).map(|(_, p)| *p).collect();
        let bindings: Vec<_> = alive
            .iter()
            .copied()
            .filter(|b| {
                let source = self.board.bindings.get(b).map(|b| b.source);
                parties.iter().any(|p| self.parties.get(p.0 as usize).map(|p| p.source) == source)
            })
            .collect();
        let first_time = s.mismatches == 1;
        let len = v.len.unwrap_or(0);
        // Whatever let them stand side by side is not believed again.
        s.judge.unmix();
        let suspects = parties.iter().map(|p| self.label(*p)).collect();
        self.say(EventKind::Blamed { suspects, object, range: 0..len }, after);
        if !first_time && bindings.len() > 1 {
            // Right pieces of several make a wrong whole: nobody can be told apart, and again it would be the same.
            self.fail_job(error, after);
            return;
        }
        if !readable {
            // The bytes have left: nothing can be taken back.
            self.fail_job(error, after);
            return;
        }
        if !first_time && let [only] = bindings[..] {
            self.fail_binding(only, error.clone(), now, after);
        }
        if self.sources_of(object).is_empty() {
            self.fail_job(error, after);
            return;
        }
        self.remix(object);
        self.restart(object, Some(error), after);
    }

    fn next_to_hash(
        &mut self,
        object: ObjectId,
        generation: u32,
        hashers: &mut Option<Vec<Hasher>>,
        after: &mut After,
    ) -> Job {
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get(&object)) else {
            return Job::Over;
        };
        let readable = s.judge.readable;
        let Some(w) = s.judge.whole.as_mut() else { return Job::Over };
        if v.generation == generation {
            if let Some((bufs, permit)) = w.queue.pop_front() {
                return Job::Hash(bufs, permit);
            }
            let end = written_to(v, w.hashed_to).min(w.hashed_to + STEP);
            if readable && end > w.hashed_to {
                w.queued_to = end;
                return Job::Read(w.hashed_to..end);
            }
            w.hashers = hashers.take();
        } else {
            w.queue.clear();
        }
        w.busy = false;
        after.wake_driver();
        Job::Over
    }
}

impl Ledger {
    /// Hashes along the frontier until nothing more is there.
    pub(super) async fn hash_along(self: Arc<Self>, object: ObjectId, generation: u32, hashers: Vec<Hasher>) {
        let mut hashers = Some(hashers);
        loop {
            let job = self.with(|s, after| s.next_to_hash(object, generation, &mut hashers, after));
            let (bufs, permit, len) = match job {
                Job::Over => return,
                Job::Hash(bufs, permit) => {
                    let len = bufs.iter().map(|b| b.len() as u64).sum();
                    (bufs, Some(permit), len)
                }
                Job::Read(r) => match self.sink.read(object, r.clone()).await {
                    Ok(b) => (vec![b], None, r.end - r.start),
                    Err(e) => {
                        self.with(|s, after| {
                            s.next_to_hash(object, u32::MAX, &mut None, after);
                            s.fail_job(e, after);
                        });
                        return;
                    }
                },
            };
            let Some(mut h) = hashers.take() else { return };
            let done = self
                .compute
                .run(move || {
                    for b in &bufs {
                        for h in &mut h {
                            h.push(b);
                        }
                    }
                    h
                })
                .await;
            drop(permit);
            match done {
                Ok(h) => hashers = Some(h),
                Err(e) => {
                    self.with(|s, after| s.fail_job(e, after));
                    return;
                }
            }
            self.with(|s, _| {
                let same = s.board.objects.get(&object).is_some_and(|v| v.generation == generation);
                if let Some(w) =
                    s.objects.get_mut(&object).and_then(|o| o.judge.whole.as_mut()).filter(|_| same)
                {
                    w.hashed_to += len;
                }
            });
        }
    }
}
