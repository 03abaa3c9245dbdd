//! The binary against servers that misbehave, disks that are full and state that was damaged.
//!
//! Every test is one scenario, in about five lines:
//!
//! ```ignore
//! scenarios! {
//!     /// What is wrong with this server, in one sentence.
//!     its_name = ok(|q, f| f.answer(q).cut_share(0.5, End::Reset)).rate(MIB).flags(&["-x", "1"]);
//! }
//! ```
//!
//! The function gets the request `q` and the file `f` and says what the server answers (see
//! [`dlm_testkit::http_server`]). `ok`: the fault can be survived, so it must be. `refused`: it must be refused, with
//! this exit code. `either`: both will do. In each of them the rules of [`harness::judge`] hold: never a wrong byte at
//! the final name, exit 0 exactly when every byte is there, a message otherwise, no death by a signal, no hang, no
//! leftovers after success, less than 64 MiB of memory. Run one with `cargo test -p dlm-cli --test torture NAME`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]
#![allow(clippy::print_stderr, reason = "what a test says about itself goes to standard error")]

#[macro_use]
mod harness;

mod changed;
mod crash;
mod damage;
mod headers;
mod integrity;
mod limits;
mod local;
mod names;
mod ranges;
mod redirect;
mod resume;
mod status;
mod stdout;
mod streams;
mod tls;
mod transport;
