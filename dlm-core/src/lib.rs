//! The engine of dlm, without any protocol.
//!
//! Bytes have four owners of meaning. An **object** is where bytes have *identity*: one immutable byte string. A
//! **file** is where bytes have a *name*. A **piece** is where bytes have *proof*. A **lease** is where bytes have an
//! *owner*. Sources are not told what to fetch; they *ask* for work within their own limits and get leases from one
//! ledger a job. That makes HTTP ranges, FTP streams, torrents and hash trees equals on one object.
//!
//! A program adds backends to an [`Engine`], gives it a [`JobSpec`], a [`Sink`] and a [`Journal`], and gets a
//! [`JobHandle`]. Nothing here is global: two engines live in one process without knowing of each other.

mod backend;
mod budget;
mod digest;
mod drive;
mod engine;
mod error;
mod event;
mod job;
mod journal;
mod ledger;
mod locator;
mod object;
mod origin;
mod path;
mod range;
mod ranged;
mod registry;
mod retry;
mod sched;
mod select;
mod sink;
mod source;
mod throttle;
mod verify;

pub use backend::{
    Accept, Backend, Binding, Cx, Discovery, DiscoveryStream, From, Hint, Options, ResumeHint, Timeouts,
};
pub use digest::{Algorithm, Digest, Hasher};
pub use engine::{Engine, EngineBuilder, Events, JobHandle};
pub use error::{Error, Fault, Kind, Result, Retry, escape};
pub use event::{Event, EventKind, JobState, Snapshot, VerifiedBy};
pub use job::{DigestKey, FileDone, JobSpec, Outcome, SourceReport};
pub use journal::{Checkpoint, Claim, Journal, MemoryJournal, Record, Saved, SavedObject, SidecarJournal};
pub use ledger::{
    Ask, BindingView, Board, Claim as WorkClaim, Discovering, Lease, LeaseView, Limits, News, NewsItem, Next,
    ObjectView, Put, RangeSet, Work, WorkBench,
};
pub use locator::Locator;
pub use object::{
    BindingId, Evidence, FileId, FileKind, FileSpec, Identity, JobId, LeaseId, ObjectId, ObjectSpec, PartyId,
    Role, SourceId, Span, Target, Trust, Validator,
};
pub use path::{MAX_NAME, RelPath};
pub use range::{Body, ByteStream, RangeSource};
pub use ranged::Ranged;
pub use registry::Registry;
pub use retry::Backoff;
pub use sched::{Adaptive, Asker, BoardEvent, Grant, Order, Ordered, Scheduler};
pub use select::{Selection, Want};
pub use sink::{
    Batch, FileSink, FileSinkBuilder, IfExists, Keep, MemorySink, Order as SinkOrder, Prepared, Sink,
    SinkCaps, StreamSink,
};
pub use source::{AbortCost, Caps, Exit, Seek, Source, SourceInfo};
pub use verify::{FixedPieces, Piece, PieceHasher, Proof, VariablePieces, Verdict};
