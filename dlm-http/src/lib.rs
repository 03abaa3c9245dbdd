//! HTTP and HTTPS for dlm.
//!
//! [`HttpBackend`] turns an address into an object, a file name and a [`Source`](dlm_core::Source), with one request
//! whose body is handed on. Bytes come over hyper's HTTP/1.1 client, over connections of [`dlm_net`], one connection
//! a request in flight; a connection whose answer was read to its end is kept for the next.
//!
//! What an answer means is decided strictly: a `206` must say which bytes it holds, a body must be as long as it was
//! announced, validators travel with every range, and the user's headers and credentials go to the origin that the
//! user named and to no other.

mod answer;
mod backend;
mod body;
mod client;
mod error;
mod finals;
mod headers;
mod notice;
mod options;
mod origin;
mod pool;
mod redirect;
mod request;
mod status;
mod wire;

pub use backend::{HttpBackend, HttpBackendBuilder};
pub use notice::Notice;
pub use options::HttpOptions;
pub use origin::Origin;

/// The library example of the README, which has to compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The parsers of what servers send, for fuzz targets. Not a stable interface.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::answer::{Meaning, partial, transfer_coding, whole};
    pub use crate::headers::{
        ContentRange, EntityTag, accepts_ranges, content_coding, content_range, entity_tag, file_name,
        last_modified, retry_after, unsatisfied_range,
    };
    pub use crate::redirect::{Rules, location, next};
    pub use crate::status::refusal;
}
