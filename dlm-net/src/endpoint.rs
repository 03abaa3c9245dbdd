//! Where to connect to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// A host, a port, and whether TLS is spoken there from the first byte.
///
/// ```
/// use dlm_net::Endpoint;
/// assert_eq!(Endpoint::plain("[::1]", 80).to_string(), "[::1]:80");
/// assert_eq!(Endpoint::tls("Example.org", 443).host(), "example.org");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: Arc<str>,
    port: u16,
    tls: bool,
}

impl Endpoint {
    /// In clear text. The host is a name or an address; an IPv6 address may have brackets.
    pub fn plain(host: &str, port: u16) -> Self {
        Self::new(false, host, port)
    }

    /// Under TLS, with the host as the server's name.
    pub fn tls(host: &str, port: u16) -> Self {
        Self::new(true, host, port)
    }

    /// Under TLS if `tls`.
    pub fn new(tls: bool, host: &str, port: u16) -> Self {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Self { host: host.to_ascii_lowercase().into(), port, tls }
    }

    /// The name or address, in lower case, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }
    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// Whether TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
    /// The host as an address, when it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
