//! What a person should know of an answer although nothing failed.

use std::fmt;
use std::sync::Arc;

use dlm_core::Locator;

/// Something to know about an answer that is used all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The server packed the file, though nothing packed was asked for. It is kept as it came: nothing that is saved is
    /// ever unpacked, because what belongs to the file and what to its transport cannot be told apart.
    Packed {
        /// Where.
        at: Locator,
        /// How the server says it packed it, such as `gzip`; several in their order with commas between. From outside.
        coding: String,
        /// The file's name says so too (`a.tar.gz`): most likely it is meant to be like that.
        expected: bool,
    },
}

impl Notice {
    /// For a file of this name under these codings.
    pub(crate) fn packed(at: &Locator, coding: String, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let endings: &[&str] = match coding.as_str() {
            "gzip" | "x-gzip" => &[".gz", ".tgz", ".svgz", ".taz", ".emz"],
            "compress" | "x-compress" => &[".z", ".taz"],
            "bzip2" | "x-bzip2" => &[".bz2", ".tbz", ".tbz2"],
            "xz" | "x-xz" => &[".xz", ".txz"],
            "br" => &[".br"],
            "zstd" => &[".zst", ".tzst"],
            _ => &[],
        };
        Self::Packed { at: at.clone(), coding, expected: endings.iter().any(|e| name.ends_with(e)) }
    }
}

/// Whom notices are told to.
#[derive(Clone)]
pub(crate) struct Told(Arc<dyn Fn(&Notice) + Send + Sync>);

impl Told {
    pub(crate) fn new(tell: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
    pub(crate) fn tell(&self, notice: &Notice) {
        (self.0)(notice);
    }
}

impl Default for Told {
    /// Nobody.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}
