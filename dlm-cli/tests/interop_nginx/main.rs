//! The binary against a real nginx: `cargo xtask interop`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]
#![allow(clippy::print_stderr, reason = "what a test says about itself goes to standard error")]

mod large;
mod nginx;
#[path = "../torture/harness/process.rs"]
#[allow(dead_code, reason = "shared with the torture tests")]
mod process;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use dlm_testkit::fixtures;
use sha2::Digest as _;

use nginx::Nginx;
use process::{Run, Running};

const LEN: usize = 32 << 20;

/// A folder, a server, and the file that it has.
struct Place {
    nginx: Nginx,
    data: Bytes,
    downloads: PathBuf,
    root: tempfile::TempDir,
}

impl Place {
    /// With `big.bin` of [`LEN`] bytes.
    fn new() -> Self {
        let mut place = Self::empty();
        place.data = fixtures::bytes(1, LEN);
        std::fs::write(place.served("big.bin"), &place.data).unwrap();
        place
    }
    /// With no file yet.
    fn empty() -> Self {
        let root = tempfile::tempdir().unwrap();
        let downloads = root.path().join("downloads");
        std::fs::create_dir_all(&downloads).unwrap();
        std::fs::create_dir_all(root.path().join("www")).unwrap();
        Self { nginx: Nginx::start(root.path()), data: Bytes::new(), downloads, root }
    }
    /// Where the server has its file of this name.
    fn served(&self, name: &str) -> PathBuf {
        self.root.path().join("www").join(name)
    }
    fn out(&self) -> PathBuf {
        self.downloads.join("got.bin")
    }
    fn ca(&self) -> String {
        format!("--cacert={}", self.root.path().join("ca.pem").display())
    }
    fn start(&self, words: &[&str]) -> Running {
        let mut command = Command::new(binary());
        command.args(["--idle-timeout=5", "--connect-timeout=5"]).args(words);
        self.spawn(command)
    }
    /// Some other command in the same surroundings.
    fn spawn(&self, mut command: Command) -> Running {
        command
            .current_dir(&self.downloads)
            .env_clear()
            .env("HOME", self.root.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Running::start(command, Duration::from_mins(1))
    }
    fn run(&self, words: &[&str]) -> Run {
        self.start(words).finish()
    }
    /// Downloads it, and every byte must be right. Leaves nothing behind.
    fn good(&self, what: &str, words: &[&str]) {
        let out = self.out();
        let run = self.run(&[&["-o", out.to_str().unwrap()], words].concat());
        eprintln!("{what}: {:.2} s, {} KiB", run.took.as_secs_f64(), run.peak_kib);
        assert_eq!(run.code, Some(0), "{what}: {run:?}");
        self.check(what);
        assert!(run.peak_kib < 64 << 10, "{what}: {} KiB of memory", run.peak_kib);
    }
    fn check(&self, what: &str) {
        assert!(std::fs::read(self.out()).unwrap() == self.data, "{what}: wrong bytes");
        let left: Vec<_> = std::fs::read_dir(&self.downloads).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, [self.out()], "{what}");
        std::fs::remove_file(self.out()).unwrap();
    }
    /// It is refused with this code, and nothing stands at the final name.
    fn bad(&self, what: &str, code: i32, words: &[&str]) {
        let out = self.out();
        let run = self.run(&[&["-o", out.to_str().unwrap()], words].concat());
        eprintln!("{what}: {}", run.stderr.trim());
        assert_eq!(run.code, Some(code), "{what}: {run:?}");
        assert!(!out.exists() && !run.stderr.trim().is_empty(), "{what}: {run:?}");
        for path in [with(&out, ".part"), with(&out, ".part.dlm")] {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The binary that was built for this test, or another one with the same contract.
fn binary() -> OsString {
    std::env::var_os("DLM_TEST_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_dlm").into())
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[test]
#[ignore = "needs nginx and openssl: cargo xtask interop"]
fn against_a_real_nginx() {
    let place = Place::new();
    let (http, https) = (|path: &str| place.nginx.http(path), |path: &str| place.nginx.https(path));
    let (ca, sum) = (place.ca(), format!("--checksum=sha256:{:x}", Hex(&sha2::Sha256::digest(&place.data))));

    place.good("plain", &[&http("/big.bin")]);
    place.good("one connection", &["-x", "1", &http("/big.bin")]);
    place.good("sixteen connections", &["-x", "16", &http("/big.bin")]);
    place.good("checksum", &[&sum, &http("/big.bin")]);
    place.good("no ranges", &[&http("/no-ranges/big.bin")]);
    place.good("not packed", &[&http("/packed/big.bin")]);
    place.good("chunked, without a length", &[&http("/chunked/big.bin")]);
    place.good("redirect", &[&http("/moved/")]);
    place.good("two requests a connection", &["-x", "4", &http("/few-requests/big.bin")]);
    place.good("one connection allowed", &[&http("/one-connection/big.bin")]);
    place.good("limited by itself", &["--limit-rate", "16M", &http("/big.bin")]);

    place.good("TLS", &[&ca, &https("/big.bin")]);
    place.good("TLS, sixteen connections, checksum", &[&ca, &sum, "-x", "16", &https("/big.bin")]);
    place.good("redirect to TLS", &[&ca, &http("/moved-to-tls/")]);
    place.good("TLS, not verified", &["--insecure", &https("/big.bin")]);
    place.bad("TLS, unknown authority", 3, &[&https("/big.bin")]);
    place.bad("redirect from TLS to plain", 4, &[&ca, &https("/moved-to-plain/")]);

    place.good("login", &["--user", "alice:s3cret", &http("/private/big.bin")]);
    place.good("login in the address", &[&http("/private/big.bin").replace("://", "://alice:s3cret@")]);
    place.bad("no login", 4, &[&http("/private/big.bin")]);
    place.bad("wrong login", 4, &["--user", "alice:wrong", &http("/private/big.bin")]);
    place.bad("not found", 4, &[&http("/nothing")]);
    let wrong = format!("--checksum=sha256:{}", "0".repeat(64));
    place.bad("wrong checksum", 5, &[&wrong, &http("/big.bin")]);

    killed_and_resumed(&place, &[&http("/slow/big.bin"), "-x", "3", &sum]);
    killed_and_resumed(&place, &[&https("/slow/big.bin"), "-x", "3", &ca]);
}

/// kill -9 three times in the middle, then to the end.
fn killed_and_resumed(place: &Place, words: &[&str]) {
    let out = place.out();
    let words = [&["-o", out.to_str().unwrap()], words].concat();
    for wait in [400, 300, 400] {
        let started = std::time::Instant::now();
        let running = place.start(&words).until(|| started.elapsed() >= Duration::from_millis(wait));
        let running = match running {
            Err(running) => running,
            Ok(run) => panic!("it was done too early: {run:?}"),
        };
        running.kill();
        assert!(!out.exists() && with(&out, ".part").exists(), "killed, and the final name is there");
    }
    let run = place.run(&words);
    assert_eq!(run.code, Some(0), "{run:?}");
    place.check("killed and resumed");
    // How long it takes says little: each new connection may begin with a burst.
    assert!(run.stderr.contains("from an earlier run"), "it started over: {run:?}");
}

/// Bytes in hex.
struct Hex<'a>(&'a [u8]);

impl std::fmt::LowerHex for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
