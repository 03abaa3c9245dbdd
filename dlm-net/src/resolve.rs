//! Names to addresses.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;

/// Looks names up.
#[async_trait]
pub trait Resolve: Debug + Send + Sync + 'static {
    /// The addresses of `host`, which is never an address itself, in the resolver's order of preference. The dialer
    /// uses the first [`MAX`](crate::Dialer::MAX_ADDRESSES) of them.
    ///
    /// **Cancellation.** May be dropped at any await. **Bounds.** The dialer's time limit is around it.
    ///
    /// # Errors
    /// Whatever the lookup says; an empty list counts as an error too.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's own lookup (`getaddrinfo`), on tokio's blocking threads.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}

/// Fixed addresses for some hosts and ports, another resolver for the rest (curl's `--resolve`).
#[derive(Debug, Clone)]
pub struct Overrides {
    fixed: HashMap<(Box<str>, u16), Vec<IpAddr>>,
    rest: Arc<dyn Resolve>,
}

impl Overrides {
    /// No override yet.
    pub fn new(rest: Arc<dyn Resolve>) -> Self {
        Self { fixed: HashMap::new(), rest }
    }

    /// `host`, at `port`, is at `address`; given again, at that one too.
    pub fn fix(mut self, host: &str, port: u16, address: IpAddr) -> Self {
        self.fixed.entry((host.to_ascii_lowercase().into(), port)).or_default().push(address);
        self
    }
}

#[async_trait]
impl Resolve for Overrides {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self.fixed.get(&(host.into(), port)) {
            Some(addresses) => Ok(addresses.iter().map(|a| SocketAddr::new(*a, port)).collect()),
            None => self.rest.resolve(host, port).await,
        }
    }
}
