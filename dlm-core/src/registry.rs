//! The backends of one engine: an explicit list.

use std::sync::Arc;

use crate::backend::{Accept, Backend, Hint};
use crate::error::{Error, Kind, Result};
use crate::locator::Locator;

/// Backends, asked in the order in which they were added; the surest gets the locator.
#[derive(Debug, Clone, Default)]
pub struct Registry(Vec<Arc<dyn Backend>>);

impl Registry {
    /// None.
    pub const fn new() -> Self {
        Self(Vec::new())
    }
    /// Adds one.
    pub fn add(&mut self, backend: Arc<dyn Backend>) {
        self.0.push(backend);
    }
    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|b| b.name())
    }
    /// The backend that is surest of what `hint` shows.
    ///
    /// # Errors
    /// [`Kind::Unsupported`]: none takes it.
    pub fn find(&self, hint: &Hint<'_>) -> Result<Arc<dyn Backend>> {
        let mut best: Option<(Accept, &Arc<dyn Backend>)> = None;
        for b in &self.0 {
            let sure = b.accepts(hint);
            if sure != Accept::No && best.is_none_or(|(s, _)| sure > s) {
                best = Some((sure, b));
            }
        }
        best.map(|(_, b)| b.clone()).ok_or_else(|| self.unsupported(hint.locator))
    }

    fn unsupported(&self, locator: &Locator) -> Error {
        let names: Vec<_> = self.names().collect();
        Error::new(Kind::Unsupported, "download")
            .on(locator)
            .because(format_args!("no backend of this build serves {}:", locator.scheme()))
            .advise(format!("this build has: {}", names.join(", ")))
    }
}
