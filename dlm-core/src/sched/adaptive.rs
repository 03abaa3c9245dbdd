//! The default policy: long requests where nobody is, split by speed where somebody is, a race at the end.

mod level;
mod pace;
mod places;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::{Ask, BindingView, Board, LeaseView, ObjectView};
use crate::object::{ObjectId, Span};
use crate::source::Seek;

use self::level::{FIRST, Level, MOST};
use self::pace::Paces;
use self::places::Places;
use super::{Asker, BoardEvent, Grant, Order, Scheduler};

/// A part smaller than this is not worth a request of its own.
const LEAST: u64 = 128 << 10;
/// Another connection is opened only when this much is left to do at the present speed…
const WORTH: f64 = 0.25;
/// …or, before anything was measured, this many bytes a connection.
const WORTH_BYTES: u64 = 1 << 20;
/// A race begins when the two together would be done this much sooner, the request included.
const RACE: f64 = 1.15;
const REQUEST: f64 = 0.1;
/// A request is this many seconds of its binding's speed long, where stopping it early costs nothing, and where it costs
/// a connection…
const LONG: f64 = 2.0;
const LONG_WHERE_CUTS_COST: f64 = 4.0;
/// …and this many bytes at least, or while no speed is known.
const LONG_BYTES: u64 = 4 << 20;
const LONG_UNKNOWN: u64 = 16 << 20;
const TICK: Duration = Duration::from_millis(200);

/// Places requests by measured speed.
///
/// A request goes where nobody reads yet; failing that, into the longest-lasting stretch before somebody, at the point
/// where both should meet at the end; failing that, it races whoever would finish last. Requests are long (seconds of
/// the binding's own speed), since only a short horizon of each is reserved. Connections start at four and double while
/// that brings 15 % more, unless the job says how many there may be; where they are all taken, one that stalls, or is
/// much slower than somebody who waits could be, is taken back.
#[derive(Debug, Default)]
pub struct Adaptive {
    levels: BTreeMap<ObjectId, Level>,
    places: Places,
}

impl Adaptive {
    /// A policy that has measured nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn most(&self, o: &ObjectView, board: &Board) -> u32 {
        board.limits().connections.unwrap_or_else(|| self.levels.get(&o.id()).map_or(FIRST, Level::most))
    }

    /// Whether a source may have another connection to the object.
    fn has_place(&self, b: &BindingView, o: &ObjectView, board: &Board, now: Instant) -> bool {
        let most = self.most(o, board);
        let running = rolling(o, board).count() as u32;
        if running >= most {
            // What another source brings is not known from those that are at work: it has one place in any case.
            let source = |l: &LeaseView| board.binding(l.binding()).map(BindingView::source);
            let new = rolling(o, board).all(|l| source(l) != Some(b.source()));
            if board.limits().connections.is_some() || running >= MOST || !new {
                return false;
            }
        } else if running + 1 == most
            && (self.places.keeps_from(b.source(), o.id(), now) || self.places.better_waits(b, o, board, now))
        {
            return false;
        }
        running == 0 || worth_another(o, board, running, now)
    }

    fn place(&self, b: &BindingView, o: &ObjectView, board: &Board, now: Instant) -> Option<Grant> {
        if !self.has_place(b, o, board, now) {
            return None;
        }
        let window = b.window().to_range();
        let window = window.start..window.end.min(o.horizon());
        if b.caps().seek == Seek::None {
            let start = window.start;
            return (rolling(o, board).next().is_none() && o.is_free(start))
                .then_some(Grant::Fetch { binding: b.id(), span: b.window() });
        }
        let paces = Paces::new(o, board, now);
        let mut best: Option<(f64, u64, u64)> = None;
        let mut urgency = None;
        for gap in o.gaps(window).take(64) {
            let now = o.priority_at(gap.start);
            if std::mem::replace(&mut urgency, now) != now && best.is_some() {
                // There is something to do in what is more urgent.
                break;
            }
            let owner = board
                .leases_of(o.id())
                .find(|l| l.rolling() && l.reserved().end == gap.start && l.want().contains(gap.start));
            let (weight, start) = match owner {
                // Nobody comes here: the longest such gap, so that requests are few.
                None => (1e15 + (gap.end - gap.start).min(1 << 48) as f64, gap.start),
                Some(_) if gap.end == u64::MAX => continue,
                Some(l) => match split(&gap, paces.of(l), b) {
                    Some(s) => s,
                    None => continue,
                },
            };
            if best.is_none_or(|(w, ..)| weight > w) {
                best = Some((weight, start, gap.end));
            }
        }
        if let Some((_, start, end)) = best {
            let end = (end != u64::MAX).then_some(end);
            // With one connection there is one request.
            let end =
                if self.most(o, board) > 1 { end.map(|e| e.min(start.saturating_add(long(b)))) } else { end };
            return Some(Grant::Fetch { binding: b.id(), span: Span { start, end } });
        }
        race(b, o, &paces)
    }
}

/// How long a request of this binding should be.
fn long(b: &BindingView) -> u64 {
    let seconds = if b.abort_costs() { LONG_WHERE_CUTS_COST } else { LONG };
    b.rate().map_or(LONG_UNKNOWN, |r| ((r * seconds) as u64).max(LONG_BYTES))
}

fn rolling<'a>(o: &'a ObjectView, board: &'a Board) -> impl Iterator<Item = &'a LeaseView> {
    board.leases_of(o.id()).filter(|l| l.rolling())
}

/// Where a newcomer should start in a gap that somebody is running into, and how long the owner would need for it.
fn split(gap: &Range<u64>, theirs: Option<f64>, b: &BindingView) -> Option<(f64, u64)> {
    let len = gap.end - gap.start;
    if len < 2 * LEAST {
        return None;
    }
    let theirs = theirs.or(b.rate()).unwrap_or(1.0).max(1.0);
    let mine = b.rate().unwrap_or(theirs).max(1.0);
    let before = (len as f64 * (theirs / (theirs + mine))) as u64;
    let start = gap.start + before.clamp(LEAST, len - LEAST);
    // On a round offset, which keeps writes aligned; rounding down must not leave the gap.
    Some((len as f64 / theirs, (start & !0x3fff).max(gap.start + 1)))
}

fn worth_another(o: &ObjectView, board: &Board, running: u32, now: Instant) -> bool {
    let Some(left) = o.remaining() else { return false };
    let paces = Paces::new(o, board, now);
    // What somebody holds who stalls takes as long as its silence does; and a piece of somebody slow is not split, only
    // raced.
    if paces.leases().any(|l| paces.stalls(l) || (!l.rolling() && paces.own_time(l) >= WORTH)) {
        return true;
    }
    match paces.time_left() {
        Some(seconds) if seconds.is_finite() => seconds >= WORTH,
        _ => left / u64::from(running + 1) >= WORTH_BYTES,
    }
}

/// The lease that would finish last, if it would be done much sooner with a racer.
fn race(b: &BindingView, o: &ObjectView, paces: &Paces<'_>) -> Option<Grant> {
    let len = o.len()?;
    let mut worst: Option<(f64, &LeaseView, u64)> = None;
    for l in paces.leases().filter(|l| l.race_of().is_none() && !l.raced()) {
        if !b.window().contains(l.cursor()) || (b.rate().is_none() && !paces.stalls(l)) {
            continue;
        }
        let left = l.want().to_range().end.min(len).saturating_sub(o.next_missing(l.cursor())) as f64;
        let theirs = paces.of(l).unwrap_or(left).max(1.0);
        // Who is silent will be so for about as long again.
        let silence = if paces.stalls(l) { paces.idle(l).as_secs_f64() } else { 0.0 };
        let eta = left / theirs + silence;
        let mine = b.rate().unwrap_or(f64::INFINITY).max(1.0);
        // What rolls was split where that was worth it: whoever races it must be faster by itself. A piece is not split,
        // so that whoever begins at its end is welcome.
        let both = if l.rolling() { mine } else { theirs + mine };
        let together = left / both + REQUEST;
        if left > 0.0 && eta > together * RACE && worst.is_none_or(|(w, ..)| eta > w) {
            let next = o.next_missing(l.cursor());
            // Where both meet; but who is silent may stay so.
            let share = if paces.stalls(l) { 0.0 } else { theirs / (theirs + mine) };
            worst = Some((eta, l, (next + (left * share) as u64) & !0x3fff));
        }
    }
    worst.map(|(_, l, from)| Grant::Race { of: l.id(), from, binding: b.id() })
}

impl Scheduler for Adaptive {
    fn grant(&mut self, now: Instant, who: Asker, ask: &Ask, board: &Board) -> Grant {
        let found = board
            .claimable(who.source, now)
            .filter(|(b, _)| ask.binding.is_none_or(|a| a == b.id()))
            .find_map(|(b, o)| self.place(b, o, board, now));
        found.unwrap_or_else(|| {
            self.places.told_to_wait(who, ask, now);
            Grant::Wait
        })
    }

    fn on_event(&mut self, _now: Instant, event: &BoardEvent, board: &Board) {
        match event {
            BoardEvent::Leased(id) => {
                if let Some(b) = board.lease(*id).and_then(|l| board.binding(l.binding())) {
                    self.places.taken(b.source(), b.object());
                }
            }
            BoardEvent::Ended { binding, bytes, .. } if *bytes >= LEAST => self.places.delivered(*binding),
            _ => {}
        }
    }

    fn tick(&mut self, now: Instant, board: &Board, out: &mut Vec<Order>) -> Option<Instant> {
        let mut running = false;
        self.levels.retain(|o, _| board.object(*o).is_some());
        self.places.forget(board, now);
        for o in board.objects().filter(|o| !o.leases().is_empty()) {
            let len = o.len().unwrap_or(u64::MAX);
            for l in board.leases_of(o.id()) {
                running |= l.rolling();
                // A racer has delivered all that this one was for.
                if o.next_missing(l.cursor()) >= l.want().to_range().end.min(len) {
                    out.push(Order::Revoke(l.id()));
                }
            }
            if board.limits().connections.is_none() {
                self.levels.entry(o.id()).or_insert_with(Level::new).measure(o, board, now);
            }
            let most = self.most(o, board);
            if rolling(o, board).count() as u32 >= most {
                out.extend(self.places.give_up(o, board, most, now).map(Order::Revoke));
            }
        }
        out.push(Order::Reconsider);
        running.then_some(now + TICK)
    }
}
