//! The board: the facts of one job, as policies see them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::object::{BindingId, Identity, LeaseId, ObjectId, PartyId, SourceId, Span};
use crate::source::{AbortCost, Caps, Seek};

use super::meter::Meter;
use super::ranges::RangeSet;
use super::wanted::Wanted;

/// Connections of one job to one origin over all its files, unless the user wants more for a single one.
const MOST_OF_ORIGIN: u32 = 16;

/// Limits that may change while a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Limits {
    /// Most rolling leases at once on one object, over all its bindings; `None`: the policy finds it out.
    pub connections: Option<u32>,
    /// Bytes a second from the network; `None`: no limit.
    pub rate: Option<u64>,
}

/// One object on the board.
///
/// Every byte is in exactly one state: missing, leased, held (accepted, its write not yet returned), written, verified.
#[derive(Debug)]
pub struct ObjectView {
    pub(crate) id: ObjectId,
    pub(crate) key: Arc<str>,
    pub(crate) len: Option<u64>,
    pub(crate) generation: u32,
    /// Reserved by leases. May overlap `held` where leases race or a lease takes its range in any order.
    pub(crate) reserved: RangeSet,
    pub(crate) held: RangeSet,
    pub(crate) written: RangeSet,
    pub(crate) verified: RangeSet,
    /// held, written and verified together.
    pub(crate) done: RangeSet,
    /// What is wanted; `None`: all, nothing more urgently than the rest.
    pub(crate) wanted: Option<Box<Wanted>>,
    /// Its place among the objects of a source: that of the most urgent byte that is missing.
    pub(crate) rank: i32,
    /// Ranges that somebody delivered wrong: each is fetched by one lease alone.
    pub(crate) disputed: Vec<Dispute>,
    /// How far beyond the first missing byte work may be given out.
    pub(crate) window: Option<u64>,
    /// Nothing may be given out: it starts over, or its place is not prepared yet.
    pub(crate) closed: bool,
    /// At most one lease at a time.
    pub(crate) single: bool,
    /// The binding whose bytes are in it, where no proof allows bytes of others beside them.
    pub(crate) primary: Option<BindingId>,
    /// Bytes of different bindings may stand side by side.
    pub(crate) mixable: bool,
    pub(crate) leases: Vec<LeaseId>,
    pub(crate) bindings: Vec<BindingId>,
}

/// A range with suspects.
#[derive(Debug, Clone)]
pub(crate) struct Dispute {
    pub(crate) range: Range<u64>,
    /// Who delivered what to it, and the CRC-32C of that: compared with the right bytes once they are known.
    pub(crate) runs: Vec<(Range<u64>, PartyId, u32)>,
}

impl ObjectView {
    /// Its number.
    pub fn id(&self) -> ObjectId {
        self.id
    }
    /// Its length in bytes, when it is known.
    pub fn len(&self) -> Option<u64> {
        self.len
    }
    /// Whether it is known to have no byte.
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }
    /// How often it started over.
    pub fn generation(&self) -> u32 {
        self.generation
    }
    /// Bytes accepted: held, written or verified.
    pub fn done(&self) -> &RangeSet {
        &self.done
    }
    /// The first byte that is wanted and was not accepted.
    pub fn frontier(&self) -> u64 {
        self.next_missing(0)
    }
    /// The first byte at or behind `at` that is wanted and was not accepted; `u64::MAX` where a mask holds none.
    pub fn next_missing(&self, at: u64) -> u64 {
        match &self.wanted {
            None => self.done.first_missing(at),
            Some(w) => w.left().next_from(at).unwrap_or(u64::MAX),
        }
    }
    /// How urgently a byte is wanted, higher first; `None`: not at all.
    pub fn priority_at(&self, at: u64) -> Option<i32> {
        self.wanted.as_ref().map_or(Some(0), |w| w.priority_at(at))
    }
    /// Nothing may be granted beyond this offset now (ordered output); `u64::MAX` where there is no such limit.
    pub fn horizon(&self) -> u64 {
        self.window.map_or(u64::MAX, |w| self.frontier().saturating_add(w))
    }
    /// Whether it takes only one lease at a time.
    pub fn single(&self) -> bool {
        self.single
    }
    /// Its rolling leases and claims, oldest first.
    pub fn leases(&self) -> &[LeaseId] {
        &self.leases
    }
    /// The bytes of `within` that are wanted, missing and reserved by nobody: the most urgent first, and in order where
    /// they are equally so. Endless where the length is unknown: the last gap then ends at `u64::MAX`.
    pub fn gaps(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let within = within.start..within.end.min(self.len.unwrap_or(u64::MAX));
        let all = self.wanted.is_none().then(|| self.unreserved(within.clone()));
        let tiers = self.wanted.iter().flat_map(|w| w.left_by_urgency());
        let some =
            tiers.flat_map(move |(_, left)| left.within(within.clone()).flat_map(|r| self.reserved.gaps(r)));
        all.into_iter().flatten().chain(some)
    }
    /// The same, in order of offset alone.
    pub(crate) fn next_gap(&self, within: Range<u64>) -> Option<Range<u64>> {
        let within = within.start..within.end.min(self.len.unwrap_or(u64::MAX));
        match &self.wanted {
            None => self.unreserved(within).next(),
            Some(w) => w.left().within(within).find_map(|r| self.reserved.gaps(r).next()),
        }
    }
    /// What is neither there nor reserved.
    fn unreserved(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let (mut at, end) = (within.start, within.end);
        std::iter::from_fn(move || {
            loop {
                let a = self.done.first_missing(self.reserved.first_missing(at));
                if a == at {
                    break;
                }
                at = a;
            }
            if at >= end {
                return None;
            }
            let stop = [self.done.next_from(at), self.reserved.next_from(at)];
            let e = stop.into_iter().flatten().fold(end, u64::min);
            let gap = at..e;
            at = e;
            Some(gap)
        })
    }
    /// Whether a byte may be granted.
    pub fn is_free(&self, at: u64) -> bool {
        self.len.is_none_or(|l| at < l)
            && !self.done.contains(at)
            && !self.reserved.contains(at)
            && self.wanted.as_ref().is_none_or(|w| w.all().contains(at))
    }
    /// Bytes still to come, when that is known: of what is wanted.
    pub fn remaining(&self) -> Option<u64> {
        match &self.wanted {
            Some(w) => w.remaining(self.len),
            None => self.len.map(|l| l.saturating_sub(self.done.covered())),
        }
    }
    /// Whether everything that is wanted was accepted.
    pub(crate) fn is_whole(&self) -> bool {
        match &self.wanted {
            Some(w) => w.remaining(self.len) == Some(0),
            None => self.len.is_some_and(|l| self.done.covers(&(0..l))),
        }
    }
    /// How many bytes the wanted files have, where that is known, and how many of them were accepted.
    pub(crate) fn progress(&self) -> (Option<u64>, u64) {
        let Some(w) = &self.wanted else { return (self.len, self.done.covered()) };
        let sum = |s: &RangeSet, r: Range<u64>| s.within(r).map(|x| x.end - x.start).sum::<u64>();
        let end = w.own().iter().next_back().map_or(0, |r| r.end);
        let end = self.len.map_or(end, |l| end.min(l));
        let own = || w.own().within(0..end);
        let of = (end != u64::MAX).then(|| own().map(|r| r.end - r.start).sum());
        (of, own().map(|r| sum(&self.done, r)).sum())
    }
    /// Where the wanted bytes that hold `at`, or would, come to an end.
    pub(crate) fn wanted_to(&self, at: u64) -> u64 {
        self.wanted.as_ref().map_or(u64::MAX, |w| w.all().first_missing(at))
    }
    /// These bytes were accepted.
    pub(crate) fn take(&mut self, r: Range<u64>) {
        if let Some(w) = &mut self.wanted {
            w.take(&r);
        }
        self.done.insert(r);
    }
    /// These bytes are missing again.
    pub(crate) fn lose(&mut self, r: &Range<u64>) {
        if let Some(w) = &mut self.wanted {
            w.give(r);
        }
        self.done.remove(r);
    }
    pub(crate) fn dispute_at(&self, at: u64) -> Option<&Dispute> {
        self.disputed.iter().find(|d| d.range.contains(&at))
    }
}

/// One binding on the board.
#[derive(Debug)]
pub struct BindingView {
    pub(crate) id: BindingId,
    pub(crate) source: SourceId,
    pub(crate) object: ObjectId,
    pub(crate) window: Span,
    pub(crate) rank: u32,
    pub(crate) caps: Caps,
    pub(crate) identity: Option<Identity>,
    pub(crate) leases: u32,
    pub(crate) meter: Meter,
    pub(crate) parked_until: Option<Instant>,
    pub(crate) failed: bool,
    pub(crate) first_at: Option<u64>,
    /// Nothing tells its version, and no proof would tell old bytes from new: two answers of it are never put together.
    pub(crate) unvouched: bool,
    /// It can only be read from its first byte, and a strong validator says that it would be the same bytes again: what
    /// has left is read over, because it cannot be taken back.
    pub(crate) reads_over: bool,
}

/// What the board knows of the origin behind a source.
#[derive(Debug, Default)]
pub(crate) struct OriginView {
    /// Rolling leases of this job, over all objects.
    pub(crate) rolling: u32,
    /// The most it is known to allow.
    pub(crate) allows: Option<u32>,
    pub(crate) rest_until: Option<Instant>,
}

impl BindingView {
    /// Its number.
    pub fn id(&self) -> BindingId {
        self.id
    }
    /// Which object it is a source of.
    pub fn object(&self) -> ObjectId {
        self.object
    }
    /// Which source.
    pub fn source(&self) -> SourceId {
        self.source
    }
    /// Which part of the object it has.
    pub fn window(&self) -> Span {
        self.window
    }
    /// Preference: lower first.
    pub fn rank(&self) -> u32 {
        self.rank
    }
    /// What it can do, and may: where nothing tells one version from another, only to read from the beginning.
    pub fn caps(&self) -> Caps {
        Caps { seek: self.seek(), ..self.caps }
    }
    pub(crate) fn seek(&self) -> Seek {
        match self.caps.seek {
            _ if self.reads_over => Seek::StartOnly,
            _ if self.unvouched => Seek::None,
            seek => seek,
        }
    }
    /// Leases it has now.
    pub fn leases(&self) -> u32 {
        self.leases
    }
    /// What one lease of it usually reaches, in bytes a second; `None` before anything was measured.
    pub fn rate(&self) -> Option<f64> {
        self.meter.rate()
    }
    /// The offset of the answer that is still open from resolving, which the first grant should use.
    pub fn first_at(&self) -> Option<u64> {
        self.first_at
    }
    /// Whether stopping early costs a connection.
    pub fn abort_costs(&self) -> bool {
        self.caps.abort == AbortCost::Connection
    }
}

/// One lease on the board.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
pub struct LeaseView {
    pub(crate) id: LeaseId,
    pub(crate) binding: BindingId,
    pub(crate) source: SourceId,
    pub(crate) party: PartyId,
    pub(crate) object: ObjectId,
    pub(crate) generation: u32,
    pub(crate) want: Span,
    pub(crate) cursor: u64,
    pub(crate) reserved: Range<u64>,
    pub(crate) rolling: bool,
    pub(crate) race_of: Option<LeaseId>,
    pub(crate) raced: bool,
    pub(crate) since: Instant,
    pub(crate) last_put: Instant,
    pub(crate) bytes: u64,
    pub(crate) meter: Meter,
    pub(crate) agreed: bool,
    /// It brought the object further than it ever was.
    pub(crate) gained: bool,
}

impl LeaseView {
    /// Its number.
    pub fn id(&self) -> LeaseId {
        self.id
    }
    /// By which binding.
    pub fn binding(&self) -> BindingId {
        self.binding
    }
    /// What was requested.
    pub fn want(&self) -> Span {
        self.want
    }
    /// The next byte it will deliver.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
    /// What is reserved for it.
    pub fn reserved(&self) -> Range<u64> {
        self.reserved.clone()
    }
    /// Its speed in bytes a second, time spent waiting for ourselves not counted; `None` before the first bytes.
    pub fn rate(&self) -> Option<f64> {
        self.meter.rate()
    }
    /// For how long it has delivered nothing although it could: while it waits for ourselves this stands still.
    pub fn silent(&self, now: Instant) -> Duration {
        self.meter.waiting().unwrap_or(now).saturating_duration_since(self.last_put)
    }
    /// The longest it took from one delivery to the next, pauses of our own not counted.
    pub fn longest_gap(&self) -> Duration {
        self.meter.longest_gap()
    }
    /// For how long we ourselves kept it waiting until now: for a rate limit, for memory.
    pub fn paused(&self, now: Instant) -> Duration {
        self.meter.paused(now)
    }
    /// Bytes accepted from it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// For how long it has existed.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
    /// Which lease it races.
    pub fn race_of(&self) -> Option<LeaseId> {
        self.race_of
    }
    /// Whether another lease races it.
    pub fn raced(&self) -> bool {
        self.raced
    }
    /// Whether it goes through its range in order, reserving only a horizon.
    pub fn rolling(&self) -> bool {
        self.rolling
    }
}

/// The facts of one job.
///
/// Policies look at it; only the ledger changes it. Everything is kept in the order of its number, so that two runs
/// with the same history look the same.
#[derive(Debug, Default)]
pub struct Board {
    pub(crate) objects: BTreeMap<ObjectId, ObjectView>,
    pub(crate) bindings: BTreeMap<BindingId, BindingView>,
    pub(crate) leases: BTreeMap<LeaseId, LeaseView>,
    /// Objects that a source may find work in: neither finished nor evicted.
    /// Those with something more urgent come first.
    pub(crate) open: BTreeMap<SourceId, BTreeSet<(Reverse<i32>, ObjectId, BindingId)>>,
    pub(crate) origins: BTreeMap<SourceId, OriginView>,
    pub(crate) limits: Limits,
}

impl Board {
    /// Limits of the job.
    pub fn limits(&self) -> Limits {
        self.limits
    }
    /// An object.
    pub fn object(&self, id: ObjectId) -> Option<&ObjectView> {
        self.objects.get(&id)
    }
    /// All objects, in order.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectView> {
        self.objects.values()
    }
    /// A binding.
    pub fn binding(&self, id: BindingId) -> Option<&BindingView> {
        self.bindings.get(&id)
    }
    /// A lease.
    pub fn lease(&self, id: LeaseId) -> Option<&LeaseView> {
        self.leases.get(&id)
    }
    /// All leases, oldest first.
    pub fn leases(&self) -> impl Iterator<Item = &LeaseView> {
        self.leases.values()
    }
    /// The leases of an object, oldest first.
    pub fn leases_of(&self, object: ObjectId) -> impl Iterator<Item = &LeaseView> {
        self.objects.get(&object).into_iter().flat_map(|o| o.leases.iter()).filter_map(|l| self.leases.get(l))
    }

    /// Work may be found in an object by this binding of the source.
    pub(crate) fn list(&mut self, source: SourceId, object: ObjectId, binding: BindingId) {
        let rank = self.objects.get(&object).map_or(0, |o| o.rank);
        self.open.entry(source).or_default().insert((Reverse(rank), object, binding));
    }
    /// No more.
    pub(crate) fn unlist(&mut self, source: SourceId, object: ObjectId, binding: BindingId) {
        let rank = self.objects.get(&object).map_or(0, |o| o.rank);
        if let Some(open) = self.open.get_mut(&source) {
            open.remove(&(Reverse(rank), object, binding));
        }
    }
    /// The object has another place among those of its sources.
    pub(crate) fn rank(&mut self, object: ObjectId, rank: i32) {
        let Some(o) = self.objects.get_mut(&object) else { return };
        let old = std::mem::replace(&mut o.rank, rank);
        for b in o.bindings.iter().filter_map(|b| self.bindings.get(b)) {
            if let Some(open) = self.open.get_mut(&b.source)
                && open.remove(&(Reverse(old), object, b.id))
            {
                open.insert((Reverse(rank), object, b.id));
            }
        }
    }

    /// Whether a source may have another rolling lease, over all its objects: many small files are not as many
    /// connections.
    pub(crate) fn has_place(&self, source: SourceId) -> bool {
        let most = MOST_OF_ORIGIN.max(self.limits.connections.unwrap_or(0));
        self.origins.get(&source).is_none_or(|o| o.rolling < o.allows.unwrap_or(most))
    }

    /// Whether a binding may have another lease on its object now.
    pub(crate) fn may_lease(&self, b: &BindingView, o: &ObjectView, now: Instant) -> bool {
        let most = if b.identity.is_none() || o.single { 1 } else { b.caps.max_parallel };
        let origin_rests = self.origins.get(&b.source).is_some_and(|s| s.rest_until.is_some_and(|t| t > now));
        let resting = origin_rests || b.parked_until.is_some_and(|t| t > now);
        let allowed = o.mixable || o.primary.is_none_or(|p| p == b.id);
        let alone = o.leases.is_empty() || !o.single;
        let seekable = b.seek() == Seek::Any || b.leases == 0;
        !b.failed && !o.closed && b.leases < most && alone && !resting && allowed && seekable
    }

    /// The bindings of a source through which bytes may be asked for now, the most urgent object first: not failed, not
    /// parked, with room for another lease, and allowed beside the bytes that are there.
    pub fn claimable(
        &self,
        source: SourceId,
        now: Instant,
    ) -> impl Iterator<Item = (&BindingView, &ObjectView)> {
        self.open.get(&source).into_iter().flatten().filter_map(move |(_, o, b)| {
            let (o, b) = (self.objects.get(o)?, self.bindings.get(b)?);
            (self.has_place(source) && self.may_lease(b, o, now)).then_some((b, o))
        })
    }
}
