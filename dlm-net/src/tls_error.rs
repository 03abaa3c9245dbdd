//! What went wrong with TLS, in words, and what helps. No text of the TLS library is shown: it speaks to programmers.

use std::borrow::Cow;

use dlm_core::{Error, Kind, Retry};
use rustls::{AlertDescription as Alert, CertificateError, Error as Tls};

const CLOCK: &str = "check the clock of this machine; if it is right, only the server's owner can help";
const OLD: &str = "the server may be too old: 1.2 and 1.3 are spoken, with ciphers that count as safe today";

/// Classifies an error of TLS while doing `op`.
///
/// Only a certificate that nobody vouches for has no advice of its own: how one is trusted is for the program to say.
pub(crate) fn explain_tls(op: impl Into<Cow<'static, str>>, e: &Tls) -> Error {
    let error = Error::new(Kind::Tls, op).with_retry(Retry::Elsewhere);
    match e {
        Tls::InvalidCertificate(why) => {
            let (text, advice) = certificate(why);
            error.because(text).advise(advice)
        }
        Tls::AlertReceived(alert) => {
            let (text, advice, retry) = alerted(*alert);
            error.because(text).advise(advice).with_retry(retry)
        }
        // A record that does not decrypt was damaged on the way; another connection may do.
        Tls::DecryptError => error
            .because("a TLS record was damaged on the way")
            .advise("check the network: something on the way changes what passes")
            .with_retry(Retry::Backoff),
        Tls::InvalidMessage(_) => {
            error.because("what it speaks is not TLS").advise("check the scheme and the port")
        }
        Tls::PeerIncompatible(_) => {
            error.because("it speaks no version or cipher of TLS that can be spoken here").advise(OLD)
        }
        Tls::NoCertificatesPresented => error.because("it showed no certificate").advise(OWNER),
        Tls::NoApplicationProtocol => {
            error.because("it speaks none of the protocols that were offered").advise(OWNER)
        }
        Tls::PeerMisbehaved(_)
        | Tls::InappropriateMessage { .. }
        | Tls::InappropriateHandshakeMessage { .. }
        | Tls::PeerSentOversizedRecord => {
            error.because("it breaks the rules of TLS").advise("check the scheme and the port")
        }
        Tls::FailedToGetCurrentTime => error.because("this machine's clock cannot be read").advise(CLOCK),
        _ => error.because("TLS failed").advise("check the scheme and the port"),
    }
}

const OWNER: &str = "tell the server's owner, or try another source";

/// What is wrong with the server's certificate, and what helps.
fn certificate(why: &CertificateError) -> (&'static str, &'static str) {
    use CertificateError as C;
    match why {
        C::Expired | C::ExpiredContext { .. } => ("its certificate has expired", CLOCK),
        C::NotValidYet | C::NotValidYetContext { .. } => ("its certificate is not valid yet", CLOCK),
        C::UnknownIssuer => ("its certificate comes from an authority that is not trusted", ""),
        C::Other(other) if is_authority(&*other.0) => {
            ("its certificate is an authority's own, and is not trusted", "")
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            ("its certificate is for another name", "check the address")
        }
        C::BadSignature => ("its certificate was not signed by the authority that it names", OWNER),
        C::Revoked => ("its certificate was revoked", OWNER),
        C::BadEncoding => ("its certificate cannot be read", OWNER),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => ("its certificate is not for servers", OWNER),
        C::UnhandledCriticalExtension => ("its certificate demands what is not understood here", OWNER),
        C::UnsupportedSignatureAlgorithmContext { .. }
        | C::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            ("its certificate is signed in a way that does not count as safe", OWNER)
        }
        _ => ("its certificate is not accepted", OWNER),
    }
}

/// Whether a certificate was refused only because it is one of an authority and stands for a server.
pub(crate) fn is_authority(e: &(dyn std::error::Error + 'static)) -> bool {
    matches!(e.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Why the server broke off, what helps, and whether another try may.
fn alerted(alert: Alert) -> (&'static str, &'static str, Retry) {
    const DAMAGED: &str = "check the network: something on the way changes what passes";
    let (text, advice) = match alert {
        Alert::HandshakeFailure
        | Alert::InsufficientSecurity
        | Alert::ProtocolVersion
        | Alert::IllegalParameter
        | Alert::MissingExtension
        | Alert::UnsupportedExtension => {
            ("the server refuses every version and cipher of TLS that was offered", OLD)
        }
        Alert::CertificateRequired
        | Alert::NoCertificate
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => (
            "the server wants a certificate of the client, and there is none to show",
            "ask the server's owner for another way in, or try another source",
        ),
        Alert::UnrecognisedName => ("the server knows no host of that name", "check the address"),
        Alert::NoApplicationProtocol => ("the server speaks none of the protocols that were offered", OWNER),
        Alert::InternalError => {
            return ("the server failed within TLS", OWNER, Retry::Backoff);
        }
        Alert::BadRecordMac | Alert::DecryptError | Alert::DecryptionFailed | Alert::RecordOverflow => {
            return ("the server says that a TLS record was damaged on the way", DAMAGED, Retry::Backoff);
        }
        Alert::UserCanceled | Alert::CloseNotify => {
            return ("the server broke off the TLS handshake", OWNER, Retry::Backoff);
        }
        _ => ("the server broke off the TLS handshake", "check the scheme and the port"),
    };
    (text, advice, Retry::Elsewhere)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{InvalidMessage, OtherError, PeerIncompatible, PeerMisbehaved};

    use super::*;

    /// No `CamelCase`, no braces: words for a person.
    fn check(e: &Tls) {
        let said = explain_tls("connect to", e);
        assert_eq!(said.kind(), Kind::Tls);
        for text in [said.detail(), said.advice()] {
            let code = text.contains(['{', '(', ')', '_'])
                || text.as_bytes().windows(2).any(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase());
            assert!(!code, "{e:?}: {text}");
        }
        let nobody_vouches = matches!(e, Tls::InvalidCertificate(CertificateError::UnknownIssuer))
            || said.detail().contains("an authority's own");
        assert_eq!(said.advice().is_empty(), nobody_vouches, "{e:?}");
    }

    #[test]
    fn every_alert_is_in_words() {
        for n in 0..=u8::MAX {
            check(&Tls::AlertReceived(Alert::from(n)));
        }
        let refused = explain_tls("x", &Tls::AlertReceived(Alert::CertificateRequired));
        assert!(refused.detail().contains("certificate of the client"));
    }

    #[test]
    fn the_rest_is_in_words() {
        let other = |e| CertificateError::Other(OtherError(Arc::new(e)));
        for c in [
            CertificateError::BadEncoding,
            CertificateError::Expired,
            CertificateError::NotValidYet,
            CertificateError::Revoked,
            CertificateError::UnhandledCriticalExtension,
            CertificateError::UnknownIssuer,
            CertificateError::UnknownRevocationStatus,
            CertificateError::BadSignature,
            CertificateError::NotValidForName,
            CertificateError::InvalidPurpose,
            CertificateError::ApplicationVerificationFailure,
            other(webpki::Error::CaUsedAsEndEntity),
            other(webpki::Error::PathLenConstraintViolated),
        ] {
            check(&Tls::InvalidCertificate(c));
        }
        for e in [
            Tls::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
            Tls::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments),
            Tls::InvalidMessage(InvalidMessage::InvalidContentType),
            Tls::NoCertificatesPresented,
            Tls::NoApplicationProtocol,
            Tls::DecryptError,
            Tls::PeerSentOversizedRecord,
            Tls::General("SomeDebug { text }".into()),
        ] {
            check(&e);
        }
    }
}
