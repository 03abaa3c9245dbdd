//! Places: where all that an object may have are taken, who gives one up, and for whom.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::{Ask, BindingView, Board, LeaseView, ObjectView};
use crate::object::{BindingId, LeaseId, ObjectId, SourceId, Span};
use crate::source::Seek;

use super::Asker;
use super::pace::Paces;

/// Who is taken a place from is slower than its successor by this factor at least…
const FASTER: f64 = 2.0;
/// …and the object is there in this share of the time, the new connection included.
const SOONER: f64 = 0.9;
/// What a new connection costs, in seconds, and what it costs besides where the old one is lost.
const CONNECT: f64 = 0.2;
const RECONNECT: f64 = 0.3;
/// Somebody whose speed nobody knows is tried out when this much is left to do…
const WORTH_TRYING: f64 = 2.0;
/// …and again after this long, and then twice as long, and so on. So is another connection of somebody whom the last one
/// did not make faster.
const AGAIN: Duration = Duration::from_secs(15);
/// A lease is this old before its speed is held against it, or counts for its successors.
const MEASURED: Duration = Duration::from_secs(1);
const PROVEN: Duration = Duration::from_millis(400);
/// A claim that was told to wait is asked again at each tick: an older one is gone.
const WAITS: Duration = Duration::from_secs(1);
/// For how long a place is kept for whom it was taken.
const KEPT: Duration = Duration::from_secs(1);

/// Who waits, and for whom a place is kept.
#[derive(Debug, Default)]
pub(super) struct Places {
    waiting: BTreeMap<SourceId, (Instant, Option<BindingId>)>,
    kept: BTreeMap<ObjectId, (SourceId, Instant)>,
    /// Who was tried out without being known to deliver.
    tried: BTreeMap<BindingId, Rest>,
    /// Who got a place because of its speed, until it is known what came of it.
    grown: BTreeMap<BindingId, Grown>,
    /// Whom more places did not make faster.
    full: BTreeMap<BindingId, Rest>,
}

/// Not before then, after so many times.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    times: u32,
}

impl Rest {
    fn after(last: Option<Self>, now: Instant) -> Self {
        let times = last.map_or(0, |r| r.times);
        Self { until: now + AGAIN * 2_u32.pow(times.min(6)), times: times + 1 }
    }
}

/// What a binding had before it got another place, and what the lease did that gave it up: bytes a second.
#[derive(Debug, Clone, Copy)]
struct Grown {
    leases: u32,
    before: f64,
    theirs: f64,
}

impl Places {
    pub(super) fn told_to_wait(&mut self, who: Asker, ask: &Ask, now: Instant) {
        self.waiting.insert(who.source, (now, ask.binding));
    }

    /// Whether the next place of this object is kept for another source.
    pub(super) fn keeps_from(&self, source: SourceId, object: ObjectId, now: Instant) -> bool {
        self.kept.get(&object).is_some_and(|(s, until)| *s != source && now < *until)
    }

    /// Whether somebody waits who would make much more of the last place of this object than this binding.
    pub(super) fn better_waits(&self, b: &BindingView, o: &ObjectView, board: &Board, now: Instant) -> bool {
        let Some(mine) = b.rate() else { return false };
        self.waiting(o, board, now).any(|other| {
            other.source() != b.source()
                && other.window() == Span::ALL
                && other.caps().seek == Seek::Any
                && other.rate().is_some_and(|r| r >= mine * FASTER)
                && may(&self.full, other.id(), now)
        })
    }

    /// The bindings through which those who wait could have a lease of this object.
    fn waiting<'a>(
        &'a self,
        o: &'a ObjectView,
        board: &'a Board,
        now: Instant,
    ) -> impl Iterator<Item = &'a BindingView> {
        self.waiting
            .iter()
            .filter(move |(_, (at, _))| now.saturating_duration_since(*at) < WAITS)
            .flat_map(move |(s, (_, only))| {
                board
                    .claimable(*s, now)
                    .filter(move |(b, x)| x.id() == o.id() && only.is_none_or(|only| only == b.id()))
            })
            .map(|(b, _)| b)
    }

    /// A source has got a lease.
    pub(super) fn taken(&mut self, source: SourceId, object: ObjectId) {
        self.waiting.remove(&source);
        if self.kept.get(&object).is_some_and(|(s, _)| *s == source) {
            self.kept.remove(&object);
        }
    }

    /// A lease has ended, having delivered something: its binding is alive.
    pub(super) fn delivered(&mut self, binding: BindingId) {
        self.tried.remove(&binding);
    }

    /// What is over is forgotten.
    pub(super) fn forget(&mut self, board: &Board, now: Instant) {
        self.waiting.retain(|_, (at, _)| now.saturating_duration_since(*at) < WAITS);
        self.kept.retain(|_, (_, until)| now < *until);
        self.tried.retain(|b, _| board.binding(*b).is_some());
        self.grown.retain(|b, _| board.binding(*b).is_some());
        self.full.retain(|b, _| board.binding(*b).is_some());
    }

    /// The lease that should give its place up for somebody who waits, all places of the object being taken.
    pub(super) fn give_up(
        &mut self,
        o: &ObjectView,
        board: &Board,
        most: u32,
        now: Instant,
    ) -> Option<LeaseId> {
        if self.waiting.is_empty() || self.kept.contains_key(&o.id()) {
            return None;
        }
        let paces = Paces::new(o, board, now);
        self.judge(o, board, &paces, now);
        let slowest = paces
            .leases()
            .filter(|l| l.rolling() && (paces.is_lost(l) || may_be_taken(l, board, now)))
            .map(|l| (if paces.is_lost(l) { 0.0 } else { pace(l, board, &paces, now) }, l))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let (theirs, lease) = slowest?;
        let better = |b: &&BindingView| {
            b.caps().seek == Seek::Any
                && b.window().contains(o.next_missing(lease.cursor()))
                && if paces.is_lost(lease) {
                    self.lives(b, lease, &paces, now)
                } else {
                    self.is_better(b, theirs, lease, &paces, most, now)
                }
        };
        let found = self
            .waiting(o, board, now)
            .filter(better)
            .max_by(|a, b| a.rate().unwrap_or(0.0).total_cmp(&b.rate().unwrap_or(0.0)))?;
        let (source, binding, lives) = (found.source(), found.id(), lively(found, &paces));
        let grown = Grown { leases: found.leases(), before: speed(found, &paces), theirs };
        self.kept.insert(o.id(), (source, now + KEPT));
        if !lives {
            let last = self.tried.get(&binding).copied();
            self.tried.insert(binding, Rest::after(last, now));
        } else if !paces.is_lost(lease) {
            self.grown.insert(binding, grown);
        }
        Some(lease.id())
    }

    /// Whether those who got another place became as much faster as it cost.
    fn judge(&mut self, o: &ObjectView, board: &Board, paces: &Paces<'_>, now: Instant) {
        let (grown, full) = (&mut self.grown, &mut self.full);
        grown.retain(|id, g| {
            let Some(b) = board.binding(*id).filter(|b| b.object() == o.id()) else { return true };
            if !proven(b, paces, now) {
                return true;
            }
            // Fewer than then: a request ended meanwhile, and nothing can be said.
            if b.leases() > g.leases {
                if speed(b, paces) < g.before + g.theirs {
                    full.insert(*id, Rest::after(full.get(id).copied(), now));
                } else {
                    full.remove(id);
                }
            }
            false
        });
    }

    /// Whether a binding is likely to do better than a lease that is silent: another lease of it delivers, or it is
    /// another one, and is tried out. Not too often: a connection that is taken back before it is given up counts as no
    /// failure, and two that are both dead would take turns for ever.
    fn lives(&self, b: &BindingView, lease: &LeaseView, paces: &Paces<'_>, now: Instant) -> bool {
        let other = b.id() != lease.binding();
        if lively(b, paces) {
            other || lease.bytes() > 0
        } else {
            other && b.leases() == 0 && may(&self.tried, b.id(), now)
        }
    }

    /// Whether the object would be there sooner if this binding had the place of that lease.
    fn is_better(
        &self,
        b: &BindingView,
        theirs: f64,
        lease: &LeaseView,
        paces: &Paces<'_>,
        most: u32,
        now: Instant,
    ) -> bool {
        let Some(left) = paces.time_left() else { return false };
        let left = left.max(paces.own_time(lease));
        if b.id() == lease.binding() {
            return false;
        }
        let Some(mine) = b.rate() else {
            // With a single connection a mirror is there for when it fails.
            return most > 1 && left > WORTH_TRYING && b.leases() == 0 && may(&self.tried, b.id(), now);
        };
        // One after the other, as fast as its speed is known: together they may be no faster than one.
        let ready =
            proven(b, paces, now) && !self.grown.contains_key(&b.id()) && may(&self.full, b.id(), now);
        if !ready || mine < theirs * FASTER {
            return false;
        }
        let all: f64 = paces.leases().filter_map(|l| paces.of(l)).sum();
        let cost = CONNECT + if b.abort_costs() { RECONNECT } else { 0.0 };
        let then = left * all / (all - theirs + mine).max(1.0) + cost;
        then < left * SOONER
    }
}

/// Whether a lease that delivers may be taken back at all: it can be gone on with, nobody races it, and it is old
/// enough to be judged.
fn may_be_taken(l: &LeaseView, board: &Board, now: Instant) -> bool {
    let seek = board.binding(l.binding()).map(|b| b.caps().seek);
    seek != Some(Seek::None) && l.race_of().is_none() && !l.raced() && l.age(now) >= MEASURED
}

/// The speed of a lease, seen kindly: what it is now, or was over all its life, or what others of its binding are like
/// where it has not begun. Of whom nothing is known anything may be hoped.
fn pace(l: &LeaseView, board: &Board, paces: &Paces<'_>, now: Instant) -> f64 {
    if l.bytes() == 0 {
        return board.binding(l.binding()).and_then(BindingView::rate).unwrap_or(f64::INFINITY);
    }
    let life = l.age(now).saturating_sub(l.paused(now)).as_secs_f64().max(0.1);
    paces.of(l).unwrap_or(0.0).max(l.bytes() as f64 / life)
}

/// The speed of all leases of a binding.
fn speed(b: &BindingView, paces: &Paces<'_>) -> f64 {
    paces.leases().filter(|l| l.binding() == b.id()).filter_map(|l| paces.of(l)).sum()
}

/// Whether the speed of a binding is known with all the leases that it has.
fn proven(b: &BindingView, paces: &Paces<'_>, now: Instant) -> bool {
    paces.leases().filter(|l| l.binding() == b.id()).all(|l| l.bytes() > 0 && l.age(now) >= PROVEN)
}

fn may(rests: &BTreeMap<BindingId, Rest>, binding: BindingId, now: Instant) -> bool {
    rests.get(&binding).is_none_or(|r| r.until <= now)
}

/// Whether some lease of a binding delivers.
fn lively(b: &BindingView, paces: &Paces<'_>) -> bool {
    paces.leases().any(|l| l.binding() == b.id() && paces.is_lively(l))
}
