//! Which files an object's bytes belong to.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::slot::Slot;
use crate::error::{Error, Kind, Result};

/// The files of one object, in order of offset.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// The object's length, when it is known.
    pub(super) len: Option<u64>,
    slots: Vec<Arc<Slot>>,
    /// The highest end of a slot and all before it: finds the first that may hold an offset.
    reach: Vec<u64>,
}

/// A part of a range, and where it is in a file.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) slot: Arc<Slot>,
    /// The offset in the file.
    pub(super) at: u64,
    /// Which bytes of the object.
    pub(super) range: Range<u64>,
}

impl Layout {
    pub(super) fn add(&mut self, slot: Arc<Slot>) {
        let key = |s: &Slot| (s.range().start, s.range().end);
        let i = self.slots.partition_point(|s| key(s) <= key(&slot));
        self.slots.insert(i, slot);
        self.reach.truncate(i);
        for s in &self.slots[i..] {
            let before = self.reach.last().copied().unwrap_or(0);
            self.reach.push(before.max(s.range().end));
        }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.slots.iter()
    }

    /// Splits a range at the borders of files. Files may share bytes; every byte must belong to one at least.
    pub(super) fn split(&self, range: &Range<u64>) -> Result<Vec<Share>> {
        if self.len.is_some_and(|len| range.end > len) {
            return Err(Error::new(Kind::Bug, "use the object's bytes")
                .because(format_args!("{}..{} lies behind its end", range.start, range.end)));
        }
        let first = self.reach.partition_point(|end| *end <= range.start);
        let mut shares = Vec::new();
        let mut covered = range.start;
        for slot in &self.slots[first..] {
            let own = slot.range();
            if own.start >= range.end || own.start > covered {
                break;
            }
            let part = own.start.max(range.start)..own.end.min(range.end);
            if part.start < part.end {
                covered = covered.max(part.end);
                shares.push(Share { slot: slot.clone(), at: part.start - own.start, range: part });
            }
        }
        if covered < range.end {
            return Err(Error::new(Kind::Bug, "use the object's bytes")
                .because(format_args!("no file was prepared for its byte {covered}")));
        }
        Ok(shares)
    }
}

/// The bytes `from..to` of these buffers, without copying.
pub(super) fn slice(bufs: &[Bytes], from: u64, to: u64) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut at = 0u64;
    for b in bufs {
        let end = at + b.len() as u64;
        let (lo, hi) = (from.max(at), to.min(end));
        if lo < hi {
            out.push(b.slice((lo - at) as usize..(hi - at) as usize));
        }
        at = end;
    }
    out
}
