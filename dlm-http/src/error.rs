//! What an error of hyper means.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use dlm_core::{Error, Kind, Retry};

/// The server keeps sending before an answer begins; put into an [`io::Error`] by the connection's guard.
#[derive(Debug)]
pub(crate) struct Flood;

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too much came before the answer")
    }
}

impl StdError for Flood {}

/// Classifies an error of an exchange; the caller adds on what it was tried.
pub(crate) fn lost(e: hyper::Error) -> Error {
    classify(&e).caused_by(e)
}

fn classify(e: &hyper::Error) -> Error {
    let protocol =
        |why: &dyn fmt::Display| Error::new(Kind::Protocol, "fetch").because(why).with_retry(Retry::Backoff);
    if e.is_parse() {
        return protocol(&format_args!("the answer is no valid HTTP: {e}")).with_retry(Retry::Elsewhere);
    }
    let mut cause = e.source();
    while let Some(c) = cause {
        if let Some(io) = c.downcast_ref::<io::Error>() {
            if io.get_ref().and_then(|i| i.downcast_ref::<Flood>()).is_some() {
                return protocol(&Flood).with_retry(Retry::Elsewhere);
            }
            // hyper's own words for a body whose framing is broken; TLS uses the same kind for its errors.
            let framing = matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
            return match dlm_net::explain("fetch", io) {
                tls if tls.kind() == Kind::Tls => tls,
                _ if framing => protocol(&format_args!("the body is no valid HTTP: {io}")),
                other => other,
            };
        }
        cause = c.source();
    }
    let reset = Error::new(Kind::Reset, "fetch");
    if e.is_incomplete_message() { reset.because("the connection ended early") } else { reset.because(e) }
}
