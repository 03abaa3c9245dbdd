//! Where it takes place: a folder with the files, and an nginx that serves them. Nothing is left of either.

use std::fs::{DirBuilder, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::statvfs::statvfs;

use super::Size;
use crate::command::Result;

/// In memory, so that no disk is measured; where there is room.
const MEMORY: &str = "/dev/shm";

/// A folder and a server, both gone when dropped: the server first.
#[derive(Debug)]
pub(super) struct Site {
    nginx: Nginx,
    folder: Folder,
}

impl Site {
    pub(super) fn open(nginx: &Path) -> Result<Self> {
        let folder = Folder::new()?;
        make(&folder.0.join("www"))?;
        for size in Size::ALL {
            fill(&folder.0.join("www").join(size.text()), size.bytes())?;
        }
        Ok(Self { nginx: Nginx::start(nginx, &folder.0)?, folder })
    }
    pub(super) fn folder(&self) -> &Path {
        &self.folder.0
    }
    pub(super) fn url(&self, size: Size) -> String {
        format!("http://127.0.0.1:{}/{}", self.nginx.port, size.text())
    }
    /// A name in an empty folder.
    pub(super) fn fresh_output(&self) -> Result<PathBuf> {
        let folder = self.folder.0.join("out");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        make(&folder)?;
        Ok(folder.join("file"))
    }
    /// It must be what was served.
    pub(super) fn compare(&self, size: Size, got: &Path) -> Result {
        let original = self.folder.0.join("www").join(size.text());
        match same(got, &original) {
            Ok(true) => Ok(()),
            Ok(false) => Err("it ended well, but the file is wrong".into()),
            Err(e) => Err(format!("{}: {e}", got.display())),
        }
    }
}

/// A new folder of this user alone, removed when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        // The files, one output, and something to spare.
        let needed = 2 * Size::ALL.map(Size::bytes).iter().sum::<u64>() + (64 << 20);
        let places = [PathBuf::from(MEMORY), std::env::temp_dir()];
        let place = places.iter().find(|place| room(place) >= needed).ok_or_else(|| {
            format!("neither {MEMORY} nor {} has {} MiB of room", places[1].display(), needed >> 20)
        })?;
        Self::new_in(place)
    }
    fn new_in(place: &Path) -> Result<Self> {
        let path = place.join(format!("dlm-bench-{}", std::process::id()));
        make(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("xtask: {} is left behind: {e}", self.0.display());
        }
    }
}

/// Room that this user may take, in bytes.
fn room(place: &Path) -> u64 {
    statvfs(place).map_or(0, |s| s.blocks_available().saturating_mul(s.fragment_size()))
}

/// The server. One process without workers, so that ending it leaves nothing behind.
#[derive(Debug)]
struct Nginx {
    child: Child,
    port: u16,
}

impl Nginx {
    fn start(program: &Path, folder: &Path) -> Result<Self> {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?.port();
        let conf = folder.join("nginx.conf");
        std::fs::write(&conf, config(folder, port)).map_err(|e| format!("{}: {e}", conf.display()))?;
        make(&folder.join("tmp"))?;
        let mut command = Command::new(program);
        command.arg("-p").arg(folder).arg("-c").arg(&conf).args(["-e", "stderr"]).stdin(Stdio::null());
        let child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
        let mut nginx = Self { child, port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Ok(Some(status)) = nginx.child.try_wait() {
                return Err(format!("nginx ended at once: {status}"));
            }
            if started.elapsed() > Duration::from_secs(10) {
                return Err("nginx does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
master_process off;
error_log stderr crit;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 100000;
    default_type application/octet-stream;
    client_body_temp_path {folder}/tmp/body;
    proxy_temp_path {folder}/tmp/proxy;
    fastcgi_temp_path {folder}/tmp/fastcgi;
    uwsgi_temp_path {folder}/tmp/uwsgi;
    scgi_temp_path {folder}/tmp/scgi;
    server {{ listen 127.0.0.1:{port}; root {folder}/www; }}
}}
"
    )
}

/// SIGINT, SIGTERM and SIGHUP are noted, so that they end this program in order.
///
/// Programs that it starts inherit that they are blocked. For the server that is well, as it has to be there until the
/// end; what is measured [takes it back](let_signals_in).
#[derive(Debug)]
pub(super) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    pub(super) fn watch() -> Result<Self> {
        let signals = ends();
        // The threads that are started from here on have the same mask.
        signals.thread_block().map_err(|e| format!("signals: {e}"))?;
        let noted = Arc::new(AtomicBool::new(false));
        let note = noted.clone();
        std::thread::spawn(move || {
            if signals.wait().is_ok() {
                note.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self(noted))
    }
    pub(super) fn check(&self) -> Result {
        if self.0.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
    }
}

fn ends() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
}

/// Undoes what the program that started this one did in [`Interrupted::watch`].
pub(super) fn let_signals_in() -> Result {
    ends().thread_unblock().map_err(|e| format!("signals: {e}"))
}

fn make(folder: &Path) -> Result {
    DirBuilder::new().mode(0o700).create(folder).map_err(|e| format!("{}: {e}", folder.display()))
}

/// Random bytes: no two blocks are the same.
fn fill(path: &Path, len: u64) -> Result {
    let copy = || {
        let mut random = File::open("/dev/urandom")?.take(len);
        std::io::copy(&mut random, &mut File::create_new(path)?)
    };
    match copy() {
        Ok(n) if n == len => Ok(()),
        Ok(n) => Err(format!("{}: only {n} bytes", path.display())),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

fn same(one: &Path, other: &Path) -> std::io::Result<bool> {
    let reader = |path: &Path| File::open(path).map(|f| BufReader::with_capacity(1 << 20, f));
    let (mut one, mut other) = (reader(one)?, reader(other)?);
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let len = left.len().min(right.len());
        if len == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        if left[..len] != right[..len] {
            return Ok(false);
        }
        one.consume(len);
        other.consume(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_to_their_ends() {
        let folder = Folder::new_in(&std::env::temp_dir()).unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.0.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let long = vec![7; (1 << 20) + 5];
        let a = file("a", &long);
        assert!(same(&a, &file("b", &long)).unwrap());
        assert!(!same(&a, &file("c", &long[1..])).unwrap());
        assert!(!same(&file("d", b""), &a).unwrap());
        let mut other = long.clone();
        *other.last_mut().unwrap() = 8;
        assert!(!same(&a, &file("e", &other)).unwrap());
        let path = folder.0.clone();
        drop(folder);
        assert!(!path.exists());
    }
}
