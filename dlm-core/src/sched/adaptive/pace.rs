//! How fast a lease is now, when it last delivered something is taken into account.

use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::{Board, LeaseView, ObjectView};

/// Who delivers nothing for this long is thought to stall: others may race it for however little.
const SILENT: Duration = Duration::from_secs(1);
/// So many times its own longest gap between two deliveries is no stall yet…
const GAPS: u32 = 3;
/// …up to this.
const MOST_SILENT: Duration = Duration::from_secs(10);
/// Who has delivered nothing at all gets this much longer: servers think before they answer.
const THINKING: u32 = 3;

/// The leases of an object, as fast as they are now.
pub(super) struct Paces<'a> {
    board: &'a Board,
    object: &'a ObjectView,
    now: Instant,
}

impl<'a> Paces<'a> {
    pub(super) fn new(object: &'a ObjectView, board: &'a Board, now: Instant) -> Self {
        Self { board, object, now }
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = &'a LeaseView> {
        self.board.leases_of(self.object.id())
    }

    pub(super) fn idle(&self, l: &LeaseView) -> Duration {
        l.silent(self.now)
    }

    /// By how much a speed that was measured before its silence is too high.
    pub(super) fn fading(&self, l: &LeaseView) -> f64 {
        1.0 + 4.0 * (self.idle(l).as_secs_f64() - 0.2).max(0.0)
    }

    /// Bytes a second; `None` where nothing was measured.
    pub(super) fn of(&self, l: &LeaseView) -> Option<f64> {
        l.rate().map(|r| r / self.fading(l))
    }

    /// Whether it is silent for so long that it may well stay so.
    pub(super) fn stalls(&self, l: &LeaseView) -> bool {
        self.idle(l) >= SILENT.max(l.longest_gap() * GAPS).min(MOST_SILENT)
    }

    /// Whether it is silent for so long that another should have its place.
    pub(super) fn is_lost(&self, l: &LeaseView) -> bool {
        let patience = (2 * SILENT).max(l.longest_gap() * GAPS).min(MOST_SILENT);
        self.idle(l) >= if l.bytes() == 0 { patience * THINKING } else { patience }
    }

    /// Whether it delivers.
    pub(super) fn is_lively(&self, l: &LeaseView) -> bool {
        l.bytes() > 0 && self.idle(l) < SILENT
    }

    /// Seconds until the object is there, if all go on like this and take over from each other.
    pub(super) fn time_left(&self) -> Option<f64> {
        let left = self.object.remaining()? as f64;
        let all: f64 = self.leases().filter_map(|l| self.of(l)).sum();
        Some(if all > 0.0 { left / all } else { f64::INFINITY })
    }

    /// Seconds until a lease has delivered what it has reserved: nobody else takes that.
    pub(super) fn own_time(&self, l: &LeaseView) -> f64 {
        let from = self.object.next_missing(l.cursor());
        let own = l.reserved().end.saturating_sub(from) as f64;
        self.of(l).map_or(0.0, |r| own / r.max(1.0))
    }
}
