//! What there is to fetch: objects, files, targets, identities, digests.
//!
//! An **object** is where bytes have *identity*: one immutable byte string. A **file** is where bytes have a *name*.
//! A **piece** is where bytes have *proof* ([`Proof`](crate::Proof)). A **lease** is where bytes have an *owner*
//! ([`Lease`](crate::Lease)). One torrent is one object over many files; a folder of an FTP server is many objects
//! with a file each. Offsets are always offsets into an object, in bytes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use crate::digest::Digest;
use crate::path::RelPath;
use crate::verify::Proof;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }
    };
}

id! {
    /// An object within its job.
    ObjectId(u32)
}
id! {
    /// A file within its job.
    FileId(u32)
}
id! {
    /// A (source, object) pair within its job.
    BindingId(u32)
}
id! {
    /// A source within its job.
    SourceId(u32)
}
id! {
    /// One peer, gateway or connection of a source: the unit of blame, within its job.
    PartyId(u32)
}
id! {
    /// A lease within its job; never used twice.
    LeaseId(u64)
}
id! {
    /// A job within its engine; never used twice.
    JobId(u64)
}

/// A stretch of an object that may have no known end.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// One past the last byte; `None`: to the end of the object, wherever that is.
    pub end: Option<u64>,
}

impl Span {
    /// All of an object.
    pub const ALL: Self = Self { start: 0, end: None };

    /// From `start` to wherever the object ends.
    pub const fn from(start: u64) -> Self {
        Self { start, end: None }
    }
    /// `start..end`; an `end` before `start` makes it empty.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end: Some(if end < start { start } else { end }) }
    }
    /// Its length in bytes, when it has a known end.
    pub fn len(&self) -> Option<u64> {
        self.end.map(|e| e.saturating_sub(self.start))
    }
    /// Whether it is known to hold no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
    /// Whether it holds byte `at`.
    pub fn contains(&self, at: u64) -> bool {
        at >= self.start && self.end.is_none_or(|e| at < e)
    }
    /// With `u64::MAX` standing for the unknown end.
    pub fn to_range(self) -> Range<u64> {
        self.start..self.end.unwrap_or(u64::MAX)
    }
    /// What both hold; empty when that is nothing.
    pub fn intersect(&self, other: &Self) -> Self {
        let start = self.start.max(other.start);
        let end = match (self.end, other.end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { start, end: end.map(|e| e.max(start)) }
    }
}

impl From<Range<u64>> for Span {
    fn from(r: Range<u64>) -> Self {
        Self::new(r.start, r.end)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            Some(e) => write!(f, "{}..{}", self.start, e),
            None => write!(f, "{}..", self.start),
        }
    }
}

/// What tells one version of an object from another, as one source reports it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Validator {
    /// Equal values mean equal bytes: a strong entity tag (RFC 9110, 8.8.3), a version id.
    Strong(Arc<str>),
    /// Equal values make equal bytes likely: a modification time, a weak entity tag.
    Weak {
        /// Seconds since 1970.
        mtime: Option<u64>,
        /// A weak entity tag.
        tag: Option<Arc<str>>,
    },
    /// The name itself is a digest of the bytes (info-hash, CID).
    ContentAddressed,
    /// The source says nothing.
    Unknown,
}

impl Validator {
    /// Whether equal values are enough to put bytes of two answers together.
    pub fn is_strong(&self) -> bool {
        matches!(self, Self::Strong(_) | Self::ContentAddressed)
    }
}

/// The length and version of an object, as one answer of one source reports them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Length in bytes, when it is known.
    pub len: Option<u64>,
    /// Which version.
    pub validator: Validator,
}

impl Identity {
    /// Nothing is known yet.
    pub const UNKNOWN: Self = Self { len: None, validator: Validator::Unknown };

    /// An identity of both parts.
    pub const fn new(len: Option<u64>, validator: Validator) -> Self {
        Self { len, validator }
    }

    /// Whether an answer with identity `seen` may continue an object that has this one.
    ///
    /// Lengths must be equal where both are known. Validators must be of one kind and equal: a strong one in its
    /// value, a weak one in both of its parts. A part that one side knows and the other does not (a tag that was there
    /// and is missing now, or the reverse) is a doubt, and a doubt is a change: the answer may come from another
    /// machine with another file. Two content-addressed ones agree, because the name stands for the bytes; and so do
    /// two sides that say nothing, because that contradicts nothing.
    ///
    /// Strong entity tags are compared as RFC 9110, 8.8.3.2 says; weak ones must be the same text too.
    pub fn agrees(&self, seen: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.len, seen.len)
            && a != b
        {
            return false;
        }
        match (&self.validator, &seen.validator) {
            (Validator::Strong(a), Validator::Strong(b)) => a == b,
            (Validator::Weak { mtime: m1, tag: t1 }, Validator::Weak { mtime: m2, tag: t2 }) => {
                m1 == m2 && t1 == t2
            }
            (Validator::ContentAddressed, Validator::ContentAddressed)
            | (Validator::Unknown, Validator::Unknown) => true,
            _ => false,
        }
    }
}

/// An object: one immutable byte string.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectSpec {
    /// Its number in the job, from [`Cx::new_object`](crate::Cx::new_object).
    pub id: ObjectId,
    /// A name that stays the same when the locator is resolved again, by which a journal finds it: a path below
    /// the locator, an info-hash. Empty for the only object of a locator.
    pub key: Arc<str>,
    /// Its length in bytes, when it is known.
    pub len: Option<u64>,
}

impl ObjectSpec {
    /// An object of a known or unknown length.
    pub fn new(id: ObjectId, key: impl Into<Arc<str>>, len: Option<u64>) -> Self {
        Self { id, key: key.into(), len }
    }
}

/// What a file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// Bytes of the object.
    Data,
    /// Padding: zeros that nobody needs to fetch (BEP 47).
    Zeros,
}

/// A file: a name for a range of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileSpec {
    /// Its number in the job, from [`Cx::new_file`](crate::Cx::new_file).
    pub id: FileId,
    /// Where it goes, below the place the caller chose.
    pub path: RelPath,
    /// Which object holds its bytes.
    pub object: ObjectId,
    /// Which of the object's bytes.
    pub range: Span,
    /// The file's length in bytes, when it is known.
    pub len: Option<u64>,
    /// What they are.
    pub kind: FileKind,
    /// When the source says it was last changed.
    pub mtime: Option<SystemTime>,
}

impl FileSpec {
    /// A file that is all of an object, of this length when it is known.
    pub fn whole(id: FileId, path: RelPath, object: ObjectId, len: Option<u64>) -> Self {
        Self { id, path, object, range: Span::ALL, len, kind: FileKind::Data, mtime: None }
    }
    /// The same, with a modification time.
    pub fn modified(mut self, mtime: Option<SystemTime>) -> Self {
        self.mtime = mtime;
        self
    }
    /// The same, but only a part of the object.
    pub fn part(mut self, range: Span) -> Self {
        self.range = range;
        self.len = range.len();
        self
    }
}

/// Where a source keeps an object.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Target {
    /// Which object.
    pub object: ObjectId,
    /// Which part of the object this source has.
    pub window: Span,
    /// The offset, in what the source calls the thing, of the window's first byte.
    pub remote_base: u64,
    /// What the source calls the thing. May hold secrets: never print it.
    pub remote: crate::Locator,
    /// Preference among bindings: lower first.
    pub rank: u32,
}

impl Target {
    /// All of `object`, under the name `remote`.
    pub fn new(object: ObjectId, remote: crate::Locator) -> Self {
        Self { object, window: Span::ALL, remote_base: 0, remote, rank: 0 }
    }
    /// The same thing, standing for `window` of the object.
    pub fn window(mut self, window: Span) -> Self {
        self.window = window;
        self
    }
    /// The same, tried later.
    pub fn rank(mut self, rank: u32) -> Self {
        self.rank = rank;
        self
    }
    /// The offset at the source of the object's byte `at`.
    pub fn remote_offset(&self, at: u64) -> u64 {
        at.saturating_sub(self.window.start).saturating_add(self.remote_base)
    }
}

/// What says how bytes should be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Evidence {
    /// A digest of the whole object.
    Digest(Digest),
    /// Digests of pieces of a part of the object.
    Pieces {
        /// Which part. Pieces that stick out of it cannot be judged.
        window: Span,
        /// How to judge them.
        proof: Arc<dyn Proof>,
    },
}

/// Who gave the evidence, and so whom it may convict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trust {
    /// The user: judges everybody.
    User,
    /// The locator itself (an info-hash, a CID, a Metalink the user named): judges everybody.
    Locator,
    /// A source claims it: judges that source's own bytes and no other's.
    Claimed,
}

/// What a locator that was found means for the job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// A download of its own.
    Download,
    /// Another source of the same bytes.
    SameBytes {
        /// The object it stands for.
        object: ObjectId,
        /// Which part of it.
        window: Span,
    },
}
