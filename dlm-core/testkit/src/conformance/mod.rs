//! What every backend, sink and journal has to do, as tests that anyone can run on their own.
//!
//! Each function takes a fixture, runs every rule that applies to it, and panics with the rule's name when one is broken.
//! A backend of dlm is merged only when its suite runs; one written elsewhere gets the same verdict.
//!
//! ```no_run
//! # async fn f(fixture: dlm_testkit::conformance::RangeFixture) {
//! dlm_testkit::conformance::range_source(&fixture).await;
//! # }
//! ```

#![expect(clippy::expect_used, reason = "a suite reports by panicking")]

mod journals;
mod ranges;
mod sinks;
mod sources;

pub use journals::journal;
pub use ranges::{RangeFixture, range_source};
pub use sinks::sink;
pub use sources::{Make, SourceFixture, source};
