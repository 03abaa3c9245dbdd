//! What a source holds: its side of the ledger.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;

use crate::backend::{Cx, Discovery};
use crate::error::{Error, Kind, Result};
use crate::object::{BindingId, ObjectId, PartyId, SourceId};

use super::{Ledger, Limits, lease::Lease, parties::Seat};

/// What a claim asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// Only by this binding; `None`: by any of the source's.
    pub binding: Option<BindingId>,
}

impl Ask {
    /// Anything that any binding of this source can fetch.
    pub const ANY: Self = Self { binding: None };

    /// Anything that this binding can fetch.
    pub const fn of(binding: BindingId) -> Self {
        Self { binding: Some(binding) }
    }
}

/// The answer to a claim.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is moved once, and nearly always is a lease")]
#[non_exhaustive]
pub enum Claim {
    /// Work.
    Lease(Lease),
    /// Somebody else has it, or it is not wanted. Only from [`Work::try_claim`].
    Busy,
    /// There will be no more work for this party: return.
    Retire,
}

/// Something a source with an order of its own wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NewsItem {
    /// Bytes passed their proof.
    Verified {
        /// Of which object.
        object: ObjectId,
        /// Which.
        range: Range<u64>,
    },
    /// Bytes are missing again.
    Lost {
        /// Of which object.
        object: ObjectId,
        /// Which.
        range: Range<u64>,
    },
    /// What is wanted of the object changed, or how urgently.
    Wanted {
        /// Which object.
        object: ObjectId,
        /// Higher first.
        priority: i32,
    },
    /// A party may deliver nothing more.
    Banned(PartyId),
    /// Some news were missed: look at everything again.
    Resync,
}

/// News as they come: bounded, and it says when some were missed.
#[derive(Debug)]
pub struct News(broadcast::Receiver<NewsItem>);

impl News {
    /// The next item; `None` when the job is over. Cancel-safe.
    pub async fn next(&mut self) -> Option<NewsItem> {
        match self.0.recv().await {
            Ok(item) => Some(item),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(NewsItem::Resync),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) id: u64,
    pub(crate) party: PartyId,
    pub(crate) source: SourceId,
    pub(crate) ask: Ask,
    pub(crate) tx: Option<oneshot::Sender<Claim>>,
}

/// A source's hold on its job: through it the source asks, learns and reports. Clones are the same party.
#[derive(Debug, Clone)]
pub struct Work {
    pub(super) ledger: Arc<Ledger>,
    source: SourceId,
    party: PartyId,
    cx: Arc<Cx>,
    /// None where it is the source itself.
    _seat: Option<Arc<Seat>>,
}

impl Work {
    pub(crate) fn new(ledger: Arc<Ledger>, source: SourceId, party: PartyId, cx: Cx) -> Self {
        Self { ledger, source, party, cx: Arc::new(cx), _seat: None }
    }

    /// The job around this work: time limits, options, numbers for what is found.
    pub fn cx(&self) -> &Cx {
        &self.cx
    }

    /// Waits in the ledger's queue until there is work that fits `ask`, or never will be. Never gives
    /// [`Claim::Busy`].
    ///
    /// **Cancellation.** Dropping the future leaves the queue; a lease granted at that moment goes back.
    pub async fn claim(&self, ask: Ask) -> Claim {
        let (tx, rx) = oneshot::channel();
        let now = Instant::now();
        let id = self.ledger.with(|s, after| {
            s.next_waiter += 1;
            let id = s.next_waiter;
            s.waiters.push(Waiter { id, party: self.party, source: self.source, ask, tx: Some(tx) });
            s.pump(now, after);
            id
        });
        let queued = Queued { work: self, id };
        let claim = rx.await.unwrap_or(Claim::Retire);
        std::mem::forget(queued);
        claim
    }

    /// Asks for exactly this range of an object, all of it or nothing: a block in the hand, a piece the swarm chose.
    /// The lease takes bytes in any order and keeps all of the range reserved.
    pub fn try_claim(&self, object: ObjectId, range: Range<u64>) -> Claim {
        let now = Instant::now();
        let seed =
            self.ledger.with(|s, after| s.claim_exact(self.source, self.party, object, range, now, after));
        match seed {
            Ok(Some((seed, first))) => Claim::Lease(Lease::new(self.ledger.clone(), seed, first)),
            Ok(None) => Claim::Busy,
            Err(()) => Claim::Retire,
        }
    }

    /// The same work for one peer, gateway or connection, which is blamed by itself.
    pub fn party(&self, label: &str) -> Self {
        let label = crate::error::escape(label);
        let party = self.ledger.with(|s, _| s.parties.add(label.into(), self.source));
        let seat = Some(Arc::new(Seat { ledger: self.ledger.clone(), party }));
        Self { ledger: self.ledger.clone(), source: self.source, party, cx: self.cx.clone(), _seat: seat }
    }

    /// Who this is.
    pub fn party_id(&self) -> PartyId {
        self.party
    }

    /// Tells what others do.
    pub fn news(&self) -> News {
        News(self.ledger.news.subscribe())
    }

    /// Adds what was found while running: an object, a file, a piece table, another locator. Returns once it is in the
    /// engine's queue; the job does not end before it was taken in.
    ///
    /// **Cancellation.** Dropped, it has added nothing. **Bounds.** The queue holds 64; the engine takes nothing out while a
    /// thousand objects are unfinished, or while it resolves or checks, and waits for as long.
    ///
    /// # Errors
    /// [`Kind::Shutdown`] when the job is over.
    pub async fn learn(&self, found: Discovery) -> Result<()> {
        // It travels along, so that the job does not end while this is on its way.
        let guard = self.discovering();
        self.ledger
            .found
            .send((self.source, found, guard))
            .await
            .map_err(|_| Error::new(Kind::Shutdown, "add what was found").because("the job is over"))
    }

    /// While one of these is open the job cannot end for want of work: more may be found.
    pub fn discovering(&self) -> Discovering {
        Discovering::new(self.ledger.clone())
    }

    /// Reads bytes that passed their proof, or were written where there is none. Works while the job runs, and after the
    /// object's files were put in place, too. Offsets are in bytes of the object.
    ///
    /// **Cancellation.** May be dropped at any await; nothing changes. **Bounds.** All of the range is in memory at once
    /// and not counted as in flight: ask for a piece, not for a file.
    ///
    /// # Errors
    /// [`Kind::Busy`] where the range is not all there yet; those of [`Sink::read`](crate::Sink::read)
    /// ([`Kind::Unsupported`] for a pipe).
    pub async fn read_verified(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes> {
        let there = self.ledger.with(|s, _| {
            if s.finished.contains(u64::from(object.0)) {
                return true;
            }
            let proven = s.objects.get(&object).is_some_and(super::objects::ObjectState::has_pieces);
            s.board.objects.get(&object).is_some_and(|o| {
                if proven {
                    o.verified.covers(&range)
                } else {
                    range.end <= o.len.unwrap_or(0) && all_written(o, &range)
                }
            })
        });
        if there {
            self.ledger.sink.read(object, range).await
        } else {
            Err(Error::new(Kind::Busy, "read").because("the range is not there yet"))
        }
    }

    /// Limits, as they change.
    pub fn limits(&self) -> watch::Receiver<Limits> {
        self.ledger.limits.subscribe()
    }

    /// Counts bytes given to others against the limit of the whole engine, and waits until it allows them.
    ///
    /// **Cancellation.** The bytes are counted by the first poll, and stay so when it is dropped.
    pub async fn charge_upload(&self, bytes: u32) {
        // There is one limit for both ways until an upload limit of its own exists.
        let bucket = &self.ledger.buckets[0];
        bucket.charge(u64::from(bytes), Instant::now());
        if let Some(t) = bucket.ready_at(Instant::now()) {
            tokio::time::sleep_until(t).await;
        }
    }

    /// Resolves when the job stops; `run` then has two seconds to return.
    ///
    /// **Cancellation.** Cancel-safe: once it has resolved, another call resolves at once. It borrows nothing.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        self.ledger.stop.clone().cancelled_owned()
    }

    /// Gives the source up for this job. Bytes it delivered stay.
    pub fn give_up(&self, error: &Error) {
        let now = Instant::now();
        self.ledger.with(|s, after| s.fail_source(self.source, error, now, after));
    }
}

fn all_written(o: &super::ObjectView, range: &Range<u64>) -> bool {
    o.done.covers(range) && !o.held.touches(range)
}

/// Leaves the queue when its claim is dropped.
struct Queued<'a> {
    work: &'a Work,
    id: u64,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.work.ledger.with(|s, _| s.waiters.retain(|w| w.id != self.id));
    }
}

/// The job cannot end for want of work while one of these exists.
#[derive(Debug)]
pub struct Discovering(Arc<Ledger>);

impl Discovering {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        ledger.with(|s, _| s.discovering += 1);
        Self(ledger)
    }
}

impl Drop for Discovering {
    fn drop(&mut self) {
        self.0.with(|s, after| {
            s.discovering -= 1;
            after.wake_driver();
        });
    }
}
