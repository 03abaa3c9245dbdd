//! From a list of what happened to what is left.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::{Claim, Record, Saved, SavedObject};

/// What is left so far. Each record costs the logarithm of what is held, so that the longest journal is read in seconds.
#[derive(Default)]
pub(super) struct Replay {
    objects: Vec<(SavedObject, Claims)>,
    /// Where in `objects`; never iterated.
    index: HashMap<Arc<str>, usize>,
}

/// By their start; none overlaps another, so ends are in order too.
#[derive(Default)]
struct Claims(BTreeMap<u64, Claim>);

impl Claims {
    fn remove(&mut self, range: &Range<u64>) {
        while let Some((start, claim)) = self.0.range(..range.end).next_back()
            && claim.range.end > range.start
        {
            let start = *start;
            self.0.remove(&start);
        }
    }
}

impl Replay {
    pub(super) fn apply(&mut self, record: &Record) {
        let (Record::Object { key, .. }
        | Record::Wrote { key, .. }
        | Record::Retract { key, .. }
        | Record::Restart { key, .. }) = record;
        let found = self.index.get(key).copied();
        let (object, held) = match (found, record) {
            (Some(i), _) => {
                let (object, held) = &mut self.objects[i];
                (object, held)
            }
            (None, Record::Object { generation, identity, remote, .. }) => {
                let (identity, remote) = (identity.clone(), remote.clone());
                let object = SavedObject {
                    key: key.clone(),
                    generation: *generation,
                    identity,
                    remote,
                    claims: Vec::new(),
                };
                self.index.insert(key.clone(), self.objects.len());
                self.objects.push((object, Claims::default()));
                return;
            }
            // Claims of an object whose description is lost say nothing.
            (None, _) => return,
        };
        match record {
            Record::Object { generation, identity, remote, .. } => {
                if *generation != object.generation || !object.identity.agrees(identity) {
                    held.0.clear();
                }
                object.generation = *generation;
                object.identity = identity.clone();
                object.remote = remote.clone();
            }
            Record::Wrote { generation, claims, .. } if *generation == object.generation => {
                for c in claims.iter().filter(|c| c.range.start < c.range.end) {
                    held.remove(&c.range);
                    held.0.insert(c.range.start, c.clone());
                }
            }
            Record::Retract { generation, ranges, .. } if *generation == object.generation => {
                for r in ranges {
                    held.remove(r);
                }
            }
            Record::Restart { generation, .. } => {
                object.generation = *generation;
                held.0.clear();
            }
            Record::Wrote { .. } | Record::Retract { .. } => {}
        }
    }

    pub(super) fn finish(self) -> Saved {
        let with = |(mut o, held): (SavedObject, Claims)| {
            o.claims = held.0.into_values().collect();
            o
        };
        Saved { objects: self.objects.into_iter().map(with).collect() }
    }
}
