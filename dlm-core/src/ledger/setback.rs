//! What follows when an answer fails, a binding turns out worse than it seemed, or an object has to start over.

use tokio::time::Instant;

use crate::error::{Error, Fault, Kind, Retry};
use crate::event::EventKind;
use crate::object::{BindingId, LeaseId, ObjectId, SourceId};
use crate::sched::BoardEvent;
use crate::source::{Caps, Seek};

use super::accept::LITTLE;
use super::objects::Restart;
use super::{After, State};

/// An object starts over this often because its source changed under it; then the job fails.
const MOST_CHANGES: u32 = 4;

impl State {
    pub(super) fn setback(
        &mut self,
        lease: LeaseId,
        id: BindingId,
        error: &Error,
        now: Instant,
        after: &mut After,
    ) {
        let Some(b) = self.board.bindings.get(&id) else { return };
        let (source, live) = (b.source, b.leases);
        if b.failed || self.ended {
            return;
        }
        match error.kind() {
            Kind::RangeIgnored if b.seek() != Seek::None && !b.reads_over => {
                return self.downgrade(id, Caps::STREAM, now, after);
            }
            // Asked before it was known to have no ranges: no news.
            Kind::RangeIgnored
                if !b.reads_over
                    && self.board.leases.get(&lease).is_some_and(|l| l.want.start > b.window.start) =>
            {
                return;
            }
            Kind::Changed => return self.changed(id, error.clone(), now, after),
            _ => {
                let object = b.object;
                self.note_cut(object, error);
            }
        }
        let gained = self.board.leases.get(&lease).is_some_and(|l| l.gained && l.bytes >= LITTLE);
        let others = self.board.leases.values().any(|l| l.binding == id && l.id != lease && l.bytes > 0);
        let refused = error.fault() == Fault::Source && error.retry() != Retry::Never;
        let origin = self.sources.get(source.0 as usize).map(|s| s.origin.clone());
        if let Retry::After(asked) = error.retry() {
            // Obeyed as far as the job may wait at all; every object and job that asks there does.
            if let Some(o) = &origin {
                o.rest(now + asked.min(self.max_pause));
            }
            if let Some(o) = self.board.origins.get_mut(&source) {
                o.rest_until =
                    Some(o.rest_until.map_or(now, |t| t.max(now)).max(now + asked.min(self.max_pause)));
            }
        }
        let fruitless = self.board.leases.get(&lease).is_some_and(|l| l.bytes == 0);
        if (refused || fruitless) && others {
            // Nothing came of it while others of the same binding work: it allows fewer at once.
            if let Some(b) = self.board.bindings.get_mut(&id) {
                let fewer =
                    if matches!(error.retry(), Retry::After(_)) { live / 2 } else { live.saturating_sub(1) };
                b.caps.max_parallel = b.caps.max_parallel.min(fewer.max(1));
                if let Some(o) = origin.as_ref().filter(|_| refused) {
                    o.allows(b.caps.max_parallel, now);
                }
            }
            self.policy.on_event(now, &BoardEvent::Refused(id), &self.board);
            return;
        }
        let Some(state) = self.bindings.get_mut(&id) else { return };
        if self.board.bindings.get(&id).is_some_and(|b| b.parked_until.is_some_and(|t| t > now)) {
            // The same event as one that was counted a moment ago, seen by another connection.
            return;
        }
        if gained && matches!(error.kind(), Kind::Reset | Kind::Timeout) {
            // It was cut after it had delivered something: go on at once.
            state.backoff.progress();
            return;
        }
        match state.backoff.pause(error) {
            Some(pause) => {
                if let Some(b) = self.board.bindings.get_mut(&id) {
                    b.parked_until = Some(now + pause);
                }
                let label =
                    self.sources.get(source.0 as usize).map_or_else(|| "?".into(), |s| s.info.label.clone());
                self.say(EventKind::Retrying { source: label, error: error.clone(), after: pause }, after);
            }
            None => self.fail_binding(id, error.clone(), now, after),
        }
    }

    /// Remembers why an answer failed.
    fn note_cut(&mut self, object: ObjectId, error: &Error) {
        if let Some(o) = self.objects.get_mut(&object) {
            // A change says by itself what happened.
            o.cut = (error.kind() != Kind::Changed).then(|| error.clone());
        }
    }

    /// What to say where an object has to start over and cannot, because bytes have left: what cut it, unless it is
    /// that the bytes are others now.
    pub(crate) fn cut_short(&self, object: ObjectId, refused: Error) -> Error {
        let Some(o) = self.objects.get(&object) else { return refused };
        let Some(cut) = o.cut.clone().filter(|_| refused.kind() == Kind::Changed) else { return refused };
        let happened = if cut.detail().is_empty() { cut.kind().name() } else { cut.detail() };
        let why = format!("{happened}; {} bytes have left already and cannot be fetched again", o.next_out);
        cut.because(why).with_retry(Retry::Never).advise("discard the output and run the command again")
    }

    /// The binding can do less than it seemed.
    pub(super) fn downgrade(&mut self, id: BindingId, caps: Caps, now: Instant, after: &mut After) {
        let Some(b) = self.board.bindings.get_mut(&id) else { return };
        let object = b.object;
        b.caps.max_parallel = b.caps.max_parallel.min(caps.max_parallel);
        if b.caps.seek == Seek::Any || caps.seek == Seek::None {
            b.caps.seek = caps.seek;
        }
        self.pump(now, after);
        let _ = object;
        after.wake_driver();
    }

    pub(super) fn fail_binding(&mut self, id: BindingId, error: Error, now: Instant, after: &mut After) {
        let Some(b) = self.board.bindings.get_mut(&id) else { return };
        if std::mem::replace(&mut b.failed, true) {
            return;
        }
        let (object, source) = (b.object, b.source);
        self.note_cut(object, &error);
        self.board.unlist(source, object, id);
        if let Some(s) = self.bindings.get_mut(&id) {
            s.error = Some(error.clone());
        }
        self.forget_first(id, after);
        let revoked = self
            .board
            .leases
            .values()
            .filter(|l| l.binding == id)
            .filter_map(|l| self.tokens.get(&l.id))
            .cloned();
        after.cancel.extend(revoked);
        if let Some(s) = self.sources.get_mut(source.0 as usize) {
            s.error.get_or_insert(error.clone());
        }
        let label = self.sources.get(source.0 as usize).map_or_else(|| "?".into(), |s| s.info.label.clone());
        self.say(EventKind::SourceFailed { source: label, error }, after);
        self.remix(object);
        self.lead_anew(object, after);
        self.pump(now, after);
    }

    /// The binding whose bytes are there is gone, and no proof lets another's stand beside them: the object starts over
    /// with another one.
    fn lead_anew(&mut self, object: ObjectId, after: &mut After) {
        let alive = self.sources_of(object);
        let Some(v) = self.board.objects.get_mut(&object) else { return };
        let gone = v.primary.is_some_and(|p| !alive.contains(&p));
        let complete = self.objects.get(&object).is_some_and(|o| o.complete) || v.remaining() == Some(0);
        if gone && !v.mixable && !complete {
            v.primary = None;
            if !alive.is_empty() && !v.done.is_empty() {
                self.restart(object, None, after);
            }
        }
    }

    pub(crate) fn fail_source(&mut self, source: SourceId, error: &Error, now: Instant, after: &mut After) {
        let ids: Vec<_> = self.board.bindings.values().filter(|b| b.source == source).map(|b| b.id).collect();
        for id in ids {
            self.fail_binding(id, error.clone(), now, after);
        }
    }

    /// A source's run has ended by itself. What is missing of what it has comes from another run of it, but not where this
    /// one has brought nothing: then it will not come from it.
    pub(crate) fn source_over(&mut self, source: SourceId, now: Instant, after: &mut After) {
        let Some(s) = self.sources.get_mut(source.0 as usize) else { return };
        s.over = true;
        if self.ended || s.bytes > s.before_run {
            return after.wake_driver();
        }
        let error = Error::new(Kind::NotFound, "download")
            .on(&s.info.label)
            .because("the source stopped before everything was there");
        let open: Vec<BindingId> = self
            .board
            .bindings
            .values()
            .filter(|b| b.source == source)
            .filter(|b| self.board.objects.get(&b.object).is_some_and(|o| o.remaining() != Some(0)))
            .map(|b| b.id)
            .collect();
        for id in open {
            self.fail_binding(id, error.clone(), now, after);
        }
        after.wake_driver();
    }

    /// Sources whose run has ended, and something is missing of what they have: bytes were wrong, or the object starts over.
    /// They are to be run again, and count as running from here on.
    pub(crate) fn start_again(&mut self) -> Vec<SourceId> {
        let short = |b: &super::BindingView| {
            let missing = |o: &super::ObjectView| !o.closed && o.remaining() != Some(0);
            !b.failed && self.board.objects.get(&b.object).is_some_and(missing)
        };
        let mut again = Vec::new();
        for (n, s) in self.sources.iter_mut().enumerate().filter(|(_, s)| s.over) {
            let id = SourceId(n as u32);
            if self.board.bindings.values().any(|b| b.source == id && short(b)) {
                (s.over, s.before_run) = (false, s.bytes);
                again.push(id);
            }
        }
        again
    }

    /// A binding answered with another version than the bytes that are there.
    pub(super) fn changed(&mut self, id: BindingId, error: Error, now: Instant, after: &mut After) {
        let Some(b) = self.board.bindings.get(&id) else { return };
        let object = b.object;
        let others = self
            .sources_of(object)
            .into_iter()
            .any(|x| x != id && self.board.bindings.get(&x).is_some_and(|v| v.identity.is_some()));
        if others {
            self.fail_binding(id, error, now, after);
            return;
        }
        let Some(s) = self.objects.get_mut(&object) else { return };
        if !matches!(s.restart, Restart::No) {
            return;
        }
        s.changes += 1;
        if s.changes > MOST_CHANGES {
            self.fail_binding(id, error.clone(), now, after);
            self.fail_job(error, after);
            return;
        }
        if let Some(v) = self.board.objects.get_mut(&object) {
            // From now on one answer at a time: the origin may be several machines that do not agree.
            v.single = true;
        }
        self.restart(object, Some(error), after);
    }

    /// The object starts over: its generation is raised, every lease revoked, and once nothing is held any more the
    /// driver journals it and empties the sink.
    pub(crate) fn restart(&mut self, id: ObjectId, why: Option<Error>, after: &mut After) {
        let (Some(s), Some(v)) = (self.objects.get_mut(&id), self.board.objects.get_mut(&id)) else { return };
        if !matches!(s.restart, Restart::No) {
            return;
        }
        s.restart = Restart::Draining;
        v.closed = true;
        v.generation += 1;
        v.primary = None;
        if why.is_some() {
            s.cut = None;
            v.len = None;
            s.told_len = None;
        }
        // Gathered bytes were never handed to the sink: they are simply forgotten.
        for (at, seg) in std::mem::take(&mut s.pending) {
            v.held.remove(&(at..at + seg.len));
            v.lose(&(at..at + seg.len));
            after.discard(seg);
        }
        after.cancel.extend(v.leases.iter().filter_map(|l| self.tokens.get(l)).cloned());
        for b in v.bindings.clone() {
            if let Some(b) = self.board.bindings.get_mut(&b)
                && why.is_some()
            {
                b.identity = None;
            }
        }
        if let Some(why) = why {
            self.say(EventKind::Restarted { object: id, why }, after);
        }
        after.wake_driver();
    }

    /// Whether a restarting object has nothing in flight any more, so that its place may be emptied.
    pub(crate) fn drained(&mut self, id: ObjectId) -> bool {
        let (Some(s), Some(v)) = (self.objects.get_mut(&id), self.board.objects.get(&id)) else {
            return false;
        };
        let idle = v.held.is_empty() && s.checking.is_empty() && !s.judge.busy() && !s.out_busy;
        if matches!(s.restart, Restart::Draining) && idle {
            s.restart = Restart::Emptying;
            return true;
        }
        false
    }

    /// The place is empty: work is given out again.
    pub(crate) fn restarted(&mut self, id: ObjectId, now: Instant, after: &mut After) {
        if let (Some(s), Some(v)) = (self.objects.get_mut(&id), self.board.objects.get_mut(&id)) {
            s.restart = Restart::No;
            s.judge.reset(after);
            s.origin.clear();
            s.next_out = 0;
            v.written.clear();
            v.verified.clear();
            v.done.clear();
            v.wanted.iter_mut().for_each(|w| w.missing_again());
            v.held.clear();
            v.disputed.clear();
        }
        self.dirty.retain(|d| d.object != id);
        self.retract.retain(|(o, ..)| *o != id);
        self.reopen_object(id);
        self.settle(id, after);
        self.pump(now, after);
    }
}
