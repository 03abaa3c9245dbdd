//! Digests of the whole: hashed along a frontier, and what they say at the end.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Permit;
use crate::digest::Hasher;
use crate::error::Error;
use crate::event::{EventKind, VerifiedBy};
use crate::object::{ObjectId, PartyId, SourceId, Trust};
use crate::verify::{Proof, Verdict};

use super::super::{After, Ledger, ObjectView, State};
use super::{Check, Conclusion, Judge, STEP, written_to, wrong};

/// Hashes along the frontier.
#[derive(Debug)]
pub(super) struct Whole {
    /// Which beginning this is: what a worker of an earlier one brings is not taken.
    run: u64,
    /// With a worker while one runs.
    hashers: Option<Vec<Hasher>>,
    hashed_to: u64,
    /// Where the next bytes offered would have to begin.
    queued_to: u64,
    queue: VecDeque<(Vec<Bytes>, Arc<Permit>)>,
}

impl Whole {
    /// Whether some of these bytes were hashed, or are with a worker.
    pub(super) fn has_seen(&self, range: &Range<u64>) -> bool {
        self.queued_to > range.start
    }
}

/// The hashers of a digest on their way to a worker.
#[derive(Debug)]
pub(crate) struct Worker {
    run: u64,
    hashers: Vec<Hasher>,
}

enum Job {
    Hash(Vec<Bytes>, Arc<Permit>),
    Read(Range<u64>),
    Over,
}

impl Judge {
    /// Begins the digest anew: with another algorithm, or because bytes that it has seen are missing again.
    pub(super) fn hash_anew(&mut self, after: &mut After) {
        if let Some(old) = self.whole.take() {
            after.discard(old.queue);
        }
        if self.digests.is_empty() {
            return;
        }
        self.runs += 1;
        self.whole = Some(Whole {
            run: self.runs,
            hashers: Some(self.digests.iter().map(|d| d.what.algorithm().hasher()).collect()),
            hashed_to: 0,
            queued_to: 0,
            queue: VecDeque::new(),
        });
    }

    fn send(&mut self) -> Option<Worker> {
        let w = self.whole.as_mut()?;
        let hashers = w.hashers.take()?;
        self.workers += 1;
        Some(Worker { run: w.run, hashers })
    }

    /// Bytes are on their way to the sink: if they are just what the digest waits for, it takes them along. Returns
    /// the hashers for a worker where none runs.
    pub(crate) fn offer(
        &mut self,
        at: u64,
        bufs: &[Bytes],
        len: u64,
        permit: &Arc<Permit>,
    ) -> Option<Worker> {
        // What a piece may still take back is hashed once it cannot. What leaves for a sink that cannot be read was
        // judged before.
        let early = self.readable && !self.pieces.is_empty();
        let w = self.whole.as_mut().filter(|w| w.queued_to == at && !early)?;
        w.queue.push_back((bufs.to_vec(), permit.clone()));
        w.queued_to += len;
        self.send()
    }

    /// Where the digest may go on to from `at`, one step at most: bytes whose writes have returned, and that no piece
    /// takes back any more. (`rest`: nothing is judged any more, whatever was not.)
    fn settled_to(&self, v: &ObjectView, at: u64, rest: bool) -> u64 {
        let end = written_to(v, at).min(at.saturating_add(STEP));
        let mut to = at;
        while to < end && self.readable && !rest {
            let mut next = end;
            for p in &self.pieces {
                match p.what.piece(to) {
                    Some(r) if !p.what.is_told(&r) => return to,
                    Some(r) => next = next.min(r.end),
                    None => next = next.min(p.what.behind(to)),
                }
            }
            to = next;
        }
        end
    }

    /// Starts a worker where bytes that were written wait for the digest.
    fn catch_up(&mut self, v: &ObjectView, rest: bool) -> Option<Worker> {
        let w = self.whole.as_ref().filter(|w| self.readable && w.hashers.is_some())?;
        if self.settled_to(v, w.hashed_to, rest) <= w.hashed_to {
            return None;
        }
        self.send()
    }
}

/// Whether all of the object is there, wanted or not.
fn is_entire(v: &ObjectView) -> bool {
    v.len.is_some_and(|l| v.done.covers(&(0..l)))
}

/// What has to be right before its files are put in place.
fn due(v: &ObjectView) -> Vec<Range<u64>> {
    match &v.wanted {
        None => v.len.into_iter().map(|l| 0..l).collect(),
        Some(w) => w.all().within(0..v.len.unwrap_or(u64::MAX)).collect(),
    }
}

impl State {
    /// Starts a worker where bytes wait for the digest of the whole.
    pub(super) fn catch_up(&mut self, object: ObjectId, after: &mut After) {
        let rest = self.at_rest(object);
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get(&object)) else {
            return;
        };
        if v.closed && s.prepared {
            return;
        }
        if let Some(worker) = s.judge.catch_up(v, rest) {
            after.checks.push(Check::Whole { object, generation: v.generation, worker });
        }
    }

    /// Whether every byte that is wanted of it is there, and no piece of it is being checked or taken back.
    fn at_rest(&self, object: ObjectId) -> bool {
        let (Some(s), Some(v)) = (self.objects.get(&object), self.board.objects.get(&object)) else {
            return false;
        };
        let wrong = || self.retract.iter().any(|(o, ..)| *o == object);
        v.is_whole() && v.held.is_empty() && s.checking.is_empty() && !wrong()
    }

    /// The trusted proofs, once every byte is there and nobody looks at one any more: their last word is to be heard.
    /// With it the object's generation.
    fn may_conclude(&mut self, object: ObjectId, after: &mut After) -> Option<(u32, Vec<Arc<dyn Proof>>)> {
        let at_rest = self.at_rest(object);
        if !at_rest || self.objects.get(&object)?.judge.busy() || self.board.objects.get(&object)?.closed {
            return None;
        }
        // Some pieces may be known by now that were not when their bytes came.
        self.judge_written(object, &(0..u64::MAX), after);
        let (s, v) = (self.objects.get(&object)?, self.board.objects.get(&object)?);
        let found = !s.checking.is_empty() || s.judge.busy();
        if found || (self.discovering > 0 && due(v).iter().any(|r| s.judge.expects_more(r))) {
            return None;
        }
        // They speak of the whole, and that is not there.
        let silent = v.wanted.is_some() && !is_entire(v);
        let proofs = s.judge.trusted().filter(|_| !silent).map(|t| t.proof.clone()).collect();
        Some((v.generation, proofs))
    }

    /// What the last proofs say once every byte is there; `said` is what those said that speak of the whole.
    fn conclude(&mut self, object: ObjectId, said: &[Verdict]) -> Conclusion {
        let (Some(s), Some(v)) = (self.objects.get(&object), self.board.objects.get(&object)) else {
            return Conclusion::Wait;
        };
        let (len, entire) = match v.len {
            Some(len) => (len, v.wanted.is_none() || is_entire(v)),
            None if v.wanted.is_some() => (u64::MAX, false),
            None => return Conclusion::Wait,
        };
        if said.contains(&Verdict::Bad) {
            return Conclusion::Bad(wrong("the checksum of the whole is wrong"));
        }
        let authors: BTreeSet<SourceId> =
            s.origin.within(0..len).filter_map(|(_, p)| self.parties.get(*p)).map(|p| p.source).collect();
        let own = |author: Option<SourceId>| {
            s.resumed == 0 && author.is_some_and(|a| authors.iter().all(|x| *x == a))
        };
        let pieces = s.judge.has_pieces() && due(v).iter().all(|r| v.verified.covers(r));
        let mut by =
            if pieces || said.contains(&Verdict::Good) { VerifiedBy::Pieces } else { VerifiedBy::Transport };
        // A digest of the whole says nothing of a part.
        if let Some(w) = s.judge.whole.as_ref().filter(|_| entire) {
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
                parties.iter().any(|p| self.parties.source(*p) == source)
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
        run: u64,
        hashers: &mut Option<Vec<Hasher>>,
        after: &mut After,
    ) -> Job {
        let rest = self.at_rest(object);
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get(&object)) else {
            return Job::Over;
        };
        let judge = &mut s.judge;
        let settled = judge.whole.as_ref().map_or(0, |w| judge.settled_to(v, w.hashed_to, rest));
        if let Some(w) = judge.whole.as_mut().filter(|w| w.run == run) {
            if v.generation != generation {
                after.discard(std::mem::take(&mut w.queue));
            } else if let Some((bufs, permit)) = w.queue.pop_front() {
                return Job::Hash(bufs, permit);
            } else if judge.readable && settled > w.hashed_to {
                w.queued_to = settled;
                return Job::Read(w.hashed_to..settled);
            } else {
                w.hashers = hashers.take();
            }
        }
        judge.workers -= 1;
        after.wake_driver();
        Job::Over
    }

    /// A worker could not go on.
    fn hashing_failed(
        &mut self,
        object: ObjectId,
        generation: u32,
        run: u64,
        error: Error,
        after: &mut After,
    ) {
        let Some(s) = self.objects.get_mut(&object) else { return };
        s.judge.workers -= 1;
        after.wake_driver();
        let v = self.board.objects.get(&object);
        let same = v.is_some_and(|v| v.generation == generation);
        // Bytes that are no longer wanted for this cannot fail the job.
        if same && s.judge.whole.as_ref().is_some_and(|w| w.run == run) {
            self.fail_job(error, after);
        }
    }
}

impl Ledger {
    /// What the last proofs say of an object. They are asked without the lock.
    pub(crate) async fn conclude(self: &Arc<Self>, object: ObjectId) -> Conclusion {
        let Some((generation, proofs)) = self.with(|s, after| s.may_conclude(object, after)) else {
            return Conclusion::Wait;
        };
        let said = if proofs.is_empty() {
            Ok(Vec::new())
        } else {
            self.compute.run(move || proofs.iter().map(|p| p.conclude()).collect()).await
        };
        self.with(|s, after| match said {
            Err(e) => {
                s.fail_job(e, after);
                Conclusion::Wait
            }
            // Something may have happened meanwhile.
            Ok(said) => match s.may_conclude(object, after) {
                Some((now, _)) if now == generation => s.conclude(object, &said),
                _ => Conclusion::Wait,
            },
        })
    }

    /// Hashes along the frontier until nothing more is there.
    pub(super) async fn hash_along(self: Arc<Self>, object: ObjectId, generation: u32, worker: Worker) {
        let (run, mut hashers) = (worker.run, Some(worker.hashers));
        loop {
            let job = self.with(|s, after| s.next_to_hash(object, generation, run, &mut hashers, after));
            let (bufs, permit, len) = match job {
                Job::Over => return,
                Job::Hash(bufs, permit) => {
                    let len = bufs.iter().map(|b| b.len() as u64).sum();
                    (bufs, Some(permit), len)
                }
                Job::Read(r) => match self.sink.read(object, r.clone()).await {
                    Ok(b) => (vec![b], None, r.end - r.start),
                    Err(e) => {
                        return self.with(|s, after| s.hashing_failed(object, generation, run, e, after));
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
                Err(e) => return self.with(|s, after| s.hashing_failed(object, generation, run, e, after)),
            }
            self.with(|s, _| {
                let same = s.board.objects.get(&object).is_some_and(|v| v.generation == generation);
                let whole = s.objects.get_mut(&object).and_then(|o| o.judge.whole.as_mut());
                if let Some(w) = whole.filter(|w| same && w.run == run) {
                    w.hashed_to += len;
                }
            });
        }
    }
}
