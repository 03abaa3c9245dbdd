//! What every backend, sink and journal has to do, as tests that anyone can run on their own.
//!
//! Each function takes a fixture, runs every rule that applies to it, and panics with the rule's name when one is broken.
//! A backend of dlm is merged only when its suite runs; one written elsewhere gets the same verdict.
//!
//! **Cancellation.** A suite may be dropped at any await; what it started on the fixture is dropped with it, and files
//! that a sink or a journal made stay. **Bounds.** Suites run in real time, seconds at most for a fixture that answers;
//! one that hangs is reported within a minute for each rule. They need a tokio runtime with time and, for what the
//! fixture does, I/O.
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
