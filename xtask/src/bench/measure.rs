//! What one run of a program takes.
//!
//! The system tells a process what its ended children took together, and the most memory that any of them had. So each
//! program is run by a process of its own, this program again, which has no other child.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike as _;
use nix::unistd::Pid;

use super::site::let_signals_in;
use crate::command::Result;

/// The word that makes this program run another one and say what it took.
pub(crate) const MEASURED: &str = "measured";
/// A run that takes longer is ended.
const LONGEST: Duration = Duration::from_mins(5);

/// What a run took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Took {
    /// From before its start until it was seen to have ended.
    pub(crate) wall: Duration,
    /// User and system time of all its threads.
    pub(crate) cpu: Duration,
    /// The most memory that was resident, in KiB.
    pub(crate) peak_kib: u64,
}

impl Took {
    fn line(self) -> String {
        format!("{} {} {}", self.wall.as_micros(), self.cpu.as_micros(), self.peak_kib)
    }
    fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let took = Self {
            wall: Duration::from_micros(next()?),
            cpu: Duration::from_micros(next()?),
            peak_kib: next()?,
        };
        numbers.next().is_none().then_some(took)
    }
}

/// Runs it in that folder, with nothing of the user's settings. It must succeed.
pub(crate) fn took(program: &Path, words: &[OsString], folder: &Path) -> Result<Took> {
    let this = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let mut command = Command::new(this);
    command.arg(MEASURED).arg(program).args(words).current_dir(folder);
    command
        .env_clear()
        .env("HOME", folder)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().map_err(|e| format!("cannot measure: {e}"))?;
    if !output.status.success() {
        return Err(format!("it failed, {}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Took::parse(&text).ok_or_else(|| format!("cannot measure: {text:?}"))
}

/// The other side of [`took`]: runs the program and prints the line.
pub(crate) fn measured(words: &[String]) -> Result {
    let_signals_in()?;
    let (program, words) = words.split_first().ok_or("nothing to run")?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let mut child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (ended, still_runs) = sync_channel::<()>(0);
    let watch = std::thread::spawn(move || {
        if still_runs.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let status = child.wait().map_err(|e| format!("{program}: {e}"))?;
    let wall = started.elapsed();
    drop(ended);
    let _ = watch.join();
    if !status.success() {
        return Err(format!("{program}: {status}"));
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| format!("getrusage: {e}"))?;
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    let took = Took {
        wall,
        cpu: Duration::from_micros(cpu.unsigned_abs()),
        peak_kib: usage.max_rss().unsigned_abs(),
    };
    println!("{}", took.line());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back() {
        let took =
            Took { wall: Duration::from_micros(1_234_567), cpu: Duration::from_micros(89), peak_kib: 4096 };
        assert_eq!(Took::parse(&took.line()), Some(took));
        for wrong in ["", "1 2", "1 2 x", "1 2 3 4", "-1 2 3"] {
            assert_eq!(Took::parse(wrong), None, "{wrong:?}");
        }
    }
}
