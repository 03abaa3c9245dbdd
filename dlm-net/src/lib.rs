//! Dialling, once for every protocol of dlm: name lookup, address policy, happy eyeballs, connecting and TLS.
//!
//! A [`Dialer`] turns an [`Endpoint`] (host, port, TLS or not) into a [`Connection`] within one time limit, or into a
//! classified [`dlm_core::Error`] that names the host. It holds no protocol and keeps no connection; pools belong to
//! the protocols.
//!
//! ```no_run
//! # async fn f() -> dlm_core::Result<()> {
//! use std::time::Duration;
//! use dlm_net::{Dialer, Endpoint};
//! let connection = Dialer::builder().build().connect(&Endpoint::tls("example.org", 443), Duration::from_secs(20)).await?;
//! assert!(connection.is_tls());
//! # Ok(()) }
//! ```

mod connection;
mod dial;
mod endpoint;
mod error;
mod happy;
mod policy;
mod resolve;
mod route;
mod tls;
mod tls_error;
mod verify;

pub use connection::Connection;
pub use dial::{Dialer, DialerBuilder, Family};
pub use endpoint::Endpoint;
pub use error::explain;
pub use policy::{AddressPolicy, Block, PublicOnly, Unrestricted, is_public};
pub use resolve::{Overrides, Resolve, SystemResolver};
pub use route::{Direct, Route, Router};
pub use tls::{TlsConfig, TlsConfigBuilder};
