//! What is wanted of an object, and how urgently: a mask beside the states of its bytes.

use std::cmp::Reverse;
use std::ops::Range;

use super::ranges::RangeSet;

/// Wanted ranges. An object of which all is wanted, nothing more urgently than the rest, has none of this.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What is wanted: files, and the whole of each piece that has bytes of them.
    all: RangeSet,
    /// What of it was not accepted yet.
    left: RangeSet,
    /// The same by urgency, most urgent first; none overlaps another.
    tiers: Vec<Tier>,
    /// The files alone.
    own: RangeSet,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tier {
    priority: i32,
    all: RangeSet,
    left: RangeSet,
}

impl Wanted {
    /// These files, each with its urgency; `whole` rounds a range up to what can be proven.
    pub(crate) fn new(
        files: &[(Range<u64>, i32)],
        whole: impl Fn(&Range<u64>) -> Range<u64>,
        done: &RangeSet,
    ) -> Self {
        let mut files: Vec<_> = files.iter().filter(|(r, _)| r.start < r.end).collect();
        files.sort_by_key(|(r, priority)| (Reverse(*priority), r.start));
        let mut wanted = Self::default();
        for (range, priority) in files {
            wanted.own.insert(range.clone());
            let range = whole(range);
            if wanted.tiers.last().is_none_or(|t| t.priority != *priority) {
                wanted.tiers.push(Tier { priority: *priority, all: RangeSet::new(), left: RangeSet::new() });
            }
            let Some(tier) = wanted.tiers.last_mut() else { continue };
            // What is shared belongs to the more urgent.
            for new in wanted.all.gaps(range.clone()) {
                tier.all.insert(new);
            }
            wanted.all.insert(range);
        }
        wanted.missing_again();
        for r in done.iter() {
            wanted.take(&r);
        }
        wanted
    }

    /// Whether this says the same as `other`, of however many bytes that are there.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let tiers = |w: &Self| w.tiers.iter().map(|t| (t.priority, t.all.clone())).collect::<Vec<_>>();
        self.own == other.own && tiers(self) == tiers(other)
    }

    /// These bytes were accepted.
    pub(crate) fn take(&mut self, r: &Range<u64>) {
        self.left.remove(r);
        self.tiers.iter_mut().for_each(|t| t.left.remove(r));
    }

    /// These bytes are missing again.
    pub(crate) fn give(&mut self, r: &Range<u64>) {
        for x in self.all.within(r.clone()) {
            self.left.insert(x);
        }
        for t in &mut self.tiers {
            for x in t.all.within(r.clone()) {
                t.left.insert(x);
            }
        }
    }

    /// Nothing is there.
    pub(crate) fn missing_again(&mut self) {
        self.left = self.all.clone();
        self.tiers.iter_mut().for_each(|t| t.left = t.all.clone());
    }

    pub(crate) fn all(&self) -> &RangeSet {
        &self.all
    }
    pub(crate) fn left(&self) -> &RangeSet {
        &self.left
    }
    pub(crate) fn own(&self) -> &RangeSet {
        &self.own
    }

    /// What is not there yet, most urgent first.
    pub(crate) fn left_by_urgency(&self) -> impl Iterator<Item = (i32, &RangeSet)> {
        self.tiers.iter().map(|t| (t.priority, &t.left))
    }

    /// How urgently a byte is wanted.
    pub(crate) fn priority_at(&self, at: u64) -> Option<i32> {
        self.tiers.iter().find(|t| t.all.contains(at)).map(|t| t.priority)
    }

    /// The urgency of the most urgent byte that is not there yet, in an object of this length.
    pub(crate) fn top(&self, len: Option<u64>) -> Option<i32> {
        let missing = |t: &&Tier| t.left.next_from(0).is_some_and(|s| len.is_none_or(|l| s < l));
        self.tiers.iter().find(missing).map(|t| t.priority)
    }

    /// How many bytes are not there yet; `None` where it ends with an object whose end is not known.
    pub(crate) fn remaining(&self, len: Option<u64>) -> Option<u64> {
        let end = self.left.iter().next_back().map_or(0, |r| r.end);
        match len {
            None if end == u64::MAX => None,
            Some(len) if end > len => Some(self.left.within(0..len).map(|r| r.end - r.start).sum()),
            _ => Some(self.left.covered()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Up to the next ten.
    fn tens(r: &Range<u64>) -> Range<u64> {
        r.start / 10 * 10..r.end.div_ceil(10) * 10
    }

    proptest! {
        /// A mask and an array of urgencies are the same thing, whatever comes and is lost.
        #[test]
        fn it_is_like_an_array(
            files in prop::collection::vec((0u64..90, 0u64..30, -1i32..3), 0..6),
            moves in prop::collection::vec((any::<bool>(), 0u64..100, 0u64..40), 0..20),
            before in prop::collection::vec((0u64..100, 0u64..20), 0..4),
        ) {
            let files: Vec<_> = files.into_iter().map(|(s, n, p)| (s..s + n, p)).collect();
            let mut done: RangeSet = before.into_iter().map(|(s, n)| s..s + n).collect();
            let mut w = Wanted::new(&files, tens, &done);
            for (take, s, n) in moves {
                let r = s..s + n;
                if take { done.insert(r.clone()); w.take(&r); } else { done.remove(&r); w.give(&r); }
            }
            let want = |at: u64| {
                files.iter().filter(|(r, _)| r.start < r.end && tens(r).contains(&at)).map(|(_, p)| *p).max()
            };
            for at in 0..150 {
                prop_assert_eq!(w.priority_at(at), want(at));
                prop_assert_eq!(w.all().contains(at), want(at).is_some());
                let left = want(at).filter(|_| !done.contains(at));
                prop_assert_eq!(w.left().contains(at), left.is_some());
                for (p, set) in w.left_by_urgency() {
                    prop_assert_eq!(set.contains(at), left == Some(p));
                }
                prop_assert_eq!(w.own().contains(at), files.iter().any(|(r, _)| r.contains(&at)));
            }
            let order: Vec<_> = w.left_by_urgency().map(|(p, _)| p).collect();
            prop_assert!(order.windows(2).all(|p| p[0] > p[1]), "{:?}", order);
            for len in [Some(35), Some(150), None] {
                let left = (0..len.unwrap_or(150)).filter(|a| want(*a).is_some() && !done.contains(*a));
                prop_assert_eq!(w.remaining(len), Some(left.clone().count() as u64));
                prop_assert_eq!(w.top(len), left.filter_map(want).max());
            }
        }
    }

    #[test]
    fn to_the_end_wherever_that_is() {
        let mut w = Wanted::new(&[(5..u64::MAX, 0)], Clone::clone, &RangeSet::new());
        assert_eq!(
            (w.remaining(None), w.remaining(Some(25)), w.remaining(Some(5))),
            (None, Some(20), Some(0))
        );
        w.take(&(5..25));
        assert_eq!((w.remaining(None), w.remaining(Some(25)), w.top(Some(25))), (None, Some(0), None));
    }
}
