//! `dlm`: one-shot downloads on the command line.
//!
//! This file only calls; what happens in between is, in order:
//!
//! | step | file |
//! |---|---|
//! | each flag, defined once: parsing, help | `flags/` |
//! | what was typed: the command line, split and checked for form | `typed.rs` |
//! | what it means: addresses, digests, rates, secrets, a plan of downloads | `meant.rs` |
//! | which protocols this build has, as an engine | `backends.rs` |
//! | where the bytes of a download go | `output.rs`, `stdout.rs` |
//! | the downloads themselves, some at a time | `run.rs` |
//! | what a person sees while they run | `progress.rs`, `notes.rs`, `say.rs` |
//! | SIGINT and SIGTERM, first and second | `signals.rs` |
//! | errors as one line and as exit codes | `report.rs` |
//!
//! Standard output carries data only: a file's bytes with `-o -`, and what was asked for by `--help` and
//! `--version`. Everything else goes to standard error, through one place (`say.rs`), so that lines and a progress
//! display never mix.
//!
//! Start-up is cheap on purpose: no logging framework, no regular expressions, a runtime of two workers, and it is
//! built only when there is something to download.

mod backends;
mod flags;
mod meant;
mod notes;
mod output;
mod progress;
mod report;
mod run;
mod say;
mod signals;
mod stdout;
mod text;
mod typed;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    run::main(std::env::args_os())
}
