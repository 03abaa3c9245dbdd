//! Which TLS servers are believed.

use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use dlm_core::{Error, Kind, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use crate::verify::{AcceptAll, Pinned};

/// Most certificates read from one file of authorities.
const MAX_CERTIFICATES: usize = 4096;
/// Longest file of certificates that is read, in bytes; the largest bundles in use have less than 1 MiB.
const MAX_FILE: u64 = 16 << 20;

/// How TLS is spoken, and which servers are believed. A clone is cheap and shares everything, sessions included.
///
/// The system's authorities are read when the first connection needs them, once, and not before: reading them costs
/// several milliseconds.
#[derive(Clone)]
pub struct TlsConfig(Arc<Inner>);

struct Inner {
    settings: TlsConfigBuilder,
    config: OnceCell<Arc<ClientConfig>>,
}

/// Builds a [`TlsConfig`].
#[derive(Clone, Default)]
pub struct TlsConfigBuilder {
    extra: Vec<CertificateDer<'static>>,
    alpn: Vec<Vec<u8>>,
    insecure: bool,
    no_system: bool,
}

impl TlsConfig {
    /// The system's authorities, TLS 1.2 and 1.3, no ALPN.
    pub fn builder() -> TlsConfigBuilder {
        TlsConfigBuilder::default()
    }

    /// Whether servers are verified at all.
    pub fn is_insecure(&self) -> bool {
        self.0.settings.insecure
    }

    /// What rustls needs; made at the first call, on a blocking thread.
    pub(crate) async fn client(&self) -> Result<Arc<ClientConfig>> {
        let made = self.0.config.get_or_try_init(|| async {
            let settings = self.0.settings.clone();
            let make = move || settings.client().map(Arc::new);
            match tokio::task::spawn_blocking(make).await {
                Ok(made) => made,
                Err(e) => Err(Error::new(Kind::Bug, "set up TLS").caused_by(e)),
            }
        });
        made.await.cloned()
    }
}

/// The bytes of a file of certificates.
fn read(path: &Path) -> Result<Vec<u8>> {
    const OP: &str = "trust the certificates in";
    let failed = |e: std::io::Error| {
        Error::io(OP, e).advise("name a file that can be read, with certificates in PEM form")
    };
    let wrong =
        |why: &'static str, advice: &'static str| Error::new(Kind::Invalid, OP).because(why).advise(advice);
    // Looked at before it is opened: opening a pipe may wait for ever.
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if kind.is_dir() {
        return Err(wrong("it is a folder", "name a file in it, or name the folder in SSL_CERT_DIR"));
    }
    if !kind.is_file() {
        return Err(wrong("it is no regular file", "put the certificates into a file"));
    }
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut pem).map_err(failed)?;
    if pem.len() as u64 > MAX_FILE {
        return Err(wrong("it is larger than 16 MiB", "name a file with certificates in PEM form"));
    }
    Ok(pem)
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsConfig").field(&self.0.settings).finish()
    }
}

impl fmt::Debug for TlsConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("extra", &self.extra.len())
            .field("insecure", &self.insecure)
            .field("system", &!self.no_system)
            .finish_non_exhaustive()
    }
}

impl TlsConfigBuilder {
    /// Trusts these authorities too: one or more certificates in PEM form. A server's own certificate may be among them:
    /// a server that shows exactly that one is believed, if its name and its dates are right.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when there is no certificate in it, or one that cannot be an authority.
    pub fn ca_pem(mut self, pem: &[u8]) -> Result<Self> {
        let wrong = |why: &dyn fmt::Display| {
            Error::new(Kind::Invalid, "trust the certificate authority").because(why)
        };
        let mut probe = RootCertStore::empty();
        let before = self.extra.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate =
                certificate.map_err(|e| wrong(&format_args!("it is no PEM certificate: {e}")))?;
            probe.add(certificate.clone()).map_err(|e| wrong(&e))?;
            if self.extra.len() - before == MAX_CERTIFICATES {
                return Err(wrong(&"there are too many of them"));
            }
            self.extra.push(certificate);
        }
        if self.extra.len() == before {
            return Err(wrong(&"it holds no PEM certificate"));
        }
        Ok(self)
    }

    /// Trusts the certificates in this PEM file too, as [`ca_pem`](Self::ca_pem) does. Reads the file now, blocking.
    ///
    /// # Errors
    /// As [`ca_pem`](Self::ca_pem); [`Kind::Invalid`] also when it is a folder, or a pipe or a device, which may never
    /// end, or when it is too large; [`Kind::Io`] when it cannot be read.
    pub fn ca_file(self, path: &Path) -> Result<Self> {
        let pem = read(path).map_err(|e| e.on(path.display()))?;
        self.ca_pem(&pem).map_err(|e| e.on(path.display()))
    }

    /// Whether the system's authorities are trusted (yes, unless said otherwise). `SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// say where they are; where the system has none, Mozilla's list that was built in serves.
    pub fn system_roots(mut self, trusted: bool) -> Self {
        self.no_system = !trusted;
        self
    }

    /// Accepts every certificate of every server. Whoever is on the way can then read and change everything.
    pub fn insecure(mut self, insecure: bool) -> Self {
        self.insecure = insecure;
        self
    }

    /// Protocols to offer by ALPN (RFC 7301), the best first; none by default.
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(|p| p.as_ref().to_vec()).collect();
        self
    }

    /// The configuration. Nothing is read yet.
    pub fn build(self) -> TlsConfig {
        TlsConfig(Arc::new(Inner { settings: self, config: OnceCell::new() }))
    }

    fn client(self) -> Result<ClientConfig> {
        let failed = |e: rustls::Error| Error::new(Kind::Bug, "set up TLS").because(&e).caused_by(e);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        let mut config = if self.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAll(provider)))
                .with_no_client_auth()
        } else if self.extra.is_empty() {
            builder.with_root_certificates(self.roots()?).with_no_client_auth()
        } else {
            let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), provider)
                .build()
                .map_err(|e| Error::new(Kind::Bug, "set up TLS").because(&e).caused_by(e))?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { chains, pins: self.extra.clone() }))
                .with_no_client_auth()
        };
        config.alpn_protocols = self.alpn;
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if !self.no_system {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            // Who names a place by hand does not want another list instead of it.
            let by_hand = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|v| std::env::var_os(v).is_some());
            if roots.is_empty() && !by_hand {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
        }
        for certificate in &self.extra {
            roots.add(certificate.clone()).map_err(|e| {
                Error::new(Kind::Invalid, "trust the certificate authority").because(&e).caused_by(e)
            })?;
        }
        if roots.is_empty() {
            return Err(Error::new(Kind::Tls, "set up TLS")
                .because("there is no certificate authority to trust")
                .advise("look at SSL_CERT_FILE and SSL_CERT_DIR, or name a certificate authority"));
        }
        Ok(roots)
    }
}
