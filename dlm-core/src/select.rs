//! Which files of a job are wanted, and how urgently.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::object::{FileId, FileSpec};

/// Whether a file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Want {
    /// It is not put in place, and nothing is fetched for its own sake.
    Skip,
    /// It is fetched, the higher this number the sooner; equal ones as the policy likes.
    Fetch(i32),
}

impl Want {
    /// Fetched in its turn, as every file is unless something else is said.
    pub const NORMAL: Self = Self::Fetch(0);
}

type Rule = dyn Fn(&FileSpec) -> Want + Send + Sync;

/// Which files of a job are wanted: a rule for all of them, and exceptions by number.
///
/// ```
/// use dlm_core::{FileId, Selection, Want};
/// // Only videos; of all others the file with number 7, and that one first.
/// let some = Selection::by(|f| match f.path.file_name().ends_with(".mkv") {
///     true => Want::NORMAL,
///     false => Want::Skip,
/// })
/// .file(FileId(7), Want::Fetch(1));
/// let spec = dlm_core::JobSpec::new("https://host/".parse().unwrap()).select(some);
/// # let _ = spec;
/// ```
#[derive(Clone, Default)]
pub struct Selection {
    rule: Option<Arc<Rule>>,
    files: BTreeMap<FileId, Want>,
}

impl Selection {
    /// Every file.
    pub fn all() -> Self {
        Self::default()
    }
    /// No file but those that are added by [`file`](Self::file).
    pub fn none() -> Self {
        Self::by(|_| Want::Skip)
    }
    /// What a rule says. It is asked once for each file when that is found, on the job's own task: it must not block.
    pub fn by(rule: impl Fn(&FileSpec) -> Want + Send + Sync + 'static) -> Self {
        Self { rule: Some(Arc::new(rule)), files: BTreeMap::new() }
    }
    /// The same, but this file is wanted like that, whatever the rule says. Files are numbered in the order in which they
    /// are found, from 0 on.
    pub fn file(mut self, file: FileId, want: Want) -> Self {
        self.files.insert(file, want);
        self
    }
    /// Whether this file is wanted.
    pub fn of(&self, file: &FileSpec) -> Want {
        let ruled = || self.rule.as_ref().map_or(Want::NORMAL, |r| r(file));
        self.files.get(&file.id).copied().unwrap_or_else(ruled)
    }
    /// Changes what was said of a file.
    pub(crate) fn set(&mut self, file: FileId, want: Want) {
        self.files.insert(file, want);
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selection")
            .field("by_rule", &self.rule.is_some())
            .field("files", &self.files)
            .finish()
    }
}
