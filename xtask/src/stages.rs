//! What each stage does.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Result, cargo, cargo_of, root, run, works};
use crate::{docs, tools};

/// Workspaces of their own, which the commands for the workspace do not see.
const OUTSIDE: [&str; 2] = ["fuzz/Cargo.toml", "examples/out-of-tree/Cargo.toml"];

/// The README's test command.
pub(crate) fn test() -> Result {
    run(&mut cargo(["test", "--workspace"]))
}

pub(crate) fn check() -> Result {
    docs::check()?;
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    for manifest in OUTSIDE {
        run(&mut cargo(["fmt", "--manifest-path", manifest, "--check"]))?;
    }
    run(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    for manifest in OUTSIDE {
        run(&mut cargo(["clippy", "--manifest-path", manifest, "--all-targets", "--", "-D", "warnings"]))?;
    }
    run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    let deny = tools::DENY.path()?;
    let mut command = Command::new(deny);
    run(command.args(["--workspace", "check", "bans", "licenses", "sources"]).current_dir(root()))
}

/// Each crate with the features that it asks for itself, and not with those that a neighbour asks for.
pub(crate) fn alone() -> Result {
    for member in members()? {
        let package = package_name(&member)?;
        run(&mut cargo(["test", "-p", &package]))?;
        run(&mut cargo(["check", "-p", &package, "--no-default-features"]))?;
    }
    run(&mut cargo(["test", "--manifest-path", "examples/out-of-tree/Cargo.toml"]))
}

pub(crate) fn fuzz(seconds: u32) -> Result {
    if !works(&mut cargo_of("nightly", ["--version"])) {
        let cure = "rustup toolchain install nightly --profile minimal";
        return Err(format!(
            "NOTHING WAS FUZZED: that needs a nightly toolchain, and there is none here ({cure})"
        ));
    }
    // cargo-fuzz has no `--locked`: where the lock file is not up to date, this says so.
    run(&mut cargo(["fetch", "--manifest-path", "fuzz/Cargo.toml"]))?;
    let fuzzer = tools::FUZZ.path()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = fuzzer.parent().into_iter().map(Path::to_owned).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(dirs).map_err(|e| e.to_string())?;
    let targets = stems(&root().join("fuzz/fuzz_targets"))?;
    if targets.is_empty() {
        return Err("there is no fuzz target".into());
    }
    run(cargo_of("nightly", ["fuzz", "build"]).env("PATH", &path))?;
    for target in targets {
        let corpus = root().join("fuzz/corpus").join(&target);
        std::fs::create_dir_all(&corpus).map_err(|e| format!("{}: {e}", corpus.display()))?;
        let mut command = cargo_of("nightly", ["fuzz", "run", &target]);
        command.arg(corpus).arg(root().join("fuzz/seeds").join(&target)).env("PATH", &path);
        let limit = format!("-max_total_time={seconds}");
        run(command.args([
            "--",
            &limit,
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-max_len=4096",
            "-print_final_stats=0",
            "-verbosity=0",
        ]))?;
    }
    Ok(())
}

pub(crate) fn interop() -> Result {
    let nginx = tools::find("nginx").ok_or("nginx is not installed")?;
    // One after the other: they look at what is on disk, on the way and in memory while a download runs at full speed.
    let test = ["test", "-p", "dlm-cli", "--test", "interop_nginx", "--", "--ignored", "--test-threads=1"];
    run(cargo(test).env("DLM_NGINX", nginx))
}

pub(crate) fn sim() -> Result {
    run(&mut cargo([
        "test",
        "--release",
        "-p",
        "dlm-core",
        "--test",
        "mixed_sources",
        "--",
        "--ignored",
        "--nocapture",
    ]))
}

/// The folders of the workspace's members, as its manifest lists them.
fn members() -> Result<Vec<PathBuf>> {
    let manifest = read(&root().join("Cargo.toml"))?;
    let list = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next());
    let list = list.ok_or("the manifest lists no members")?;
    Ok(list
        .split(',')
        .map(|m| m.trim().trim_matches('"'))
        .filter(|m| !m.is_empty())
        .map(|m| root().join(m))
        .collect())
}

fn package_name(member: &Path) -> Result<String> {
    let manifest = read(&member.join("Cargo.toml"))?;
    let name = manifest.lines().find_map(|l| l.strip_prefix("name = "));
    name.map(|n| n.trim_matches('"').to_owned()).ok_or_else(|| format!("{} has no name", member.display()))
}

/// The names of the files in a folder, without their endings, sorted.
fn stems(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut all: Vec<String> =
        entries.filter_map(|e| Some(e.ok()?.path().file_stem()?.to_string_lossy().into_owned())).collect();
    all.sort();
    Ok(all)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}
