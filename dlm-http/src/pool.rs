//! Connections that wait for their next request.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dlm_core::{Error, Kind, Locator, Result};
use dlm_net::Endpoint;
use tokio::time::Instant;

use crate::options::Secrets;
use crate::wire::Wire;

/// Most idle connections to one origin.
const MAX_OF_ORIGIN: usize = 16;
/// Most idle connections in all.
const MAX: usize = 64;
/// A connection that waited longer is not used again: servers close theirs after 15 to 60 s, and a request that
/// crosses such a close is lost time.
const MAX_AGE: Duration = Duration::from_secs(10);

/// What connections are shared by. The TLS configuration is not part of it: there is one for a pool.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) endpoint: Endpoint,
    /// A connection that saw credentials is used again only with the same ones.
    pub(crate) secrets: Option<Arc<Secrets>>,
}

struct Idle {
    key: Key,
    since: Instant,
    wire: Box<Wire>,
}

/// The idle connections of one backend, the oldest first.
#[derive(Default)]
pub(crate) struct Pool(Mutex<VecDeque<Idle>>);

impl Pool {
    /// The connection that was used last for `key`, if there is one that still works and whose other end `allowed` still
    /// lets pass. One that it does not is closed.
    pub(crate) fn take(&self, key: &Key, allowed: impl Fn(SocketAddr) -> bool) -> Option<Box<Wire>> {
        let now = Instant::now();
        loop {
            let mut wire = {
                let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                while idle.front().is_some_and(|i| now.duration_since(i.since) > MAX_AGE) {
                    idle.pop_front();
                }
                let at = idle.iter().rposition(|i| i.key == *key)?;
                idle.remove(at)?.wire
            };
            if wire.is_idle() && allowed(wire.peer()) {
                return Some(wire);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn put(&self, key: Key, mut wire: Box<Wire>) {
        if !wire.is_idle() {
            return;
        }
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.iter().filter(|i| i.key.endpoint == key.endpoint).count() >= MAX_OF_ORIGIN {
            return;
        }
        if idle.len() >= MAX {
            idle.pop_front();
        }
        idle.push_back(Idle { key, since: Instant::now(), wire });
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.lock().unwrap_or_else(PoisonError::into_inner).len();
        write!(f, "Pool({n})")
    }
}

/// Where a locator's host is.
pub(crate) fn endpoint(locator: &Locator) -> Result<Endpoint> {
    let url = locator.reveal();
    let wrong = |why: &str| Error::new(Kind::Invalid, "fetch").on(locator).because(why);
    let tls = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => {
            return Err(Error::new(Kind::Unsupported, "fetch")
                .on(locator)
                .because("it is neither http nor https"));
        }
    };
    let host = url.host_str().filter(|h| !h.is_empty()).ok_or_else(|| wrong("it names no host"))?;
    let port = url.port_or_known_default().filter(|p| *p != 0).ok_or_else(|| wrong("it names no port"))?;
    Ok(Endpoint::new(tls, host, port))
}
