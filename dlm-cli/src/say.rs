//! The one place that writes to standard error.

use std::io::Write as _;
use std::sync::Arc;

use dlm_core::{Error, escape};

use crate::progress::Screen;
use crate::report;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// `-q`: errors only.
    Quiet,
    /// Errors, warnings, a line for each file.
    Normal,
    /// `-v`: causes, retries.
    Verbose,
    /// `-vv`: each event.
    Events,
}

/// Says things, a line each, without disturbing the progress display.
#[derive(Debug, Clone)]
pub(crate) struct Say {
    level: Level,
    screen: Option<Arc<Screen>>,
}

impl Say {
    /// On standard error, past `screen` where something is drawn.
    pub(crate) fn new(level: Level, screen: Option<Arc<Screen>>) -> Self {
        Self { level, screen }
    }

    /// The display that lines have to go around.
    pub(crate) fn screen(&self) -> Option<&Arc<Screen>> {
        self.screen.as_ref()
    }

    /// An error and what can be done; with `-v` the causes below it.
    pub(crate) fn error(&self, e: &Error) {
        self.put(&report::line(e));
        if self.level >= Level::Verbose {
            let mut below = std::error::Error::source(e);
            // A chain is short; the bound is for one that bites its own tail.
            for _ in 0..16 {
                let Some(cause) = below else { break };
                self.put(&format!("  because: {}", escape(&cause.to_string())));
                below = cause.source();
            }
        }
    }

    /// Something that is said also with `-q`.
    pub(crate) fn alarm(&self, line: &str) {
        self.put(&format!("dlm: {line}"));
    }

    /// Something that a person should know, from `level` on.
    pub(crate) fn note(&self, level: Level, line: &str) {
        if self.level >= level {
            self.put(&format!("dlm: {line}"));
        }
    }

    /// The last line of a download.
    pub(crate) fn done(&self, line: &str) {
        if self.level >= Level::Normal {
            self.put(line);
        }
    }

    fn put(&self, line: &str) {
        // One write a line, so that lines of several processes do not mix. When standard error is gone there is
        // nobody left to tell.
        let write = || {
            let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
        };
        match &self.screen {
            Some(screen) => screen.around(write),
            None => write(),
        }
    }
}
