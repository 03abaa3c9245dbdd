//! The project's own chores. `cargo xtask STAGE...` does them in order, stops at the first that fails, and says at the
//! end how long each took.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for people: it talks")]

mod bench;
mod command;
mod docs;
mod stages;
mod tools;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use command::Result;

const USAGE: &str = "\
usage: cargo xtask STAGE...
       cargo xtask bench [--rounds N]

  test             every test of the workspace, as the README says: cargo test --workspace
  check            links of the documents, format, clippy, rustdoc, licences and sources of dependencies
  alone            each crate builds and tests by itself, also without its features; the example outside the tree
  fuzz[=SECONDS]   every fuzz target for so many seconds (20); fails where there is no nightly toolchain
  interop          the binary against a real nginx
  sim              the simulator: seeded worlds in which everything fails
  ci               all of these in this order
  bench            the release build beside curl and aria2c, all of them with one nginx on this machine";

/// In the order of `ci`: what finds most comes first.
const ALL: [&str; 6] = ["test", "check", "alone", "fuzz", "interop", "sim"];

fn main() -> ExitCode {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    match wanted.split_first() {
        Some((first, words)) if first == "bench" => return ended(bench::run(words)),
        Some((first, words)) if first == bench::MEASURED => return ended(bench::measured(words)),
        _ => {}
    }
    if wanted == ["ci"] {
        wanted = ALL.iter().map(|&s| s.to_owned()).collect();
    }
    if wanted.is_empty() || wanted.iter().any(|w| !ALL.contains(&name(w))) {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    let mut done = Vec::new();
    for stage in &wanted {
        println!("\n=== {stage} ===");
        let started = Instant::now();
        let result = run(stage);
        done.push((stage.as_str(), started.elapsed(), result.is_ok()));
        if let Err(why) = result {
            table(&done);
            eprintln!("\nxtask: the stage `{stage}` failed: {why}");
            return ExitCode::FAILURE;
        }
    }
    table(&done);
    ExitCode::SUCCESS
}

fn ended(result: Result) -> ExitCode {
    if let Err(why) = result {
        eprintln!("xtask: {why}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn name(stage: &str) -> &str {
    stage.split('=').next().unwrap_or_default()
}

fn run(stage: &str) -> Result {
    match name(stage) {
        "test" => stages::test(),
        "check" => stages::check(),
        "alone" => stages::alone(),
        "fuzz" => {
            let seconds = stage.split_once('=').map_or(Ok(20), |(_, s)| s.parse());
            stages::fuzz(seconds.map_err(|_| format!("{stage}: how many seconds?"))?)
        }
        "interop" => stages::interop(),
        "sim" => stages::sim(),
        other => Err(format!("there is no stage {other}")),
    }
}

fn table(done: &[(&str, Duration, bool)]) {
    println!("\n{:<14}{:>8}  result", "stage", "minutes");
    for (stage, took, ok) in done {
        println!("{stage:<14}{:>8.1}  {}", took.as_secs_f64() / 60.0, if *ok { "ok" } else { "FAILED" });
    }
    let all: Duration = done.iter().map(|d| d.1).sum();
    println!("{:<14}{:>8.1}", "all", all.as_secs_f64() / 60.0);
}
