//! How many connections an object is worth: found out by measuring.

use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::{BindingView, Board, LeaseView, ObjectView};

/// Connections to begin with, and the most that are found out by measuring.
pub(super) const FIRST: u32 = 4;
pub(super) const MOST: u32 = 16;
/// Another level is kept when it brings at least this much more.
const GAIN: f64 = 1.15;
/// How long a level is measured.
const PERIOD: Duration = Duration::from_secs(1);
/// Connections that wait for ourselves for this share of their time bring nothing by being more.
const OURS: f64 = 0.25;
/// With this share of the job's rate limit the limit is what there is to reach.
const AT_LIMIT: f64 = 0.9;

/// The level of one object: doubled while that brings more bytes, with a step back where it does not.
///
/// What counts is what arrives, not the sum of what the connections could do: behind a rate limit, a slow disk or a slow
/// reader they could do more and more.
#[derive(Debug)]
pub(super) struct Level {
    most: u32,
    settled: bool,
    /// Bytes a second at the level below.
    below: f64,
    from: Option<Mark>,
    /// Sources at work, so that one that joins is a reason to measure again.
    sources: usize,
}

/// Where a measurement began.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    done: u64,
}

impl Level {
    pub(super) const fn new() -> Self {
        Self { most: FIRST, settled: false, below: 0.0, from: None, sources: 0 }
    }

    pub(super) const fn most(&self) -> u32 {
        self.most
    }

    /// Looks at the object, now and then.
    pub(super) fn measure(&mut self, o: &ObjectView, board: &Board, now: Instant) {
        let rolling: Vec<&LeaseView> = board.leases_of(o.id()).filter(|l| l.rolling()).collect();
        let mut sources: Vec<_> =
            rolling.iter().filter_map(|l| board.binding(l.binding())).map(BindingView::source).collect();
        sources.sort_unstable();
        sources.dedup();
        if sources.len() > self.sources {
            (self.settled, self.below, self.from) = (false, 0.0, None);
        }
        self.sources = sources.len();
        if self.settled {
            return;
        }
        if (rolling.len() as u32) < self.most {
            self.from = None;
            return;
        }
        let mark = Mark { at: now, done: o.done().covered() };
        let from = *self.from.get_or_insert(mark);
        let took = now.saturating_duration_since(from.at);
        if took < PERIOD {
            return;
        }
        self.from = None;
        let rate = mark.done.saturating_sub(from.done) as f64 / took.as_secs_f64();
        let limited = board.limits().rate.is_some_and(|l| rate >= l as f64 * AT_LIMIT);
        let paused: f64 = rolling.iter().map(|l| share(l.paused(now), l.age(now))).sum();
        let ours = limited || paused >= rolling.len() as f64 * OURS;
        if !ours && rate >= self.below * GAIN {
            if self.most < MOST {
                self.below = rate;
                self.most = (self.most * 2).min(MOST);
            } else {
                self.settled = true;
            }
        } else if self.most > FIRST {
            self.most /= 2;
            self.settled = true;
        } else {
            // The limit may change: it is looked at again.
            self.settled = !ours;
        }
    }
}

fn share(part: Duration, of: Duration) -> f64 {
    if of.is_zero() { 0.0 } else { part.as_secs_f64() / of.as_secs_f64() }
}
