//! Commands that are shown, run in the project's folder, and must succeed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) type Result<T = ()> = std::result::Result<T, String>;

/// The sub-commands that take `--locked` and are not given it anyway.
const LOCKABLE: [&str; 6] = ["build", "check", "clippy", "doc", "fetch", "test"];

/// Whether nobody sits in front of it (`CI` is set, by `.ci/run` among others).
fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|v| !v.is_empty() && v != "false")
}

/// The folder of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where everything is built: one folder, whatever the workspace.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// `cargo` with these words, for the toolchain of the project. In CI it builds exactly what the lock files say.
pub(crate) fn cargo<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (i, word) in words.into_iter().enumerate() {
        command.arg(&word);
        if i == 0 && in_ci() && LOCKABLE.iter().any(|l| word.as_ref() == *l) {
            command.arg("--locked");
        }
    }
    command.current_dir(root()).stdin(Stdio::null()).env("CARGO_TARGET_DIR", target());
    // These speak of this package, not of what is built.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(name);
    }
    command
}

/// `cargo` of another toolchain, through rustup's proxy.
pub(crate) fn cargo_of<S: AsRef<OsStr>>(toolchain: &str, words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("cargo");
    command.arg(format!("+{toolchain}")).args(words).current_dir(root()).stdin(Stdio::null());
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO_MANIFEST_DIR"] {
        command.env_remove(name);
    }
    command.env("CARGO_TARGET_DIR", target());
    command
}

/// Shows and runs it.
pub(crate) fn run(command: &mut Command) -> Result {
    let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    let shown = format!("{} {}", program(command), words.join(" "));
    println!("$ {shown}");
    let status = command.status().map_err(|e| format!("{shown}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

/// Whether it runs and succeeds, quietly.
pub(crate) fn works(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn program(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
