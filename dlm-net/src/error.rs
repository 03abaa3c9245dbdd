//! What a failed connection means. Each error is classified here, at the edge, and nowhere else.

use std::borrow::Cow;
use std::io;

use dlm_core::{Error, Kind, Retry};

use crate::tls_error::explain_tls;

/// Classifies an error of a connection that was being used for `op` (a verb): [`Kind::Tls`] when TLS failed,
/// [`Kind::Timeout`] when the system gave up waiting, [`Kind::Io`] when this machine has no room for it, else
/// [`Kind::Reset`].
pub fn explain(op: impl Into<Cow<'static, str>>, e: &io::Error) -> Error {
    use io::ErrorKind as K;
    if let Some(tls) = e.get_ref().and_then(|i| i.downcast_ref::<rustls::Error>()) {
        return explain_tls(op, tls);
    }
    if exhausted(e) {
        return no_room(op, e);
    }
    let text = match e.kind() {
        K::TimedOut => return Error::new(Kind::Timeout, op).because("the connection timed out"),
        K::ConnectionRefused => "the connection was refused",
        K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => "the connection was reset",
        K::UnexpectedEof => "the connection ended early",
        K::HostUnreachable => "the host cannot be reached",
        K::NetworkUnreachable | K::NetworkDown => "the network cannot be reached",
        K::AddrNotAvailable => "there is no local address to reach it from",
        _ => return Error::new(Kind::Reset, op).because(e),
    };
    Error::new(Kind::Reset, op).because(text)
}

/// Whether this machine is to blame: no more files, no more memory.
#[cfg(unix)]
fn exhausted(e: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(e), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(not(unix))]
fn exhausted(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::OutOfMemory
}

/// A local fault, which may pass: what is held is given back as other connections end.
fn no_room(op: impl Into<Cow<'static, str>>, e: &io::Error) -> Error {
    let same = e.raw_os_error().map_or_else(|| io::Error::from(e.kind()), io::Error::from_raw_os_error);
    Error::io(op, same).with_retry(Retry::Backoff)
}

/// A name lookup that failed. Nearly every way in which it fails is the network's fault.
pub(crate) fn lookup_failed(e: &io::Error) -> Error {
    if exhausted(e) {
        return no_room("connect to", e);
    }
    let text = e.to_string();
    let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
    let error = Error::new(Kind::Reset, "connect to").because(format_args!("name lookup failed: {text}"));
    // The system's error has no code, only the C library's words. "There is no such name" does not pass by waiting;
    // whatever is not understood is taken for passing.
    if ["not known", "No address associated"].iter().any(|t| text.contains(t)) {
        error.with_retry(Retry::Elsewhere).advise("check the spelling of the host")
    } else {
        error
    }
}

#[cfg(all(test, unix))]
mod tests {
    use dlm_core::Fault;
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_machine_without_room_is_not_the_network() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            for e in [explain("connect to", &errno.into()), lookup_failed(&errno.into())] {
                assert_eq!((e.kind(), e.fault(), e.retry()), (Kind::Io, Fault::Sink, Retry::Backoff), "{e}");
            }
        }
        assert!(explain("connect to", &Errno::MFILE.into()).advice().contains("ulimit -n"));
        assert_eq!(explain("connect to", &Errno::CONNREFUSED.into()).kind(), Kind::Reset);
    }
}
