//! Tools that are not part of the toolchain: found where they are, or built once and kept.

use std::path::PathBuf;

use crate::command::{Result, cargo, run, target};

/// A cargo sub-command of its own crate, of exactly this version.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

pub(crate) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
pub(crate) const FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };

impl Tool {
    /// The program; built when it is not there yet. It is kept outside the clone, so that the next clone finds it.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let kept = cache().join(format!("{}-{}", self.name, self.version));
        let program = kept.join("bin").join(self.name);
        if !program.is_file() {
            println!("{} {} is not here yet: it is built once", self.name, self.version);
            let mut install = cargo(["install", "--locked", self.name, "--version", self.version, "--root"]);
            run(install.arg(&kept).env("CARGO_TARGET_DIR", target().join("tools")))?;
        }
        Ok(program)
    }
}

/// `$XDG_CACHE_HOME/dlm-ci`, or what stands in for it.
fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    base.or_else(home).map_or_else(|| target().join("tools-cache"), |dir| dir.join("dlm-ci"))
}

/// A program in `PATH` or where daemons live.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(daemons).map(|dir| dir.join(name)).find(|p| p.is_file())
}
