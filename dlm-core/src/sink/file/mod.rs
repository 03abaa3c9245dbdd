//! Files on a disk.
//!
//! For the final name `NAME`, `NAME.part` holds the bytes and `NAME.part.dlm` the journal ([`SidecarJournal`]). `NAME`
//! itself appears by one atomic step that replaces nothing, unless that was asked. The partial is locked (`flock`) from
//! [`prepare`](Sink::prepare) until it is in place or given up, so a second process is refused.
//!
//! Everything is done relative to a folder that is held open, follows no link, and takes plain files only: a network
//! that chooses a name, or a stranger with rights in the same folder, cannot make us write elsewhere. The alternative,
//! joined paths that are checked before they are opened, has a gap between the two.
//!
//! Reads, writes and everything else that may block run on tokio's blocking threads, at most four of them for the
//! writes of one sink; a mebibyte a call makes the hop cost nothing.

mod aside;
mod builder;
mod commit;
pub(crate) mod dir;
mod existing;
mod layout;
pub(crate) mod names;
mod part;
mod prepare;
mod slot;
mod space;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use self::aside::Aside;
use self::builder::{Name, Options};
use self::dir::{Dir, Made};
use self::layout::{Layout, slice};
use self::slot::{Slot, Stage};
use super::{Batch, Keep, Prepared, Sink, SinkCaps};
use crate::error::{Error, Kind, Result};
use crate::journal::SidecarJournal;
use crate::object::{FileId, FileSpec, ObjectId};

pub use builder::{FileSinkBuilder, IfExists};

/// Writes of one sink at once: the kernel lets one in at a time, and others would spin for their turn.
const WRITERS: usize = 1;
/// A write of at most this much that takes less than this was one into the page cache.
const QUICK_LEN: u64 = 1 << 20;
const QUICK: std::time::Duration = std::time::Duration::from_millis(2);
/// The longest range one [`Sink::read`] takes, in bytes.
const MAX_READ: u64 = 256 << 20;

/// Puts files on a disk.
///
/// Bounds: one file handle a file that is being written, one a folder; no buffers of its own but those of
/// [`Sink::read`]. Dropping it lets go of every lock, once writes that are on their way have ended; partials stay.
///
/// Every call needs a tokio runtime. One that is dropped still happens.
#[derive(Debug)]
pub struct FileSink(Arc<Shared>);

/// What the sink and its blocking work share.
#[derive(Debug)]
pub(crate) struct Shared {
    options: Options,
    closed: AtomicBool,
    /// Prepare, commit and abort are one at a time. Taken before a slot's lock, and that before `state`.
    admin: Mutex<()>,
    state: Mutex<State>,
    writers: Arc<Semaphore>,
    /// The last write was quick.
    quick: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    root: Option<Arc<Dir>>,
    files: BTreeMap<FileId, Arc<Slot>>,
    objects: BTreeMap<ObjectId, Layout>,
    /// Final paths that files of this job have or will have.
    names: HashSet<PathBuf>,
    home: Option<Home>,
    /// The journal has asked for it: it stays where it is.
    home_is_known: bool,
    made: Made,
    /// For what is not wanted and comes all the same.
    side: Option<Arc<aside::Side>>,
}

/// Where the journal is.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) dir: Arc<Dir>,
    pub(crate) name: OsString,
    /// It stands beside no partial, so its own lock is the only one.
    pub(crate) alone: bool,
}

impl FileSink {
    /// A sink that puts files in and below `dir`, which is made, with those above it, when the first file is prepared.
    pub fn builder(dir: impl Into<PathBuf>) -> FileSinkBuilder {
        FileSinkBuilder::new(dir.into())
    }

    fn new(options: Options) -> Self {
        Self(Arc::new(Shared {
            options,
            closed: AtomicBool::new(false),
            admin: Mutex::default(),
            state: Mutex::default(),
            writers: Arc::new(Semaphore::new(WRITERS)),
            quick: AtomicBool::new(false),
        }))
    }

    /// The journal that stands beside the partial. Before a file was prepared it can only be read, at the name that is
    /// given or guessed; after that it is written under the partial's lock.
    pub fn journal(self: &Arc<Self>) -> Arc<SidecarJournal> {
        Arc::new(SidecarJournal::beside(self.0.clone()))
    }

    /// The final path of a file that was prepared: where it is, or will be.
    pub fn path(&self, file: FileId) -> Option<PathBuf> {
        lock(&self.0.state).files.get(&file).map(|s| s.path())
    }
}

impl Drop for FileSink {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        let mut state = lock(&self.0.state);
        state.files.clear();
        state.objects.clear();
        state.side = None;
        state.home = None;
    }
}

impl Shared {
    /// The folder that the caller named; made if `made` is given, else `None` when it is missing.
    fn root(&self, made: Option<&mut Made>) -> Result<Arc<Dir>> {
        if let Some(d) = &lock(&self.state).root {
            return Ok(d.clone());
        }
        let path = &self.options.dir;
        let keep = made.is_some();
        if let Some(made) = made {
            made.root(path)?;
        }
        let dir = Arc::new(Dir::open(path).map_err(|e| Error::io("open the folder", e).on(path.display()))?);
        if keep {
            lock(&self.state).root = Some(dir.clone());
        }
        Ok(dir)
    }

    /// A folder below the root.
    fn sub(&self, folders: &[&str], mut made: Option<&mut Made>) -> Result<Arc<Dir>> {
        let mut dir = self.root(made.as_deref_mut())?;
        for f in folders {
            let (next, new) = dir.sub(f.as_ref(), made.is_some())?;
            if let (true, Some(made)) = (new, made.as_deref_mut()) {
                made.sub(dir, f.as_ref());
            }
            dir = Arc::new(next);
        }
        Ok(dir)
    }

    fn reopen(&self, slot: &Slot) -> Result<File> {
        let name = slot.name();
        let parts: Vec<&str> = match &self.options.name {
            Name::User(_) => Vec::new(),
            Name::Below(p) => p.parts().collect(),
            Name::Source => slot.spec.path.parts().collect(),
        };
        let dir = self.sub(parts.split_last().map_or(&[][..], |(_, folders)| folders), None)?;
        let gone =
            || Error::new(Kind::Io, "read back").on(dir.show(&name)).because("somebody has removed it");
        dir.read_file(&name)?.ok_or_else(gone)
    }

    /// Where the journal may be written: settled, and under our lock.
    pub(crate) fn home(&self) -> Option<Home> {
        let mut state = lock(&self.state);
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let mut home = state.home.clone()?;
        state.home_is_known = true;
        if let (Some(name), Some(root)) = (&self.options.journal, &state.root) {
            home = Home { dir: root.clone(), name: name.clone(), alone: true };
        }
        Some(home)
    }

    /// Where the journal of an earlier run may be read before anything is settled.
    pub(crate) fn guess(&self) -> Option<Home> {
        if !self.options.resume {
            return None;
        }
        let (folders, name) = match (&self.options.journal, &self.options.name, &self.options.expect) {
            (Some(j), _, _) => (Vec::new(), j.clone()),
            (None, Name::User(n), _) => (Vec::new(), names::journal(n)),
            (None, Name::Below(p), _) | (None, Name::Source, Some(p)) => {
                let mut folders: Vec<&str> = p.parts().collect();
                folders.pop();
                (folders, names::journal(p.file_name().as_ref()))
            }
            (None, Name::Source, None) => return None,
        };
        // That a folder is missing or cannot be read will be said when something is written.
        self.sub(&folders, None).ok().map(|dir| Home { dir, name, alone: false })
    }

    fn layout<T>(&self, object: ObjectId, f: impl FnOnce(&mut Layout) -> T) -> Result<T> {
        let mut state = lock(&self.state);
        let layout = state.objects.get_mut(&object).ok_or_else(|| {
            Error::new(Kind::Bug, "use an object").because("no file of it was prepared, or the job has ended")
        })?;
        Ok(f(layout))
    }

    fn slots(&self, object: ObjectId) -> Vec<Arc<Slot>> {
        self.layout(object, |l| l.slots().cloned().collect()).unwrap_or_default()
    }

    fn read(&self, object: ObjectId, range: &Range<u64>) -> Result<Bytes> {
        let shares = self.layout(object, |l| l.split(range))??;
        // Before any memory is taken for it: a journal may claim anything.
        for s in &shares {
            if s.slot.on_disk()? < s.at + (s.range.end - s.range.start) {
                return Err(Error::new(Kind::Corrupt, "read back")
                    .on(s.slot.folder.join(s.slot.spec.path.file_name()).display())
                    .because("the partial is shorter than its journal says"));
            }
        }
        let mut buf = vec![0; (range.end - range.start) as usize];
        let mut done = range.start;
        for s in shares.into_iter().filter(|s| s.range.end > range.start) {
            // Files that share bytes: the first has them already.
            let from = done.max(s.range.start);
            if from >= s.range.end {
                continue;
            }
            let to = &mut buf[(from - range.start) as usize..(s.range.end - range.start) as usize];
            s.slot.read(to, s.at + (from - s.range.start), || self.reopen(&s.slot))?;
            done = s.range.end;
        }
        Ok(buf.into())
    }

    fn abort(&self, keep: Keep) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        let _one_at_a_time = lock(&self.admin);
        let (slots, home) = {
            let mut state = lock(&self.state);
            (state.files.values().cloned().collect::<Vec<_>>(), state.home.take())
        };
        let mut first = Ok(());
        for slot in slots {
            let mut stage = slot.alone();
            if let Stage::Open { part, dir, .. } | Stage::Aside(Aside::Part { part, dir }) = &*stage {
                let journal = names::journal(&slot.name());
                // An empty partial is litter: there is nothing to go on from.
                let done = part.stat().and_then(|stat| match keep {
                    Keep::Partial if dir::size(&stat) > 0 => part.settle().map(drop),
                    Keep::Partial | Keep::Nothing => {
                        if home.as_ref().is_some_and(|h| h.name == journal) {
                            dir.unlink(&journal)?;
                        }
                        part.remove()
                    }
                });
                first = first.and(done);
                *stage = Stage::Gone;
            }
        }
        let mut made = std::mem::take(&mut lock(&self.state).made);
        made.undo();
        first
    }
}

#[async_trait]
impl Sink for FileSink {
    fn caps(&self) -> SinkCaps {
        SinkCaps::RANDOM
    }

    async fn prepare(&self, added: &[FileSpec]) -> Vec<(FileId, Result<Prepared>)> {
        let (shared, specs) = (self.0.clone(), added.to_vec());
        let done =
            blocking(move || Ok(specs.iter().map(|s| (s.id, shared.prepare(s))).collect::<Vec<_>>())).await;
        done.unwrap_or_else(|e| added.iter().map(|s| (s.id, Err(e.clone()))).collect())
    }

    /// Bytes of such files go to one file without a name in the sink's folder, which is made if it is missing. But where
    /// an earlier run has left a partial of one, that is gone on with, in case it is wanted again.
    async fn set_aside(&self, files: &[FileSpec]) -> Vec<(FileId, Result<()>)> {
        let (shared, specs) = (self.0.clone(), files.to_vec());
        let done =
            blocking(move || Ok(specs.iter().map(|s| (s.id, shared.set_aside(s))).collect::<Vec<_>>())).await;
        done.unwrap_or_else(|e| files.iter().map(|s| (s.id, Err(e.clone()))).collect())
    }

    async fn set_len(&self, object: ObjectId, len: u64) -> Result<()> {
        let slots = self.0.layout(object, |l| {
            let new = l.len != Some(len);
            l.len = Some(len);
            if new { l.slots().cloned().collect::<Vec<_>>() } else { Vec::new() }
        })?;
        if slots.is_empty() {
            return Ok(());
        }
        let shared = self.0.clone();
        blocking(move || {
            let done = slots.iter().try_for_each(|s| s.set_len(len));
            if done.is_err() {
                // Asked again, it is looked at again: there may be room by then.
                shared.layout(object, |l| l.len = None)?;
            }
            done
        })
        .await
    }

    async fn write(&self, batch: Batch) -> Result<()> {
        if batch.len == 0 {
            return Ok(());
        }
        let range = batch.at
            ..batch
                .at
                .checked_add(batch.len)
                .ok_or_else(|| Error::new(Kind::Bug, "write").because("the offset is too large"))?;
        let shares = self.0.layout(batch.object, |l| l.split(&range))??;
        let shares: Vec<_> = shares.into_iter().map(|s| (s.slot.epoch(), s)).collect();
        let permit = self.0.writers.clone().acquire_owned().await;
        let (home, len) = (self.0.clone(), batch.len);
        let quick = home.quick.load(Ordering::Relaxed);
        let work = move || {
            // Held until the write returns, also when nobody waits for it any more.
            let _permit = permit;
            let began = std::time::Instant::now();
            for (epoch, s) in shares {
                if s.range == range {
                    s.slot.write(epoch, &batch.bufs, s.at)?;
                } else {
                    let own = slice(&batch.bufs, s.range.start - range.start, s.range.end - range.start);
                    s.slot.write(epoch, &own, s.at)?;
                }
            }
            home.quick.store(len <= QUICK_LEN && began.elapsed() < QUICK, Ordering::Relaxed);
            Ok(())
        };
        // A write into the page cache takes less time than waking a thread for it, and finds the bytes in this
        // processor's cache. The first one that had to wait for a disk sends the next to the threads made for that.
        if quick && len <= QUICK_LEN { work() } else { blocking(work).await }
    }

    /// Takes at most 256 MiB a call; a longer range is [`Kind::Invalid`]. Bytes behind the partial's end are
    /// [`Kind::Corrupt`].
    async fn read(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes> {
        if range.end <= range.start {
            return Ok(Bytes::new());
        }
        if range.end - range.start > MAX_READ {
            return Err(Error::new(Kind::Invalid, "read back").because("more than 256 MiB at once"));
        }
        let shared = self.0.clone();
        blocking(move || shared.read(object, &range)).await
    }

    async fn sync(&self, objects: &[ObjectId]) -> Result<()> {
        let slots: Vec<_> = objects.iter().flat_map(|o| self.0.slots(*o)).collect();
        blocking(move || {
            slots.iter().try_for_each(|s| match &*s.shared() {
                Stage::Open { part, .. } | Stage::Aside(Aside::Part { part, .. }) => {
                    part.file().sync_data().map_err(|e| part.error("sync", e))
                }
                _ => Ok(()),
            })
        })
        .await
    }

    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)> {
        let (shared, ids) = (self.0.clone(), files.to_vec());
        let done = blocking(move || Ok(shared.commit(&ids))).await;
        done.unwrap_or_else(|e| files.iter().map(|id| (*id, Err(e.clone()))).collect())
    }

    async fn truncate(&self, object: ObjectId) -> Result<()> {
        let slots = self.0.layout(object, |l| {
            l.len = None;
            l.slots().cloned().collect::<Vec<_>>()
        })?;
        blocking(move || slots.iter().try_for_each(|s| s.clear())).await
    }

    async fn abort(&self, keep: Keep) -> Result<()> {
        let shared = self.0.clone();
        blocking(move || shared.abort(keep)).await
    }
}

/// Runs blocking work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(done) => done,
        Err(e) if e.is_cancelled() => {
            Err(Error::new(Kind::Shutdown, "use the disk").because("the runtime ends"))
        }
        Err(e) => Err(Error::new(Kind::Bug, "use the disk").because("the work panicked").caused_by(e)),
    }
}

/// A poisoned lock guards state that is replaced whole, so it is still good.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
