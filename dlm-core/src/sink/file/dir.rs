//! A folder that is held open: every operation is relative to it and follows no link.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};

/// Mode of folders and data files, before the umask.
pub(crate) const FOLDER: Mode = Mode::from_bits_retain(0o777);
pub(crate) const DATA: Mode = Mode::from_bits_retain(0o666);
/// Mode of state files: locators and names are nobody else's business.
pub(crate) const PRIVATE: Mode = Mode::from_bits_retain(0o600);

/// An open folder, and the path it had when it was opened (for messages only).
#[derive(Debug)]
pub(crate) struct Dir {
    fd: File,
    path: PathBuf,
}

impl Dir {
    /// Opens the folder that the caller named; links in *its* path are the caller's own.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let fd = rustix::fs::openat(
            CWD,
            here,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self { fd: fd.into(), path: path.to_owned() })
    }

    /// Opens the folder `name` in this one, making it if asked. The second value says whether it was made.
    pub(crate) fn sub(&self, name: &OsStr, make: bool) -> Result<(Self, bool)> {
        let made = make
            && match rustix::fs::mkdirat(&self.fd, name, FOLDER) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(e) => return Err(self.error("make the folder", name, e.into())),
            };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok((Self { fd: fd.into(), path: self.path.join(name) }, made)),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(Error::new(Kind::Exists, "make the folder")
                .on(self.show(name))
                .because("a file or a link of this name is in the way")),
            Err(e) => Err(self.error("open the folder", name, e.into())),
        }
    }

    /// The path it had when it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For messages: the path of `name` in it.
    pub(crate) fn show(&self, name: &OsStr) -> String {
        self.path.join(name).display().to_string()
    }

    /// An error about `name`.
    pub(crate) fn error(&self, op: &'static str, name: &OsStr, e: io::Error) -> Error {
        Error::io(op, e).on(self.show(name))
    }

    /// What `name` is, itself, not what it points to; `None` when there is no such name.
    pub(crate) fn stat(&self, name: &OsStr) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(s) => Ok(Some(s)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NAMETOOLONG) => Err(Error::new(Kind::Invalid, "use the file name")
                .on(self.show(name))
                .because("it is too long for this file system")),
            Err(e) => Err(self.error("look at", name, e.into())),
        }
    }

    /// Opens `name` without following a link and without waiting for a fifo.
    pub(crate) fn open_file(&self, name: &OsStr, flags: OFlags, mode: Mode) -> Result<File, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        rustix::fs::openat(&self.fd, name, flags, mode).map(File::from)
    }

    /// Opens a plain file for reading; `None` when there is none of this name.
    pub(crate) fn read_file(&self, name: &OsStr) -> Result<Option<File>> {
        match self.open_file(name, OFlags::RDONLY, Mode::empty()) {
            Ok(f) => {
                let stat = rustix::fs::fstat(&f).map_err(|e| self.error("look at", name, e.into()))?;
                if is_file(&stat) { Ok(Some(f)) } else { Err(self.not_plain(name, &stat)) }
            }
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::MLINK) => Err(self.refuse(name, "it is a symbolic link")),
            Err(e) => Err(self.error("open", name, e.into())),
        }
    }

    /// The refusal of something that is no plain file.
    pub(crate) fn not_plain(&self, name: &OsStr, stat: &Stat) -> Error {
        let what = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => "a folder",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a fifo",
            FileType::Socket => "a socket",
            FileType::BlockDevice | FileType::CharacterDevice => "a device",
            FileType::RegularFile | FileType::Unknown => "no plain file",
        };
        self.refuse(name, format_args!("it is {what}"))
    }

    /// The refusal of a name that is in our way.
    pub(crate) fn refuse(&self, name: &OsStr, why: impl std::fmt::Display) -> Error {
        Error::new(Kind::Io, "use")
            .on(self.show(name))
            .because(why)
            .advise("move it away, or choose another name")
    }

    /// Removes a name; that there is none is no error.
    pub(crate) fn unlink(&self, name: &OsStr) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.error("remove", name, e.into())),
        }
    }

    /// Removes a folder if it is empty.
    pub(crate) fn rmdir(&self, name: &OsStr) -> bool {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).is_ok()
    }

    /// Renames within the folder, replacing what has the new name.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
    }

    /// Renames within the folder by one step that fails with `EXIST` when the new name is taken.
    pub(crate) fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, rustix::fs::RenameFlags::NOREPLACE) {
            // Not every file system (NFS), and not every kernel, knows the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            done => return done,
        }
        rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty())?;
        rustix::fs::unlinkat(&self.fd, from, AtFlags::empty())
    }

    /// Makes names in it survive a power cut.
    pub(crate) fn sync(&self) -> Result<()> {
        self.fd.sync_all().map_err(|e| Error::io("sync the folder", e).on(self.path.display()))
    }
}

/// Whether both speak of one file.
pub(crate) fn same(a: &Stat, b: &Stat) -> bool {
    a.st_dev == b.st_dev && a.st_ino == b.st_ino
}

/// Whether it is a plain file.
pub(crate) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Its length in bytes.
pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Folders that were made on the way, to be taken back when nothing came of it.
#[derive(Debug, Default)]
pub(crate) struct Made(Vec<MadeDir>);

#[derive(Debug)]
enum MadeDir {
    Root(PathBuf),
    Sub(Arc<Dir>, std::ffi::OsString),
}

impl Made {
    /// Makes the folder that the caller named, and those above it that are missing.
    pub(crate) fn root(&mut self, path: &Path) -> Result<()> {
        let missing: Vec<&Path> = path
            .ancestors()
            .take_while(|p| !p.as_os_str().is_empty() && p.symlink_metadata().is_err())
            .collect();
        for p in missing.into_iter().rev() {
            match std::fs::create_dir(p) {
                Ok(()) => self.0.push(MadeDir::Root(p.to_owned())),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io("make the folder", e).on(p.display())),
            }
        }
        Ok(())
    }

    /// Remembers a folder that was made below another.
    pub(crate) fn sub(&mut self, parent: Arc<Dir>, name: &OsStr) {
        self.0.push(MadeDir::Sub(parent, name.to_owned()));
    }

    /// Takes over what another one made.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Removes those that are empty, innermost first; says whether one named by the caller is gone.
    pub(crate) fn undo(&mut self) -> bool {
        let mut root = false;
        while let Some(d) = self.0.pop() {
            match d {
                MadeDir::Root(p) => root |= std::fs::remove_dir(p).is_ok(),
                MadeDir::Sub(parent, name) => {
                    parent.rmdir(&name);
                }
            }
        }
        root
    }
}
