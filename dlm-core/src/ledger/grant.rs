//! Grants: asks are answered in turn, and a stale answer of the policy counts as "wait".

use std::ops::Range;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::object::{BindingId, Identity, LeaseId, ObjectId, PartyId, SourceId, Span, Validator};
use crate::range::Body;
use crate::sched::{Asker, BoardEvent, Grant, Order};
use crate::source::Seek;

use super::lease::Seed;
use super::meter::Meter;
use super::objects::no_seek;
use super::{After, LeaseView, State, Waiter};

impl State {
    /// Answers everybody who waits and can be served now.
    pub(crate) fn pump(&mut self, now: Instant, after: &mut After) {
        if self.waiters.is_empty() {
            return;
        }
        let mut waiters = std::mem::take(&mut self.waiters);
        // Parties of one source with one ask get the same answer: it is looked for once.
        let mut refused: Vec<(SourceId, super::Ask)> = Vec::new();
        waiters.retain_mut(|w| {
            let banned = self.parties.is_banned(w.party);
            if self.ended || banned {
                return answer(w, None, after);
            }
            if refused.iter().any(|(s, a)| *s == w.source && *a == w.ask) {
                return true;
            }
            match self.decide(w, now, after) {
                Decision::Lease(seed) => answer(w, Some(*seed), after),
                Decision::Retire => answer(w, None, after),
                Decision::Wait => {
                    refused.push((w.source, w.ask.clone()));
                    true
                }
            }
        });
        waiters.append(&mut self.waiters);
        self.waiters = waiters;
    }

    pub(crate) fn tick(&mut self, now: Instant, after: &mut After) -> Option<Instant> {
        let mut orders = Vec::new();
        let mut next = self.policy.tick(now, &self.board, &mut orders);
        for order in orders {
            match order {
                Order::Revoke(id) => after.cancel.extend(self.tokens.get(&id).cloned()),
                Order::Reconsider => self.pump(now, after),
            }
        }
        // A binding whose rest is over is served again.
        let mut woke = false;
        for b in self.board.bindings.values_mut() {
            match b.parked_until {
                Some(t) if t <= now => {
                    b.parked_until = None;
                    woke = true;
                }
                Some(t) => next = Some(next.map_or(t, |n| n.min(t))),
                None => {}
            }
        }
        for o in self.board.origins.values_mut() {
            match o.rest_until {
                Some(t) if t <= now => {
                    o.rest_until = None;
                    woke = true;
                }
                Some(t) => next = Some(next.map_or(t, |n| n.min(t))),
                None => {}
            }
        }
        if woke {
            self.pump(now, after);
        }
        next
    }

    fn decide(&mut self, w: &Waiter, now: Instant, after: &mut After) -> Decision {
        self.look_at_origin(w.source, now);
        self.unmask_unseekable(w.source, now, after);
        self.restart_unseekable(w.source, now, after);
        let mine = |b: BindingId| w.ask.binding.is_none_or(|a| a == b);
        // An answer that is still open is used first, where it can be.
        let open: Vec<(BindingId, u64, bool)> = self
            .board
            .claimable(w.source, now)
            .filter(|(b, _)| mine(b.id))
            .filter_map(|(b, o)| b.first_at.map(|at| (b.id, at, o.is_free(at) && o.dispute_at(at).is_none())))
            .collect();
        for (id, at, free) in open {
            if free {
                let span = self.span_of_first(id, at);
                if let Some(seed) = self.lease(w, id, span, None, now) {
                    return Decision::Lease(Box::new(seed));
                }
            }
            self.forget_first(id, after);
        }
        match self.policy.grant(now, Asker { source: w.source, party: w.party }, &w.ask, &self.board) {
            Grant::Fetch { binding, span }
                if mine(binding) && self.may_fetch(w.source, binding, span, now) =>
            {
                // All that was read over would be read over again for the next part; and what is not known to be
                // continuable comes to a pipe in one answer.
                let endless = self.board.bindings.get(&binding).is_some_and(|b| {
                    let piped = || self.board.objects.get(&b.object).is_some_and(|o| o.window.is_some());
                    b.reads_over || (b.identity.is_none() && piped())
                });
                let span = if endless { Span::from(span.start) } else { span };
                self.lease(w, binding, span, None, now)
                    .map_or(Decision::Wait, |g| Decision::Lease(Box::new(g)))
            }
            Grant::Race { of, from, binding }
                if mine(binding) && self.may_race(w.source, binding, of, now) =>
            {
                let span = self.board.leases.get(&of).and_then(|l| {
                    let o = self.board.objects.get(&l.object)?;
                    let end = l.want.to_range().end.min(o.len.unwrap_or(u64::MAX));
                    // What lies behind may be there already, and what lies before it is the rest.
                    [from.max(l.cursor), l.cursor]
                        .into_iter()
                        .map(|at| o.next_missing(at))
                        .find(|start| *start < end)
                        .map(|start| Span { start, end: l.want.end })
                });
                span.and_then(|s| self.lease(w, binding, s, Some(of), now))
                    .map_or(Decision::Wait, |g| Decision::Lease(Box::new(g)))
            }
            Grant::Retire => Decision::Retire,
            _ => Decision::Wait,
        }
    }

    /// What other jobs learnt of the origin counts here, too.
    fn look_at_origin(&mut self, source: SourceId, now: Instant) {
        if let (Some(s), Some(v)) = (self.sources.get(source.0 as usize), self.board.origins.get_mut(&source))
        {
            v.allows = s.origin.allowed(now);
            v.rest_until = s.origin.resting(now);
        }
    }

    fn span_of_first(&self, id: BindingId, at: u64) -> Span {
        let end = self.bindings.get(&id).and_then(|b| b.first.as_ref()).and_then(|f| f.at.end);
        Span { start: at, end }
    }

    pub(super) fn forget_first(&mut self, id: BindingId, after: &mut After) {
        if let Some(b) = self.board.bindings.get_mut(&id) {
            b.first_at = None;
        }
        if let Some(b) = self.bindings.get_mut(&id) {
            after.garbage.extend(b.first.take());
        }
    }

    fn may_fetch(&self, source: SourceId, id: BindingId, span: Span, now: Instant) -> bool {
        let Some(b) = self.board.bindings.get(&id) else { return false };
        let Some(o) = self.board.objects.get(&b.object) else { return false };
        b.source == source
            && self.board.has_place(source)
            && self.board.may_lease(b, o, now)
            && o.is_free(span.start)
            && span.start < o.horizon()
            && b.window.contains(span.start)
            && !span.is_empty()
            && (b.seek() != Seek::None || span.start == b.window.start)
    }

    fn may_race(&self, source: SourceId, id: BindingId, of: LeaseId, now: Instant) -> bool {
        let (Some(b), Some(l)) = (self.board.bindings.get(&id), self.board.leases.get(&of)) else {
            return false;
        };
        let Some(o) = self.board.objects.get(&l.object) else { return false };
        b.source == source
            && b.object == l.object
            && self.board.has_place(source)
            && self.board.may_lease(b, o, now)
            && l.race_of.is_none()
            && !l.raced
            && o.dispute_at(l.cursor).is_none()
            && b.window.contains(l.cursor)
            && b.seek() != Seek::None
    }

    /// Makes the lease. The answers of the policy have been checked.
    fn lease(
        &mut self,
        w: &Waiter,
        binding: BindingId,
        span: Span,
        race_of: Option<LeaseId>,
        now: Instant,
    ) -> Option<Granted> {
        self.make_lease(w.source, w.party, binding, span, true, race_of, now)
    }
    fn make_lease(
        &mut self,
        source: SourceId,
        party: PartyId,
        binding: BindingId,
        mut span: Span,
        rolling: bool,
        race_of: Option<LeaseId>,
        now: Instant,
    ) -> Option<Granted> {
        let b = self.board.bindings.get_mut(&binding)?;
        let o = self.board.objects.get_mut(&b.object)?;
        span = span.intersect(&b.window);
        if let Some(l) = o.len {
            span = span.intersect(&Span::new(0, l));
        }
        let wanted_to = o.wanted_to(span.start);
        if wanted_to != u64::MAX {
            span = span.intersect(&Span::new(0, wanted_to));
        }
        if let Some(d) = o.dispute_at(span.start) {
            // Alone, and all of it, so that the next verdict has one suspect.
            span = span.intersect(&Span::new(d.range.start, d.range.end));
        }
        let reserved = if race_of.is_some() {
            span.start..span.start
        } else if rolling && o.dispute_at(span.start).is_none() {
            let goal = span.start.saturating_add(256 << 10).min(span.to_range().end);
            let end = o
                .disputed
                .iter()
                .filter(|d| d.range.start > span.start)
                .map(|d| d.range.start)
                .chain(o.done.next_from(span.start))
                .chain(o.reserved.next_from(span.start))
                .fold(goal, u64::min);
            span.start..end
        } else {
            let whole = span.to_range();
            let end = if rolling {
                o.done
                    .next_from(span.start)
                    .into_iter()
                    .chain(o.reserved.next_from(span.start))
                    .fold(whole.end, u64::min)
            } else {
                whole.end
            };
            span.start..end
        };
        o.reserved.insert(reserved.clone());
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        let addressed = b.identity.as_ref().is_some_and(|i| i.validator == Validator::ContentAddressed);
        let mut meter = Meter::default();
        if let Some(rate) = b.meter.rate() {
            meter.mix(rate);
        }
        meter.start(now);
        let view = LeaseView {
            id,
            binding,
            source,
            party,
            object: o.id,
            generation: o.generation,
            want: span,
            cursor: span.start,
            reserved,
            rolling,
            race_of,
            raced: false,
            since: now,
            last_put: now,
            bytes: 0,
            meter,
            agreed: addressed,
            gained: false,
        };
        o.leases.push(id);
        b.leases += 1;
        let held = Identity {
            len: o.len,
            validator: b.identity.as_ref().map_or(Validator::Unknown, |i| i.validator.clone()),
        };
        let state = self.bindings.get_mut(&binding)?;
        let reads_over = b.reads_over;
        let first = if b.first_at == Some(span.start) { state.first.take() } else { None };
        if first.is_some() {
            b.first_at = None;
        }
        let target = state.target.clone();
        self.board.leases.insert(id, view);
        if let Some(r) = race_of.and_then(|r| self.board.leases.get_mut(&r)) {
            r.raced = true;
        }
        let token = CancellationToken::new();
        self.tokens.insert(id, token.clone());
        self.policy.on_event(now, &BoardEvent::Leased(id), &self.board);
        let origin = self.sources.get(source.0 as usize)?.origin.clone();
        if rolling && let Some(o) = self.board.origins.get_mut(&source) {
            o.rolling += 1;
        }
        Some((Seed { id, binding, party, target, span, held, token, origin, reads_over }, first))
    }

    /// A claim of exactly this range. `Err`: never again.
    pub(super) fn claim_exact(
        &mut self,
        source: SourceId,
        party: PartyId,
        object: ObjectId,
        range: Range<u64>,
        now: Instant,
        after: &mut After,
    ) -> Result<Option<Granted>, ()> {
        let _ = after;
        if self.ended || self.parties.is_banned(party) {
            return Err(());
        }
        let Some(o) = self.board.objects.get(&object) else { return Ok(None) };
        let span = Span::new(range.start, range.end);
        let free = range.start < range.end
            && o.len.is_none_or(|l| range.end <= l)
            && !o.done.touches(&range)
            && !o.reserved.touches(&range)
            && o.wanted_to(range.start) >= range.end
            && range.start < o.horizon();
        let fits = |b: &BindingId| {
            self.board.bindings.get(b).is_some_and(|v| {
                v.source == source
                    && v.window.contains(range.start)
                    && v.window.contains(range.end.saturating_sub(1))
                    && self.board.may_lease(v, o, now)
            })
        };
        let Some(binding) = o.bindings.iter().copied().find(|b| free && fits(b)) else { return Ok(None) };
        Ok(self.make_lease(source, party, binding, span, false, None, now))
    }

    /// A binding that can only be read from its first byte, on an object that has some bytes and nobody at work: the
    /// object starts over, because a part cannot be continued and two answers must not be put together. Where bytes have
    /// left and would be the same again, they are read over instead.
    fn restart_unseekable(&mut self, source: SourceId, now: Instant, after: &mut After) {
        let stuck: Vec<(BindingId, ObjectId)> = self
            .board
            .claimable(source, now)
            .filter(|(b, o)| {
                no_seek(b.seek())
                    && o.leases.is_empty()
                    && !o.done.is_empty()
                    && o.remaining() != Some(0)
                    && o.bindings
                        .iter()
                        .all(|x| self.board.bindings.get(x).is_none_or(|v| v.failed || no_seek(v.seek())))
            })
            .map(|(b, o)| (b.id, o.id))
            .collect();
        for (binding, id) in stuck {
            let left = self.board.objects.get(&id).is_some_and(|v| v.window.is_some())
                && self.objects.get(&id).is_some_and(|o| o.next_out > 0 || o.out_busy);
            match self.board.bindings.get_mut(&binding) {
                Some(b) if left && b.identity.as_ref().is_some_and(|i| i.validator.is_strong()) => {
                    b.reads_over = true;
                }
                _ => self.restart(id, None, after),
            }
        }
    }
}

/// A lease in the making, with the answer that is still open for it.
pub(super) type Granted = (Seed, Option<Body>);

enum Decision {
    Lease(Box<Granted>),
    Wait,
    Retire,
}

/// Answers a waiter, which then leaves the queue.
fn answer(w: &mut Waiter, seed: Option<Granted>, after: &mut After) -> bool {
    if let Some(tx) = w.tx.take() {
        after.grants.push((tx, seed));
    }
    false
}
