//! Blame: who is given up for wrong bytes, and when such bytes may be fetched again.

use std::ops::Range;

use crate::event::EventKind;
use crate::object::{ObjectId, PartyId};

use super::super::work::NewsItem;
use super::super::{After, State};
use super::wrong;

/// A party with no alternative is banned after this many wrong pieces.
const STRIKES: u32 = 3;

impl State {
    /// This party delivered wrong bytes, beyond doubt.
    pub(super) fn convict(
        &mut self,
        party: PartyId,
        object: ObjectId,
        piece: &Range<u64>,
        now: tokio::time::Instant,
        after: &mut After,
    ) {
        let Some(p) = self.parties.get_mut(party) else { return };
        if p.banned {
            return;
        }
        p.strikes += 1;
        let (source, strikes) = (p.source, p.strikes);
        let main = self.parties.main(source) == Some(party);
        let mine: Vec<_> = self
            .sources_of(object)
            .into_iter()
            .filter(|b| self.board.bindings.get(b).is_some_and(|b| b.source == source))
            .collect();
        let alternative = !main || self.sources_of(object).len() > mine.len();
        if strikes < STRIKES && !alternative {
            return;
        }
        if let Some(p) = self.parties.get_mut(party) {
            p.banned = true;
        }
        after.news.push(NewsItem::Banned(party));
        let label = self.label(party);
        self.say(EventKind::Banned { party: label }, after);
        after.cancel.extend(
            self.board
                .leases
                .values()
                .filter(|l| l.party == party)
                .filter_map(|l| self.tokens.get(&l.id))
                .cloned(),
        );
        self.policy.on_event(now, &crate::sched::BoardEvent::Blamed(party), &self.board);
        if main {
            let label = self.label(party);
            let error = wrong(format_args!("bytes {}..{} are wrong", piece.start, piece.end)).on(label);
            for b in mine {
                self.fail_binding(b, error.clone(), now, after);
            }
        }
        self.pump(now, after);
    }

    /// What turned out wrong and is not being checked by another proof: its verdict is to come first.
    pub(crate) fn to_retract(&self) -> Vec<(ObjectId, u32, Range<u64>)> {
        let busy = |o: &ObjectId, r: &Range<u64>| {
            self.objects.get(o).is_some_and(|s| s.checking.values().any(|c| c.touches(r)))
        };
        self.retract.iter().filter(|(o, _, r)| !busy(o, r)).cloned().collect()
    }

    /// Retractions are in the journal: the bytes may be fetched again.
    pub(crate) fn retracted(
        &mut self,
        done: &[(ObjectId, u32, Range<u64>)],
        now: tokio::time::Instant,
        after: &mut After,
    ) {
        for (object, generation, range) in done {
            self.retract.retain(|x| x != &(*object, *generation, range.clone()));
            let (Some(s), Some(v)) = (self.objects.get_mut(object), self.board.objects.get_mut(object))
            else {
                continue;
            };
            if v.generation != *generation {
                continue;
            }
            v.written.remove(range);
            v.verified.remove(range);
            v.lose(range);
            s.origin.remove(range);
            s.judge.forget(range, after);
            after.news.push(NewsItem::Lost { object: *object, range: range.clone() });
            let event = crate::sched::BoardEvent::Lost { object: *object, range: range.clone() };
            self.policy.on_event(now, &event, &self.board);
        }
        self.pump(now, after);
    }
}
