//! What a scenario is, and how it runs.

pub(crate) mod bench;
pub(crate) mod judge;
pub(crate) mod process;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use dlm_testkit::fixtures;
pub(crate) use dlm_testkit::http_server::{Answer, End, Origin, Request, Resource, Server, Step, Tls};

pub(crate) use bench::Bench;
pub(crate) use process::Run;

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// Makes a test of every `name = scenario;`.
macro_rules! scenarios {
    ($($(#[$meta:meta])* $name:ident = $scenario:expr;)*) => {
        $($(#[$meta])* #[test] fn $name() { $scenario.check(); })*
    };
}

/// Servers of all tests run here.
pub(crate) static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the servers")
});

/// The file of a scenario in two versions, the second with other bytes, `ETag` and date.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) first: Resource,
    pub(crate) second: Resource,
}

impl Files {
    /// The honest answer.
    pub(crate) fn answer(&self, q: &Request) -> Answer {
        self.first.answer(q)
    }
    pub(crate) fn data(&self) -> &Bytes {
        self.first.data()
    }
    pub(crate) fn len(&self) -> u64 {
        self.first.len()
    }
}

/// What has to come of it.
#[derive(Debug, Clone)]
pub(crate) enum Want {
    /// Exit 0 and the exact bytes.
    Ok,
    /// One of these exit codes.
    Refused(Vec<i32>),
    /// Exit 0 and the exact bytes, or any failure of the contract.
    Either,
}

type Handler = dyn Fn(&Request, &Files) -> Answer + Send + Sync;
/// Drives the binary; the last run is judged by what the scenario wants.
type Drive = dyn Fn(&mut Bench) -> Run;
type Locate = dyn Fn(&Server, &str) -> String;
type Accept = dyn Fn(&Files) -> Vec<Bytes>;
type Check = dyn Fn(&Bench, &Run);

/// A misbehaviour and what has to come of it.
pub(crate) struct Scenario {
    want: Want,
    handler: Arc<Handler>,
    size: u64,
    second_size: Option<u64>,
    rate: Option<u64>,
    origins: Vec<Origin>,
    path: String,
    locator: Box<Locate>,
    flags: Vec<String>,
    limit: Duration,
    accept: Box<Accept>,
    into_dir: bool,
    drive: Box<Drive>,
    checks: Vec<Box<Check>>,
}

fn scenario(want: Want, handler: impl Fn(&Request, &Files) -> Answer + Send + Sync + 'static) -> Scenario {
    Scenario {
        want,
        handler: Arc::new(handler),
        size: 3 * MIB,
        second_size: None,
        rate: None,
        origins: vec![Origin::http(), Origin::http().on_other_host()],
        path: "/file.bin".to_owned(),
        locator: Box::new(Server::url),
        flags: Vec::new(),
        limit: Duration::from_secs(45),
        accept: Box::new(|f| vec![f.data().clone()]),
        into_dir: false,
        drive: Box::new(Bench::run),
        checks: Vec::new(),
    }
}

/// The fault can be survived, so it must be.
pub(crate) fn ok(handler: impl Fn(&Request, &Files) -> Answer + Send + Sync + 'static) -> Scenario {
    scenario(Want::Ok, handler)
}
/// It must be refused, with this exit code.
pub(crate) fn refused(
    code: i32,
    handler: impl Fn(&Request, &Files) -> Answer + Send + Sync + 'static,
) -> Scenario {
    scenario(Want::Refused(vec![code]), handler)
}
/// It must be refused, with one of these exit codes.
pub(crate) fn refused_as(
    codes: &[i32],
    handler: impl Fn(&Request, &Files) -> Answer + Send + Sync + 'static,
) -> Scenario {
    scenario(Want::Refused(codes.to_vec()), handler)
}
/// The exact bytes or a refusal.
pub(crate) fn either(handler: impl Fn(&Request, &Files) -> Answer + Send + Sync + 'static) -> Scenario {
    scenario(Want::Either, handler)
}
/// An honest server: what goes wrong lies elsewhere.
pub(crate) fn honest(q: &Request, f: &Files) -> Answer {
    f.answer(q)
}

impl Scenario {
    /// Length of the file in bytes (3 MiB without).
    pub(crate) fn size(mut self, bytes: u64) -> Self {
        self.size = bytes;
        self
    }
    /// Length of its second version (that of the first without).
    pub(crate) fn second_size(mut self, bytes: u64) -> Self {
        self.second_size = Some(bytes);
        self
    }
    /// Most bytes a second of the whole server.
    pub(crate) fn rate(mut self, bytes: u64) -> Self {
        self.rate = Some(bytes);
        self
    }
    /// One more origin; the first two are `http://127.0.0.1` (0) and `http://127.0.0.2` (1).
    pub(crate) fn origin(mut self, origin: Origin) -> Self {
        self.origins.push(origin);
        self
    }
    /// The path in the locator (`/file.bin` without).
    pub(crate) fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
    /// The locator, made from the server and the path.
    pub(crate) fn locator(mut self, make: impl Fn(&Server, &str) -> String + 'static) -> Self {
        self.locator = Box::new(make);
        self
    }
    /// The locator is the path on the origin of this number.
    pub(crate) fn on(self, origin: usize) -> Self {
        self.locator(move |server, path| server.url_on(origin, path))
    }
    /// More flags for the command.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|&f| f.to_owned()));
        self
    }
    /// `--checksum` with the true SHA-256 of the first version.
    pub(crate) fn checksum(self) -> Self {
        let drive = self.drive;
        Self {
            drive: Box::new(move |b| {
                b.flags.push(format!("--checksum=sha256:{}", judge::sha256(b.files.data())));
                drive(b)
            }),
            ..self
        }
    }
    /// Seconds that one run may take (45 without).
    pub(crate) fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }
    /// These bytes are right, instead of those of the first version.
    pub(crate) fn accept(mut self, right: impl Fn(&Files) -> Vec<Bytes> + 'static) -> Self {
        self.accept = Box::new(right);
        self
    }
    /// Either version is right, whole.
    pub(crate) fn accept_both(self) -> Self {
        self.accept(|f| vec![f.first.data().clone(), f.second.data().clone()])
    }
    /// Downloads with `--dir`, so that the source chooses the name.
    pub(crate) fn into_dir(mut self) -> Self {
        self.into_dir = true;
        self
    }
    /// Drives the binary in another way than by one run.
    pub(crate) fn drive(mut self, drive: impl Fn(&mut Bench) -> Run + 'static) -> Self {
        self.drive = Box::new(drive);
        self
    }
    /// Prepares the folder before the first run.
    pub(crate) fn before(self, prepare: impl Fn(&mut Bench) + 'static) -> Self {
        let drive = self.drive;
        Self {
            drive: Box::new(move |b| {
                prepare(b);
                drive(b)
            }),
            ..self
        }
    }
    /// kill -9 when this share of the file was served, then the same command again (twice, should the first fail).
    pub(crate) fn killed(self, share: f64) -> Self {
        self.killed_and(share, |_| {})
    }
    /// The same, and something happens to the disk in between.
    pub(crate) fn killed_and(self, share: f64, tamper: impl Fn(&mut Bench) + 'static) -> Self {
        self.drive(move |b| {
            let first = b.run_until(share);
            if first.killed {
                tamper(b);
            } else if first.code == Some(0) {
                return first;
            }
            let second = b.run();
            if second.code == Some(0) { second } else { b.run() }
        })
    }
    /// One more thing that must hold after the last run.
    pub(crate) fn and(mut self, check: impl Fn(&Bench, &Run) + 'static) -> Self {
        self.checks.push(Box::new(check));
        self
    }
    /// Standard error must contain this.
    pub(crate) fn says(self, text: &'static str) -> Self {
        self.and(move |_, run| {
            assert!(run.stderr.contains(text), "the message does not say {text:?}: {run:?}");
        })
    }

    /// Runs it.
    pub(crate) fn check(self) {
        let second_size = self.second_size.unwrap_or(self.size);
        let first = Resource::new(fixtures::bytes(1, self.size as usize));
        let second = first.second_version(fixtures::bytes(2, second_size as usize));
        let files = Files { first, second };
        let mut builder = Server::builder();
        for origin in &self.origins {
            builder = builder.origin(*origin);
        }
        if let Some(rate) = self.rate {
            builder = builder.rate(rate);
        }
        let (handler, own) = (self.handler.clone(), files.clone());
        let server = RUNTIME
            .block_on(builder.start(move |q: &Request| handler(q, &own)))
            .expect("a server on loopback");
        let locator = (self.locator)(&server, &self.path);
        let accept = (self.accept)(&files);
        let mut bench = Bench::new(server, locator, files, accept, self.flags, self.limit, self.into_dir);
        let run = (self.drive)(&mut bench);
        judge::wanted(&bench, &run, &self.want);
        for check in &self.checks {
            check(&bench, &run);
        }
    }
}
