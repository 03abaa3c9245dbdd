//! The journal: data first, then the record that speaks of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Result;
use crate::journal::{Checkpoint, Claim, Record};
use crate::ledger::Dirty;
use crate::object::{Identity, ObjectId};

use super::Driver;

/// A record is due when this much was written since the last, or this share of the file…
const MOST: u64 = 2 << 20;
const SHARE: u64 = 512;
/// …but at least this, which is one write…
const LEAST: u64 = 64 << 10;
/// …and once a second while bytes come, but never more often than this, so that a small file needs none at all.
const OFTEN: Duration = Duration::from_millis(4);
const SELDOM: Duration = Duration::from_secs(1);

/// Claims are joined up to this length (joining checksums has a cost, and a claim is dropped whole when a part of it is
/// wrong), or this share of the file, so that a journal stays small.
const JOINED: u64 = 256 << 10;
const PARTS: u64 = 4096;

/// What the journal was told, and when.
#[derive(Debug)]
pub(super) struct Keeper {
    durable: bool,
    last: Instant,
    names: BTreeMap<ObjectId, Name>,
}

#[derive(Debug)]
struct Name {
    key: Arc<str>,
    remote: Arc<str>,
    identity: Identity,
    /// As the journal has it.
    told: Option<(u32, Identity)>,
}

impl Keeper {
    pub(super) fn new(durable: bool) -> Self {
        Self { durable, last: Instant::now(), names: BTreeMap::new() }
    }

    pub(super) fn name(&mut self, object: ObjectId, key: Arc<str>, identity: Identity, remote: Arc<str>) {
        self.names.insert(object, Name { key, remote, identity, told: None });
    }

    /// The object is in place, or given up.
    pub(super) fn forget(&mut self, object: ObjectId) {
        self.names.remove(&object);
    }
}

impl Driver {
    /// Appends what was written since the last record, when it is time.
    pub(super) async fn checkpoint(&mut self, last: bool) -> Result<()> {
        if !self.ledger.caps.readable {
            self.ledger.with(|s, _| s.dirty.clear());
            return Ok(());
        }
        let passed = self.keeper.last.elapsed();
        let durable = self.keeper.durable;
        let due: Option<(Vec<Dirty>, Vec<_>)> = self.ledger.with(|s, _| {
            if s.dirty.is_empty() || (!last && passed < OFTEN) {
                return None;
            }
            let len: u64 = s.board.objects().filter_map(|o| o.len).max().unwrap_or(MOST * SHARE);
            // A sync costs more than a moment's work.
            let enough = if durable { MOST * 16 } else { MOST.min(len / SHARE).max(len / PARTS).max(LEAST) };
            if !last && s.dirty_bytes < enough && passed < SELDOM {
                return None;
            }
            s.dirty_bytes = 0;
            // What is whole is put in place in this same step, as a rule.
            let whole = |o: ObjectId| {
                let v = s.board.object(o);
                !last
                    && !s.parked.contains(&o)
                    && v.is_some_and(|v| v.remaining() == Some(0) && v.held.is_empty())
            };
            let (kept, dirty) = std::mem::take(&mut s.dirty).into_iter().partition(|d| whole(d.object));
            s.dirty = kept;
            let identities: Vec<_> = s
                .board
                .objects()
                .map(|o| {
                    let by =
                        o.primary.or_else(|| o.bindings.first().copied()).and_then(|b| s.board.binding(b));
                    (o.id, o.generation, o.len, by.and_then(|b| b.identity.clone()))
                })
                .collect();
            Some((dirty, identities))
        });
        let Some((dirty, identities)) = due else { return Ok(()) };
        self.keeper.last = Instant::now();
        if durable {
            let objects: Vec<ObjectId> = self.keeper.names.keys().copied().collect();
            self.ledger.sink.sync(&objects).await?;
        }
        let mut records = Vec::new();
        for (id, generation, len, identity) in identities {
            let Some(name) = self.keeper.names.get_mut(&id) else { continue };
            let claims = claims(&dirty, id, generation, (len.unwrap_or(0) / PARTS).max(JOINED));
            if claims.is_empty() {
                continue;
            }
            let mut identity = identity.unwrap_or_else(|| name.identity.clone());
            identity.len = len.or(identity.len);
            if name.told.as_ref() != Some(&(generation, identity.clone())) {
                records.push(Record::Object {
                    key: name.key.clone(),
                    generation,
                    identity: identity.clone(),
                    remote: name.remote.clone(),
                });
                name.told = Some((generation, identity));
            }
            records.push(Record::Wrote { key: name.key.clone(), generation, claims });
        }
        if records.is_empty() {
            return Ok(());
        }
        self.journal.record(&Checkpoint::new(records).durable(durable)).await
    }

    /// Journals what turned out wrong; only then may it be fetched again.
    pub(super) async fn retract(&mut self) -> Result<()> {
        let all = self.ledger.with(|s, _| s.to_retract());
        if all.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        for (object, generation, range) in &all {
            if let Some(n) = self.keeper.names.get(object) {
                records.push(Record::Retract {
                    key: n.key.clone(),
                    generation: *generation,
                    ranges: vec![range.clone()],
                });
            }
        }
        // Claims of these bytes that are not in the journal yet must not come after the retraction.
        self.ledger.with(|s, _| {
            s.dirty.retain(|d| !all.iter().any(|(o, _, r)| *o == d.object && meets(r, &d.claim.range)));
        });
        if self.ledger.caps.readable {
            self.journal.record(&Checkpoint::new(records).durable(self.keeper.durable)).await?;
        }
        let now = Instant::now();
        self.ledger.with(|s, after| s.retracted(&all, now, after));
        Ok(())
    }

    /// Journals that an object starts over, before its place is emptied.
    pub(super) async fn record_restart(&mut self, object: ObjectId, generation: u32) -> Result<()> {
        let Some(n) = self.keeper.names.get_mut(&object) else { return Ok(()) };
        if n.told.take().is_none() && !self.spec.resume {
            return Ok(());
        }
        let restart = Record::Restart { key: n.key.clone(), generation };
        self.journal.record(&Checkpoint::new(vec![restart]).durable(self.keeper.durable)).await
    }
}

fn meets(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The claims of one object, neighbours joined.
fn claims(dirty: &[Dirty], object: ObjectId, generation: u32, joined: u64) -> Vec<Claim> {
    let mut all: Vec<Claim> = dirty
        .iter()
        .filter(|d| d.object == object && d.generation == generation)
        .map(|d| d.claim.clone())
        .collect();
    all.sort_by_key(|c| c.range.start);
    let mut out: Vec<Claim> = Vec::new();
    for c in all {
        match out.last_mut().and_then(|last| Some((last.joined(&c, joined)?, last))) {
            Some((both, last)) => *last = both,
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::crc32c;
    use bytes::Bytes;

    #[test]
    fn neighbours_are_joined_with_the_right_checksum() {
        let data: Vec<u8> = (0..=255).collect();
        let part = |r: Range<u64>| Dirty {
            object: ObjectId(0),
            generation: 3,
            claim: Claim::new(
                r.clone(),
                crc32c(&[Bytes::copy_from_slice(&data[r.start as usize..r.end as usize])]),
            ),
        };
        let mut dirty = vec![part(10..20), part(0..10), part(20..21), part(30..40)];
        dirty.push(Dirty { generation: 2, ..part(21..30) });
        let got = claims(&dirty, ObjectId(0), 3, JOINED);
        assert_eq!(got, [part(0..21).claim, part(30..40).claim]);
    }
}
