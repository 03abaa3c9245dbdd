//! Where the bytes of one download go, and what is remembered of it.

use std::path::PathBuf;
use std::sync::Arc;

use dlm_core::{FileId, FileSink, Journal, MemoryJournal, Result, Sink, StreamSink, escape};

use crate::flags;
use crate::meant::{Download, Place};
use crate::stdout;

/// A sink with its journal.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) journal: Arc<dyn Journal>,
    files: Option<Arc<FileSink>>,
    named_by_source: bool,
}

impl Output {
    /// Opens no file yet: that happens when the engine prepares them.
    ///
    /// # Errors
    /// Standard output takes no bytes.
    pub(crate) fn new(download: &Download) -> Result<Self> {
        let (dir, name, guess) = match &download.place {
            Place::Stdout => {
                let sink = Arc::new(StreamSink::new(stdout::sink()?));
                return Ok(Self {
                    sink,
                    journal: Arc::new(MemoryJournal::new()),
                    files: None,
                    named_by_source: false,
                });
            }
            Place::File { dir, name } => (dir, Some(name), None),
            Place::Folder { dir, guess } => (dir, None, Some(guess)),
        };
        let spec = &download.spec;
        let mut files = FileSink::builder(dir)
            .if_exists(if_exists(download.keep.if_exists))
            .durable(spec.durable)
            .set_mtime(download.keep.mtime)
            .resume(spec.resume)
            .digests(spec.digests.iter().map(|d| d.0.clone()).collect());
        if let Some(name) = name {
            files = files.name(name.clone());
        }
        if let Some(guess) = guess {
            files = files.expect_name(guess);
        }
        let files = files.build()?;
        let named_by_source = name.is_none();
        Ok(Self {
            sink: Arc::clone(&files) as _,
            journal: files.journal(),
            files: Some(files),
            named_by_source,
        })
    }

    /// Whether the source chooses the name.
    pub(crate) fn is_named_by_source(&self) -> bool {
        self.named_by_source
    }

    /// Where a file is, or will be, as a person would write it; escaped. `None` while that is not settled.
    pub(crate) fn name_of(&self, file: FileId) -> Option<String> {
        let path: PathBuf = self.files.as_ref()?.path(file)?;
        let path = path.strip_prefix(".").unwrap_or(&path);
        Some(escape(&path.to_string_lossy()))
    }
}

fn if_exists(typed: flags::IfExists) -> dlm_core::IfExists {
    match typed {
        flags::IfExists::Fail => dlm_core::IfExists::Fail,
        flags::IfExists::Skip => dlm_core::IfExists::Skip,
        flags::IfExists::Overwrite => dlm_core::IfExists::Overwrite,
        flags::IfExists::Rename => dlm_core::IfExists::Rename,
    }
}
