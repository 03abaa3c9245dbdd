//! One run of the binary, watched from outside.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use rustix::process::Signal;

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// The signal it died of.
    pub(crate) signal: Option<i32>,
    /// Whether it was we who killed it, on purpose.
    pub(crate) killed: bool,
    /// Whether it took too long.
    pub(crate) hung: bool,
    /// Standard output, at most 1 MiB.
    pub(crate) stdout: Vec<u8>,
    /// Standard error, at most 1 MiB.
    pub(crate) stderr: String,
    /// Peak resident memory in KiB, as far as seen; 0 where the system does not tell.
    pub(crate) peak_kib: u64,
    /// How long it took.
    pub(crate) took: Duration,
}

/// A run that has not ended yet. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    out: File,
    err: File,
    started: Instant,
    limit: Duration,
    peak_kib: u64,
}

impl Running {
    pub(crate) fn start(mut command: Command, limit: Duration) -> Self {
        let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        let child = command.spawn().expect("the binary starts");
        Self { child, out, err, started: Instant::now(), limit, peak_kib: 0 }
    }

    /// Waits for its end, at most as long as it may take.
    pub(crate) fn finish(self) -> Run {
        self.until(|| false).unwrap_or_else(|mut running| {
            let _ = running.child.kill();
            Run { hung: true, ..running.end() }
        })
    }

    /// Waits for its end, or until this holds: then it is given back, still running. Time that is up ends it, as hung.
    pub(crate) fn until(mut self, mut reached: impl FnMut() -> bool) -> Result<Run, Self> {
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return Ok(self.end());
            }
            if self.started.elapsed() > self.limit {
                let _ = self.child.kill();
                return Ok(Run { hung: true, ..self.end() });
            }
            if reached() {
                return Err(self);
            }
            self.look();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// kill -9, now.
    pub(crate) fn kill(mut self) -> Run {
        let _ = self.child.kill();
        Run { killed: true, ..self.end() }
    }

    /// Sends a signal and goes on.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, signal);
    }

    fn look(&mut self) {
        // For an instant after the start the new process still shows the memory of this one.
        let exe = |who: &str| std::fs::read_link(format!("/proc/{who}/exe")).ok();
        if exe(&self.child.id().to_string()) == exe("self") {
            return;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        self.peak_kib = self.peak_kib.max(kib);
    }

    fn end(&mut self) -> Run {
        let status = self.child.wait().unwrap();
        Run {
            code: status.code(),
            signal: status.signal(),
            killed: false,
            hung: false,
            stdout: slurp(&mut self.out),
            stderr: String::from_utf8_lossy(&slurp(&mut self.err)).into_owned(),
            peak_kib: self.peak_kib,
            took: self.started.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn slurp(file: &mut File) -> Vec<u8> {
    let mut all = Vec::new();
    file.rewind().unwrap();
    file.take(1 << 20).read_to_end(&mut all).unwrap();
    all
}
