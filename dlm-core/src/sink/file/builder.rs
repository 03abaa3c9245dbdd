//! What a file sink is asked to do.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use super::{FileSink, names};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::path::RelPath;

/// What to do with something that has the final name already.
///
/// A finished file that is the right one (see [`FileSinkBuilder::digests`]) is success without a transfer under
/// [`Fail`](Self::Fail), and anything is under [`Skip`](Self::Skip). A folder is in the way under all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum IfExists {
    /// Fail with [`Kind::Exists`](crate::Kind::Exists).
    #[default]
    Fail,
    /// Leave it, and call the file done.
    Skip,
    /// Replace it, by one atomic step, when everything is there. Until then it stays as it is.
    Overwrite,
    /// Take another name: `name.1.bin`.
    Rename,
}

/// The final name.
#[derive(Debug)]
pub(super) enum Name {
    /// The source chooses.
    Source,
    /// The user chose one for the only file.
    User(OsString),
    /// The user chose a path below the folder for the only file.
    Below(RelPath),
}

#[derive(Debug)]
pub(super) struct Options {
    pub(super) dir: PathBuf,
    pub(super) name: Name,
    pub(super) expect: Option<RelPath>,
    pub(super) journal: Option<OsString>,
    pub(super) if_exists: IfExists,
    pub(super) durable: bool,
    pub(super) set_mtime: bool,
    pub(super) resume: bool,
    pub(super) digests: Vec<Digest>,
}

/// Builds a [`FileSink`].
#[derive(Debug)]
pub struct FileSinkBuilder(Options);

impl FileSinkBuilder {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(Options {
            dir,
            name: Name::Source,
            expect: None,
            journal: None,
            if_exists: IfExists::Fail,
            durable: false,
            set_mtime: true,
            resume: true,
            digests: Vec::new(),
        })
    }

    /// The final name of the only file, as the user gave it: one name, of at most [`MAX_NAME`](crate::MAX_NAME) bytes.
    /// It may be hidden, begin with a dash or be no UTF-8. A second file is then an error.
    pub fn name(mut self, name: impl Into<OsString>) -> Self {
        self.0.name = Name::User(name.into());
        self
    }

    /// The final path of the only file below the folder; missing folders are made. A second file is then an error.
    pub fn path(mut self, path: RelPath) -> Self {
        self.0.name = Name::Below(path);
        self
    }

    /// A guess of the name that the source will choose, made before anything was asked: it lets the journal of an
    /// earlier run be found before the first request. A wrong guess does no harm. It goes through
    /// [`RelPath::from_server`].
    pub fn expect_name(mut self, name: &str) -> Self {
        self.0.expect = Some(RelPath::from_server(name));
        self
    }

    /// The name of the journal of a download of many files, in the folder itself. Without it the journal stands beside
    /// the first file's partial.
    pub fn journal_name(mut self, name: impl Into<OsString>) -> Self {
        self.0.journal = Some(name.into());
        self
    }

    /// What to do when the final name is taken; [`IfExists::Fail`] unless said.
    pub fn if_exists(mut self, what: IfExists) -> Self {
        self.0.if_exists = what;
        self
    }

    /// Whether a commit waits until the file and its name would survive a power cut. Off unless said.
    pub fn durable(mut self, durable: bool) -> Self {
        self.0.durable = durable;
        self
    }

    /// Whether files get the modification time that their source gives. On unless said.
    pub fn set_mtime(mut self, set: bool) -> Self {
        self.0.set_mtime = set;
        self
    }

    /// Whether to go on from what an earlier run left. On unless said; off, a partial and its journal are forgotten.
    pub fn resume(mut self, resume: bool) -> Self {
        self.0.resume = resume;
        self
    }

    /// Digests of the file. A finished file of the final name that has all of them needs no transfer; with none, one
    /// that has the source's length and modification time (to the second).
    pub fn digests(mut self, digests: Vec<Digest>) -> Self {
        self.0.digests = digests;
        self
    }

    /// The sink. Touches no file yet.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a name that cannot work.
    pub fn build(self) -> Result<Arc<FileSink>> {
        if let Name::User(n) = &self.0.name {
            names::check(n)?;
        }
        if let Some(j) = &self.0.journal
            && (j.is_empty() || j.len() > 255 || j.as_encoded_bytes().iter().any(|b| matches!(b, b'/' | 0)))
        {
            return Err(Error::new(Kind::Invalid, "use the journal's name")
                .on(j.display())
                .because("it is no file name"));
        }
        Ok(Arc::new(FileSink::new(self.0)))
    }
}
