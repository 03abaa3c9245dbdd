//! A backend for dlm, outside its workspace: `pattern://LEN/SEED` is a file of `LEN` bytes that are made from `SEED`.
//!
//! It is what a backend for a real protocol looks like, without the protocol. [`PatternBackend`] recognises locators and
//! says what is there (one object, one file, one binding). [`Generator`] opens ranges, which is all that it has to do:
//! [`Ranged`] makes a source of it, with workers, retries, resume in mid-stream and identity checks.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> dlm_core::Result<()> {
//! use std::sync::Arc;
//! use dlm_core::{Engine, JobSpec, MemoryJournal, MemorySink};
//! use dlm_pattern::{PatternBackend, pattern};
//!
//! let engine = Engine::builder().backend(PatternBackend::new()).build();
//! let sink = MemorySink::new();
//! let spec = JobSpec::new("pattern://1000/7".parse()?);
//! engine.start(spec, Arc::new(sink.clone()), Arc::new(MemoryJournal::new())).await?;
//! assert_eq!(sink.file("pattern-1000-7.bin"), Some(pattern(7, 0..1000)));
//! # Ok(()) }
//! ```

mod generate;
mod place;

use std::sync::Arc;

use async_trait::async_trait;
use dlm_core::{
    Accept, Backend, Binding, Body, Caps, Cx, Discovery, DiscoveryStream, Error, FileSpec, From, Hint,
    Identity, Kind, ObjectSpec, RangeSource, Ranged, RelPath, Result, Role, SourceInfo, Span, Target,
};
use futures_util::stream;

use place::Place;

pub use generate::pattern;

/// The scheme, and the name of the backend.
const NAME: &str = "pattern";

/// Serves `pattern:` locators. A clone is the same backend.
#[derive(Debug, Clone)]
pub struct PatternBackend {
    /// One source for all of them, as one HTTP origin serves many files: the engine shares limits by source.
    source: Arc<Ranged<Generator>>,
}

impl PatternBackend {
    /// The backend.
    pub fn new() -> Self {
        Self { source: Arc::new(Ranged::new(Generator)) }
    }
}

impl Default for PatternBackend {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Backend for PatternBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn accepts(&self, hint: &Hint<'_>) -> Accept {
        if hint.locator.scheme() == NAME { Accept::Yes } else { Accept::No }
    }

    async fn resolve(&self, from: From, cx: &Cx) -> Result<DiscoveryStream> {
        let From::Locator(locator) = from else {
            return Err(
                Error::new(Kind::Unsupported, "read the document").because("a pattern is no document")
            );
        };
        let place = Place::of(&locator)?;
        let mut found = Vec::with_capacity(3);
        let target = match cx.role() {
            // Another source of bytes that the job knows already: nothing new but the binding.
            Role::SameBytes { object, window } => Target::new(*object, locator).window(*window),
            _ => {
                let object = cx.new_object();
                found.push(Ok(Discovery::Object(ObjectSpec::new(object, "", Some(place.len)))));
                let path = RelPath::name(&place.file_name())?;
                found.push(Ok(Discovery::File(FileSpec::whole(
                    cx.new_file(),
                    path,
                    object,
                    Some(place.len),
                ))));
                Target::new(object, locator)
            }
        };
        let binding =
            Binding::new(self.source.clone(), target.rank(cx.rank()), Caps::RANGES, place.identity());
        found.push(Ok(Discovery::Bind(binding)));
        Ok(Box::pin(stream::iter(found)))
    }
}

/// Opens ranges of patterns.
#[derive(Debug, Clone, Copy)]
pub struct Generator;

#[async_trait]
impl RangeSource for Generator {
    fn info(&self) -> SourceInfo {
        SourceInfo::new(NAME, NAME, "the pattern generator")
    }

    async fn open(&self, target: &Target, want: Span, held: &Identity, _: &Cx) -> Result<Body> {
        let place = Place::of(&target.remote)?;
        let identity = place.identity();
        // A server would be asked to compare (`If-Range`); the caller compares what we say once more.
        if !held.agrees(&identity) && *held != Identity::UNKNOWN {
            return Err(Error::new(Kind::Changed, "open")
                .on(&target.remote)
                .because("it is another pattern"));
        }
        let whole = Span::new(target.window.start, target.window.start.saturating_add(place.len));
        let at = want.intersect(&target.window).intersect(&whole);
        if at.is_empty() {
            return Err(Error::new(Kind::Invalid, "open").on(&target.remote).because("nothing is there"));
        }
        let first = target.remote_offset(at.start);
        let remote = first..first + at.len().unwrap_or(0);
        Ok(Body::new(at, identity, Box::pin(generate::stream(place.seed, remote))))
    }
}
