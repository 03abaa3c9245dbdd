//! A server, a folder and a command line: where a scenario plays.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use dlm_testkit::http_server::Server;

use super::Files;
use super::judge;
use super::process::{Run, Running};

/// Where one scenario plays. Every run that it does is judged by the standing rules at once.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) files: Files,
    /// What the command is given.
    pub(crate) locator: String,
    /// Its flags, beside those that all scenarios share.
    pub(crate) flags: Vec<String>,
    /// Which bytes are right.
    pub(crate) accept: Vec<Bytes>,
    /// What the final name held before the first run.
    pub(crate) before: Option<Vec<u8>>,
    /// Names that may lie beside the file.
    pub(crate) also: Vec<String>,
    /// The folder for the download.
    pub(crate) dir: PathBuf,
    /// The final name.
    pub(crate) out: PathBuf,
    /// The user's home.
    pub(crate) home: PathBuf,
    pub(crate) into_dir: bool,
    /// For files that hold secrets: it is not searched for them.
    pub(crate) aside: tempfile::TempDir,
    limit: Duration,
    root: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(
        server: Server,
        locator: String,
        files: Files,
        accept: Vec<Bytes>,
        flags: Vec<String>,
        limit: Duration,
        into_dir: bool,
    ) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (dir, home) = (root.path().join("a/b/c/downloads"), root.path().join("home"));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::create_dir_all(&home).unwrap();
        if let Some(pem) = server.ca_pem() {
            std::fs::write(root.path().join("ca.pem"), pem).unwrap();
        }
        let out = dir.join("file.bin");
        Self {
            server,
            files,
            locator,
            aside: tempfile::tempdir().unwrap(),
            flags,
            accept,
            before: None,
            also: Vec::new(),
            dir,
            out,
            home,
            into_dir,
            limit,
            root,
        }
    }

    /// The folder above everything.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }
    /// `NAME.part`.
    pub(crate) fn part(&self) -> PathBuf {
        judge::with_suffix(&self.out, ".part")
    }
    /// `NAME.part.dlm`.
    pub(crate) fn journal(&self) -> PathBuf {
        judge::with_suffix(&self.out, ".part.dlm")
    }
    /// Trusts the server's own authority.
    pub(crate) fn trust(&mut self) {
        let ca = self.root().join("ca.pem");
        self.flags.push(format!("--cacert={}", ca.display()));
    }
    /// Puts these bytes at the final name, as if they had been there all along.
    pub(crate) fn occupy(&mut self, bytes: &[u8]) {
        std::fs::write(&self.out, bytes).unwrap();
        self.before = Some(bytes.to_vec());
    }

    /// The command with nothing but its surroundings.
    pub(crate) fn bare(&self) -> Command {
        // Another build, or another program with the same contract, can be put to the same tests.
        let binary = std::env::var_os("DLM_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_dlm").into());
        let mut command = Command::new(binary);
        command.current_dir(&self.dir).env_clear();
        for keep in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(keep) {
                command.env(keep, value);
            }
        }
        for home in ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"] {
            command.env(home, &self.home);
        }
        command.env("LC_ALL", "C.UTF-8");
        command
    }
    /// The whole command.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.bare();
        command.args(["--idle-timeout=3", "--connect-timeout=5", "--retries=5"]).args(&self.flags);
        if self.into_dir {
            command.arg("--dir").arg(&self.dir);
        } else {
            command.arg("-o").arg(&self.out);
        }
        command.arg(&self.locator);
        command
    }
    pub(crate) fn spawn(&self) -> Running {
        Running::start(self.command(), self.limit)
    }
    /// Runs some other command under the same rules.
    pub(crate) fn run_command(&self, command: Command) -> Run {
        let run = Running::start(command, self.limit).finish();
        judge::standing(self, &run);
        run
    }
    /// Runs it to its end.
    pub(crate) fn run(&mut self) -> Run {
        self.run_command(self.command())
    }
    /// Runs it until this share of the file was served since, then kill -9.
    pub(crate) fn run_until(&mut self, share: f64) -> Run {
        let goal = self.server.served() + (self.files.len() as f64 * share) as u64;
        let run = match self.spawn().until(|| self.server.served() >= goal) {
            Ok(ended) => ended,
            Err(running) => running.kill(),
        };
        judge::standing(self, &run);
        run
    }
    /// Runs it until this share of the file was served since, then sends a signal and waits for its end.
    pub(crate) fn run_signalled(&mut self, share: f64, signal: super::process::Signal) -> Run {
        let goal = self.server.served() + (self.files.len() as f64 * share) as u64;
        let run = match self.spawn().until(|| self.server.served() >= goal) {
            Ok(ended) => ended,
            Err(running) => {
                running.signal(signal);
                running.finish()
            }
        };
        judge::standing(self, &run);
        run
    }
}
