//! In-order policy for pipes and previews: the first missing bytes first.

use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::{Ask, BindingView, Board, LeaseView, ObjectView};
use crate::object::{BindingId, LeaseId, Span};
use crate::source::Seek;

use super::{Asker, BoardEvent, Grant, Order, Scheduler};

const CONNECTIONS: u32 = 4;
/// One request's length, unless the window is smaller.
const CHUNK: u64 = 1 << 20;

/// The first missing byte gets a connection back at most this often.
const AGAIN: Duration = Duration::from_millis(100);

/// Gives out the first bytes that nobody fetches, in chunks, so that several connections work just ahead of the reader.
///
/// Bytes that turned out wrong are missing again at the front while every connection is ahead of them, and waits: then
/// the one that is farthest ahead is taken back.
#[derive(Debug, Default)]
pub struct Ordered {
    /// When a connection was taken back last.
    taken: Option<Instant>,
}

impl Ordered {
    /// The policy, which has taken nothing back yet.
    pub const fn new() -> Self {
        Self { taken: None }
    }

    /// The lease that stands in the way of the first missing byte, if nobody else can fetch it.
    fn in_the_way(o: &ObjectView, board: &Board, now: Instant) -> Option<LeaseId> {
        let front = o.frontier();
        if !o.is_free(front) || o.closed {
            return None;
        }
        let full = Self::is_full(o, board);
        let able = |b: &&BindingView| {
            !b.failed
                && b.window().contains(front)
                && b.parked_until.is_none_or(|t| t <= now)
                && (b.caps().seek != Seek::None || front == b.window().start)
        };
        let farthest = |by: Option<BindingId>| {
            let ahead = board.leases_of(o.id()).filter(|l| l.cursor() > front);
            // Who chooses its own order is not asked for the front, so its leases make no room for it.
            ahead
                .filter(|l| by.map_or(!full || l.rolling(), |b| l.binding() == b))
                .max_by_key(|l| l.cursor())
                .map(LeaseView::id)
        };
        let bindings = || o.bindings.iter().filter_map(|b| board.binding(*b)).filter(able);
        if full || o.single() {
            return bindings().next().and_then(|_| farthest(None));
        }
        // With one that has room it is only a matter of asking.
        if bindings().any(|b| b.leases() < b.caps().max_parallel) {
            return None;
        }
        bindings().find_map(|b| farthest(Some(b.id())))
    }

    fn most(board: &Board) -> u32 {
        board.limits().connections.unwrap_or(CONNECTIONS)
    }

    /// Whether as many connections work on the object as may. Those who choose their own order have their own limit.
    fn is_full(o: &ObjectView, board: &Board) -> bool {
        board.leases_of(o.id()).filter(|l| l.rolling()).count() as u32 >= Self::most(board)
    }

    fn place(b: &BindingView, o: &ObjectView, board: &Board) -> Option<Grant> {
        let most = Self::most(board);
        if Self::is_full(o, board) {
            return None;
        }
        let window = b.window().to_range();
        if b.caps().seek == Seek::None {
            return o.is_free(window.start).then_some(Grant::Fetch { binding: b.id(), span: b.window() });
        }
        let limit = o.horizon();
        let chunk = if most > 1 {
            CHUNK.min(((limit - o.frontier()) / u64::from(most)).max(64 << 10))
        } else {
            u64::MAX
        };
        for gap in o.gaps(window.start..window.end.min(limit)) {
            let end = gap.end.min(o.len().unwrap_or(u64::MAX));
            let owner = board
                .leases_of(o.id())
                .find(|l| l.reserved().end == gap.start && l.want().contains(gap.start));
            let start = match owner {
                // Leave the one who comes here a chunk, and work ahead of it.
                Some(_) => gap.start.saturating_add(chunk),
                None => gap.start,
            };
            if start >= end {
                continue;
            }
            let stop = start.saturating_add(chunk).min(end);
            return Some(Grant::Fetch {
                binding: b.id(),
                span: Span { start, end: (stop != u64::MAX).then_some(stop) },
            });
        }
        None
    }
}

impl Scheduler for Ordered {
    fn grant(&mut self, now: Instant, who: Asker, ask: &Ask, board: &Board) -> Grant {
        board
            .claimable(who.source, now)
            .filter(|(b, _)| ask.binding.is_none_or(|a| a == b.id()))
            .find_map(|(b, o)| Self::place(b, o, board))
            .unwrap_or(Grant::Wait)
    }

    fn on_event(&mut self, _now: Instant, _event: &BoardEvent, _board: &Board) {}

    fn tick(&mut self, now: Instant, board: &Board, out: &mut Vec<Order>) -> Option<Instant> {
        if self.taken.is_none_or(|t| now.saturating_duration_since(t) >= AGAIN)
            && let Some(lease) = board.objects().find_map(|o| Self::in_the_way(o, board, now))
        {
            self.taken = Some(now);
            out.push(Order::Revoke(lease));
        }
        out.push(Order::Reconsider);
        board.leases().next().map(|_| now + AGAIN)
    }
}
