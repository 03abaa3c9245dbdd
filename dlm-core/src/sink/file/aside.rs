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
use super::dir::{Dir, PRIVATE, is_file};
use super::part::{Opened, Part, read_all, write_all};
use super::slot::{Slot, Stage};
use super::{Shared, lock, names};
use crate::error::{Error, Kind, Result};
use crate::ledger::RangeSet;
use crate::object::FileSpec;
use crate::sink::Prepared;

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

    fn write(&self, bufs: &[Bytes], at: u64) -> Result<()> {
        let len: u64 = bufs.iter().map(|b| b.len() as u64).sum();
        write_all(&self.file, bufs, at).map_err(|e| self.error("write", e))?;
        lock(&self.state).1.insert(at..at + len);
        Ok(())
    }

    /// Fills `buf`. What was never written is not there, although the file has holes to read from.
    fn read(&self, buf: &mut [u8], at: u64, shown: &dyn Fn() -> String) -> Result<()> {
        if !lock(&self.state).1.covers(&(at..at + buf.len() as u64)) {
            return Err(Error::new(Kind::Corrupt, "read back")
                .on(shown())
                .because("it was left out, and this part of it is not there"));
        }
        read_all(&self.file, buf, at, shown)
    }

    fn forget(&self, range: &Range<u64>) {
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

/// Where that is kept which comes of a file that is not wanted.
#[derive(Debug)]
pub(super) enum Aside {
    /// In a stretch of the side file.
    Side { side: Arc<Side>, stretch: Range<u64> },
    /// In the partial that a run has left which wanted it.
    Part { part: Box<Part>, dir: Arc<Dir> },
}

impl Aside {
    pub(super) fn write(&self, bufs: &[Bytes], at: u64) -> Result<()> {
        match self {
            Self::Side { side, stretch } => side.write(bufs, stretch.start + at),
            Self::Part { part, .. } => part.write(bufs, at),
        }
    }

    pub(super) fn read(&self, buf: &mut [u8], at: u64, shown: &dyn Fn() -> String) -> Result<()> {
        match self {
            Self::Side { side, stretch } => side.read(buf, stretch.start + at, shown),
            Self::Part { part, .. } => read_all(part.file(), buf, at, shown),
        }
    }

    pub(super) fn clear(&self) -> Result<()> {
        match self {
            Self::Side { side, stretch } => {
                side.forget(stretch);
                Ok(())
            }
            Self::Part { part, .. } => part.clear(),
        }
    }
}

impl Shared {
    /// A file that is not wanted: it takes no name. Runs on a blocking thread.
    pub(super) fn set_aside(&self, spec: &FileSpec) -> Result<()> {
        let _one_at_a_time = lock(&self.admin);
        if lock(&self.state).files.contains_key(&spec.id) {
            return Err(Error::new(Kind::Bug, "leave out the file")
                .on(&spec.path)
                .because("it was prepared"));
        }
        let aside = match self.left_of(spec)? {
            Some(left) => left,
            None if spec.range == crate::object::Span::ALL => {
                // All of its object: no piece reaches into it from another file.
                lock(&self.state).objects.entry(spec.object).or_default();
                return Ok(());
            }
            None => self.stretch_for(spec)?,
        };
        let folder: std::path::PathBuf = match &self.options.name {
            Name::Source => spec.path.parts().take(spec.path.parts().count() - 1).collect(),
            Name::User(_) | Name::Below(_) => std::path::PathBuf::new(),
        };
        let name = OsString::from(spec.path.file_name());
        let stage = Stage::Aside(aside);
        let slot = Arc::new(Slot::new(spec.clone(), self.options.dir.join(folder), name, stage));
        self.register(slot, super::dir::Made::default());
        Ok(())
    }

    /// The partial of it that an earlier run has left.
    fn left_of(&self, spec: &FileSpec) -> Result<Option<Aside>> {
        // A name that the user gave is for the file that is wanted.
        let (true, Name::Source) = (self.options.resume, &self.options.name) else { return Ok(None) };
        let parts: Vec<&str> = spec.path.parts().collect();
        let Some((name, folders)) = parts.split_last() else { return Ok(None) };
        // Without its folder there is none; and one that cannot be read is nobody's business here.
        let Ok(dir) = self.sub(folders, None) else { return Ok(None) };
        let name = names::part(name.as_ref());
        if !dir.stat(&name)?.is_some_and(|s| is_file(&s)) {
            return Ok(None);
        }
        match Part::open(&dir, &name)? {
            Opened::Part(part) if part.created() => {
                part.remove()?;
                Ok(None)
            }
            Opened::Part(part) => Ok(Some(Aside::Part { part, dir })),
            // Another process wants it.
            Opened::Busy | Opened::Raced => Ok(None),
        }
    }

    fn stretch_for(&self, spec: &FileSpec) -> Result<Aside> {
        let len = spec.range.len().ok_or_else(|| {
            Error::new(Kind::Unsupported, "leave out the file")
                .on(&spec.path)
                .because("it is a part of something whose end is not known")
        })?;
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
        Ok(Aside::Side { side, stretch: base..base + len })
    }

    /// A file that was left out is to have a place: `settle` makes it, and what is held of the file goes there. Nothing
    /// is read or written of it meanwhile.
    pub(super) fn take_back(
        &self,
        slot: &Slot,
        settle: impl FnOnce() -> Result<(Slot, Prepared)>,
    ) -> Result<Prepared> {
        let mut stage = slot.alone();
        let kept = std::mem::replace(&mut *stage, Stage::Gone);
        let kept = match kept {
            // It is locked, and has to be opened anew.
            Stage::Aside(Aside::Part { .. }) => None,
            Stage::Aside(side) => Some(side),
            _ => return Err(Error::new(Kind::Bug, "use the file name").because("it was prepared")),
        };
        let moved = settle().and_then(|(settled, prepared)| {
            let name = settled.name();
            let new = settled.into_stage();
            if let (Some(Aside::Side { side, stretch }), Stage::Open { part, .. }) = (&kept, &new) {
                side.move_to(part, stretch)?;
            }
            Ok((new, name, prepared))
        });
        match moved {
            Ok((new, name, prepared)) => {
                *stage = new;
                slot.rename(name);
                Ok(prepared)
            }
            Err(e) => {
                // It stays left out, as it was.
                let again = kept.map_or_else(|| self.left_of(&slot.spec), |kept| Ok(Some(kept)));
                if let Ok(Some(aside)) = again {
                    *stage = Stage::Aside(aside);
                }
                Err(e)
            }
        }
    }
}
