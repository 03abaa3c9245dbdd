//! What is wanted changes: masks are made of files, leases are revoked, objects rest and wake.

use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use crate::object::{FileId, ObjectId, Span};
use crate::select::Want;
use crate::sink::Order;

use super::objects::no_seek;
use super::wanted::Wanted;
use super::{After, Ledger, NewsItem, State};

/// A file of an object, and whether it is wanted.
#[derive(Debug, Clone)]
pub(crate) struct FileWant {
    pub(crate) id: FileId,
    pub(crate) range: Span,
    pub(crate) want: Want,
    /// It is under its final name.
    pub(crate) placed: bool,
}

impl Ledger {
    /// Notes what somebody wants otherwise; the driver sees to it.
    pub(crate) fn ask_for(self: &Arc<Self>, files: impl IntoIterator<Item = (FileId, Want)>) {
        let files: Vec<_> = files.into_iter().collect();
        self.with(|s, after| {
            s.asked.extend(files);
            after.wake_driver();
        });
    }
}

impl State {
    /// A file was found, or is wanted otherwise. What follows is done by [`mask`](Self::mask).
    pub(crate) fn file_is(&mut self, object: ObjectId, id: FileId, range: Span, want: Want) {
        let Some(s) = self.objects.get_mut(&object) else { return };
        let new = FileWant { id, range, want, placed: false };
        match s.files.iter_mut().rev().find(|f| f.id == id) {
            Some(f) if f.want == want => return,
            Some(f) => f.want = want,
            None => s.files.push(new),
        }
        if want != Want::NORMAL || self.masked.contains(&object) {
            self.unmasked.insert(object);
        }
    }

    /// Whether an object whose bytes leave in order has begun to: what was begun is finished.
    pub(crate) fn must_finish(&self, object: ObjectId, order: Order) -> bool {
        order == Order::Next && self.board.objects.get(&object).is_some_and(|v| !v.done.is_empty())
    }

    /// A file is in place.
    pub(crate) fn file_placed(&mut self, object: ObjectId, id: FileId) {
        let files = self.objects.get_mut(&object).into_iter().flat_map(|s| &mut s.files);
        files.filter(|f| f.id == id).for_each(|f| f.placed = true);
    }

    /// What its files say, where that is not the object's mask yet.
    pub(crate) fn mask(&mut self, object: ObjectId, now: Instant, after: &mut After) {
        if self.unmasked.remove(&object) {
            self.remask(object, now, after);
        }
    }

    /// The same, where a mask is there and something else changed that it is made of.
    pub(crate) fn mask_anew(&mut self, object: ObjectId, now: Instant, after: &mut After) {
        if self.masked.contains(&object) && !self.parked.contains(&object) {
            self.remask(object, now, after);
        }
    }

    fn remask(&mut self, object: ObjectId, now: Instant, after: &mut After) {
        let Some(s) = self.objects.get(&object) else { return };
        let to_come = || s.files.iter().filter(|f| !f.placed);
        let plain = to_come().all(|f| f.want == Want::NORMAL) && s.files.iter().all(|f| !f.placed);
        let wanted: Vec<(Range<u64>, i32)> = to_come()
            .filter_map(|f| match f.want {
                Want::Fetch(priority) => Some((f.range.to_range(), priority)),
                Want::Skip => None,
            })
            .collect();
        self.want(object, (!plain).then_some(&wanted[..]), now, after);
    }

    /// From now on this is wanted of an object (`None`: all of it). Leases that serve nothing wanted are revoked, sources
    /// are told, and whoever waits and can be served now is.
    pub(crate) fn want(
        &mut self,
        object: ObjectId,
        files: Option<&[(Range<u64>, i32)]>,
        now: Instant,
        after: &mut After,
    ) {
        let (Some(s), Some(v)) = (self.objects.get(&object), self.board.objects.get_mut(&object)) else {
            return;
        };
        let new = files.map(|files| {
            let whole = |r: &Range<u64>| {
                let piece = |at| s.judge.piece_holding(at).unwrap_or(at..at + 1);
                let start = if s.from_start { 0 } else { piece(r.start).start.min(r.start) };
                start..if r.end == u64::MAX { r.end } else { piece(r.end - 1).end }
            };
            Box::new(Wanted::new(files, whole, &v.done))
        });
        let same = match (&v.wanted, &new) {
            (None, None) => true,
            (Some(old), Some(new)) => old.is_like(new),
            _ => false,
        };
        if same {
            return self.rest_or_wake(object, now, after);
        }
        v.wanted = new;
        if v.wanted.is_some() {
            self.masked.insert(object);
        } else {
            self.masked.remove(&object);
        }
        let priority = v.wanted.as_ref().map_or(Some(0), |w| w.top(v.len));
        self.board.rank(object, priority.unwrap_or(0));
        after.news.push(NewsItem::Wanted { object, priority: priority.unwrap_or(0) });
        self.let_go(object, after);
        self.rest_or_wake(object, now, after);
    }

    /// Leases of an object have no more right than to what is wanted: those that serve nothing of it are revoked, and
    /// those that serve something less urgent than what nobody has yet end at what they have reserved.
    fn let_go(&mut self, object: ObjectId, after: &mut After) {
        let Some(v) = self.board.objects.get_mut(&object) else { return };
        let most = v.gaps(0..u64::MAX).next().and_then(|g| v.priority_at(g.start));
        for id in v.leases.clone() {
            let Some(l) = self.board.leases.get_mut(&id) else { continue };
            let end = l.want.to_range().end.min(v.len.unwrap_or(u64::MAX));
            let from = if l.rolling { l.cursor } else { l.want.start };
            let next = v.next_missing(from);
            if next >= end {
                after.cancel.extend(self.tokens.get(&id).cloned());
            }
            if !l.rolling {
                continue;
            }
            // It may go on as far as it did, but not into what is not wanted.
            let keep =
                l.reserved.start..l.reserved.end.min(v.wanted_to(l.reserved.start).max(l.reserved.start));
            v.reserved.remove(&(keep.end..l.reserved.end));
            l.reserved = keep;
            let (start, goal) = (l.want.start, l.reserved.end.max(l.cursor));
            if next < end && v.priority_at(next) < most && goal > start && l.race_of.is_none() {
                l.want.end = Some(end.min(goal));
            }
        }
    }

    /// An object of which nothing is missing any more is for the driver to finish; one that was, and of which something
    /// is missing again, is open again.
    fn rest_or_wake(&mut self, object: ObjectId, now: Instant, after: &mut After) {
        let (Some(s), Some(v)) = (self.objects.get_mut(&object), self.board.objects.get(&object)) else {
            return;
        };
        let (whole, empty) = (v.is_whole() && v.wanted.is_some(), v.done.is_empty());
        if !whole && s.complete && self.parked.remove(&object) {
            s.complete = false;
            self.reopen_object(object);
        }
        let Some(s) = self.objects.get_mut(&object) else { return };
        if whole && empty && !s.prepared && !s.complete {
            // Nobody has it yet, and nobody need to.
            s.complete = true;
            self.parked.insert(object);
        }
        self.settle(object, after);
        self.pump(now, after);
    }

    /// An object of which everything wanted is in place, and that has more: it is kept, and costs no connection.
    pub(crate) fn park(&mut self, object: ObjectId, after: &mut After) {
        self.parked.insert(object);
        self.masked.insert(object);
        if let Some(v) = self.board.objects.get_mut(&object) {
            // What is in place is not fetched again, whatever happens.
            v.wanted = Some(Box::default());
        }
        let bindings = self.board.objects.get(&object).map(|v| v.bindings.clone()).unwrap_or_default();
        for b in bindings {
            self.forget_first(b, after);
        }
    }

    /// Objects that nobody can skip bytes of: all before the last wanted one is wanted, too.
    pub(super) fn unmask_unseekable(&mut self, source: crate::SourceId, now: Instant, after: &mut After) {
        if self.masked.is_empty() {
            return;
        }
        let blind: Vec<ObjectId> = self
            .board
            .claimable(source, now)
            .filter(|(b, o)| {
                let others = || o.bindings.iter().filter_map(|x| self.board.bindings.get(x));
                no_seek(b.seek())
                    && o.wanted.is_some()
                    && !self.objects.get(&o.id).is_some_and(|s| s.from_start)
                    && o.remaining() != Some(0)
                    && others().all(|x| x.failed || no_seek(x.seek()))
            })
            .map(|(_, o)| o.id)
            .collect();
        for id in blind {
            if let Some(s) = self.objects.get_mut(&id) {
                s.from_start = true;
            }
            self.remask(id, now, after);
        }
    }
}
