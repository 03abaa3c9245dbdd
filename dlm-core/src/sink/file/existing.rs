//! Whether what already has the final name is the finished file.

use std::ffi::OsStr;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

use super::dir::{Dir, is_file, size};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind, Result};
use crate::event::VerifiedBy;
use crate::object::FileSpec;

const CHUNK: usize = 1 << 20;

/// What says that this is the file: it has all of the digests; or, with none to compare, the source's length and
/// modification time. `None`: it is another one.
/// `stop` ends a long read early.
pub(super) fn is_right(
    dir: &Dir,
    name: &OsStr,
    stat: &Stat,
    spec: &FileSpec,
    digests: &[Digest],
    stop: &AtomicBool,
) -> Result<Option<VerifiedBy>> {
    if !is_file(stat) || spec.len.is_some_and(|l| l != size(stat)) {
        return Ok(None);
    }
    let Some(mut file) = dir.read_file(name)? else { return Ok(None) };
    let whole = spec.range.start == 0 && (spec.range.end.is_none() || spec.range.end == spec.len);
    if digests.is_empty() || !whole {
        // Without a length there is too little to compare.
        let (Some(_), Some(want)) = (spec.len, spec.mtime) else { return Ok(None) };
        let have = file.metadata().and_then(|m| m.modified()).map_err(|e| dir.error("look at", name, e))?;
        return Ok((seconds(have) == seconds(want)).then_some(VerifiedBy::Transport));
    }
    let mut hashers: Vec<Hasher> = digests.iter().map(|d| d.algorithm().hasher()).collect();
    let mut buf = vec![0; CHUNK];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Cancelled, "check")
                .on(dir.show(name))
                .because("the job was stopped"));
        }
        match file.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => hashers.iter_mut().for_each(|h| h.push(&buf[..n])),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(dir.error("read", name, e)),
        }
    }
    let right = hashers.into_iter().zip(digests).all(|(h, d)| h.finish() == *d);
    let strongest = digests.iter().map(Digest::algorithm).max();
    Ok(strongest.filter(|_| right).map(VerifiedBy::Digest))
}

/// Whole seconds since 1970: what protocols carry.
fn seconds(t: SystemTime) -> i128 {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => i128::from(d.as_secs()),
        Err(e) => {
            let d = e.duration();
            -i128::from(d.as_secs()) - i128::from(d.subsec_nanos() > 0)
        }
    }
}
