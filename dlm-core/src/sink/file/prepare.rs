//! Settling a file's name: what has it already, who else is at it, and is there room.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, Stat};

use super::aside::Aside;
use super::builder::{IfExists, Name};
use super::dir::{Dir, Made, same};
use super::existing::is_right;
use super::part::{Opened, Part};
use super::slot::{Slot, Stage};
use super::{Home, Shared, lock, names};
use crate::error::{Error, Kind, Result};
use crate::event::VerifiedBy;
use crate::object::{FileKind, FileSpec};
use crate::sink::Prepared;

/// How often a lost race is run again.
const TRIES: u32 = 8;

/// What became of a name that something has.
enum Taken {
    /// By the finished file, or by something that is to be left.
    Done(VerifiedBy),
    /// By something that the commit will replace.
    Replace,
    /// The file takes another name.
    Number,
}

impl Shared {
    /// Prepares one file. Runs on a blocking thread, one at a time.
    pub(super) fn prepare(&self, spec: &FileSpec) -> Result<Prepared> {
        let _one_at_a_time = lock(&self.admin);
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Kind::Shutdown, "prepare the file")
                .on(&spec.path)
                .because("the job has ended"));
        }
        // A slot's lock is taken before `state`, not within.
        let slots: Vec<_> = match &self.options.name {
            Name::Source => lock(&self.state).files.get(&spec.id).cloned().into_iter().collect(),
            Name::User(_) | Name::Below(_) => lock(&self.state).files.values().cloned().collect(),
        };
        let aside = slots.iter().find(|s| s.spec.id == spec.id && s.is_aside()).cloned();
        let mut others = slots.iter().filter(|s| !s.is_aside());
        let known = match others.next() {
            None => None,
            Some(_) if slots.iter().any(|s| s.spec.id == spec.id) && aside.is_none() => Some(
                Error::new(Kind::Bug, "prepare the file").on(&spec.path).because("it was prepared before"),
            ),
            Some(_) => Some(
                Error::new(Kind::Invalid, "use the file name")
                    .on(&spec.path)
                    .because("a name was given for one file, and there are more")
                    .advise("give a folder instead"),
            ),
        };
        if let Some(e) = known {
            return Err(e);
        }
        let mut made = Made::default();
        let done = match aside {
            Some(slot) => self.take_back(&slot, || self.settle(spec, &mut made)).map(|p| (slot, p)),
            None => self.settle(spec, &mut made).map(|(slot, p)| (Arc::new(slot), p)),
        };
        match done {
            Ok((slot, prepared)) => {
                self.register(slot, made);
                Ok(prepared)
            }
            Err(e) => {
                if made.undo() {
                    lock(&self.state).root = None;
                }
                Err(e)
            }
        }
    }

    fn settle(&self, spec: &FileSpec, made: &mut Made) -> Result<(Slot, Prepared)> {
        let (dir, first) = self.folder(spec, made)?;
        for _ in 0..TRIES {
            let mut name = first.clone();
            let mut replace = false;
            let ours = lock(&self.state).names.contains(&dir.path().join(&name));
            let taken = match dir.stat(&name)? {
                Some(stat) => Some(self.taken(&dir, &name, &stat, spec)?),
                None if ours && self.options.if_exists == IfExists::Rename => Some(Taken::Number),
                None if ours => return Err(exists(&dir, &name, "two files of this download have this name")),
                None => None,
            };
            let opened = match taken {
                Some(Taken::Done(by)) => {
                    self.sweep(&dir, &name)?;
                    let slot = Slot::new(spec.clone(), dir.path().to_owned(), name, Stage::Complete);
                    return Ok((slot, Prepared::Complete(by)));
                }
                Some(Taken::Number) => {
                    let (n, part) = self.number(&dir, &first)?;
                    name = n;
                    Opened::Part(part)
                }
                Some(Taken::Replace) => {
                    replace = true;
                    Part::open(&dir, &names::part(&name))?
                }
                None => Part::open(&dir, &names::part(&name))?,
            };
            let part = match opened {
                Opened::Part(part) => part,
                Opened::Raced => continue,
                Opened::Busy => return Err(busy(&dir, &name)),
            };
            // Somebody else may have finished between the look and the lock.
            if !replace && dir.stat(&name)?.is_some() {
                discard(&part);
                continue;
            }
            if let Err(e) = self.make_ready(&dir, &name, &part, spec) {
                discard(&part);
                return Err(e);
            }
            let stage = Stage::Open { part, dir: dir.clone(), replace };
            return Ok((Slot::new(spec.clone(), dir.path().to_owned(), name, stage), Prepared::Ready));
        }
        Err(busy(&dir, &first))
    }

    /// The folder of a file, and the name it should have.
    fn folder(&self, spec: &FileSpec, made: &mut Made) -> Result<(Arc<Dir>, OsString)> {
        let path = match &self.options.name {
            Name::User(n) => return Ok((self.root(Some(made))?, n.clone())),
            Name::Below(p) => p,
            Name::Source => &spec.path,
        };
        let parts: Vec<&str> = path.parts().collect();
        let (name, folders) = parts.split_last().ok_or_else(|| Error::new(Kind::Bug, "use an empty path"))?;
        Ok((self.sub(folders, Some(made))?, OsString::from(name)))
    }

    fn taken(&self, dir: &Dir, name: &OsStr, stat: &Stat, spec: &FileSpec) -> Result<Taken> {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(exists(dir, name, "a folder has this name"));
        }
        match self.options.if_exists {
            IfExists::Skip => Ok(Taken::Done(VerifiedBy::Transport)),
            IfExists::Overwrite => Ok(Taken::Replace),
            IfExists::Rename => Ok(Taken::Number),
            IfExists::Fail => match is_right(dir, name, stat, spec, &self.options.digests, &self.closed)? {
                Some(by) => Ok(Taken::Done(by)),
                None => Err(exists(dir, name, "the name is taken")),
            },
        }
    }

    /// The first numbered name that is free. One that is free but has a partial is an earlier run's: it goes on.
    fn number(&self, dir: &Arc<Dir>, first: &OsStr) -> Result<(OsString, Box<Part>)> {
        for n in 1..=names::MAX_NUMBER {
            let name = names::numbered(first, n);
            if lock(&self.state).names.contains(&dir.path().join(&name)) || dir.stat(&name)?.is_some() {
                continue;
            }
            if let Opened::Part(part) = Part::open(dir, &names::part(&name))? {
                return Ok((name, part));
            }
        }
        Err(exists(dir, first, "all numbered names are taken too"))
    }

    /// The last steps under the lock.
    fn make_ready(&self, dir: &Dir, name: &OsStr, part: &Part, spec: &FileSpec) -> Result<()> {
        // A journal that speaks of a partial that is gone, or that shall be forgotten.
        if part.created() || !self.options.resume {
            dir.unlink(&names::journal(name))?;
        }
        if !self.options.resume {
            part.clear()?;
        }
        match spec.len {
            Some(len) if spec.kind == FileKind::Data => part.set_len(len),
            _ => Ok(()),
        }
    }

    /// Removes what a run that was killed right after its commit left beside the finished file.
    fn sweep(&self, dir: &Arc<Dir>, name: &OsStr) -> Result<()> {
        let (part, journal) = (names::part(name), names::journal(name));
        let (p, j) = (dir.stat(&part)?, dir.stat(&journal)?);
        if p.is_none() && j.is_none() {
            return Ok(());
        }
        let finished = dir.stat(name)?;
        // The commit by link and unlink was cut between the two: one file, two names.
        if let (Some(p), Some(f)) = (&p, &finished)
            && same(p, f)
        {
            dir.unlink(&part)?;
        }
        // Under `Skip` nobody has compared the file, so a partial beside it may be worth keeping.
        if self.options.if_exists == IfExists::Skip && dir.stat(&part)?.is_some() {
            return Ok(());
        }
        // Not being able to tidy up is no reason to fail: the file itself is there.
        if let Ok(Opened::Part(lock)) = Part::open(dir, &part) {
            dir.unlink(&journal)?;
            lock.remove()?;
        }
        Ok(())
    }

    pub(super) fn register(&self, slot: Arc<Slot>, made: Made) {
        let (home, old) = match &*slot.shared() {
            Stage::Open { part, dir, .. } | Stage::Aside(Aside::Part { part, dir }) => {
                let home = Home { dir: dir.clone(), name: names::journal(&slot.name()), alone: false };
                (Some(home), !part.created())
            }
            _ => (None, false),
        };
        let aside = slot.is_aside();
        // The journal of an earlier run stands beside the first file that was wanted then.
        let exists = |h: &Home| h.dir.stat(&h.name).is_ok_and(|s| s.is_some());
        let before = lock(&self.state).home.clone().filter(|_| home.is_some());
        let better = match (&home, &before) {
            (Some(new), Some(before)) => old && exists(new) && !exists(before),
            (Some(new), None) => !aside || exists(new),
            (None, _) => false,
        };
        let mut state = lock(&self.state);
        state.made.append(made);
        if !aside {
            state.names.insert(slot.path());
        }
        if better && !state.home_is_known {
            state.home = home;
        }
        if state.files.insert(slot.spec.id, slot.clone()).is_none() {
            state.objects.entry(slot.spec.object).or_default().add(slot);
        }
    }
}

/// Takes back what was made for a file that comes to nothing; what was there before stays.
fn discard(part: &Part) {
    if part.created() {
        // The error that led here is the one to report.
        let _ = part.remove();
    }
}

pub(super) fn exists(dir: &Dir, name: &OsStr, why: &'static str) -> Error {
    Error::new(Kind::Exists, "use the file name")
        .on(dir.show(name))
        .because(why)
        .advise("choose another name, or say what to do with what is there")
}

pub(super) fn busy(dir: &Dir, name: &OsStr) -> Error {
    Error::new(Kind::Busy, "use the file name")
        .on(dir.show(name))
        .because("another process is downloading to it")
        .advise("wait for it, or choose another name")
}
