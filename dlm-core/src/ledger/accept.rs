//! Deliveries: which bytes are taken, how a reservation rolls forward, when a source is told to stop.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::error::{Error, Kind, Result};
use crate::object::{Identity, LeaseId, ObjectId, Validator};
use crate::sched::BoardEvent;
use crate::sink::{Order, SinkCaps};
use crate::source::AbortCost;

use super::lease::{Next, Place, Put, unagreed};
use super::segment::Segment;
use super::{After, LeaseView, State};

/// A reservation reaches this far ahead of the cursor, in time…
const HORIZON: f64 = 0.25;
/// …and at least this far.
const LEAST_HORIZON: u64 = 256 << 10;
/// An answer with less than this is no progress: somebody who closes each connection after a byte is not asked again at
/// once.
pub(super) const LITTLE: u64 = 4 << 10;
/// Read over a hole of this much rather than stop, where stopping costs a connection.
const SKIP: u64 = 256 << 10;
/// Who delivers nothing for this long keeps nothing from somebody who comes by.
const SILENT: Duration = Duration::from_secs(1);

impl State {
    pub(super) fn put(
        &mut self,
        id: LeaseId,
        at: u64,
        data: &Bytes,
        now: Instant,
        budget: &Arc<Budget>,
        caps: SinkCaps,
        after: &mut After,
    ) -> Result<Put> {
        const STOP: Put = Put { taken: 0, next: Next::Stop };
        let Some(l) = self.board.leases.get_mut(&id) else { return Ok(STOP) };
        if !l.agreed {
            return Err(unagreed());
        }
        let (party, binding, object) = (l.party, l.binding, l.object);
        let (Some(v), Some(b)) = (self.board.objects.get_mut(&object), self.board.bindings.get_mut(&binding))
        else {
            return Ok(STOP);
        };
        let banned = self.parties.is_banned(party);
        if v.closed || v.generation != l.generation || self.ended || banned || b.failed {
            return Ok(STOP);
        }
        l.last_put = now;
        let len = data.len() as u64;
        if let Some(sample) = l.meter.add(len, now) {
            b.meter.mix(sample);
        }
        // What lies outside the lease's right is dropped: the object's end, the binding's window, a disputed range that
        // is somebody else's alone. What lies ahead of the lease and is needed is taken: it is in the hand already.
        let bound = b.window.to_range();
        let end = bound.end.min(v.len.unwrap_or(u64::MAX));
        let mut range = at.max(bound.start)..at.saturating_add(len).min(end);
        if let Some(d) = v.disputed.iter().find(|d| d.range.start < range.end && range.start < d.range.end) {
            let mine = l.want.start >= d.range.start && l.want.start < d.range.end;
            if mine {
                range = range.start.max(d.range.start)..range.end.min(d.range.end);
            } else {
                range.end = range.end.min(d.range.start.max(range.start));
            }
        }
        let needed: Vec<Range<u64>> = match &v.wanted {
            _ if range.start >= range.end => Vec::new(),
            None => v.done.gaps(range.clone()).collect(),
            Some(w) => w.left().within(range.clone()).collect(),
        };
        // What nobody wants (any more) did not come twice.
        let unwanted: u64 = match &v.wanted {
            None => 0,
            Some(w) => {
                v.done.gaps(range.clone()).flat_map(|r| w.all().gaps(r)).map(|r| r.end - r.start).sum()
            }
        };
        let frontier = v.frontier();
        let mut taken = 0;
        for r in &needed {
            taken += r.end - r.start;
            v.take(r.clone());
            v.held.insert(r.clone());
        }
        if caps.order == Order::Next && v.frontier() != frontier {
            // Who stands there now no longer waits for budget, and may be waiting.
            after.wake_moved = true;
        }
        l.bytes += taken;
        self.received += taken;
        self.duplicate += len - taken - unwanted;
        if let Some(s) = self.objects.get_mut(&object) {
            for r in &needed {
                s.origin.set(r.clone(), party);
            }
            let covered = v.done.covered();
            if covered > s.best {
                s.best = covered;
                l.gained = true;
                if l.bytes >= LITTLE
                    && let Some(b) = self.bindings.get_mut(&binding)
                {
                    b.backoff.progress();
                }
            }
            if !v.mixable {
                v.primary.get_or_insert(binding);
            }
        }
        let source = b.source;
        if let Some(s) = self.sources.get_mut(source.0 as usize) {
            s.bytes += taken;
        }
        for r in needed {
            let part = if r.start == at && r.end == at + len {
                data.clone()
            } else {
                let part = data.slice((r.start - at) as usize..(r.end - at) as usize);
                // A little of much would hold on to all of it, and only the little is counted.
                if part.len() < data.len() / 4 { Bytes::copy_from_slice(&part) } else { part }
            };
            self.gather(object, r.start, part, now, budget, caps, after);
        }
        let next = self.roll(id, at.saturating_add(len), now, after);
        self.settle(object, after);
        Ok(Put { taken: taken as u32, next })
    }

    /// Adds accepted bytes to what is gathered, and writes it out when there is a batch.
    fn gather(
        &mut self,
        object: ObjectId,
        at: u64,
        data: Bytes,
        now: Instant,
        budget: &Arc<Budget>,
        caps: SinkCaps,
        after: &mut After,
    ) {
        let leases = self.board.leases.len().max(1) as u64;
        let len = data.len() as u64;
        let Some(s) = self.objects.get_mut(&object) else { return };
        // Small files are flushed finely, so that a kill costs little of them.
        let fine =
            self.board.objects.get(&object).and_then(|o| o.len).map_or(u64::MAX, |l| (l / 512).max(16 << 10));
        let batch =
            (budget.limit() / (2 * leases)).clamp(64 << 10, 512 << 10).min(fine).min(caps.batch as u64);
        let permit = budget.charge(len);
        let start = match s.pending.range_mut(..=at).next_back() {
            Some((start, seg)) if start + seg.len == at && seg.len + len <= (4 << 20) => {
                Segment::push(&mut seg.bufs, data);
                seg.len += len;
                seg.permit.merge(permit);
                *start
            }
            _ => {
                let mut bufs = Vec::new();
                Segment::push(&mut bufs, data);
                s.pending.insert(at, Segment { bufs, len, since: now, permit });
                at
            }
        };
        if caps.order == Order::Next {
            self.flush_ordered(object, after);
        } else if s.pending.get(&start).is_some_and(|seg| seg.len >= batch) {
            self.write_out(object, start, after);
        }
    }

    /// Moves a lease's cursor to `to` and its reservation with it; says what it should do next.
    fn roll(&mut self, id: LeaseId, to: u64, now: Instant, after: &mut After) -> Next {
        self.overtake(id, to, now, after);
        let Some(l) = self.board.leases.get_mut(&id) else { return Next::Stop };
        let Some(v) = self.board.objects.get_mut(&l.object) else { return Next::Stop };
        let want_end = l.want.to_range().end.min(v.len.unwrap_or(u64::MAX));
        if !l.rolling {
            let rest = v.next_missing(l.want.start);
            l.cursor = rest.min(want_end);
            return if rest < want_end { Next::Continue } else { Next::Stop };
        }
        l.cursor = l.cursor.max(to);
        let cursor = l.cursor;
        let passed = l.reserved.start..l.reserved.end.min(cursor);
        if passed.start < passed.end {
            v.reserved.remove(&passed);
            l.reserved.start = passed.end;
        }
        if cursor >= want_end {
            return Next::Stop;
        }
        let horizon = l.meter.rate().map_or(LEAST_HORIZON, |r| ((r * HORIZON) as u64).max(LEAST_HORIZON));
        if let Some(raced) = l.race_of {
            // A racer reserves nothing: it takes what the other has not delivered yet.
            let p = v.next_missing(cursor);
            let over = self.board.leases.get(&raced).is_none_or(|r| r.cursor >= want_end);
            return if p >= want_end || (over && v.reserved.contains(p)) {
                Next::Stop
            } else if p == cursor {
                Next::Continue
            } else {
                Next::From(p)
            };
        }
        let mut next = Next::Continue;
        let mut at = cursor;
        if l.reserved.start >= l.reserved.end || l.reserved.end <= cursor {
            // Nothing is reserved ahead: the next byte that is free, if it is near enough to read over what lies between.
            let p = v.next_gap(cursor..want_end).map(|g| g.start);
            let near = match self.board.bindings.get(&l.binding).map(|b| b.caps.abort) {
                Some(AbortCost::Connection) => SKIP.max(horizon / 4),
                _ => 0,
            };
            match p {
                Some(p) if p == cursor => {}
                Some(p) if p - cursor <= near => {
                    next = Next::From(p);
                    at = p;
                }
                _ => return Next::Stop,
            }
            l.reserved = at..at;
        } else if v.done.contains(cursor) {
            // A racer was here first.
            let p = v.next_missing(cursor);
            if p >= want_end || (p >= l.reserved.end && !v.is_free(p)) {
                return Next::Stop;
            }
            if p > l.reserved.end {
                // All that was reserved is there: begin anew behind it.
                v.reserved.remove(&l.reserved);
                l.reserved = p..p;
            }
            next = Next::From(p);
            at = p;
        }
        let goal = at.saturating_add(horizon).min(want_end);
        // Half a horizon at a time, so that this is not done for every chunk.
        if goal > l.reserved.end && (goal - l.reserved.end) * 2 >= horizon.min(want_end - at) {
            let from = l.reserved.end.max(at);
            let goal = goal.min(v.wanted_to(from));
            let free_to = v
                .disputed
                .iter()
                .filter(|d| d.range.start >= from)
                .map(|d| d.range.start)
                .chain(v.done.next_from(from))
                .chain(v.reserved.next_from(from))
                .fold(goal, u64::min);
            if free_to > from {
                v.reserved.insert(from..free_to);
                l.reserved.end = free_to;
            }
        }
        next
    }

    /// Who comes to what somebody silent has reserved reads on, and takes it over: a new request would cost as much as
    /// the old one, and may be as silent.
    fn overtake(&mut self, id: LeaseId, at: u64, now: Instant, after: &mut After) {
        let Some(l) = self.board.leases.get(&id).filter(|l| l.rolling && l.race_of.is_none()) else { return };
        let (object, binding, end) = (l.object, l.binding, l.want.to_range().end);
        let Some(v) = self.board.objects.get_mut(&object) else { return };
        if at >= end || l.reserved.end > at || v.done.contains(at) || !v.reserved.contains(at) {
            return;
        }
        let ids = v.leases.iter().filter(|x| **x != id);
        let owner = ids.filter_map(|x| self.board.leases.get(x)).find(|x| x.reserved.contains(&at));
        // The same server that answers here has not answered there yet: why wait.
        let late = |o: &LeaseView| o.silent(now) >= SILENT || (o.bytes == 0 && o.binding == binding);
        let Some(owner) = owner.filter(|o| o.rolling && late(o)).map(LeaseView::id) else { return };
        if let Some(o) = self.board.leases.get_mut(&owner) {
            v.reserved.remove(&o.reserved);
            o.reserved = o.reserved.end..o.reserved.end;
        }
        after.cancel.extend(self.tokens.get(&owner).cloned());
    }

    pub(super) fn agree(
        &mut self,
        id: LeaseId,
        seen: &Identity,
        now: Instant,
        after: &mut After,
    ) -> Result<()> {
        let Some(l) = self.board.leases.get_mut(&id) else { return Ok(()) };
        let (binding, object) = (l.binding, l.object);
        let (Some(v), Some(b)) = (self.board.objects.get_mut(&object), self.board.bindings.get_mut(&binding))
        else {
            return Ok(());
        };
        let whole = b.window == crate::object::Span::ALL;
        let known_len = if whole { v.len } else { None };
        let fits = match &b.identity {
            Some(held) => {
                let held = Identity { len: known_len.or(held.len), validator: held.validator.clone() };
                held.agrees(seen)
            }
            None => known_len.is_none_or(|h| seen.len.is_none_or(|s| s == h)),
        };
        if fits {
            l.agreed = true;
            if b.identity.is_none() {
                b.identity = Some(seen.clone());
            }
            if whole && v.len.is_none() && seen.len.is_some() {
                v.len = seen.len;
                after.wake_driver();
            }
            self.note_validator(binding, seen);
            self.remix(object);
            self.settle(object, after);
            self.pump(now, after);
            return Ok(());
        }
        let subject = self.bindings.get(&binding).map(|b| b.target.remote.to_string()).unwrap_or_default();
        let why = match (known_len, seen.len) {
            (Some(a), Some(b)) if a != b => format!("the file changed: it had {a} bytes and has {b} now"),
            _ => "the file changed while it was read".to_owned(),
        };
        let error = Error::new(Kind::Changed, "fetch")
            .on(subject)
            .because(why)
            .advise("run the command again when the file is stable");
        self.changed(binding, error.clone(), now, after);
        Err(error)
    }

    pub(super) fn reopen(&mut self, id: LeaseId) {
        if let Some(l) = self.board.leases.get_mut(&id)
            && let Some(b) = self.board.bindings.get(&l.binding)
        {
            l.agreed = b.identity.as_ref().is_some_and(|i| i.validator == Validator::ContentAddressed);
        }
    }

    pub(super) fn waits(&mut self, id: LeaseId, now: Instant) {
        if let Some(l) = self.board.leases.get_mut(&id) {
            l.meter.pause(now);
        }
    }

    pub(super) fn waited(&mut self, id: LeaseId, pause: Duration) {
        if let Some(l) = self.board.leases.get_mut(&id) {
            l.meter.exclude(pause);
            l.last_put += pause;
        }
    }

    pub(super) fn place_in_order(&self, id: LeaseId) -> Place {
        let Some(l) = self.board.leases.get(&id) else { return Place::AtFrontier };
        let Some(v) = self.board.objects.get(&l.object) else { return Place::AtFrontier };
        // Counted from what has left, not from what was accepted: a reader that is slow holds everybody back.
        let (out, piece) = self.objects.get(&l.object).map_or((0, 0), |s| {
            (s.next_out, s.judge.piece_holding(s.next_out).map_or(0, |p| p.end - s.next_out))
        });
        let window = v.window.unwrap_or(u64::MAX).max(piece);
        if l.cursor >= out.saturating_add(window) {
            Place::Beyond
        } else if l.cursor <= v.frontier() {
            Place::AtFrontier
        } else {
            Place::InWindow
        }
    }

    pub(super) fn written_before(&self, object: ObjectId, at: u64, max: u64) -> Option<Range<u64>> {
        let v = self.board.objects.get(&object)?;
        let from = at.saturating_sub(max);
        // The last run that ends exactly at `at` and whose writes have returned.
        let run = v.done.within(from..at).last().filter(|r| r.end == at)?;
        let held = v.held.within(run.clone()).last().map_or(run.start, |h| h.end);
        (held < at).then_some(held.max(run.start)..at)
    }

    pub(super) fn end_of_object(
        &mut self,
        id: LeaseId,
        len: u64,
        now: Instant,
        after: &mut After,
    ) -> Result<()> {
        let Some(l) = self.board.leases.get(&id) else { return Ok(()) };
        let Some(v) = self.board.objects.get_mut(&l.object) else { return Ok(()) };
        if v.closed || v.generation != l.generation {
            return Ok(());
        }
        let (object, binding) = (l.object, l.binding);
        let expected = v.len.or_else(|| v.done.iter().last().map(|r| r.end).filter(|least| *least > len));
        let Some(expected) = expected.filter(|e| *e != len) else {
            v.len = Some(len);
            self.settle(object, after);
            after.wake_driver();
            return Ok(());
        };
        // An end that nothing announced is no better than a cut.
        let cut = v.len.is_some_and(|known| known > len);
        let subject = self.bindings.get(&binding).map(|b| b.target.remote.to_string()).unwrap_or_default();
        let error = Error::new(if cut { Kind::Reset } else { Kind::Changed }, "fetch")
            .on(subject)
            .because(format_args!("the answer ended after {len} bytes where {expected} are expected"));
        if cut {
            self.setback(id, binding, &error, now, after);
        } else {
            self.changed(binding, error.clone(), now, after);
        }
        Err(error)
    }

    /// A lease ends: what was not delivered is missing again.
    pub(super) fn release(&mut self, id: LeaseId, now: Instant, after: &mut After) {
        let Some(l) = self.board.leases.remove(&id) else { return };
        self.tokens.remove(&id);
        if let Some(v) = self.board.objects.get_mut(&l.object) {
            v.leases.retain(|x| *x != id);
            v.reserved.remove(&l.reserved);
        }
        if let Some(b) = self.board.bindings.get_mut(&l.binding) {
            b.leases = b.leases.saturating_sub(1);
        }
        if l.rolling
            && let Some(o) = self.board.origins.get_mut(&l.source)
        {
            o.rolling = o.rolling.saturating_sub(1);
        }
        if let Some(of) = l.race_of
            && let Some(r) = self.board.leases.get_mut(&of)
        {
            r.raced = false;
        }
        // A racer that outlives the one it raced goes on by itself, and reserves what it still has before it.
        let racer = self.board.leases.values().find(|r| r.race_of == Some(id)).map(|r| r.id);
        if let Some(r) = racer.and_then(|r| self.board.leases.get_mut(&r)) {
            r.race_of = None;
            r.reserved = r.cursor..r.cursor;
        }
        self.policy.on_event(
            now,
            &BoardEvent::Ended { lease: id, binding: l.binding, bytes: l.bytes },
            &self.board,
        );
        after.wake_driver();
        if !self.ended {
            self.pump(now, after);
        }
    }
}
