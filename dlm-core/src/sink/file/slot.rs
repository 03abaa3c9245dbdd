//! A file of the job, and the bytes of its object that are its own.

use std::ffi::OsString;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::aside::Aside;
use super::dir::Dir;
use super::lock;
use super::part::{Part, read_all};
use crate::error::{Error, Kind, Result};
use crate::object::{FileKind, FileSpec};

/// A file that was prepared.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) spec: FileSpec,
    /// Where its folder was when it was opened: for messages and for [`FileSink::path`](super::FileSink::path).
    pub(super) folder: PathBuf,
    /// Raised by each truncation. A write that was begun before one must not land after it.
    epoch: AtomicU64,
    /// The final name; another than first thought when it was taken and may be numbered.
    name: Mutex<OsString>,
    /// Shared by reads and writes, alone for truncation, commit and abort. Only ever locked on blocking threads.
    stage: RwLock<Stage>,
}

/// How far the file is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Bytes go to the partial.
    Open { part: Box<Part>, dir: Arc<Dir>, replace: bool },
    /// It is not wanted: what comes of it all the same is kept apart.
    Aside(Aside),
    /// It is whole under its final name, and was before this job.
    Complete,
    /// It is whole under its final name.
    Committed,
    /// The job gave it up.
    Gone,
}

impl Slot {
    pub(super) fn new(spec: FileSpec, folder: PathBuf, name: OsString, stage: Stage) -> Self {
        Self { spec, folder, epoch: AtomicU64::new(0), name: Mutex::new(name), stage: RwLock::new(stage) }
    }

    pub(super) fn into_stage(self) -> Stage {
        self.stage.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> OsString {
        lock(&self.name).clone()
    }

    pub(super) fn rename(&self, name: OsString) {
        *lock(&self.name) = name;
    }

    /// The final path.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(&*lock(&self.name))
    }

    pub(super) fn shared(&self) -> RwLockReadGuard<'_, Stage> {
        self.stage.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn alone(&self) -> RwLockWriteGuard<'_, Stage> {
        self.stage.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is not wanted.
    pub(super) fn is_aside(&self) -> bool {
        matches!(&*self.shared(), Stage::Aside(_))
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Where in the object its bytes are; `u64::MAX` when the end is not known.
    pub(super) fn range(&self) -> Range<u64> {
        self.spec.range.to_range()
    }

    /// Its length, when the object's is this.
    pub(super) fn len(&self, object: Option<u64>) -> Option<u64> {
        let start = self.spec.range.start;
        match (object, self.spec.range.end) {
            (Some(len), end) => Some(end.map_or(len, |e| e.min(len)).saturating_sub(start)),
            (None, Some(end)) => Some(end.saturating_sub(start)),
            (None, None) => self.spec.len,
        }
    }

    /// Writes at `at` in this file, unless it was truncated since `epoch`.
    pub(super) fn write(&self, epoch: u64, bufs: &[Bytes], at: u64) -> Result<()> {
        let stage = self.shared();
        if self.epoch() != epoch {
            return Err(Error::new(Kind::Bug, "write")
                .on(self.show())
                .because("the object started over meanwhile"));
        }
        match &*stage {
            // Padding is zeros, and they are there already.
            _ if self.spec.kind == FileKind::Zeros => Ok(()),
            Stage::Open { part, .. } => part.write(bufs, at),
            Stage::Aside(aside) => aside.write(bufs, at),
            // Bytes that a piece shares with a neighbour; the file itself needs none.
            Stage::Complete => Ok(()),
            Stage::Committed | Stage::Gone => Err(Error::new(Kind::Bug, "write")
                .on(self.show())
                .because("the file is finished or given up")),
        }
    }

    /// Fills `buf` from `at` in this file. `reopen` opens the file under its final name.
    pub(super) fn read(&self, buf: &mut [u8], at: u64, reopen: impl FnOnce() -> Result<File>) -> Result<()> {
        let stage = self.shared();
        let shown = || self.show();
        match &*stage {
            _ if self.spec.kind == FileKind::Zeros => {
                buf.fill(0);
                Ok(())
            }
            Stage::Open { part, .. } => read_all(part.file(), buf, at, &shown),
            Stage::Aside(aside) => aside.read(buf, at, &shown),
            Stage::Complete | Stage::Committed => read_all(&reopen()?, buf, at, &shown),
            Stage::Gone => {
                Err(Error::new(Kind::Bug, "read back").on(shown()).because("the file was given up"))
            }
        }
    }

    /// How many bytes are on the disk: a bound on what can be read.
    pub(super) fn on_disk(&self) -> Result<u64> {
        match &*self.shared() {
            Stage::Open { part, .. } if self.spec.kind == FileKind::Data => {
                Ok(super::dir::size(&part.stat()?))
            }
            _ => Ok(u64::MAX),
        }
    }

    /// Forgets all bytes.
    pub(super) fn clear(&self) -> Result<()> {
        let stage = self.alone();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        match &*stage {
            Stage::Open { part, .. } => part.clear(),
            Stage::Aside(aside) => aside.clear(),
            _ => Ok(()),
        }
    }

    /// The object has this length.
    pub(super) fn set_len(&self, object: u64) -> Result<()> {
        let stage = self.alone();
        match (&*stage, self.len(Some(object))) {
            (Stage::Open { part, .. }, Some(len)) if self.spec.kind == FileKind::Data => part.set_len(len),
            _ => Ok(()),
        }
    }

    fn show(&self) -> String {
        self.path().display().to_string()
    }
}
