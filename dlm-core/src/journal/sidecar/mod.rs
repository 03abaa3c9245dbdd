//! One journal file beside the download.
//!
//! Plain text, so that it can be looked at: `dlm-journal 1`, then a line a record: the CRC-32C of the JSON that follows
//! it. The file only grows, by whole lines; a kill or a full disk can leave a part of the last one, which is found by
//! its checksum and cut off. A journal that consists mostly of what later lines made void is written anew, into a file
//! of another name that then takes its place.
//!
//! It is trusted no further than it can be checked: what it claims is compared with the partial by the engine, and what
//! is not a plain file is refused.

mod fit;
mod format;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use self::format::{HEADER, MAX_FILE, Scan, compact, encode_all, scan};
use super::{Checkpoint, Journal, Saved};
use crate::error::{Error, Kind, Result};
use crate::sink::Keep;
use crate::sink::file::dir::{PRIVATE, is_file, same};
use crate::sink::file::{Home, Shared, blocking, lock};

/// Below this many records, writing anew is not worth it.
const FEW: usize = 64;
/// How long to wait for somebody who is done with the journal to let go of it: two seconds.
const PATIENCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// The journal beside the partial of a [`FileSink`](crate::FileSink), from [`FileSink::journal`](crate::FileSink::journal).
///
/// Its file is made by the first [`record`](Journal::record), readable by its owner only. Bounds: 16 MiB; what is
/// longer is taken for damaged, and what would become longer is written anew first, in fewer words: claims that touch are
/// joined, and if that is not enough, only the largest are kept. What is no longer claimed is fetched again by a job that
/// resumes; the job that runs goes on.
#[derive(Debug)]
pub struct SidecarJournal {
    sink: Arc<Shared>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    /// It was removed: a record that was on its way must not bring it back.
    removed: bool,
}

/// The journal at its settled place.
#[derive(Debug)]
struct Open {
    home: Home,
    /// `None`: nothing was recorded yet.
    file: Option<File>,
    /// How long it is as far as it is good.
    len: u64,
    /// There is something behind `len` that has to go before the next append.
    damaged: bool,
    /// Written anew with this at the next append.
    rewrite: Option<Saved>,
}

impl SidecarJournal {
    pub(crate) fn beside(sink: Arc<Shared>) -> Self {
        Self { sink, state: Arc::default() }
    }

    /// What is left in a journal of these bytes: everything before the first line that is damaged. `None` when not even
    /// the first line is good. Pure; takes at most 16 MiB for good.
    pub fn parse(bytes: &[u8]) -> Option<Saved> {
        let scan = scan(bytes);
        (scan.good > 0).then(|| Saved::replay(&scan.records))
    }
}

fn read_bytes(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed shows that it is too long.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The journal of an earlier run, before anything is settled: read only, and not complained about.
fn peek(home: &Home) -> Option<Saved> {
    let file = home.dir.read_file(&home.name).ok()??;
    SidecarJournal::parse(&read_bytes(&file).ok()?)
}

fn lines(records: usize) -> usize {
    records.max(1)
}

impl Open {
    /// Opens what is there under the partial's lock, and reads it.
    fn at(home: Home) -> Result<(Self, Option<Saved>)> {
        let Some(file) = open_locked(&home)? else {
            return Ok((Self { home, file: None, len: 0, damaged: false, rewrite: None }, None));
        };
        let (dir, name) = (&home.dir, &home.name);
        let bytes = read_bytes(&file).map_err(|e| dir.error("read", name, e))?;
        let Scan { records, good } = scan(&bytes);
        let saved = (good > 0).then(|| Saved::replay(&records));
        let rewrite = saved
            .as_ref()
            .filter(|s| records.len() > FEW && records.len() > 4 * lines(compact(s).len()))
            .cloned();
        let damaged = good < bytes.len();
        Ok((Self { home, file: Some(file), len: good as u64, damaged, rewrite }, saved))
    }

    fn error(&self, op: &'static str, e: io::Error) -> Error {
        self.home.dir.error(op, &self.home.name, e)
    }

    fn append(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let mut text = Vec::new();
        encode_all(&checkpoint.records, &mut text);
        if text.is_empty() {
            return Ok(());
        }
        if self.rewrite.is_none() && self.len + text.len() as u64 > MAX_FILE {
            let (_, saved) = self.reread()?;
            self.rewrite = Some(saved.unwrap_or_default());
        }
        if let Some(saved) = self.rewrite.take() {
            let done = self.write_anew(&saved, checkpoint);
            if done.is_err() {
                self.rewrite = Some(saved);
            }
            return done;
        }
        let created = self.file.is_none();
        let file = match self.file.take() {
            Some(f) => f,
            None => self.create(&self.home.name)?,
        };
        let done = self.write(&file, &text, checkpoint.durable && !created);
        self.file = Some(file);
        if created && checkpoint.durable && done.is_ok() {
            self.file.as_ref().map_or(Ok(()), File::sync_all).map_err(|e| self.error("sync", e))?;
            self.home.dir.sync()?;
        }
        done
    }

    fn write(&mut self, mut file: &File, text: &[u8], sync: bool) -> Result<()> {
        if self.damaged {
            file.set_len(self.len).map_err(|e| self.error("cut", e))?;
            self.damaged = false;
        }
        let whole = if self.len == 0 { [HEADER, text].concat() } else { text.to_vec() };
        if let Err(e) = file.write_all(&whole) {
            // A part of it may be there.
            self.damaged = true;
            return Err(self.error("write", e));
        }
        self.len += whole.len() as u64;
        if sync { file.sync_data().map_err(|e| self.error("sync", e)) } else { Ok(()) }
    }

    fn reread(&self) -> Result<(Scan, Option<Saved>)> {
        let Some(file) = self.home.dir.read_file(&self.home.name)? else {
            return Ok((Scan::default(), None));
        };
        let bytes = read_bytes(&file).map_err(|e| self.error("read", e))?;
        let scan = scan(&bytes);
        let saved = (scan.good > 0).then(|| Saved::replay(&scan.records));
        Ok((scan, saved))
    }

    fn create(&self, name: &OsString) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let file = self
            .home
            .dir
            .open_file(name, flags, PRIVATE)
            .map_err(|e| self.home.dir.error("create", name, e.into()))?;
        guard(&self.home, &file)?;
        Ok(file)
    }

    /// The same in fewer lines, with what is new, in a new file that takes the old one's place.
    fn write_anew(&mut self, saved: &Saved, checkpoint: &Checkpoint) -> Result<()> {
        let durable = checkpoint.durable;
        let whole = fit::whole(Saved::replay(compact(saved).iter().chain(&checkpoint.records)));
        let temp = self.temp();
        // Left by a run that was killed in the middle of this.
        self.home.dir.unlink(&temp)?;
        let mut file = self.create(&temp)?;
        let write = |file: &mut File| {
            file.write_all(&whole)?;
            if durable { file.sync_data() } else { Ok(()) }
        };
        let done = write(&mut file)
            .and_then(|()| self.home.dir.rename(&temp, &self.home.name).map_err(io::Error::from))
            .map_err(|e| self.error("write", e));
        if done.is_err() {
            // The old journal stands; the error is the one to report.
            let _ = self.home.dir.unlink(&temp);
            return done;
        }
        self.file = Some(file);
        self.len = whole.len() as u64;
        self.damaged = false;
        if durable { self.home.dir.sync() } else { Ok(()) }
    }

    /// A name that is short enough whatever the journal's is.
    fn temp(&self) -> OsString {
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, self.home.name.as_encoded_bytes());
        format!(".dlm-{crc:08x}.new").into()
    }

    /// Removes it, if the name still means the file that was opened.
    fn remove(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let own = rustix::fs::fstat(file).map_err(|e| self.error("look at", e.into()))?;
        self.home.dir.unlink(&self.temp())?;
        match self.home.dir.stat(&self.home.name)? {
            Some(s) if same(&s, &own) => self.home.dir.unlink(&self.home.name),
            _ => Ok(()),
        }
    }
}

/// Opens and locks what is there; `None` when nothing is.
fn open_locked(home: &Home) -> Result<Option<File>> {
    let (dir, name) = (&home.dir, &home.name);
    let mut tries = 0;
    loop {
        if let Some(stat) = dir.stat(name)?
            && !is_file(&stat)
        {
            return Err(dir.not_plain(name, &stat));
        }
        let file = match dir.open_file(name, OFlags::RDWR | OFlags::APPEND, Mode::empty()) {
            Ok(f) => f,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(dir.error("open", name, e.into())),
        };
        let look = || rustix::fs::fstat(&file).map_err(|e| dir.error("look at", name, e.into()));
        let stat = look()?;
        if !is_file(&stat) {
            return Err(dir.not_plain(name, &stat));
        }
        if stat.st_nlink > 1 {
            return Err(dir.refuse(name, "it is a hard link to another file"));
        }
        tries += 1;
        match guard(home, &file) {
            // We hold the partial, so this is somebody who has just put it in place and is about to remove its journal.
            Err(e) if e.kind() == Kind::Busy && !home.alone && tries < PATIENCE => std::thread::sleep(PAUSE),
            Err(e) => return Err(e),
            Ok(()) if dir.stat(name)?.is_some_and(|s| same(&s, &stat)) => return Ok(Some(file)),
            // It was removed in the same moment.
            Ok(()) if tries < PATIENCE => {}
            Ok(()) => return Err(busy(home)),
        }
    }
}

/// Locks the journal: a download of many files has no other lock of its own.
fn guard(home: &Home, file: &File) -> Result<()> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(busy(home)),
        Err(e) => Err(home.dir.error("lock", &home.name, e.into())),
    }
}

fn busy(home: &Home) -> Error {
    Error::new(Kind::Busy, "open").on(home.dir.show(&home.name)).because("another process has this download")
}

#[async_trait]
impl Journal for SidecarJournal {
    async fn load(&self) -> Result<Option<Saved>> {
        let (sink, state) = (self.sink.clone(), self.state.clone());
        blocking(move || {
            let Some(home) = sink.home() else {
                return Ok(sink.guess().and_then(|home| peek(&home)));
            };
            let mut state = lock(&state);
            // Its lock has to end before it is taken again.
            state.open = None;
            let (open, saved) = Open::at(home)?;
            state.open = Some(open);
            Ok(saved)
        })
        .await
    }

    async fn record(&self, checkpoint: &Checkpoint) -> Result<()> {
        let (sink, state, checkpoint) = (self.sink.clone(), self.state.clone(), checkpoint.clone());
        blocking(move || {
            let mut state = lock(&state);
            let cannot = |kind, why: &'static str| Err(Error::new(kind, "write the journal").because(why));
            if state.removed {
                return cannot(Kind::Shutdown, "the job has ended");
            }
            let Some(home) = sink.home() else {
                return cannot(Kind::Bug, "no file is prepared, or the job has ended");
            };
            let mut open = match state.open.take() {
                Some(open) => open,
                None => Open::at(home)?.0,
            };
            let done = open.append(&checkpoint);
            state.open = Some(open);
            done
        })
        .await
    }

    async fn close(&self, keep: Keep) -> Result<()> {
        let state = self.state.clone();
        blocking(move || {
            let mut state = lock(&state);
            let open = state.open.take();
            if keep == Keep::Nothing {
                state.removed = true;
                return open.map_or(Ok(()), |o| o.remove());
            }
            Ok(())
        })
        .await
    }
}
