//! The dialer: from an endpoint to a connection, within one time limit.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use dlm_core::{Error, Kind, Result};
use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::connection::{Connection, TLS_READ_AHEAD};
use crate::endpoint::Endpoint;
use crate::error::{explain, lookup_failed};
use crate::happy::{interleave, race};
use crate::policy::{AddressPolicy, Unrestricted};
use crate::resolve::{Resolve, SystemResolver};
use crate::route::{Direct, Route, Router};
use crate::tls::TlsConfig;

const OP: &str = "connect to";

/// Which address families are used, and which first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Family {
    /// Both, IPv6 first.
    #[default]
    PreferV6,
    /// Both, IPv4 first.
    PreferV4,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl Family {
    fn admits(self, address: &SocketAddr) -> bool {
        match self {
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
            Self::PreferV4 | Self::PreferV6 => true,
        }
    }
}

/// Makes connections. A clone is cheap and shares everything.
#[derive(Debug, Clone)]
pub struct Dialer(Arc<DialerBuilder>);

/// Builds a [`Dialer`].
#[derive(Debug)]
pub struct DialerBuilder {
    resolver: Arc<dyn Resolve>,
    policy: Arc<dyn AddressPolicy>,
    router: Arc<dyn Router>,
    tls: TlsConfig,
    family: Family,
    stagger: Duration,
    local: Option<IpAddr>,
}

impl DialerBuilder {
    /// Looks names up here instead of at the system.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }
    /// Asks this policy for every address, just before it is connected to; protocols ask it again before they use a kept
    /// connection ([`Dialer::allows`]). Default: everything is allowed.
    pub fn policy(mut self, policy: impl AddressPolicy) -> Self {
        self.policy = Arc::new(policy);
        self
    }
    /// Chooses the way to each endpoint. Default: straight.
    pub fn router(mut self, router: impl Router) -> Self {
        self.router = Arc::new(router);
        self
    }
    /// How TLS is spoken.
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = tls;
        self
    }
    /// Which address families are used.
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }
    /// The pause after which the next address is tried beside the last (RFC 8305, section 5; 250 ms).
    pub fn stagger(mut self, pause: Duration) -> Self {
        self.stagger = pause;
        self
    }
    /// The local address that connections come from; only remote addresses of its family are used.
    pub fn local_address(mut self, local: Option<IpAddr>) -> Self {
        self.local = local;
        self
    }
    /// The dialer.
    pub fn build(self) -> Dialer {
        Dialer(Arc::new(self))
    }
}

/// How far a connection came, so that a time-out can say what took so long.
struct Stage(AtomicU8);

impl Stage {
    fn at(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }
    fn words(&self) -> &'static str {
        match self.0.load(Ordering::Relaxed) {
            0 => "name lookup took",
            1 => "connecting took",
            _ => "the TLS handshake took",
        }
    }
}

impl Default for Dialer {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl Dialer {
    /// Most addresses of one name that are tried.
    pub const MAX_ADDRESSES: usize = 16;

    /// The system's resolver, no policy, no proxy, the system's certificate authorities.
    pub fn builder() -> DialerBuilder {
        DialerBuilder {
            resolver: Arc::new(SystemResolver),
            policy: Arc::new(Unrestricted),
            router: Arc::new(Direct),
            tls: TlsConfig::default(),
            family: Family::default(),
            stagger: Duration::from_millis(250),
            local: None,
        }
    }

    /// How TLS is spoken.
    pub fn tls_config(&self) -> &TlsConfig {
        &self.0.tls
    }

    /// Whether the policy allows this endpoint at this address now: to be asked again before a connection that was kept
    /// carries another request.
    pub fn allows(&self, to: &Endpoint, peer: SocketAddr) -> bool {
        self.0.policy.allows(to.host(), peer)
    }

    /// Connects: name lookup, address policy, happy eyeballs, and TLS where the endpoint asks for it, all of it
    /// within `limit`.
    ///
    /// **Cancellation.** May be dropped at any await; sockets are closed.
    ///
    /// # Errors
    /// All name the host. [`Kind::Reset`]: the name is not found, or the connection was refused, or cut.
    /// [`Kind::Timeout`]: `limit` has passed. [`Kind::Denied`]: the policy allows none of the addresses.
    /// [`Kind::Tls`]: the server is not who it should be, or TLS failed.
    pub async fn connect(&self, to: &Endpoint, limit: Duration) -> Result<Connection> {
        let stage = Stage(AtomicU8::new(0));
        within(limit, to, &stage, async {
            let (stream, peer) = match self.0.router.route(to) {
                Route::Direct => self.direct(to, &stage).await?,
            };
            if to.is_tls() {
                self.handshake(stream, peer, to, &stage).await
            } else {
                Ok(Connection::plain(stream, peer))
            }
        })
        .await
    }

    /// Starts TLS on a connection that began in clear text (FTP's `AUTH TLS`), with the host of `to` as the server's
    /// name, within `limit`. Bytes that the caller has read ahead of this point must have been thrown away: they came
    /// unprotected.
    ///
    /// **Cancellation.** May be dropped at any await; the connection is closed.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Kind::Invalid`] when it is under TLS already.
    pub async fn secure(&self, connection: Connection, to: &Endpoint, limit: Duration) -> Result<Connection> {
        let stage = Stage(AtomicU8::new(2));
        let peer = connection.peer();
        let Ok(stream) = connection.into_tcp() else {
            return Err(Error::new(Kind::Invalid, "start TLS with").on(to).because("it is started already"));
        };
        within(limit, to, &stage, self.handshake(stream, peer, to, &stage)).await
    }

    async fn direct(&self, to: &Endpoint, stage: &Stage) -> Result<(TcpStream, SocketAddr)> {
        let addresses = self.addresses(to).await?;
        stage.at(1);
        let me = &*self.0;
        match race(&addresses, me.stagger, |a| attempt(a, me.local)).await {
            Ok(won) => Ok(won),
            Err(errors) => {
                let n = errors.len();
                let Some(first) = errors.into_iter().next() else {
                    return Err(Error::new(Kind::Reset, OP).because("it has no address"));
                };
                let e = explain(OP, &first);
                let detail = if n > 1 {
                    format!("{}, by all {n} addresses", e.detail())
                } else {
                    e.detail().to_owned()
                };
                Err(e.because(detail).caused_by(first))
            }
        }
    }

    /// The addresses to try, in order, each of them allowed.
    async fn addresses(&self, to: &Endpoint) -> Result<Vec<SocketAddr>> {
        let me = &*self.0;
        let mut found = match to.address() {
            Some(ip) => vec![SocketAddr::new(ip, to.port())],
            None => {
                me.resolver.resolve(to.host(), to.port()).await.map_err(|e| lookup_failed(&e).caused_by(e))?
            }
        };
        if found.is_empty() {
            return Err(lookup_failed(&io::Error::other("the name has no address")));
        }
        found.retain(|a| me.family.admits(a) && me.local.is_none_or(|l| l.is_ipv4() == a.is_ipv4()));
        if found.is_empty() {
            return Err(
                Error::new(Kind::Reset, OP).because("it has no address of the family that was asked for")
            );
        }
        found.retain(|a| self.allows(to, *a));
        if found.is_empty() {
            return Err(Error::new(Kind::Denied, OP)
                .because("the address policy does not allow its address")
                .advise("allow the address, if it is meant to be reached"));
        }
        let mut found = interleave(found, me.family == Family::PreferV4);
        found.truncate(Self::MAX_ADDRESSES);
        Ok(found)
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        to: &Endpoint,
        stage: &Stage,
    ) -> Result<Connection> {
        stage.at(2);
        let name = match to.address() {
            Some(ip) => ServerName::from(ip),
            None => ServerName::try_from(to.host().to_owned()).map_err(|e| {
                Error::new(Kind::Invalid, OP).because("the host is no valid server name").caused_by(e)
            })?,
        };
        let config = self.0.tls.client().await?;
        let stream = BufReader::with_capacity(TLS_READ_AHEAD, stream);
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(Connection::tls(stream, peer)),
            Err(e) => Err(explain(OP, &e).caused_by(e)),
        }
    }
}

async fn within<T>(
    limit: Duration,
    to: &Endpoint,
    stage: &Stage,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(|e| e.on(to)),
        Err(_) => Err(Error::new(Kind::Timeout, OP)
            .on(to)
            .because(format_args!("{} longer than {limit:?}", stage.words()))),
    }
}

async fn attempt(to: SocketAddr, local: Option<IpAddr>) -> io::Result<(TcpStream, SocketAddr)> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A request is one small write that should not wait for anything.
    socket.set_nodelay(true)?;
    if let Some(ip) = local {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    Ok((socket.connect(to).await?, to))
}
