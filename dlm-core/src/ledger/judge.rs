//! Verdicts: pieces, whole digests, blame.
//!
//! A whole digest follows a frontier: bytes that are written just there are hashed while they are in memory, others are
//! read back when the frontier reaches them. A piece is judged when all of it is written (in memory, where the sink
//! cannot be read). A verdict is applied only after the writes it speaks of have returned.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::budget::Permit;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind, Result};
use crate::event::{EventKind, VerifiedBy};
use crate::object::{ObjectId, PartyId, SourceId, Span, Trust};
use crate::verify::{Piece, Proof, Verdict};

use super::work::NewsItem;
use super::write::crc32c;
use super::{After, Dispute, Ledger, ObjectView, RangeSet, State};

/// Bytes that are read back at a time.
const STEP: u64 = 1 << 20;
/// A party with no alternative is banned after this many wrong pieces.
const STRIKES: u32 = 3;

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
    pieces: Vec<Judgement<(Span, Arc<dyn Proof>)>>,
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
        trust: Trust,
        author: Option<SourceId>,
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

    pub(crate) fn add_pieces(&mut self, p: Judgement<(Span, Arc<dyn Proof>)>) {
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

    pub(crate) fn knows_good(&self, r: &Range<u64>) -> bool {
        self.good.covers(r)
    }

    /// The trusted piece that holds `at`.
    pub(crate) fn piece_holding(&self, at: u64) -> Option<Range<u64>> {
        self.pieces.iter().filter(|p| p.trust != Trust::Claimed).find_map(|p| match p.what.1.piece_at(at) {
            Piece::At(r) if inside(&r, &p.what.0) => Some(r),
            _ => None,
        })
    }

    /// As far as this no trusted piece begins behind `at`, which is in none.
    pub(crate) fn unproven_to(&self, at: u64) -> u64 {
        let trusted = self.pieces.iter().filter(|p| p.trust != Trust::Claimed);
        trusted
            .filter_map(|p| {
                let (window, proof) = &p.what;
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

enum Job {
    Hash(Vec<Bytes>, Arc<Permit>),
    Read(Range<u64>),
    Over,
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
        for p in &s.judge.pieces {
            let (window, proof) = &p.what;
            for run in v.written.within(range.clone()) {
                let mut at = run.start;
                while at < run.end {
                    let piece = match proof.piece_at(at) {
                        Piece::At(r) if r.contains(&at) => r,
                        _ => match proof.next_after(at) {
                            Some(n) if n > at => {
                                at = n;
                                continue;
                            }
                            _ => break,
                        },
                    };
                    at = piece.end;
                    if inside(&piece, window) && v.written.covers(&piece) && !s.checking.touches(&piece) {
                        s.checking.insert(piece.clone());
                        found.push(Check::Piece {
                            object,
                            generation: v.generation,
                            piece,
                            proof: proof.clone(),
                            trust: p.trust,
                            author: p.author,
                        });
                    }
                }
            }
        }
        after.checks.append(&mut found);
    }

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
        if s.judge.pieces.iter().any(|p| p.trust != Trust::Claimed && p.what.1.conclude() == Verdict::Bad) {
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
        if bindings.len() > 1 {
            s.judge.unmix();
        }
        let suspects = parties.iter().map(|p| self.label(*p)).collect();
        self.say(EventKind::Blamed { suspects, object, range: 0..len }, after);
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

    fn judged(&mut self, check: &Finished, after: &mut After) {
        let now = tokio::time::Instant::now();
        let Finished { object, generation, piece, trust, author, .. } = check;
        let (Some(s), Some(v)) = (self.objects.get_mut(object), self.board.objects.get_mut(object)) else {
            return;
        };
        s.checking.remove(piece);
        after.wake_driver();
        if v.generation != *generation || v.closed {
            return;
        }
        let suspects: BTreeSet<PartyId> = s.origin.within(piece.clone()).map(|(_, p)| *p).collect();
        let claimed = *trust == Trust::Claimed;
        match check.verdict {
            Verdict::Good if !claimed => {
                v.written.remove(piece);
                v.verified.insert(piece.clone());
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
                    suspects.iter().any(|p| self.parties.get(p.0 as usize).map(|p| p.source) != *author);
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

    /// This party delivered wrong bytes, beyond doubt.
    fn convict(
        &mut self,
        party: PartyId,
        object: ObjectId,
        piece: &Range<u64>,
        now: tokio::time::Instant,
        after: &mut After,
    ) {
        let Some(p) = self.parties.get_mut(party.0 as usize) else { return };
        if p.banned {
            return;
        }
        p.strikes += 1;
        let (source, strikes) = (p.source, p.strikes);
        let main = self.parties.iter().position(|p| p.source == source) == Some(party.0 as usize);
        let mine: Vec<_> = self
            .sources_of(object)
            .into_iter()
            .filter(|b| self.board.bindings.get(b).is_some_and(|b| b.source == source))
            .collect();
        let alternative = !main || self.sources_of(object).len() > mine.len();
        if strikes < STRIKES && !alternative {
            return;
        }
        if let Some(p) = self.parties.get_mut(party.0 as usize) {
            p.banned = true;
        }
        after.news.push(NewsItem::Banned(party));
        let label = self.label(party);
        self.say(EventKind::Banned { party: label }, after);
        after.cancel.extend(
            self.board
                .leases
                .values()
                .filter(|l| l.party == party)
                .filter_map(|l| self.tokens.get(&l.id))
                .cloned(),
        );
        self.policy.on_event(now, &crate::sched::BoardEvent::Blamed(party), &self.board);
        if main {
            let label = self.label(party);
            let error = wrong(format_args!("bytes {}..{} are wrong", piece.start, piece.end)).on(label);
            for b in mine {
                self.fail_binding(b, error.clone(), now, after);
            }
        }
        self.pump(now, after);
    }

    /// Retractions are in the journal: the bytes may be fetched again.
    pub(crate) fn retracted(
        &mut self,
        done: &[(ObjectId, u32, Range<u64>)],
        now: tokio::time::Instant,
        after: &mut After,
    ) {
        for (object, generation, range) in done {
            self.retract.retain(|x| x != &(*object, *generation, range.clone()));
            let (Some(s), Some(v)) = (self.objects.get_mut(object), self.board.objects.get_mut(object))
            else {
                continue;
            };
            if v.generation != *generation {
                continue;
            }
            v.written.remove(range);
            v.verified.remove(range);
            v.done.remove(range);
            s.origin.remove(range);
            after.news.push(NewsItem::Lost { object: *object, range: range.clone() });
            let event = crate::sched::BoardEvent::Lost { object: *object, range: range.clone() };
            self.policy.on_event(now, &event, &self.board);
        }
        self.pump(now, after);
    }
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Corrupt, "verify the file")
        .because(why)
        .advise("check where the checksum came from, or try another source")
}

/// A piece that was judged.
struct Finished {
    object: ObjectId,
    generation: u32,
    piece: Range<u64>,
    trust: Trust,
    author: Option<SourceId>,
    verdict: Verdict,
    /// CRC-32C of each run, to find out who lied once the right bytes are known.
    runs: Vec<(Range<u64>, u32)>,
}

impl Ledger {
    pub(super) async fn check(self: Arc<Self>, check: Check) {
        match check {
            Check::Whole { object, generation, whole } => {
                self.clone().hash_along(object, generation, whole).await;
            }
            Check::Piece { object, generation, piece, proof, trust, author } => {
                let verdict = self.judge_piece(object, &piece, &*proof).await;
                let runs =
                    self.crc_runs(object, &piece, verdict.as_ref().is_ok_and(|v| *v == Verdict::Good)).await;
                self.with(|s, after| match verdict {
                    Ok(verdict) => {
                        let f = Finished { object, generation, piece, trust, author, verdict, runs };
                        s.judged(&f, after);
                    }
                    Err(e) => {
                        if let Some(o) = s.objects.get_mut(&object) {
                            o.checking.remove(&piece);
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

    async fn judge_piece(&self, object: ObjectId, piece: &Range<u64>, proof: &dyn Proof) -> Result<Verdict> {
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
    async fn crc_runs(&self, object: ObjectId, piece: &Range<u64>, good: bool) -> Vec<(Range<u64>, u32)> {
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

    async fn check_memory(
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

    /// Hashes along the frontier until nothing more is there.
    async fn hash_along(self: Arc<Self>, object: ObjectId, generation: u32, hashers: Vec<Hasher>) {
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

impl State {
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

    /// A piece that never left memory is wrong: it is missing again, and its deliverers are suspects.
    fn drop_wrong_memory(&mut self, object: ObjectId, piece: &Range<u64>, after: &mut After) {
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
