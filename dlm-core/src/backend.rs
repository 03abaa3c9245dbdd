//! A backend: one protocol. It recognises locators and turns each into discoveries.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::error::{Error, Kind, Result};
use crate::locator::Locator;
use crate::object::{Evidence, FileId, FileSpec, Identity, ObjectId, ObjectSpec, Role, Target, Trust};
use crate::range::Body;
use crate::source::{Caps, Source};

/// What is known of a locator before anybody opened it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Hint<'a> {
    /// The locator.
    pub locator: &'a Locator,
}

impl<'a> Hint<'a> {
    /// Only a locator.
    pub const fn new(locator: &'a Locator) -> Self {
        Self { locator }
    }
}

/// How sure a backend is that a locator is its own. The surest backend gets it; of two that are equally sure, the one
/// that was added first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Accept {
    /// Not mine.
    No,
    /// I can fetch it, but somebody may know it better (an `https:` address that ends in `.torrent`).
    Carrier,
    /// Mine.
    Yes,
}

/// What is handed to [`Backend::resolve`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum From {
    /// Something to look up.
    Locator(Locator),
}

/// One source that has one object.
#[derive(Debug)]
#[non_exhaustive]
pub struct Binding {
    /// Who. A backend returns the same `Arc` for the same origin.
    pub source: Arc<dyn Source>,
    /// Where there.
    pub target: Target,
    /// What it can do.
    pub caps: Caps,
    /// Which version it has.
    pub identity: Identity,
    /// The answer that told us all this, still open, so that it is used and not thrown away.
    pub first: Option<Body>,
}

impl Binding {
    /// A binding that was found without opening the object.
    pub fn new(source: Arc<dyn Source>, target: Target, caps: Caps, identity: Identity) -> Self {
        Self { source, target, caps, identity, first: None }
    }
    /// The same, with the answer that told it.
    pub fn with_first(mut self, first: Body) -> Self {
        self.first = Some(first);
        self
    }
}

/// What resolving finds, one at a time, in an order in which each names only what was found before it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Discovery {
    /// An object.
    Object(ObjectSpec),
    /// A name for a range of an object.
    File(FileSpec),
    /// Somebody who has an object.
    Bind(Binding),
    /// What says how an object's bytes should be.
    Evidence {
        /// Which object.
        object: ObjectId,
        /// What it says.
        what: Evidence,
        /// Who says it.
        trust: Trust,
    },
    /// Another locator to resolve, by whichever backend serves it.
    Follow {
        /// Which.
        locator: Locator,
        /// What it means for this job.
        role: Role,
        /// Preference among sources of the same bytes: lower first.
        rank: u32,
    },
}

/// Discoveries as they are made. Dropping it stops the search.
pub type DiscoveryStream = Pin<Box<dyn Stream<Item = Result<Discovery>> + Send>>;

/// One protocol.
///
/// A backend is passed to an engine by value; there is no global list. Everything that the backends of this
/// project use is public, so one can be written elsewhere: see the crate `dlm-testkit` for the tests it should pass.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// A short name: "http".
    fn name(&self) -> &'static str;

    /// Whether this locator is one of ours, by its scheme or its ending. Pure and quick: every
    /// backend is asked for every locator.
    fn accepts(&self, hint: &Hint<'_>) -> Accept;

    /// Finds out what `from` is. HTTP makes its first request here, and hands its body on as
    /// [`Binding::first`].
    ///
    /// An object comes before its file, its binding, and then its evidence: whoever was bound last in the stream is the
    /// author of what is claimed, and a claim without one judges nobody.
    ///
    /// **Cancellation.** May be dropped at any await, and the stream after any item; requests are then given up.
    /// **Bounds.** Every wait has a time limit, [`Cx::timeouts`]. Discoveries are made as they are asked for: an
    /// implementation holds no list without a bound.
    ///
    /// # Errors
    /// Nothing can be found. One entry among many failing is an error *in* the stream.
    async fn resolve(&self, from: From, cx: &Cx) -> Result<DiscoveryStream>;
}

/// Time limits of one job, applied by every source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For name lookup, connecting and TLS together.
    pub connect: Duration,
    /// For the head of an answer, and between two arrivals of bytes; not for the whole of an answer.
    pub idle: Duration,
}

impl Timeouts {
    /// Both limits.
    pub const fn new(connect: Duration, idle: Duration) -> Self {
        Self { connect, idle }
    }
}

impl Default for Timeouts {
    /// 20 s to connect, 30 s of silence: bad networks are slow, not dead.
    fn default() -> Self {
        Self::new(Duration::from_secs(20), Duration::from_secs(30))
    }
}

/// Options of one job that only a backend understands, by type: a header list for HTTP, an endpoint for S3.
#[derive(Clone, Default)]
pub struct Options(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Options {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets the options of type `T`; earlier ones of that type are gone.
    pub fn insert<T: Any + Send + Sync>(&mut self, options: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(options));
    }
    /// The options of type `T`.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned().and_then(|a| a.downcast().ok())
    }
}

impl Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may hold secrets.
        write!(f, "Options({})", self.0.len())
    }
}

/// Where a first request should start, so that a resumed job does not fetch its beginning again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeHint {
    /// The first byte that is missing.
    pub at: u64,
    /// Which version the bytes we hold belong to.
    pub identity: Identity,
}

type Fetch = dyn Fn(Locator, usize) -> Pin<Box<dyn Future<Output = Result<Bytes>> + Send>> + Send + Sync;

/// The job around a backend's call: numbers for new things, limits, options, and other backends' documents.
#[derive(Clone)]
pub struct Cx {
    pub(crate) ids: Arc<Ids>,
    role: Role,
    rank: u32,
    timeouts: Timeouts,
    options: Arc<Options>,
    origin: Option<Locator>,
    resume: Option<ResumeHint>,
    fetch: Option<Arc<Fetch>>,
}

#[derive(Debug, Default)]
pub(crate) struct Ids {
    object: AtomicU32,
    file: AtomicU32,
}

impl Cx {
    /// A context for one job, by itself: what a test, or a program that calls a backend without an engine, needs.
    pub fn new() -> Self {
        Self {
            ids: Arc::default(),
            role: Role::Download,
            rank: 0,
            timeouts: Timeouts::default(),
            options: Arc::default(),
            origin: None,
            resume: None,
            fetch: None,
        }
    }
    /// The same job, resolving something that plays another role.
    pub fn with_role(mut self, role: Role, rank: u32) -> Self {
        self.role = role;
        self.rank = rank;
        self
    }
    /// The same job with other time limits.
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }
    /// The same job with options for its backends.
    pub fn with_options(mut self, options: Arc<Options>) -> Self {
        self.options = options;
        self
    }
    /// The same job, saying which locator the user named: options that carry secrets belong to its origin alone.
    pub fn with_origin(mut self, origin: Locator) -> Self {
        self.origin = Some(origin);
        self
    }
    /// The same job, resumed.
    pub fn with_resume(mut self, resume: Option<ResumeHint>) -> Self {
        self.resume = resume;
        self
    }
    /// The same job, with a way to fetch small documents through other backends: called with a locator and the most
    /// bytes that the document may have. Its future may be dropped at any await; its errors are those of
    /// [`fetch`](Self::fetch).
    pub fn with_fetch<F, R>(mut self, fetch: F) -> Self
    where
        F: Fn(Locator, usize) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Bytes>> + Send + 'static,
    {
        self.fetch = Some(Arc::new(move |l, n| Box::pin(fetch(l, n))));
        self
    }

    /// A number for an object that was found; never given twice in one job.
    pub fn new_object(&self) -> ObjectId {
        ObjectId(self.ids.object.fetch_add(1, Ordering::Relaxed))
    }
    /// A number for a file that was found; never given twice in one job.
    pub fn new_file(&self) -> FileId {
        FileId(self.ids.file.fetch_add(1, Ordering::Relaxed))
    }
    /// What the locator being resolved means for the job.
    pub fn role(&self) -> &Role {
        &self.role
    }
    /// The preference that bindings found here should have ([`Target::rank`]): lower first.
    pub fn rank(&self) -> u32 {
        self.rank
    }
    /// Time limits.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }
    /// The options of type `T` that the caller gave this job.
    pub fn options<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.options.get()
    }
    /// The locator that the user named, whose origin alone may see the user's secrets.
    pub fn origin(&self) -> Option<&Locator> {
        self.origin.as_ref()
    }
    /// Where the first request should start.
    pub fn resume(&self) -> Option<&ResumeHint> {
        self.resume.as_ref()
    }
    /// Fetches a small document of at most `max` bytes, through whichever backend serves its scheme.
    ///
    /// **Cancellation.** May be dropped at any await: the answer is dropped with it, and nothing is kept. **Bounds.**
    /// Holds `max` bytes and one chunk; nothing coming for 30 s ends it, a document that comes slowly does not. It is
    /// tried once.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where there is no engine behind this context, no backend for the scheme, or no document
    /// there; [`Kind::Invalid`] where it is longer than `max`; [`Kind::Timeout`] after 30 s of silence; otherwise what
    /// that backend says.
    pub async fn fetch(&self, locator: &Locator, max: usize) -> Result<Bytes> {
        match &self.fetch {
            Some(f) => f(locator.clone(), max).await,
            None => Err(Error::new(Kind::Unsupported, "fetch")
                .on(locator)
                .because("there is no engine behind this call")),
        }
    }
}

impl Default for Cx {
    fn default() -> Self {
        Self::new()
    }
}

impl Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx")
            .field("role", &self.role)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}
