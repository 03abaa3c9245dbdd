//! A scripted HTTP/1.1 server on loopback: honest when asked to be, and a liar in every way a test needs.
//!
//! A scenario is a function from a [`Request`] to an [`Answer`]. Most answers start from an honest [`Resource`] and
//! change one thing; the rest are raw [`Step`]s. The server counts the bytes it serves and keeps every request, so
//! that a test can ask afterwards what was sent to whom. It listens on loopback only, on ports that the system picks.
//!
//! ```
//! use dlm_testkit::fixtures;
//! use dlm_testkit::http_server::{Answer, End, Request, Resource, Server};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let file = Resource::new(fixtures::bytes(1, 100_000));
//! // The first GET is cut in the middle; all others are honest.
//! let server = Server::start(move |q: &Request| match q.nth_get {
//!     0 => file.answer(q).cut_share(0.5, End::Reset),
//!     _ => file.answer(q),
//! })
//! .await
//! .unwrap();
//! assert!(server.url("/file.bin").starts_with("http://127.0.0.1:"));
//! assert_eq!(server.served(), 0);
//! # });
//! ```

mod answer;
mod bucket;
mod connection;
mod request;
mod resource;
mod script;
mod shared;
mod stream;
mod tls;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use bucket::Bucket;
use shared::Shared;
use tls::Authority;

pub use answer::Answer;
pub use request::{Asked, Request};
pub use resource::Resource;
pub use script::{End, Step};
pub use tls::Tls;

/// Most bytes the kernel may hold of what a connection sends: what was served and what was seen stay close together.
const SEND_BUFFER: u32 = 64 << 10;

/// What the server does. Every function of the right form is one.
pub trait Handler: Send + Sync + 'static {
    /// The answer to one request. Called on the server's tasks, several at a time: must not block.
    fn answer(&self, request: &Request) -> Answer;
}

impl<F: Fn(&Request) -> Answer + Send + Sync + 'static> Handler for F {
    fn answer(&self, request: &Request) -> Answer {
        self(request)
    }
}

/// An address of the server, with or without TLS. Two origins are two hosts or ports: a client must not carry secrets
/// from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    address: IpAddr,
    named: bool,
    tls: Option<Tls>,
}

impl Origin {
    /// `http://127.0.0.1:…`.
    pub const fn http() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), named: false, tls: None }
    }
    /// `https://127.0.0.1:…` with this kind of certificate.
    pub const fn https(tls: Tls) -> Self {
        Self { tls: Some(tls), ..Self::http() }
    }
    /// On 127.0.0.2 (Linux: another host, as far as clients can tell).
    pub const fn on_other_host(self) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), ..self }
    }
    /// On `[::1]`.
    pub const fn on_v6(self) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), ..self }
    }
    /// With `localhost` in its URLs instead of the address.
    pub const fn named(self) -> Self {
        Self { named: true, ..self }
    }
}

/// Settings of a server that is not started yet.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    origins: Vec<Origin>,
    rate: Option<u64>,
}

impl Builder {
    /// One more origin. The first one named is number 0; without any there is one [`Origin::http`].
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origins.push(origin);
        self
    }
    /// Most bytes a second of all bodies together.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = Some(bytes_per_second);
        self
    }

    /// Starts the server on the current tokio runtime. Waits for nothing, so it cannot be dropped half done.
    ///
    /// # Errors
    /// When an address cannot be listened on, or a certificate cannot be made.
    #[allow(clippy::unused_async, reason = "it needs a runtime to run on, and an async function says so")]
    pub async fn start(self, handler: impl Handler) -> io::Result<Server> {
        let origins = if self.origins.is_empty() { vec![Origin::http()] } else { self.origins };
        let authority = if origins.iter().any(|o| o.tls.is_some()) { Some(Authority::new()?) } else { None };
        let mut listeners = Vec::new();
        let mut bases = Vec::new();
        for origin in &origins {
            let listener = listen(origin.address)?;
            let port = listener.local_addr()?.port();
            let host = match origin.address {
                _ if origin.named => "localhost".to_owned(),
                IpAddr::V6(a) => format!("[{a}]"),
                IpAddr::V4(a) => a.to_string(),
            };
            let acceptor = match (&authority, origin.tls) {
                (Some(authority), Some(tls)) => Some(authority.acceptor(tls)?),
                _ => None,
            };
            let scheme = if acceptor.is_some() { "https" } else { "http" };
            bases.push(format!("{scheme}://{host}:{port}"));
            listeners.push((listener, acceptor));
        }
        let shared = Arc::new(Shared::new(Box::new(handler), bases.into(), self.rate.map(Bucket::new)));
        let mut tasks = JoinSet::new();
        for (number, (listener, acceptor)) in listeners.into_iter().enumerate() {
            tasks.spawn(accept(listener, number, acceptor, shared.clone()));
        }
        Ok(Server { shared, tasks, ca: authority.map(|a| a.pem()) })
    }
}

fn listen(address: IpAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(SocketAddr::new(address, 0))?;
    socket.listen(512)
}

async fn accept(listener: TcpListener, number: usize, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Dropped with this task: no connection outlives the server.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    connections.spawn(connection::serve(tcp, number, acceptor.clone(), shared.clone()));
                }
                // Out of descriptors: those at work will give some back.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// A running server. It ends, with all its connections, when it is dropped.
pub struct Server {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    ca: Option<String>,
}

impl Server {
    /// A server with one plain origin and no rate limit. Waits for nothing, so it cannot be dropped half done.
    ///
    /// # Errors
    /// When loopback cannot be listened on.
    pub async fn start(handler: impl Handler) -> io::Result<Self> {
        Self::builder().start(handler).await
    }
    /// Settings for one that needs more.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The URL of `path` (which begins with a slash) on the first origin.
    pub fn url(&self, path: &str) -> String {
        self.url_on(0, path)
    }
    /// The URL of `path` on the origin of this number; on port 1, where nobody listens, if there is none.
    pub fn url_on(&self, origin: usize, path: &str) -> String {
        format!("{}{path}", self.shared.bases.get(origin).map_or("http://127.0.0.1:1", String::as_str))
    }
    /// The certificate of the authority behind the TLS origins, as PEM; `None` when there are no TLS origins.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca.as_deref()
    }
    /// How many bytes of bodies were handed to the kernel so far.
    pub fn served(&self) -> u64 {
        self.shared.served_so_far()
    }
    /// Every request so far, oldest first; at most 20,000 are kept.
    pub fn log(&self) -> Vec<Request> {
        self.shared.with(|s| s.log.clone())
    }
    /// How many requests came so far.
    pub fn requests(&self) -> u64 {
        self.shared.with(|s| s.requests)
    }
    /// How many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.with(|s| s.connections)
    }
    /// How many connections are open now.
    pub fn open_connections(&self) -> usize {
        self.shared.with(|s| s.open.len())
    }
    /// How many connections were open at once, at most.
    pub fn most_open_connections(&self) -> usize {
        self.shared.with(|s| s.most_open)
    }
    /// Ends the server and waits until its listeners and connections are gone, so that its ports refuse. Dropped, it
    /// ends the server all the same, without waiting.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("origins", &self.shared.bases)
            .field("served", &self.served())
            .finish_non_exhaustive()
    }
}
