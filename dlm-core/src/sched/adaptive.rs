//! The default policy: long requests where nobody is, split by speed where somebody is, a race at the end.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::{Ask, BindingView, Board, LeaseView, ObjectView};
use crate::object::Span;
use crate::source::Seek;

use super::{Asker, BoardEvent, Grant, Order, Scheduler};

/// Connections to begin with, and the most that are found out by measuring.
const FIRST: u32 = 4;
const MOST: u32 = 16;
/// Another level is kept when it brings at least this much more.
const GAIN: f64 = 1.15;
/// A part smaller than this is not worth a request of its own.
const LEAST: u64 = 128 << 10;
/// Another connection is opened only when this much is left to do at the present speed…
const WORTH: f64 = 0.25;
/// …or, before anything was measured, this many bytes a connection.
const WORTH_BYTES: u64 = 1 << 20;
/// A race begins when the racer would be done this much sooner.
const RACE: f64 = 1.2;
const TICK: Duration = Duration::from_millis(200);

/// Places requests by measured speed.
///
/// A request goes where nobody reads yet; failing that, into the longest-lasting stretch before somebody, at the point
/// where both should meet at the end; failing that, it races whoever would finish last. Requests are long (seconds of
/// the binding's own speed), since only a short horizon of each is reserved. Connections start at four and double while
/// that brings 15 % more, unless the job says how many there may be.
#[derive(Debug)]
pub struct Adaptive {
    level: u32,
    settled: bool,
    /// Throughput at the level below.
    below: f64,
    since: Option<Instant>,
}

impl Adaptive {
    /// A policy that has measured nothing yet.
    pub fn new() -> Self {
        Self { level: FIRST, settled: false, below: 0.0, since: None }
    }

    fn most(&self, board: &Board) -> u32 {
        board.limits().connections.unwrap_or(self.level)
    }

    fn place(&self, b: &BindingView, o: &ObjectView, board: &Board, now: Instant) -> Option<Grant> {
        let running =
            o.leases().iter().filter_map(|l| board.lease(*l)).filter(|l| l.rolling()).count() as u32;
        let most = self.most(board);
        if running >= most || (running > 0 && !worth_another(o, board, running)) {
            return None;
        }
        let window = b.window().to_range();
        let window = window.start..window.end.min(o.horizon());
        if b.caps().seek == Seek::None {
            let start = window.start;
            return (running == 0 && o.is_free(start))
                .then_some(Grant::Fetch { binding: b.id(), span: b.window() });
        }
        let mut best: Option<(f64, u64, u64)> = None;
        for gap in o.gaps(window).take(64) {
            let owner = board
                .leases_of(o.id())
                .find(|l| l.rolling() && l.reserved().end == gap.start && l.want().contains(gap.start));
            let (weight, start) = match owner {
                // Nobody comes here: the longest such gap, so that requests are few.
                None => (1e15 + (gap.end - gap.start).min(1 << 48) as f64, gap.start),
                Some(_) if gap.end == u64::MAX => continue,
                Some(l) => match split(&gap, l, b) {
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
            let end = if most > 1 {
                let long = b.rate().map_or(16 << 20, |r| ((r * 4.0) as u64).max(4 << 20));
                end.map(|e| e.min(start.saturating_add(long)))
            } else {
                end
            };
            return Some(Grant::Fetch { binding: b.id(), span: Span { start, end } });
        }
        race(b, o, board, now)
    }
}

impl Default for Adaptive {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a newcomer should start in a gap that somebody is running into, and how long the owner would need for it.
fn split(gap: &Range<u64>, owner: &LeaseView, b: &BindingView) -> Option<(f64, u64)> {
    let len = gap.end - gap.start;
    if len < 2 * LEAST {
        return None;
    }
    let theirs = owner.rate().or(b.rate()).unwrap_or(1.0).max(1.0);
    let mine = b.rate().unwrap_or(theirs).max(1.0);
    let before = (len as f64 * (theirs / (theirs + mine))) as u64;
    let start = gap.start + before.clamp(LEAST, len - LEAST);
    // On a round offset, which keeps writes aligned; rounding down must not leave the gap.
    Some((len as f64 / theirs, (start & !0x3fff).max(gap.start + 1)))
}

fn worth_another(o: &ObjectView, board: &Board, running: u32) -> bool {
    let Some(left) = o.remaining() else { return false };
    let rate: f64 = board.leases_of(o.id()).filter_map(LeaseView::rate).sum();
    if rate > 0.0 { left as f64 / rate >= WORTH } else { left / u64::from(running + 1) >= WORTH_BYTES }
}

/// The lease that would finish last, if a racer would be done much sooner.
fn race(b: &BindingView, o: &ObjectView, board: &Board, now: Instant) -> Option<Grant> {
    let len = o.len()?;
    let mut worst: Option<(f64, &LeaseView)> = None;
    for l in board.leases_of(o.id()).filter(|l| l.race_of().is_none() && !l.raced()) {
        if !b.window().contains(l.cursor()) {
            continue;
        }
        let left = l.want().to_range().end.min(len).saturating_sub(o.done().first_missing(l.cursor())) as f64;
        let silent = l.silent(now).as_secs_f64();
        // Silence counts against a speed that was measured before it.
        let theirs = l.rate().unwrap_or(left.max(1.0)).max(1.0) / (1.0 + 4.0 * (silent - 0.2).max(0.0));
        let eta = left / theirs;
        let mine = left / b.rate().unwrap_or(f64::INFINITY).max(1.0) + 0.1;
        if b.rate().is_none() && silent < 1.0 {
            continue;
        }
        if left > 0.0 && eta > mine * RACE && worst.is_none_or(|(w, _)| eta > w) {
            worst = Some((eta, l));
        }
    }
    worst.map(|(_, l)| Grant::Race { of: l.id(), binding: b.id() })
}

impl Scheduler for Adaptive {
    fn grant(&mut self, now: Instant, who: Asker, ask: &Ask, board: &Board) -> Grant {
        board
            .claimable(who.source, now)
            .filter(|(b, _)| ask.binding.is_none_or(|a| a == b.id()))
            .find_map(|(b, o)| self.place(b, o, board, now))
            .unwrap_or(Grant::Wait)
    }

    fn on_event(&mut self, _now: Instant, event: &BoardEvent, _board: &Board) {
        if let BoardEvent::Refused(_) = event {
            // Somebody does not want more connections.
            self.settled = true;
        }
    }

    fn tick(&mut self, now: Instant, board: &Board, out: &mut Vec<Order>) -> Option<Instant> {
        let mut rate = 0.0;
        let mut running = 0;
        for l in board.leases() {
            running += u32::from(l.rolling());
            rate += l.rate().filter(|_| l.rolling()).unwrap_or(0.0);
            // A racer has delivered all that this one was for.
            if let Some(o) = board.object(object_of(l, board))
                && o.done().first_missing(l.cursor())
                    >= l.want().to_range().end.min(o.len().unwrap_or(u64::MAX))
            {
                out.push(Order::Revoke(l.id()));
            }
        }
        if board.limits().connections.is_none() && !self.settled {
            if running < self.level {
                self.since = None;
            } else if now.saturating_duration_since(*self.since.get_or_insert(now)) >= Duration::from_secs(1)
            {
                if rate >= self.below * GAIN && self.level < MOST {
                    self.below = rate;
                    self.level = (self.level * 2).min(MOST);
                } else {
                    if rate < self.below * GAIN && self.level > FIRST {
                        self.level /= 2;
                    }
                    self.settled = true;
                }
                self.since = None;
            }
        }
        out.push(Order::Reconsider);
        (running > 0).then_some(now + TICK)
    }
}

fn object_of(l: &LeaseView, board: &Board) -> crate::object::ObjectId {
    board.binding(l.binding()).map_or(crate::object::ObjectId(u32::MAX), BindingView::object)
}
