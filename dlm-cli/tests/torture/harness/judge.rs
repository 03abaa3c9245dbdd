//! The rules that hold in every scenario, and those of one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::Want;
use super::bench::Bench;
use super::process::Run;

/// What one download may need: 64 MiB.
const PEAK_KIB: u64 = 64 << 10;

pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    sha2::Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The rules of every run, however it ended.
pub(crate) fn standing(bench: &Bench, run: &Run) {
    assert!(!run.hung, "it hung, after {} requests: {run:?}", bench.server.requests());
    assert!(run.killed || run.signal.is_none(), "it died of a signal: {run:?}");
    assert!(!run.stderr.contains("panicked"), "it panicked: {run:?}");
    assert!(
        !run.stderr.contains('\u{1b}') && !run.stdout.contains(&0x1b),
        "raw escapes were printed: {run:?}"
    );
    assert!(run.peak_kib < PEAK_KIB, "it took {} KiB of memory", run.peak_kib);
    if let Some(code) = run.code {
        assert!(matches!(code, 0..=9 | 130 | 143), "exit code {code} is not in the contract: {run:?}");
        assert!(code == 0 || !run.stderr.trim().is_empty(), "it failed without a word: {run:?}");
    }
    if !bench.into_dir {
        at_the_final_name(bench, run);
    }
}

fn at_the_final_name(bench: &Bench, run: &Run) {
    if bench.out.is_dir() {
        assert_ne!(run.code, Some(0), "success where a folder stands: {run:?}");
        return;
    }
    let got = std::fs::read(&bench.out).ok();
    let right = got.as_ref().is_some_and(|g| bench.accept.iter().any(|a| a == g));
    if run.code == Some(0) {
        assert!(right, "false success: {}; {run:?}", describe(bench, got.as_deref()));
        let left = strangers(bench, &[]);
        assert!(left.is_empty(), "left behind after success: {left:?}");
    } else {
        let untouched = got == bench.before;
        assert!(
            right || untouched,
            "wrong bytes at the final name: {}; {run:?}",
            describe(bench, got.as_deref())
        );
        let left = strangers(bench, &[".part", ".part.dlm"]);
        assert!(left.is_empty(), "strange files after a failure: {left:?}");
    }
}

/// Names in the folder that are neither the final one, nor it with one of these suffixes, nor expected.
fn strangers(bench: &Bench, suffixes: &[&str]) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(&bench.dir) else { return Vec::new() };
    let known = |path: &Path| {
        *path == bench.out
            || suffixes.iter().any(|s| *path == *with_suffix(&bench.out, s))
            || bench.also.iter().any(|n| path.file_name() == Some(OsStr::new(n)))
    };
    entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| !known(p)).collect()
}

fn describe(bench: &Bench, got: Option<&[u8]>) -> String {
    let Some(got) = got else { return "no file".to_owned() };
    let data = bench.files.data();
    if got == &bench.files.second.data()[..] {
        return "the other version's bytes".to_owned();
    }
    if got.len() != data.len() {
        let prefix = data.starts_with(got);
        return format!(
            "{} bytes of {}, {}",
            got.len(),
            data.len(),
            if prefix { "a clean prefix" } else { "no prefix" }
        );
    }
    let (mut bad, mut zero) = (0, 0);
    for (g, d) in got.chunks(4096).zip(data.chunks(4096)) {
        bad += u32::from(g != d);
        zero += u32::from(g != d && g.iter().all(|&b| b == 0));
    }
    format!("the right size, {bad} blocks of 4 KiB wrong, {zero} of them zero")
}

/// What the scenario itself wants of its last run.
pub(crate) fn wanted(bench: &Bench, run: &Run, want: &Want) {
    match want {
        Want::Ok => assert_eq!(run.code, Some(0), "it gave up: {run:?}"),
        Want::Refused(codes) => {
            assert!(
                run.code.is_some_and(|c| codes.contains(&c)),
                "exit code {:?}, not one of {codes:?}: {run:?}",
                run.code
            );
            assert_eq!(
                std::fs::read(&bench.out).ok().filter(|_| !bench.into_dir),
                bench.before,
                "refused, and yet there"
            );
        }
        Want::Either => {}
    }
}

/// Every path below a folder with a digest of what it holds, links by their target, sorted.
pub(crate) fn tree(root: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap()) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let what = if kind.is_symlink() {
                format!("link to {}", std::fs::read_link(&path).unwrap().display())
            } else if kind.is_dir() {
                todo.push(path.clone());
                "folder".to_owned()
            } else {
                sha256(&std::fs::read(&path).unwrap())
            };
            all.push((path, what));
        }
    }
    all.sort();
    all
}

/// Fails where this secret was printed, or is on the disk.
pub(crate) fn no_leak(bench: &Bench, run: &Run, secret: &str) {
    assert!(!run.stderr.contains(secret), "printed: {run:?}");
    assert!(!String::from_utf8_lossy(&run.stdout).contains(secret), "printed: {run:?}");
    no_leak_on_disk(bench, secret);
}

/// Fails where this secret stands in a name or in a file.
pub(crate) fn no_leak_on_disk(bench: &Bench, secret: &str) {
    for (path, what) in tree(bench.root()) {
        assert!(!contains(path.as_os_str().as_bytes(), secret.as_bytes()), "in a name: {}", path.display());
        if what != "folder" && !what.starts_with("link") {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!contains(&bytes, secret.as_bytes()), "in {}", path.display());
        }
    }
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}
