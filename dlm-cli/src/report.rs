//! Errors as people and scripts see them: one line, and an exit code.

use std::collections::BTreeSet;
use std::time::Duration;

use dlm_core::{Error, Fault, Kind, Retry};

use crate::text;

/// The command line is wrong.
pub(crate) const WRONG: u8 = 2;

/// The exit code of one error.
///
/// By its kind, with three exceptions: what is invalid or unreadable through the *source's* fault is a protocol or
/// network error and not the user's; and a source that asks to come back later than `patience` has refused, while one
/// that stays overloaded through all retries counts as a bad network.
pub(crate) fn code(e: &Error, patience: Duration) -> u8 {
    match (e.kind(), e.fault()) {
        (Kind::Throttled, _) if matches!(e.retry(), Retry::After(pause) if pause > patience) => 4,
        (Kind::Io, Fault::Network) | (Kind::Timeout | Kind::Reset | Kind::Tls | Kind::Throttled, _) => 3,
        (Kind::Invalid, Fault::Source | Fault::Network) | (Kind::Protocol | Kind::RangeIgnored, _) => 9,
        (Kind::Invalid, _) => WRONG,
        (Kind::NotFound | Kind::Denied, _) => 4,
        (Kind::Changed | Kind::Corrupt, _) => 5,
        (Kind::NoSpace | Kind::Io, _) => 6,
        (Kind::Exists | Kind::Busy, _) => 7,
        (Kind::Unsupported, _) => 8,
        _ => 1,
    }
}

/// The exit code of everything: that of the failures when all have the same, else 1.
#[derive(Debug, Default)]
pub(crate) struct Codes(BTreeSet<u8>);

impl Codes {
    /// One more failure.
    pub(crate) fn add(&mut self, code: u8) {
        self.0.insert(code);
    }
    /// The code to exit with.
    pub(crate) fn all(&self) -> u8 {
        let mut codes = self.0.iter();
        match (codes.next(), codes.next()) {
            (None, _) => 0,
            (Some(only), None) => *only,
            _ => 1,
        }
    }
}

/// What was tried, on what, what happened, and what can be done: `dlm: cannot fetch … . Check …`.
pub(crate) fn line(e: &Error) -> String {
    let advice = match (e.kind(), e.retry(), e.advice()) {
        (Kind::Throttled, Retry::After(pause), "") if pause >= Duration::from_secs(1) => {
            format!("try again in {}: it asks for that", text::time(pause))
        }
        (_, _, "") => advice(e).to_owned(),
        (_, _, advice) => advice.to_owned(),
    };
    let what = e.to_string();
    let what = what.trim_end_matches('.');
    if advice.is_empty() {
        format!("dlm: {what}")
    } else {
        format!("dlm: {what}. {}", text::sentence(&advice))
    }
}

/// What can be done when the error itself does not say.
fn advice(e: &Error) -> &'static str {
    match e.kind() {
        Kind::NotFound => "check the address",
        Kind::Denied => "if it needs a login, give one with --user or --header",
        Kind::Timeout | Kind::Reset => {
            "check the address and the network; the same command again goes on where this one stopped"
        }
        Kind::Throttled => {
            "run the same command again later, or with fewer connections (-x 1): it goes on where this one stopped"
        }
        Kind::Tls => {
            "if the server is yours, name its certificate or its authority with --cacert FILE; with --insecure nothing is verified, and anybody can change what comes"
        }
        Kind::Changed => "run the same command again to fetch the new version",
        Kind::Corrupt => "check the digest, or try another source",
        Kind::NoSpace => "make room, then run the same command again: it goes on where it stopped",
        Kind::Exists => "choose another name with --output, or say what to do with --if-exists",
        Kind::Busy => "wait until the other process is done, or choose another name with --output",
        Kind::Unsupported => "see 'dlm --version' for what this build supports",
        Kind::Invalid if e.fault() == Fault::Caller => "see 'dlm --help'",
        Kind::Protocol | Kind::RangeIgnored => "try another source of the same bytes",
        Kind::Cancelled | Kind::Shutdown => "run the same command again to go on",
        Kind::Bug => "please report this",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn every_kind_has_its_code() {
        for (kind, want) in [
            (Kind::Invalid, 2),
            (Kind::Timeout, 3),
            (Kind::Reset, 3),
            (Kind::Tls, 3),
            (Kind::Throttled, 3),
            (Kind::NotFound, 4),
            (Kind::Denied, 4),
            (Kind::Changed, 5),
            (Kind::Corrupt, 5),
            (Kind::NoSpace, 6),
            (Kind::Io, 6),
            (Kind::Exists, 7),
            (Kind::Busy, 7),
            (Kind::Unsupported, 8),
            (Kind::Protocol, 9),
            (Kind::RangeIgnored, 9),
            (Kind::Shutdown, 1),
            (Kind::Bug, 1),
        ] {
            assert_eq!(code(&Error::new(kind, "x"), PATIENCE), want, "{kind:?}");
        }
    }

    #[test]
    fn blame_matters() {
        assert_eq!(code(&Error::new(Kind::Invalid, "x").with_fault(Fault::Source), PATIENCE), 9);
        assert_eq!(code(&Error::new(Kind::Io, "x").with_fault(Fault::Network), PATIENCE), 3);
        let throttled = |s| Error::new(Kind::Throttled, "x").with_retry(Retry::After(Duration::from_secs(s)));
        assert_eq!((code(&throttled(30), PATIENCE), code(&throttled(31), PATIENCE)), (3, 4));
    }

    #[test]
    fn several_failures() {
        let all = |codes: &[u8]| {
            let mut c = Codes::default();
            for n in codes {
                c.add(*n);
            }
            c.all()
        };
        assert_eq!((all(&[]), all(&[4]), all(&[4, 4]), all(&[4, 3])), (0, 4, 4, 1));
    }

    #[test]
    fn one_line() {
        let e =
            Error::new(Kind::NotFound, "fetch").on("http://h/f\n").because("the server says 404 Not Found");
        assert_eq!(
            line(&e),
            "dlm: cannot fetch http://h/f\\u{a}: the server says 404 Not Found. Check the address"
        );
        let e = Error::new(Kind::Throttled, "fetch")
            .because("busy")
            .with_retry(Retry::After(Duration::from_hours(1)));
        assert_eq!(line(&e), "dlm: cannot fetch: busy. Try again in 1 h 0 min: it asks for that");
        // A pause of nothing is no advice.
        let e = Error::new(Kind::Throttled, "fetch").with_retry(Retry::After(Duration::ZERO));
        assert!(line(&e).contains("Run the same command again later"), "{}", line(&e));
        let e = Error::new(Kind::Io, "write").because("bad block.");
        assert_eq!(line(&e), "dlm: cannot write: bad block");
    }
}
