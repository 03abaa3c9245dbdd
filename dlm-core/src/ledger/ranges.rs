//! Sets of byte offsets, and maps over them, as disjoint intervals.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// A set of byte offsets. Every call costs O(log n) of its number of intervals, plus what it removes or returns.
///
/// ```
/// let mut s = dlm_core::RangeSet::new();
/// s.insert(0..10);
/// s.insert(10..20);
/// s.remove(&(5..7));
/// assert_eq!(s.iter().collect::<Vec<_>>(), [0..5, 7..20]);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    map: BTreeMap<u64, u64>,
    covered: u64,
}

impl RangeSet {
    /// Nothing.
    pub const fn new() -> Self {
        Self { map: BTreeMap::new(), covered: 0 }
    }

    /// How many offsets it holds.
    pub fn covered(&self) -> u64 {
        self.covered
    }
    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
    /// The intervals, in order; none touches the next.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Range<u64>> + '_ {
        self.map.iter().map(|(s, e)| *s..*e)
    }
    /// Removes everything.
    pub fn clear(&mut self) {
        self.map.clear();
        self.covered = 0;
    }

    /// Adds a range; an empty one adds nothing.
    pub fn insert(&mut self, r: Range<u64>) {
        if r.start >= r.end {
            return;
        }
        let (mut start, mut end) = (r.start, r.end);
        if let Some((&s, &e)) = self.map.range(..=start).next_back()
            && e >= start
        {
            if e >= end {
                return;
            }
            // The common case: an interval grows at its end, and meets nothing.
            if self.map_next(s).is_none_or(|n| n > end) {
                self.covered += end - e;
                self.map.insert(s, end);
                return;
            }
            start = s;
        }
        while let Some((&s, &e)) = self.map.range(start..=end).next() {
            self.map.remove(&s);
            self.covered -= e - s;
            end = end.max(e);
        }
        self.map.insert(start, end);
        self.covered += end - start;
    }

    fn map_next(&self, after: u64) -> Option<u64> {
        self.map.range(after.saturating_add(1)..).next().map(|(s, _)| *s)
    }

    /// Removes a range.
    pub fn remove(&mut self, r: &Range<u64>) {
        if r.start >= r.end {
            return;
        }
        if let Some((&s, &e)) = self.map.range(..r.start).next_back()
            && e > r.start
        {
            self.map.insert(s, r.start);
            self.covered -= e - r.start;
            if e > r.end {
                self.map.insert(r.end, e);
                self.covered += e - r.end;
                return;
            }
        }
        while let Some((&s, &e)) = self.map.range(r.start..r.end).next() {
            self.map.remove(&s);
            self.covered -= e - s;
            if e > r.end {
                self.map.insert(r.end, e);
                self.covered += e - r.end;
            }
        }
    }

    /// Whether it holds the offset.
    pub fn contains(&self, at: u64) -> bool {
        self.end_of(at).is_some()
    }
    /// The end of the interval that holds `at`.
    pub fn end_of(&self, at: u64) -> Option<u64> {
        self.map.range(..=at).next_back().map(|(_, e)| *e).filter(|e| *e > at)
    }
    /// The first offset at or after `at` that it holds.
    pub fn next_from(&self, at: u64) -> Option<u64> {
        if self.contains(at) { Some(at) } else { self.map.range(at..).next().map(|(s, _)| *s) }
    }
    /// The first offset at or after `at` that it does not hold.
    pub fn first_missing(&self, at: u64) -> u64 {
        self.end_of(at).unwrap_or(at)
    }
    /// Whether it holds all of the range.
    pub fn covers(&self, r: &Range<u64>) -> bool {
        r.start >= r.end || self.end_of(r.start).is_some_and(|e| e >= r.end)
    }
    /// Whether it holds any of the range.
    pub fn touches(&self, r: &Range<u64>) -> bool {
        r.start < r.end && self.next_from(r.start).is_some_and(|s| s < r.end)
    }
    /// Its intervals inside the range, cut to it.
    pub fn within(&self, r: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first =
            self.map.range(..r.start).next_back().filter(|(_, e)| **e > r.start).map(|(s, e)| (*s, *e));
        let bound = r.start..r.end.max(r.start);
        first
            .into_iter()
            .chain(self.map.range(bound).map(|(s, e)| (*s, *e)))
            .map(move |(s, e)| s.max(r.start)..e.min(r.end))
            .filter(|x| x.start < x.end)
    }
    /// The ranges inside `r` that it does not hold.
    pub fn gaps(&self, r: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut at = r.start;
        std::iter::from_fn(move || {
            at = self.first_missing(at);
            if at >= r.end {
                return None;
            }
            let end = self.next_from(at).map_or(r.end, |n| n.min(r.end));
            let gap = at..end;
            at = end;
            Some(gap)
        })
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(iter: I) -> Self {
        let mut s = Self::new();
        iter.into_iter().for_each(|r| s.insert(r));
        s
    }
}

/// A value for each offset of some ranges; neighbours with equal values are one run.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeMap<V> {
    map: BTreeMap<u64, (u64, V)>,
}

impl<V: Clone + PartialEq> RangeMap<V> {
    pub(crate) const fn new() -> Self {
        Self { map: BTreeMap::new() }
    }

    /// Sets the value of a range, whatever it was.
    pub(crate) fn set(&mut self, r: Range<u64>, v: V) {
        if r.start >= r.end {
            return;
        }
        // The common case: a run grows at its end, over nothing.
        if let Some((_, (e, old))) = self.map.range(..r.start).next_back()
            && *e == r.start
            && *old == v
        {
            let free = self.map.range(r.start..r.end).next().is_none();
            if free && let Some((_, (e, _))) = self.map.range_mut(..r.start).next_back() {
                *e = r.end;
                return;
            }
        }
        self.remove(&r);
        let mut start = r.start;
        if let Some((&s, (e, old))) = self.map.range(..r.start).next_back()
            && *e == r.start
            && *old == v
        {
            start = s;
        }
        self.map.insert(start, (r.end, v));
    }

    /// Forgets the values of a range.
    pub(crate) fn remove(&mut self, r: &Range<u64>) {
        if r.start >= r.end {
            return;
        }
        if let Some((&s, (e, v))) = self.map.range(..r.start).next_back()
            && *e > r.start
        {
            let (e, v) = (*e, v.clone());
            self.map.insert(s, (r.start, v.clone()));
            if e > r.end {
                self.map.insert(r.end, (e, v));
                return;
            }
        }
        while let Some((&s, (e, v))) = self.map.range(r.start..r.end).next() {
            let (e, v) = (*e, v.clone());
            self.map.remove(&s);
            if e > r.end {
                self.map.insert(r.end, (e, v));
            }
        }
    }

    /// The runs inside a range, cut to it.
    pub(crate) fn within(&self, r: Range<u64>) -> impl Iterator<Item = (Range<u64>, &V)> + '_ {
        let first = self.map.range(..r.start).next_back().filter(|(_, (e, _))| *e > r.start);
        let bound = r.start..r.end.max(r.start);
        first
            .into_iter()
            .chain(self.map.range(bound))
            .map(move |(s, (e, v))| ((*s).max(r.start)..(*e).min(r.end), v))
            .filter(|(x, _)| x.start < x.end)
    }

    pub(crate) fn clear(&mut self) {
        self.map.clear();
    }
}

impl<V: fmt::Debug> fmt::Debug for RangeMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.map.iter().map(|(s, (e, v))| (*s..*e, v))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const N: usize = 64;

    fn ops() -> impl Strategy<Value = Vec<(u8, Range<u64>)>> {
        proptest::collection::vec(
            (0u8..3, 0..N as u64, 0..20u64).prop_map(|(v, s, n)| (v, s..(s + n).min(N as u64))),
            0..40,
        )
    }

    proptest! {
        /// A set and an array of flags are the same thing.
        #[test]
        fn set_is_like_flags(ops in ops(), probe in (0..N as u64, 0..30u64)) {
            let (mut set, mut flags) = (RangeSet::new(), [false; N]);
            for (v, r) in ops {
                if v > 0 { set.insert(r.clone()) } else { set.remove(&r) }
                for i in r { flags[i as usize] = v > 0; }
            }
            prop_assert_eq!(set.covered(), flags.iter().filter(|f| **f).count() as u64);
            let listed: Vec<_> = set.iter().collect();
            prop_assert!(listed.windows(2).all(|w| w[0].end < w[1].start), "not merged: {:?}", listed);
            for (i, flag) in flags.iter().enumerate() {
                let at = i as u64;
                prop_assert_eq!(set.contains(at), *flag);
                prop_assert_eq!(set.next_from(at), (i..N).find(|j| flags[*j]).map(|j| j as u64));
                prop_assert_eq!(set.first_missing(at), (i..N).find(|j| !flags[*j]).unwrap_or(N) as u64);
            }
            let r = probe.0..(probe.0 + probe.1).min(N as u64);
            let held: Vec<u64> = set.within(r.clone()).flatten().collect();
            let not: Vec<u64> = set.gaps(r.clone()).flatten().collect();
            prop_assert_eq!(held, r.clone().filter(|i| flags[*i as usize]).collect::<Vec<_>>());
            prop_assert_eq!(not, r.clone().filter(|i| !flags[*i as usize]).collect::<Vec<_>>());
            prop_assert_eq!(set.covers(&r), r.clone().all(|i| flags[i as usize]));
            prop_assert_eq!(set.touches(&r), r.clone().any(|i| flags[i as usize]));
        }

        /// A map and an array of values are the same thing.
        #[test]
        fn map_is_like_values(ops in ops()) {
            let (mut map, mut values) = (RangeMap::new(), [None; N]);
            for (v, r) in ops {
                if v > 0 { map.set(r.clone(), v) } else { map.remove(&r) }
                for i in r { values[i as usize] = (v > 0).then_some(v); }
            }
            let mut seen = [None; N];
            for (r, v) in map.within(0..N as u64) {
                for i in r { prop_assert!(seen[i as usize].is_none()); seen[i as usize] = Some(*v); }
            }
            prop_assert_eq!(seen, values);
        }
    }
}
