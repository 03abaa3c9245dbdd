//! The one error type of the engine: what went wrong, whose fault it is, and what can be done.
//!
//! A protocol error is classified in the file that saw it; nobody later digs through source chains.
//! [`Display`](std::fmt::Display) is one line for this level (what was tried, on what, what happened); the chain
//! is reached by [`std::error::Error::source`]. Every text is escaped when it is put in, so a hostile server
//! cannot reach a terminal or a log through an error.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The result of nearly everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who is to blame, and so who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The far side answered, and the answer is no.
    Source,
    /// The way to the far side is broken, or was cut.
    Network,
    /// Bytes are not what they should be.
    Integrity,
    /// The place where bytes are written.
    Sink,
    /// What the caller asked for cannot be done.
    Caller,
    /// A broken invariant of the engine itself.
    Engine,
}

/// What may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Retry {
    /// Nothing: the same call will fail again.
    Never,
    /// The same source, after a pause that grows.
    Backoff,
    /// The same source, not before this long (429 and 503 with `Retry-After`, FTP 421).
    After(Duration),
    /// Another source of the same bytes.
    Elsewhere,
}

/// What happened, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// There is no such thing at the source.
    NotFound,
    /// The source does not let us have it.
    Denied,
    /// The object is not the one it was when its first bytes came.
    Changed,
    /// A range was asked for and something else was sent.
    RangeIgnored,
    /// The source asks for patience.
    Throttled,
    /// Nothing came for longer than allowed.
    Timeout,
    /// The connection could not be made, or was cut, or ended early.
    Reset,
    /// The peer is not who it should be, or TLS failed.
    Tls,
    /// The answer makes no sense.
    Protocol,
    /// Bytes do not match their digest.
    Corrupt,
    /// The disk is full.
    NoSpace,
    /// Any other local input or output error.
    Io,
    /// The final name is taken.
    Exists,
    /// Somebody else is at it.
    Busy,
    /// No backend of this build can do it.
    Unsupported,
    /// The request itself is wrong.
    Invalid,
    /// Stopped because the caller said so.
    Cancelled,
    /// Stopped because the engine ends.
    Shutdown,
    /// A bug in dlm.
    Bug,
}

impl Kind {
    /// The fault that an error of this kind has unless it says otherwise.
    pub const fn fault(self) -> Fault {
        match self {
            Self::NotFound | Self::Denied | Self::RangeIgnored | Self::Throttled | Self::Protocol => {
                Fault::Source
            }
            Self::Timeout | Self::Reset | Self::Tls => Fault::Network,
            Self::Changed | Self::Corrupt => Fault::Integrity,
            Self::NoSpace | Self::Io | Self::Exists | Self::Busy => Fault::Sink,
            Self::Unsupported | Self::Invalid | Self::Cancelled => Fault::Caller,
            Self::Shutdown | Self::Bug => Fault::Engine,
        }
    }

    /// The advice that an error of this kind gives unless it says otherwise.
    pub const fn retry(self) -> Retry {
        match self {
            Self::Timeout | Self::Reset | Self::Throttled => Retry::Backoff,
            Self::NotFound
            | Self::Denied
            | Self::RangeIgnored
            | Self::Protocol
            | Self::Changed
            | Self::Corrupt
            | Self::Tls => Retry::Elsewhere,
            _ => Retry::Never,
        }
    }

    /// The kind's name as events, logs and JSON carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Changed => "changed",
            Self::RangeIgnored => "range_ignored",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Corrupt => "corrupt",
            Self::NoSpace => "no_space",
            Self::Io => "io",
            Self::Exists => "exists",
            Self::Busy => "busy",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::Cancelled => "cancelled",
            Self::Shutdown => "shutdown",
            Self::Bug => "bug",
        }
    }
}

type Cause = Arc<dyn std::error::Error + Send + Sync + 'static>;

#[derive(Clone)]
struct Inner {
    kind: Kind,
    fault: Fault,
    retry: Retry,
    op: Cow<'static, str>,
    subject: String,
    detail: String,
    advice: Cow<'static, str>,
    source: Option<Cause>,
}

/// What went wrong. One pointer wide; a clone is cheap.
///
/// ```
/// use dlm_core::{Error, Fault, Kind, Retry};
/// let e = Error::new(Kind::NotFound, "fetch").on("http://host/file").because("the server says 404");
/// assert_eq!(e.to_string(), "cannot fetch http://host/file: the server says 404");
/// assert_eq!((e.fault(), e.retry()), (Fault::Source, Retry::Elsewhere));
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

impl Error {
    /// An error of `kind` while doing `op` (a verb: "fetch", "open", "write").
    pub fn new(kind: Kind, op: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            fault: kind.fault(),
            retry: kind.retry(),
            op: op.into(),
            subject: String::new(),
            detail: String::new(),
            advice: Cow::Borrowed(""),
            source: None,
        }))
    }

    /// A local input or output error: its kind, and what a person can do about it.
    pub fn io(op: impl Into<Cow<'static, str>>, e: std::io::Error) -> Self {
        let (kind, advice) = local(&e);
        Self::new(kind, op).because(e.to_string()).advise(advice).caused_by(e)
    }

    fn edit(mut self, f: impl FnOnce(&mut Inner)) -> Self {
        f(Arc::make_mut(&mut self.0));
        self
    }

    /// What it was tried on. Pass a [`Locator`](crate::Locator) by its `Display`: that masks its secrets.
    pub fn on(self, subject: impl fmt::Display) -> Self {
        self.edit(|i| i.subject = escape(&subject.to_string()))
    }

    /// What happened, in words.
    pub fn because(self, detail: impl fmt::Display) -> Self {
        self.edit(|i| i.detail = escape(&detail.to_string()))
    }

    /// What a person can do about it.
    pub fn advise(self, advice: impl Into<Cow<'static, str>>) -> Self {
        self.edit(|i| i.advice = advice.into())
    }

    /// Says that it is somebody else's fault than the kind implies.
    pub fn with_fault(self, fault: Fault) -> Self {
        self.edit(|i| i.fault = fault)
    }

    /// Says that something else may help than the kind implies.
    pub fn with_retry(self, retry: Retry) -> Self {
        self.edit(|i| i.retry = retry)
    }

    /// Keeps the error below this one for [`std::error::Error::source`].
    pub fn caused_by(self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.edit(|i| i.source = Some(Arc::new(cause)))
    }

    /// What happened, in one word.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }
    /// Who is to blame.
    pub fn fault(&self) -> Fault {
        self.0.fault
    }
    /// What may help.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }
    /// The verb: what was tried.
    pub fn op(&self) -> &str {
        &self.0.op
    }
    /// On what, secrets masked; empty when it is not known.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }
    /// What happened, in words; may be empty.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }
    /// What a person can do; empty when there is nothing to say.
    pub fn advice(&self) -> &str {
        &self.0.advice
    }
}

/// What a local error is, and what helps against it.
fn local(e: &std::io::Error) -> (Kind, &'static str) {
    use std::io::ErrorKind as K;
    #[cfg(unix)]
    if let Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) = rustix::io::Errno::from_io_error(e) {
        return (Kind::Io, "allow more open files (ulimit -n), or use fewer connections at once");
    }
    match e.kind() {
        K::StorageFull | K::QuotaExceeded => {
            (Kind::NoSpace, "make room, then run the same command again: it goes on where it stopped")
        }
        K::FileTooLarge => (
            Kind::NoSpace,
            "allow larger files (ulimit -f), or choose a file system that holds them; the same command goes on where this one stopped",
        ),
        K::PermissionDenied | K::ReadOnlyFilesystem => (Kind::Io, "choose a folder that can be written"),
        K::IsADirectory => (Kind::Io, "a folder has that name: move it away, or choose another name"),
        K::NotADirectory => (Kind::Io, "a file stands where a folder should be: choose another folder"),
        K::NotFound => (Kind::Io, "check that the folder is there, and is not a link to nowhere"),
        K::InvalidFilename => (Kind::Io, "choose a shorter name"),
        _ => (Kind::Io, ""),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = &*self.0;
        write!(f, "cannot {}", i.op)?;
        if !i.subject.is_empty() {
            write!(f, " {}", i.subject)?;
        }
        if i.detail.is_empty() {
            write!(f, ": {}", i.kind.name().replace('_', " "))
        } else {
            write!(f, ": {}", i.detail)
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let i = &*self.0;
        let mut d = f.debug_struct("Error");
        d.field("kind", &i.kind).field("fault", &i.fault).field("retry", &i.retry).field("op", &i.op);
        d.field("subject", &i.subject).field("detail", &i.detail);
        if let Some(s) = &i.source {
            d.field("source", s);
        }
        d.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}

/// Makes a text from outside safe to print: control characters, bidirectional overrides and other invisible
/// formatting become `\u{..}`, and it is cut after 500 characters.
///
/// ```
/// assert_eq!(dlm_core::escape("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
/// ```
pub fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for (n, c) in text.chars().enumerate() {
        if n == 500 {
            out.push('…');
            break;
        }
        if is_unprintable(c) {
            let _ = write!(out, "\\u{{{:x}}}", c as u32);
        } else {
            out.push(c);
        }
    }
    out
}

/// Control characters, bidirectional controls, zero-width and other invisible formatting characters.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn local_errors_come_with_advice() {
        for (kind, want, part) in [
            (io::ErrorKind::StorageFull, Kind::NoSpace, "make room"),
            (io::ErrorKind::FileTooLarge, Kind::NoSpace, "ulimit -f"),
            (io::ErrorKind::ReadOnlyFilesystem, Kind::Io, "can be written"),
            (io::ErrorKind::IsADirectory, Kind::Io, "move it away"),
            (io::ErrorKind::NotADirectory, Kind::Io, "another folder"),
            (io::ErrorKind::NotFound, Kind::Io, "link to nowhere"),
            (io::ErrorKind::InvalidFilename, Kind::Io, "shorter"),
        ] {
            let e = Error::io("write", kind.into());
            assert_eq!((e.kind(), e.fault(), e.retry()), (want, Fault::Sink, Retry::Never), "{kind}");
            assert!(e.advice().contains(part), "{kind}: {}", e.advice());
        }
    }

    #[cfg(unix)]
    #[test]
    fn too_many_open_files_can_be_cured() {
        for errno in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE] {
            assert!(Error::io("open", errno.into()).advice().contains("ulimit -n"));
        }
    }
}
