//! Policies: facts in, one answer out. No clock, no I/O, no lock.

mod adaptive;
mod ordered;

use std::fmt::Debug;
use std::ops::Range;

use tokio::time::Instant;

use crate::ledger::{Ask, Board};
use crate::object::{BindingId, LeaseId, ObjectId, PartyId, SourceId, Span};

pub use adaptive::Adaptive;
pub use ordered::Ordered;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The source.
    pub source: SourceId,
    /// Which of its parties.
    pub party: PartyId,
}

/// A policy's answer to an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grant {
    /// Fetch this span by this binding. The first byte must be missing and unreserved; otherwise the answer is stale
    /// and counts as [`Grant::Wait`].
    Fetch {
        /// Which binding of the asking source.
        binding: BindingId,
        /// What to request. Only a short horizon of it is reserved at a time.
        span: Span,
    },
    /// Fetch what that lease still has before it, too; the first copy of each byte wins.
    Race {
        /// Which lease.
        of: LeaseId,
        /// From this offset, or from the lease's next missing byte if that is further. Halfway, and the two meet.
        from: u64,
        /// By which binding of the asking source.
        binding: BindingId,
    },
    /// Nothing now; ask me again when something changed.
    Wait,
    /// Nothing ever.
    Retire,
}

/// Something a policy may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoardEvent {
    /// A lease began.
    Leased(LeaseId),
    /// A lease ended, having delivered this many bytes.
    Ended {
        /// Which lease.
        lease: LeaseId,
        /// Of which binding.
        binding: BindingId,
        /// Accepted bytes.
        bytes: u64,
    },
    /// A party's bytes were wrong.
    Blamed(PartyId),
    /// Bytes are missing again.
    Lost {
        /// Of which object.
        object: ObjectId,
        /// Which.
        range: Range<u64>,
    },
    /// A binding refused a transfer while others of it run.
    Refused(BindingId),
}

/// What a policy wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// Take this lease back.
    Revoke(LeaseId),
    /// Ask me again for everybody who waits.
    Reconsider,
}

/// Decides who fetches what.
///
/// Runs under the job's lock: O(log n) of what is on the board, no blocking. Time is an argument, and two runs with the
/// same arguments give the same answers.
pub trait Scheduler: Debug + Send + 'static {
    /// Answers `who`, which asked for `ask`.
    fn grant(&mut self, now: Instant, who: Asker, ask: &Ask, board: &Board) -> Grant;
    /// Something happened.
    fn on_event(&mut self, now: Instant, event: &BoardEvent, board: &Board);
    /// Looks at everything; adds orders, and says when to be called again (`None`: when something happens).
    fn tick(&mut self, now: Instant, board: &Board, out: &mut Vec<Order>) -> Option<Instant>;
}
