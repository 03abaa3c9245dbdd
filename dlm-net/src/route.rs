//! By which way a host is reached. Today there is one; a proxy becomes another variant, and no caller changes.

use std::fmt::Debug;

use crate::endpoint::Endpoint;

/// The way to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Route {
    /// Straight to it.
    Direct,
}

/// Chooses the way to each endpoint (a rule such as `no_proxy` depends on the host).
pub trait Router: Debug + Send + Sync + 'static {
    /// The way to `to`. Called once for each connection; must not block.
    fn route(&self, to: &Endpoint) -> Route;
}

/// Straight to every endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Direct;

impl Router for Direct {
    fn route(&self, _: &Endpoint) -> Route {
        Route::Direct
    }
}
