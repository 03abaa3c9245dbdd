//! A journal that would become too long says less: claims are joined, and then the smallest go. What is not claimed is
//! fetched again, which is no reason for a download to fail.

use std::cmp::Reverse;

use super::format::{HEADER, MAX_FILE, compact, encode_all};
use crate::journal::{Claim, Record, Saved, SavedObject};

/// What is longer than this is shortened when it is written anew…
const MOST: u64 = MAX_FILE / 4 * 3;
/// …to about twice this, so that it is not written anew again at once: objects and claims may take as much each.
const GOAL: usize = MAX_FILE as usize / 4;
/// A claim has at most this many bytes.
const CLAIM: usize = 57;
/// Neighbours are joined up to this length, or this share of what is claimed: a claim of which a byte is wrong is lost
/// whole.
const JOINED: u64 = 256 << 10;
const PARTS: u64 = 4096;

/// The text that says the same, or as much of it as fits.
pub(super) fn whole(mut saved: Saved) -> Vec<u8> {
    let text = text(&saved);
    if text.len() as u64 <= MOST {
        return text;
    }
    for o in &mut saved.objects {
        join(o);
    }
    let joined = self::text(&saved);
    if joined.len() as u64 <= MOST {
        return joined;
    }
    drop_objects(&mut saved);
    drop_claims(&mut saved);
    self::text(&saved)
}

fn text(saved: &Saved) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    encode_all(&compact(saved), &mut out);
    out
}

fn claimed(o: &SavedObject) -> u64 {
    o.claims.iter().map(|c| c.range.end - c.range.start).sum()
}

fn join(o: &mut SavedObject) {
    let most = JOINED.max(claimed(o) / PARTS);
    let mut out: Vec<Claim> = Vec::new();
    for c in o.claims.drain(..) {
        match out.last_mut().and_then(|last| Some((last.joined(&c, most)?, last))) {
            Some((both, last)) => *last = both,
            None => out.push(c),
        }
    }
    o.claims = out;
}

/// Keeps the objects with the most bytes, in their order.
fn drop_objects(saved: &mut Saved) {
    let mut by_size: Vec<usize> = (0..saved.objects.len()).collect();
    by_size.sort_by_key(|i| Reverse(claimed(&saved.objects[*i])));
    let mut kept = vec![false; saved.objects.len()];
    let mut len = 0;
    for i in by_size {
        let o = &saved.objects[i];
        // Its own line, and the head of one with claims.
        let mut own = Vec::new();
        let bare = SavedObject { claims: Vec::new(), ..o.clone() };
        let wrote = Record::Wrote { key: o.key.clone(), generation: o.generation, claims: Vec::new() };
        encode_all(&compact(&Saved { objects: vec![bare] }), &mut own);
        encode_all(&[wrote], &mut own);
        len += own.len();
        if len > GOAL {
            break;
        }
        kept[i] = true;
    }
    let mut kept = kept.into_iter();
    saved.objects.retain(|_| kept.next().unwrap_or_default());
}

/// Keeps the longest claims.
fn drop_claims(saved: &mut Saved) {
    let most = GOAL / CLAIM;
    let mut lens: Vec<u64> =
        saved.objects.iter().flat_map(|o| &o.claims).map(|c| c.range.end - c.range.start).collect();
    if lens.len() <= most {
        return;
    }
    lens.sort_unstable_by_key(|l| Reverse(*l));
    let least = lens[most - 1];
    // Of those that are just as long as the shortest that is kept, the first ones.
    let mut of_least = most - lens.iter().take_while(|l| **l > least).count();
    for o in &mut saved.objects {
        o.claims.retain(|c| {
            let len = c.range.end - c.range.start;
            let also = len == least && of_least > 0;
            of_least -= usize::from(also);
            len > least || also
        });
    }
}
