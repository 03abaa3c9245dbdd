//! In-order policy for pipes and previews: the first missing bytes first.

use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::{Ask, BindingView, Board, ObjectView};
use crate::object::Span;
use crate::source::Seek;

use super::{Asker, BoardEvent, Grant, Order, Scheduler};

const CONNECTIONS: u32 = 4;
/// One request's length, unless the window is smaller.
const CHUNK: u64 = 1 << 20;

/// Gives out the first bytes that nobody fetches, in chunks, so that several connections work just ahead of the reader.
#[derive(Debug, Default)]
pub struct Ordered;

impl Ordered {
    /// The policy; it has no memory.
    pub const fn new() -> Self {
        Self
    }

    fn place(b: &BindingView, o: &ObjectView, board: &Board) -> Option<Grant> {
        let most = board.limits().connections.unwrap_or(CONNECTIONS);
        if o.leases().len() as u32 >= most {
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
        out.push(Order::Reconsider);
        board.leases().next().map(|_| now + Duration::from_millis(100))
    }
}
