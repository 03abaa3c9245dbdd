//! Putting a finished file under its final name.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::builder::IfExists;
use super::dir::{Dir, is_file};
use super::part::Part;
use super::prepare::exists;
use super::slot::{Slot, Stage};
use super::{Shared, lock, names};
use crate::error::{Error, Kind, Result};
use crate::object::{FileId, FileKind};

impl Shared {
    /// Commits files; those of one folder share its sync. Runs on a blocking thread, one call at a time.
    pub(super) fn commit(&self, ids: &[FileId]) -> Vec<(FileId, Result<()>)> {
        let _one_at_a_time = lock(&self.admin);
        let mut done: Vec<_> = ids.iter().map(|id| (*id, self.commit_one(*id))).collect();
        let mut synced: BTreeMap<PathBuf, Result<()>> = BTreeMap::new();
        for (_, result) in &mut done {
            if self.options.durable
                && let Ok(Some(dir)) = result
            {
                let sync = synced.entry(dir.path().to_owned()).or_insert_with(|| dir.sync());
                *result = sync.clone().map(|()| None);
            }
        }
        done.into_iter().map(|(id, result)| (id, result.map(drop))).collect()
    }

    /// Commits one file; the folder's sync is left to do.
    fn commit_one(&self, id: FileId) -> Result<Option<Arc<Dir>>> {
        let bug = |why: &'static str| Error::new(Kind::Bug, "finish the file").because(why);
        let (slot, object) = {
            let state = lock(&self.state);
            let slot = state.files.get(&id).cloned().ok_or_else(|| bug("it was not prepared"))?;
            let len = state.objects.get(&slot.spec.object).and_then(|o| o.len);
            (slot, len)
        };
        // Waits for writes that are on their way, and lets none begin.
        let mut stage = slot.alone();
        let (name, dir) = match &*stage {
            Stage::Complete | Stage::Committed => return Ok(None),
            Stage::Aside(_) => return Err(bug("it is not wanted")),
            Stage::Gone => return Err(bug("it was given up")),
            Stage::Open { part, dir, replace } => {
                self.seal(&slot, part, object)?;
                if *replace {
                    keep_mode(dir, &slot.name(), part);
                }
                if self.options.durable {
                    part.file().sync_all().map_err(|e| part.error("sync", e))?;
                }
                (self.rename(dir, part, &slot.name(), *replace)?, dir.clone())
            }
        };
        slot.rename(name);
        lock(&self.state).names.insert(slot.path());
        // Closes the partial, which ends the lock.
        *stage = Stage::Committed;
        Ok(Some(dir))
    }

    /// Length and time as they should be.
    fn seal(&self, slot: &Slot, part: &Part, object: Option<u64>) -> Result<()> {
        let want = slot.len(object);
        if slot.spec.kind == FileKind::Zeros
            && let Some(len) = want
        {
            part.cut(len)?;
        }
        let have = part.settle()?;
        if let Some(want) = want
            && want != have
        {
            return Err(Error::new(Kind::Corrupt, "finish the file")
                .on(slot.folder.join(part.name()).display())
                .because(format_args!("it has {have} bytes and should have {want}")));
        }
        if self.options.set_mtime
            && let Some(t) = slot.spec.mtime
        {
            let keep = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            // A file system that keeps no times is no reason to fail a whole download.
            let _ = rustix::fs::futimens(
                part.file(),
                &Timestamps { last_access: keep, last_modification: timespec(t) },
            );
        }
        Ok(())
    }

    fn rename(&self, dir: &Dir, part: &Part, name: &OsStr, replace: bool) -> Result<OsString> {
        if !part.is_named()? {
            return Err(dir.refuse(part.name(), "somebody has removed or replaced the partial"));
        }
        let failed = |to: &OsStr, e: Errno| {
            match e {
            Errno::EXIST => exists(dir, to, "the name was taken meanwhile"),
            Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY => exists(dir, to, "a folder has this name"),
            // Every file system can rename and replace: here the folder itself stands in the way.
            Errno::PERM if replace => dir.error("put in place", to, e.into()).advise(
                "this folder lets nothing be renamed (append-only, immutable or sticky): choose another folder",
            ),
            Errno::PERM => dir.error("put in place", to, e.into()).advise(
                "this folder lets nothing be renamed (append-only, immutable or sticky), or its file system cannot without replacing: choose another folder, or allow replacing",
            ),
            e => dir.error("put in place", to, e.into()),
        }
        };
        if replace {
            return match dir.rename(part.name(), name) {
                Ok(()) => Ok(name.to_owned()),
                Err(e) => Err(failed(name, e)),
            };
        }
        match dir.rename_new(part.name(), name) {
            Ok(()) => return Ok(name.to_owned()),
            Err(Errno::EXIST) if self.options.if_exists == IfExists::Rename => {}
            // It appeared while we were at it; the caller said what to do with such.
            Err(Errno::EXIST) if self.options.if_exists == IfExists::Overwrite => {
                return dir.rename(part.name(), name).map(|()| name.to_owned()).map_err(|e| failed(name, e));
            }
            Err(e) => return Err(failed(name, e)),
        }
        for n in 1..=names::MAX_NUMBER {
            let next = names::numbered(name, n);
            if lock(&self.state).names.contains(&dir.path().join(&next)) {
                continue;
            }
            match dir.rename_new(part.name(), &next) {
                Ok(()) => return Ok(next),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(&next, e)),
            }
        }
        Err(exists(dir, name, "all numbered names are taken too"))
    }
}

/// A file that is replaced keeps its rights: who made it private meant it.
fn keep_mode(dir: &Dir, name: &OsStr, part: &Part) {
    if let Ok(Some(old)) = dir.stat(name)
        && is_file(&old)
        && let Ok(now) = part.file().metadata()
    {
        let mode = Mode::from_raw_mode(old.st_mode & 0o777);
        if mode.as_raw_mode() != now.permissions().mode() & 0o777 {
            // Where rights cannot be set they mean nothing.
            let _ = rustix::fs::fchmod(part.file(), mode);
        }
    }
}

fn timespec(t: SystemTime) -> Timespec {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(d.subsec_nanos()),
        },
        Err(e) => {
            let d = e.duration();
            let up = i64::from(d.subsec_nanos() > 0);
            let secs = i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
            Timespec {
                tv_sec: -secs - up,
                tv_nsec: if up == 1 { 1_000_000_000 - i64::from(d.subsec_nanos()) } else { 0 },
            }
        }
    }
}
