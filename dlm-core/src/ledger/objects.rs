//! What the ledger knows of an object beyond what policies see; objects, files, bindings and evidence as they are found.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::backend::Binding;
use crate::error::{Error, Kind, Result};
use crate::event::EventKind;
use crate::object::{
    BindingId, Evidence, Identity, ObjectId, ObjectSpec, PartyId, SourceId, Span, Trust, Validator,
};
use crate::origin::Origin;
use crate::sink::{Order, SinkCaps};
use crate::source::{Seek, SourceInfo};

use super::board::OriginView;
use super::judge::{Judge, Judgement, Table};
use super::meter::Meter;
use super::ranges::RangeMap;
use super::segment::Segment;
use super::select::FileWant;
use super::{After, BindingState, BindingView, Ledger, ObjectView, RangeSet, SourceState, State};
use crate::retry::Backoff;

/// An object that starts over.
#[derive(Debug, Clone)]
pub(crate) enum Restart {
    No,
    /// Leases are being revoked and writes return.
    Draining,
    /// The driver journals and truncates.
    Emptying,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub(crate) struct ObjectState {
    /// Gathered, by first offset; neighbours are one.
    pub(crate) pending: BTreeMap<u64, Segment>,
    /// Who delivered what.
    pub(crate) origin: RangeMap<PartyId>,
    pub(crate) judge: Judge,
    /// Pieces being checked, each by the table of that number.
    pub(crate) checking: BTreeMap<usize, RangeSet>,
    /// The next byte of an ordered sink, and whether a write of it runs.
    pub(crate) next_out: u64,
    pub(crate) out_busy: bool,
    pub(crate) restart: Restart,
    /// Times it started over because the source changed.
    pub(crate) changes: u32,
    /// Times the whole digest did not match.
    pub(crate) mismatches: u32,
    /// Why the last answer that failed did: what to tell where starting over is no way out.
    pub(crate) cut: Option<Error>,
    /// The most bytes it ever had: what counts as progress.
    pub(crate) best: u64,
    pub(crate) prepared: bool,
    pub(crate) complete: bool,
    /// The length the sink was told.
    pub(crate) told_len: Option<u64>,
    pub(crate) resumed: u64,
    /// Its files, as far as they were found.
    pub(crate) files: Vec<FileWant>,
    /// Nobody can skip what lies before a wanted byte, so it is wanted, too.
    pub(crate) from_start: bool,
}

impl ObjectState {
    pub(crate) fn has_pieces(&self) -> bool {
        self.judge.has_pieces()
    }

    /// A piece was checked by the table of that number.
    pub(crate) fn checked(&mut self, table: usize, piece: &std::ops::Range<u64>) {
        if let Some(c) = self.checking.get_mut(&table) {
            c.remove(piece);
            if c.is_empty() {
                self.checking.remove(&table);
            }
        }
    }

    /// Makes one of the gathered runs that follow each other from `at` on, as far as `goal`. Returns where it ends.
    pub(crate) fn join_pending(&mut self, at: u64, goal: u64) -> Option<u64> {
        let mut seg = self.pending.remove(&at)?;
        while at + seg.len < goal
            && let Some(mut next) = self.pending.remove(&(at + seg.len))
        {
            seg.bufs.append(&mut next.bufs);
            seg.len += next.len;
            seg.permit.merge(next.permit);
        }
        let end = at + seg.len;
        self.pending.insert(at, seg);
        Some(end)
    }

    /// Forgets what is gathered of a range.
    pub(crate) fn drop_pending(&mut self, r: &std::ops::Range<u64>, after: &mut After) {
        let starts: Vec<u64> =
            self.pending.range(..r.end).filter(|(s, seg)| **s + seg.len > r.start).map(|(s, _)| *s).collect();
        for start in starts {
            let Some(mut seg) = self.pending.remove(&start) else { continue };
            let (bufs, since) = (std::mem::take(&mut seg.bufs), seg.since);
            for (at, part) in super::write::outside(&bufs, start, r) {
                let len = part.iter().map(|b| b.len() as u64).sum();
                let permit = seg.permit.split(len);
                self.pending.insert(at, Segment { bufs: part, len, since, permit });
            }
            seg.bufs = bufs;
            after.discard(seg);
        }
    }
}

/// Events kept for the driver to publish, at most.
const UNSAID: usize = 1024;

impl State {
    /// A source of this job; the same one if it was seen.
    pub(crate) fn add_source(&mut self, info: SourceInfo, origin: Arc<Origin>) -> SourceId {
        let id = SourceId(self.sources.len() as u32);
        self.parties.add(info.label.clone(), id);
        self.board.origins.insert(id, OriginView::default());
        self.sources.push(SourceState { info, origin, bytes: 0, error: None, over: false, before_run: 0 });
        id
    }

    pub(crate) fn add_object(
        &mut self,
        spec: &ObjectSpec,
        window: Option<u64>,
        pieces_readable: bool,
    ) -> Result<()> {
        if self.objects.contains_key(&spec.id) {
            return Err(Error::new(Kind::Bug, "add an object").because("its number is taken"));
        }
        self.board.objects.insert(
            spec.id,
            ObjectView {
                id: spec.id,
                key: spec.key.clone(),
                len: spec.len,
                generation: 0,
                reserved: RangeSet::new(),
                held: RangeSet::new(),
                written: RangeSet::new(),
                verified: RangeSet::new(),
                done: RangeSet::new(),
                wanted: None,
                rank: 0,
                disputed: Vec::new(),
                window,
                closed: true,
                single: false,
                primary: None,
                mixable: false,
                leases: Vec::new(),
                bindings: Vec::new(),
            },
        );
        self.objects.insert(
            spec.id,
            ObjectState {
                pending: BTreeMap::new(),
                origin: RangeMap::new(),
                judge: Judge::new(pieces_readable),
                checking: BTreeMap::new(),
                next_out: 0,
                out_busy: false,
                restart: Restart::No,
                changes: 0,
                mismatches: 0,
                cut: None,
                best: 0,
                prepared: false,
                complete: false,
                told_len: None,
                resumed: 0,
                files: Vec::new(),
                from_start: false,
            },
        );
        Ok(())
    }

    /// The object's place is there: work may be given out.
    pub(crate) fn open_object(&mut self, id: ObjectId, now: Instant, after: &mut After) {
        if let Some(o) = self.objects.get_mut(&id) {
            o.prepared = true;
        }
        self.mask(id, now, after);
        self.reopen_object(id);
        // What an earlier run left is judged, too.
        self.judge_written(id, &(0..u64::MAX), after);
        self.settle(id, after);
        self.pump(now, after);
    }

    pub(crate) fn reopen_object(&mut self, id: ObjectId) {
        if let (Some(s), Some(v)) = (self.objects.get(&id), self.board.objects.get_mut(&id)) {
            v.closed = !s.prepared || s.complete || !matches!(s.restart, Restart::No);
        }
    }

    pub(crate) fn add_binding(
        &mut self,
        source: SourceId,
        binding: Binding,
        retries: u32,
        max_pause: std::time::Duration,
        after: &mut After,
    ) -> Result<BindingId> {
        let object = binding.target.object;
        let Some(v) = self.board.objects.get_mut(&object) else {
            after.discard(binding);
            return Err(Error::new(Kind::Bug, "add a source of an object").because("the object is unknown"));
        };
        let id = BindingId(self.next_binding);
        self.next_binding += 1;
        let whole = binding.target.window == Span::ALL;
        if let (true, Some(have), Some(says)) = (whole, v.len, binding.identity.len)
            && have != says
        {
            let error = Error::new(Kind::Changed, "use the source")
                .on(&binding.target.remote)
                .because(format_args!("it has {says} bytes where {have} are expected"));
            after.discard(binding);
            if let Some(s) = self.sources.get_mut(source.0 as usize) {
                s.error.get_or_insert(error.clone());
            }
            return Err(error);
        }
        if v.len.is_none() && whole {
            v.len = binding.identity.len;
        }
        let known = binding.identity.validator != Validator::Unknown
            || binding.identity.len.is_some()
            || binding.first.is_some();
        let identity = binding.identity;
        // The driver has the source.
        after.discard(binding.source);
        v.bindings.push(id);
        let view = BindingView {
            id,
            source,
            object,
            window: binding.target.window,
            rank: binding.target.rank,
            caps: binding.caps,
            identity: known.then(|| identity.clone()),
            leases: 0,
            meter: Meter::default(),
            parked_until: None,
            failed: false,
            first_at: binding.first.as_ref().map(|b| b.at.start),
            unvouched: false,
            reads_over: false,
        };
        self.board.list(source, object, id);
        self.board.bindings.insert(id, view);
        let seed = u64::from(id.0) << 32 | u64::from(object.0);
        self.bindings.insert(
            id,
            BindingState {
                target: binding.target,
                first: binding.first,
                backoff: Backoff::new(retries, max_pause, seed),
                error: None,
            },
        );
        if known {
            self.note_validator(id, &identity);
        }
        self.remix(object);
        self.pump(Instant::now(), after);
        after.wake_driver = true;
        Ok(id)
    }

    /// Bytes of a source that says nothing of its version come in one answer, so that they are of one version: what is
    /// cut starts over, unless a proof would tell.
    pub(crate) fn note_validator(&mut self, binding: BindingId, identity: &Identity) {
        if identity.validator == Validator::Unknown
            && let Some(b) = self.board.bindings.get_mut(&binding)
            && !self.objects.get(&b.object).is_some_and(|o| o.judge.mixes())
            && let Some(v) = self.board.objects.get_mut(&b.object)
        {
            v.single = true;
            b.unvouched = true;
        }
    }

    /// A proof was found that tells old bytes from new.
    fn vouch(&mut self, object: ObjectId) {
        let (Some(s), Some(v)) = (self.objects.get(&object), self.board.objects.get_mut(&object)) else {
            return;
        };
        if s.judge.mixes() {
            v.single &= s.changes > 0;
            for b in &v.bindings {
                if let Some(b) = self.board.bindings.get_mut(b) {
                    b.unvouched = false;
                }
            }
        }
    }

    /// Decides again whether bytes of different bindings may stand side by side.
    pub(crate) fn remix(&mut self, object: ObjectId) {
        let Some(s) = self.objects.get(&object) else { return };
        // Equal tags of bytes that stood side by side and did not match are not believed again.
        let (proven, doubted) = (s.judge.mixes(), s.judge.unmixed());
        let alive: Vec<_> =
            self.sources_of(object).into_iter().filter_map(|b| self.board.bindings.get(&b)).collect();
        let strong = |i: &Identity| match &i.validator {
            Validator::Strong(t) => Some((i.len, t.clone())),
            _ => None,
        };
        let first = alive.first().and_then(|b| b.identity.as_ref()).and_then(strong);
        let same = first.is_some() && alive.iter().all(|b| b.identity.as_ref().and_then(strong) == first);
        if let Some(v) = self.board.objects.get_mut(&object) {
            v.mixable = proven || (same && !doubted);
        }
    }

    pub(crate) fn add_evidence(
        &mut self,
        object: ObjectId,
        what: Evidence,
        trust: Trust,
        author: Option<SourceId>,
        after: &mut After,
    ) {
        let Some(s) = self.objects.get_mut(&object) else { return after.discard(what) };
        match what {
            Evidence::Digest(d) => s.judge.add_digest(Judgement { what: d, trust, author }, after),
            Evidence::Pieces { window, proof } => {
                s.judge.add_pieces(Judgement { what: Table::new(window, proof), trust, author }, after);
            }
        }
        self.vouch(object);
        self.remix(object);
        // A piece that became known may reach beyond what was wanted so far.
        self.mask_anew(object, Instant::now(), after);
        let all = 0..u64::MAX;
        self.judge_written(object, &all, after);
        // What may not stand side by side without a proof now may.
        self.pump(Instant::now(), after);
        after.wake_driver = true;
    }

    /// Forgets an object: nothing more of it is fetched, and nothing of it costs memory. Leases that still run are
    /// told to stop at their next delivery.
    pub(crate) fn evict(&mut self, object: ObjectId, after: &mut After) {
        self.revoke_all(object, after);
        after.gone.extend(self.objects.remove(&object));
        for set in [&mut self.parked, &mut self.unmasked, &mut self.masked] {
            set.remove(&object);
        }
        let bindings = self.board.objects.get(&object).map(|v| v.bindings.clone()).unwrap_or_default();
        for id in bindings {
            if let Some(b) = self.board.bindings.remove(&id) {
                self.board.unlist(b.source, object, id);
            }
            after.garbage.extend(self.bindings.remove(&id).and_then(|b| b.first));
        }
        self.board.objects.remove(&object);
        self.dirty.retain(|d| d.object != object);
        self.retract.retain(|(o, ..)| *o != object);
        after.wake_driver();
    }

    /// Claims of an earlier run that were found good.
    pub(crate) fn restore(&mut self, object: ObjectId, good: &RangeSet, generation: u32) {
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get_mut(&object)) else {
            return;
        };
        v.generation = generation;
        for r in good.iter() {
            v.written.insert(r.clone());
            v.take(r);
        }
        s.best = v.done.covered();
        s.resumed = good.covered();
    }

    /// Takes gathered bytes out to be written: those older than `before`, or all.
    pub(crate) fn flush(
        &mut self,
        object: ObjectId,
        before: Option<Instant>,
        caps: SinkCaps,
        after: &mut After,
    ) {
        if caps.order == Order::Next {
            self.flush_ordered(object, after);
            return;
        }
        let Some(s) = self.objects.get_mut(&object) else { return };
        let due: Vec<u64> = s
            .pending
            .iter()
            .filter(|(_, seg)| before.is_none_or(|t| seg.since <= t))
            .map(|(at, _)| *at)
            .collect();
        for at in due {
            self.write_out(object, at, after);
        }
    }

    /// What the driver publishes and acts on once nothing of an object is missing.
    pub(crate) fn settle(&mut self, id: ObjectId, after: &mut After) {
        let (Some(s), Some(v)) = (self.objects.get_mut(&id), self.board.objects.get(&id)) else { return };
        if !s.complete && v.is_whole() {
            after.wake_driver = true;
        }
        if let Some(top) = v.wanted.as_ref().and_then(|w| w.top(v.len))
            && top != v.rank
        {
            self.board.rank(id, top);
        }
    }

    pub(crate) fn say(&mut self, event: EventKind, after: &mut After) {
        if self.events.len() < UNSAID {
            self.events.push(event);
        } else {
            self.unsaid += 1;
        }
        after.wake_driver = true;
    }
}

impl Ledger {
    /// Writes everything that is gathered.
    pub(crate) fn flush_all(self: &Arc<Self>) {
        self.flush_older(None);
    }

    /// Writes what was gathered before that moment.
    pub(crate) fn flush_older(self: &Arc<Self>, before: Option<Instant>) {
        let caps = self.caps;
        self.with(|s, after| {
            let ids: Vec<_> =
                s.objects.iter().filter(|(_, o)| !o.pending.is_empty()).map(|(id, _)| *id).collect();
            for id in ids {
                s.flush(id, before, caps, after);
            }
        });
    }

    pub(crate) fn retries(&self) -> (u32, std::time::Duration) {
        (self.retries, self.max_pause)
    }
}

/// Whether a source can only be read from the beginning.
pub(crate) fn no_seek(seek: Seek) -> bool {
    seek == Seek::None
}
