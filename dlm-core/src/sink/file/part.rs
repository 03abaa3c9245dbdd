//! A partial: `NAME.part`, open and locked.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustix::fs::{FlockOperation, OFlags, Stat};
use rustix::io::Errno;

use super::dir::{DATA, Dir, is_file, same, size};
use super::lock;
use super::space::{Ahead, check_room};
use crate::error::{Error, Kind, Result};

/// Most buffers in one call (`IOV_MAX` of Linux and the BSDs).
const MAX_SLICES: usize = 1024;

/// What came of opening a partial.
#[derive(Debug)]
pub(super) enum Opened {
    /// It is ours.
    Part(Box<Part>),
    /// Somebody else holds it.
    Busy,
    /// Somebody else removed or renamed it in the same moment: look again.
    Raced,
}

/// An open and locked partial. The lock ends when this is dropped.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    dir: Arc<Dir>,
    name: OsString,
    stat: Stat,
    created: bool,
    ahead: Mutex<Ahead>,
}

impl Part {
    /// Opens or creates `name`, and locks it.
    pub(super) fn open(dir: &Arc<Dir>, name: &OsStr) -> Result<Opened> {
        // Looked at before it is opened, because opening a device may already do something.
        if let Some(stat) = dir.stat(name)?
            && !is_file(&stat)
        {
            return Err(dir.not_plain(name, &stat));
        }
        let (file, created) = match dir.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, DATA) {
            Ok(f) => (f, true),
            // CREATE stays although the name exists: with it, the kernel's `fs.protected_regular` refuses a file that
            // another user has planted in a shared folder.
            Err(Errno::EXIST) => match dir.open_file(name, OFlags::RDWR | OFlags::CREATE, DATA) {
                Ok(f) => (f, false),
                Err(Errno::LOOP | Errno::MLINK) => return Err(dir.refuse(name, "it is a symbolic link")),
                Err(e) => return Err(dir.error("open", name, e.into())),
            },
            Err(e) => return Err(dir.error("create", name, e.into())),
        };
        let look = |f: &File| rustix::fs::fstat(f).map_err(|e| dir.error("look at", name, e.into()));
        let stat = look(&file)?;
        if !is_file(&stat) {
            return Err(dir.not_plain(name, &stat));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Opened::Busy),
            Err(e) => return Err(dir.error("lock", name, e.into())),
        }
        // The holder before us may have put it in place or removed it between our opening and our locking.
        let stat = look(&file)?;
        if stat.st_nlink == 0 || !dir.stat(name)?.is_some_and(|s| same(&s, &stat)) {
            return Ok(Opened::Raced);
        }
        if stat.st_nlink > 1 {
            return Err(dir.refuse(name, "it is a hard link to another file"));
        }
        let ahead = Mutex::new(Ahead::new(&file));
        Ok(Opened::Part(Box::new(Self {
            file,
            dir: dir.clone(),
            name: name.to_owned(),
            stat,
            created,
            ahead,
        })))
    }

    /// Whether it was made by this opening.
    pub(super) fn created(&self) -> bool {
        self.created
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(super) fn error(&self, op: &'static str, e: io::Error) -> Error {
        self.dir.error(op, &self.name, e)
    }

    /// What it is now.
    pub(super) fn stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.file).map_err(|e| self.error("look at", e.into()))
    }

    /// Whether the name still means this file.
    pub(super) fn is_named(&self) -> Result<bool> {
        Ok(self.dir.stat(&self.name)?.is_some_and(|s| same(&s, &self.stat)))
    }

    /// Removes the name, if it still means this file.
    pub(super) fn remove(&self) -> Result<()> {
        if self.is_named()? { self.dir.unlink(&self.name) } else { Ok(()) }
    }

    /// Cuts it to `len` bytes if it is longer, and looks for room for the rest.
    pub(super) fn set_len(&self, len: u64) -> Result<()> {
        let stat = self.stat()?;
        if size(&stat) > len {
            self.cut(len)?;
        }
        check_room(&self.file, &stat, len).map_err(|e| e.on(self.dir.show(&self.name)))?;
        lock(&self.ahead).set_len(len);
        Ok(())
    }

    /// Sets its length.
    pub(super) fn cut(&self, len: u64) -> Result<()> {
        loop {
            match rustix::fs::ftruncate(&self.file, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.error("cut", e.into())),
            }
        }
    }

    /// Forgets all bytes.
    pub(super) fn clear(&self) -> Result<()> {
        self.cut(0)?;
        lock(&self.ahead).reset();
        Ok(())
    }

    /// Gives back room that was reserved behind the end, and says how long the file is.
    pub(super) fn settle(&self) -> Result<u64> {
        let len = size(&self.stat()?);
        if lock(&self.ahead).reaches_behind(len) {
            self.cut(len)?;
        }
        Ok(len)
    }

    /// Writes all of the buffers at `at`.
    pub(super) fn write(&self, bufs: &[Bytes], at: u64) -> Result<()> {
        let len: u64 = bufs.iter().map(|b| b.len() as u64).sum();
        let reserve = lock(&self.ahead).before_write(at, len);
        if let Some(range) = reserve
            && !super::space::reserve(&self.file, &range)
        {
            lock(&self.ahead).stop();
        }
        write_all(&self.file, bufs, at).map_err(|e| self.error("write", e))
    }
}

pub(super) fn write_all(file: &File, bufs: &[Bytes], mut at: u64) -> io::Result<()> {
    if let [one] = bufs {
        return file.write_all_at(one, at);
    }
    for group in bufs.chunks(MAX_SLICES) {
        let mut slices: Vec<IoSlice<'_>> = group.iter().map(|b| IoSlice::new(b)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match rustix::io::pwritev(file, rest, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    at += n as u64;
                    IoSlice::advance_slices(&mut rest, n);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}

/// Fills `buf` from `at`, or says that the file ends before.
pub(super) fn read_all(file: &File, buf: &mut [u8], at: u64, shown: &dyn Fn() -> String) -> Result<()> {
    file.read_exact_at(buf, at).map_err(|e| {
        if e.kind() == io::ErrorKind::UnexpectedEof {
            Error::new(Kind::Corrupt, "read back")
                .on(shown())
                .because("the partial is shorter than its journal says")
        } else {
            Error::io("read back", e).on(shown())
        }
    })
}
