//! The short form of a source: "give me this range".

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;

use crate::backend::Cx;
use crate::error::Result;
use crate::object::{Identity, Span, Target};
use crate::source::SourceInfo;

/// A stream of bytes in order. An error ends it.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// One answer of a source: what it really sends, not what was asked.
#[non_exhaustive]
pub struct Body {
    /// Which of the *object's* bytes the stream holds, by the answer's own account. It may begin before what was
    /// asked, or go on after it; the ledger takes what is wanted. `end: None` when the answer does not say.
    pub at: Span,
    /// Which object this answer speaks of.
    pub identity: Identity,
    /// The bytes. When it ends without an error and `at.end` is `None`, the object ends there.
    pub stream: ByteStream,
}

impl Body {
    /// All three parts.
    pub fn new(at: Span, identity: Identity, stream: ByteStream) -> Self {
        Self { at, identity, stream }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("at", &self.at).field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// What nearly every backend implements: two methods.
///
/// Wrapped in [`Ranged`](crate::Ranged) it is a [`Source`](crate::Source).
#[async_trait]
pub trait RangeSource: fmt::Debug + Send + Sync + 'static {
    /// Who this is. Two sources with one `key` share limits.
    fn info(&self) -> SourceInfo;

    /// Opens `want` of the target's object. The source should ask for no more than `want`, and should make the
    /// far side compare `held` (`If-Range` and the like) so that a changed object is not answered with a range.
    ///
    /// The answer is checked by the caller: `Body::identity` against `held`, `Body::at` against `want`.
    ///
    /// **Cancellation.** May be dropped at any await, and so may the stream. **Bounds.** Every wait inside has a
    /// time limit ([`Cx::timeouts`]); the stream's own idle time is watched by the caller.
    ///
    /// # Errors
    /// Classified by [`Kind`](crate::Kind) and [`Retry`](crate::Retry) at this edge: nobody looks deeper.
    async fn open(&self, target: &Target, want: Span, held: &Identity, cx: &Cx) -> Result<Body>;
}
