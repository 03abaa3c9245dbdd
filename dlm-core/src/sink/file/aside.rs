//! The side file: bytes of files that are not wanted, where a piece reaches into them from one that is.
//!
//! It has no name, so nothing of it is left when the job ends, however it ends. A later run fetches these bytes again.

use std::ffi::OsString;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::builder::Name;
use super::dir::{Dir, PRIVATE};
use super::part::{Part, read_all, write_all};
use super::slot::{Slot, Stage};
use super::{Shared, lock};
use crate::error::{Error, Kind, Result};
use crate::ledger::RangeSet;
use crate::object::FileSpec;

/// Bytes are moved in steps of this many.
const STEP: u64 = 1 << 20;
/// How many names are tried.
const TRIES: u32 = 100;

/// One file for all that is set aside in a sink. It is sparse: each file has a stretch of it as long as itself.
#[derive(Debug)]
pub(super) struct Side {
    file: File,
    dir: Arc<Dir>,
    /// Where the next stretch begins, and what was written.
    state: Mutex<(u64, RangeSet)>,
}

impl Side {
    /// A file of a name that is free, which loses it at once.
    fn new(dir: Arc<Dir>) -> Result<Self> {
        for n in 0..TRIES {
            let name = OsString::from(format!(".dlm-{:x}-{n}.part", std::process::id()));
            match dir.open_file(&name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, PRIVATE) {
                Ok(file) => {
                    dir.unlink(&name)?;
                    return Ok(Self { file, dir, state: Mutex::default() });
                }
                Err(Errno::EXIST) => {}
                Err(e) => return Err(dir.error("create", &name, e.into())),
            }
        }
        Err(dir.refuse(".dlm-*.part".as_ref(), "too many files have such names"))
    }

    /// A stretch of `len` bytes.
    fn stretch(&self, len: u64) -> Result<u64> {
        let mut state = lock(&self.state);
        let base = state.0;
        // A file system takes no offsets beyond that.
        let end = base.checked_add(len).filter(|end| i64::try_from(*end).is_ok());
        state.0 = end.ok_or_else(|| {
            Error::new(Kind::Unsupported, "leave out the file")
                .because("the files left out are too long together")
        })?;
        Ok(base)
    }

    pub(super) fn write(&self, bufs: &[Bytes], at: u64) -> Result<()> {
        let len: u64 = bufs.iter().map(|b| b.len() as u64).sum();
        write_all(&self.file, bufs, at).map_err(|e| self.error("write", e))?;
        lock(&self.state).1.insert(at..at + len);
        Ok(())
    }

    /// Fills `buf`. What was never written is not there, although the file has holes to read from.
    pub(super) fn read(&self, buf: &mut [u8], at: u64, shown: &dyn Fn() -> String) -> Result<()> {
        if !lock(&self.state).1.covers(&(at..at + buf.len() as u64)) {
            return Err(Error::new(Kind::Corrupt, "read back")
                .on(shown())
                .because("it was left out, and this part of it is not there"));
        }
        read_all(&self.file, buf, at, shown)
    }

    pub(super) fn forget(&self, range: &Range<u64>) {
        lock(&self.state).1.remove(range);
    }

    /// Moves what there is of a stretch to the partial of its file.
    fn move_to(&self, part: &Part, stretch: &Range<u64>) -> Result<()> {
        let there: Vec<_> = lock(&self.state).1.within(stretch.clone()).collect();
        for r in there {
            let mut at = r.start;
            while at < r.end {
                let end = r.end.min(at + STEP);
                let mut buf = vec![0; (end - at) as usize];
                self.file.read_exact_at(&mut buf, at).map_err(|e| self.error("read", e))?;
                part.write(&[buf.into()], at - stretch.start)?;
                at = end;
            }
        }
        self.forget(stretch);
        Ok(())
    }

    fn error(&self, op: &'static str, e: std::io::Error) -> Error {
        self.dir.error(op, ".dlm-*.part".as_ref(), e)
    }
}

impl Shared {
    /// A file that is not wanted: it takes no name. Runs on a blocking thread.
    pub(super) fn set_aside(&self, spec: &FileSpec) -> Result<()> {
        if spec.range == crate::object::Span::ALL {
            // All of its object: no piece reaches into it from another file.
            lock(&self.state).objects.entry(spec.object).or_default();
            return Ok(());
        }
        let _one_at_a_time = lock(&self.admin);
        let len = spec.range.len().ok_or_else(|| {
            Error::new(Kind::Unsupported, "leave out the file")
                .on(&spec.path)
                .because("it is a part of something whose end is not known")
        })?;
        if lock(&self.state).files.contains_key(&spec.id) {
            return Err(Error::new(Kind::Bug, "leave out the file")
                .on(&spec.path)
                .because("it was prepared"));
        }
        let known = lock(&self.state).side.clone();
        let side = if let Some(side) = known {
            side
        } else {
            let mut made = super::dir::Made::default();
            let side = self.root(Some(&mut made)).and_then(Side::new).map(Arc::new);
            let mut state = lock(&self.state);
            state.made.append(made);
            state.side.insert(side?).clone()
        };
        let base = side.stretch(len)?;
        let folder = match &self.options.name {
            Name::Source => spec.path.parts().take(spec.path.parts().count() - 1).collect(),
            Name::User(_) | Name::Below(_) => std::path::PathBuf::new(),
        };
        let name = OsString::from(spec.path.file_name());
        let stage = Stage::Aside { side, stretch: base..base + len };
        let slot = Arc::new(Slot::new(spec.clone(), self.options.dir.join(folder), name, stage));
        let mut state = lock(&self.state);
        state.objects.entry(spec.object).or_default().add(slot.clone());
        state.files.insert(spec.id, slot);
        Ok(())
    }
}

/// A file that was left out has a place now: what is held of it goes there.
pub(super) fn take_back(slot: &Arc<Slot>, settled: Slot) -> Result<()> {
    let name = settled.name();
    let new = settled.into_stage();
    let mut stage = slot.alone();
    if let (Stage::Aside { side, stretch }, Stage::Open { part, .. }) = (&*stage, &new) {
        side.move_to(part, stretch)?;
    }
    *stage = new;
    slot.rename(name);
    Ok(())
}
