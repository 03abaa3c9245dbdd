//! The same seed gives the same run: in one process, and in another, where hash maps are in another order.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dlm_core::{Algorithm, Caps, MemoryJournal, MemorySink, Seek, StreamSink};
use dlm_testkit::sim::{Peer, Plan, Report, Rng, SimRanged, SimSwarm, SimTree, block_on};

const LEN: usize = 3_000_000;

/// Every kind of source and fault, drawn by the seed.
fn plan(seed: u64) -> Plan {
    let mut rng = Rng::new(seed);
    let mut plan = Plan::new(seed, LEN).pieces(64 << 10);
    for i in 0..=rng.below(3) {
        let mut server = SimRanged::new(&format!("server {i}"), rng.between(0.3e6, 3e6));
        server.cut = rng.chance(0.3).then(|| 200_000 + rng.below(400_000));
        server.stall = rng.chance(0.2).then(|| 500_000 + rng.below(400_000));
        server.corrupt = if rng.chance(0.3) { 0.02 } else { 0.0 };
        server.refuse_above = rng.chance(0.3).then(|| 1 + rng.below(3) as u32);
        plan = plan.source(server.make());
    }
    if rng.chance(0.6) {
        let peer = |i: u64, rate, corrupt| Peer { label: format!("peer {i}"), rate, share: 0.7, corrupt };
        let peers =
            (0..4).map(|i| peer(i, rng.between(0.2e6, 0.8e6), if i == 2 { 0.5 } else { 0.0 })).collect();
        plan = plan.source(SimSwarm { peers }.make());
    }
    if rng.chance(0.3) {
        let mut stream = SimRanged::new("stream", 5e5);
        stream.caps = Caps::RANGES.seek(Seek::StartOnly).max_parallel(1);
        stream.lengthless = true;
        plan = plan.source(stream.make());
    }
    // One that is there to the end.
    plan = plan.source(SimRanged::new("honest", 2e5).make());
    plan.spec = plan.spec.clone().digest(Algorithm::Crc32c.hasher().update(&plan.object.data).finish());
    if rng.chance(0.3) {
        plan.spec = plan.spec.clone().connections(1 + rng.below(6) as u32);
    }
    plan.memory = if rng.chance(0.3) { 300_000 } else { 8 << 20 };
    plan
}

/// What a run was: every event and when it came, and every write in its order.
fn text(report: &Report, written: &[String]) -> String {
    let mut all = report.trace.clone();
    all.extend(written.iter().cloned());
    all.push(format!("{:?} {:?} {:?}", report.seconds.to_bits(), report.snapshot, report.result.is_ok()));
    all.join("\n")
}

fn to_memory(seed: u64) -> String {
    let sink = rules_kit::CountedSink::new(MemorySink::new());
    let report = block_on(plan(seed).run_into(Arc::new(sink.clone()), Arc::new(MemoryJournal::new())));
    let writes = sink.seen().writes.iter().map(|r| format!("{r:?}")).collect::<Vec<_>>();
    text(&report, &writes)
}

/// In order, from a hash tree and a server.
fn to_a_pipe(seed: u64) -> String {
    let plan = Plan::new(seed, LEN)
        .source(SimTree { rate: 2e6, leaf: 100_000 }.make())
        .source(SimRanged::new("server", 1e6).make());
    let sink = rules_kit::CountedSink::new(StreamSink::new(tokio::io::sink()));
    let report = block_on(plan.run_into(Arc::new(sink.clone()), Arc::new(MemoryJournal::new())));
    let writes = sink.seen().writes.iter().map(|r| format!("{r:?}")).collect::<Vec<_>>();
    text(&report, &writes)
}

/// Stopped in the middle, and resumed.
fn with_a_pause(seed: u64) -> String {
    let (memory, journal) = (MemorySink::new(), MemoryJournal::new());
    let sink = rules_kit::CountedSink::new(memory);
    let mut plan = plan(seed);
    plan.patience = Duration::from_millis(700);
    let first = block_on(plan.run_into(Arc::new(sink.clone()), Arc::new(journal.clone())));
    plan.patience = Duration::from_hours(1);
    let report = block_on(plan.run_into(Arc::new(sink.clone()), Arc::new(journal.clone())));
    let mut writes = sink.seen().writes.iter().map(|r| format!("{r:?}")).collect::<Vec<_>>();
    writes.push(format!("{:?} {:?}", first.snapshot, journal.records()));
    text(&report, &writes)
}

fn everything(seed: u64) -> String {
    [to_memory(seed), to_a_pipe(seed), with_a_pause(seed)].join("\n\n")
}

#[test]
fn the_same_seed_gives_the_same_run_twice_in_one_process() {
    for seed in 0..12 {
        // In a thread of its own each: hash maps then begin with other keys.
        let run = move || std::thread::spawn(move || everything(seed)).join().unwrap();
        let (a, b) = (run(), run());
        for (i, (a, b)) in a.lines().zip(b.lines()).enumerate() {
            assert_eq!(a, b, "seed {seed}, line {i}");
        }
        assert_eq!(a.len(), b.len(), "seed {seed}");
    }
}

#[test]
fn another_seed_gives_another_run() {
    let all: std::collections::BTreeSet<String> = (0..6).map(everything).collect();
    assert_eq!(all.len(), 6, "the trace says something");
}

/// What the next one runs in other processes.
#[test]
#[ignore = "no test by itself"]
fn in_another_process() {
    let all: Vec<String> = (0..6).map(everything).collect();
    let digest = Algorithm::Sha256.hasher().update(all.join("\n").as_bytes()).finish();
    println!("trace {digest}");
}

#[test]
fn the_same_seed_gives_the_same_run_in_processes_with_other_hash_seeds() {
    let run = || {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "in_another_process", "--nocapture", "--ignored"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let line = text.lines().find_map(|l| l.split_once("trace ").map(|(_, d)| d.to_owned()));
        line.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&out.stderr)))
    };
    let first = run();
    for _ in 0..2 {
        assert_eq!(run(), first);
    }
}

/// The sources of this crate below a folder, without their tests and comments.
fn sources(below: &str) -> Vec<(PathBuf, String)> {
    fn walk(path: &Path, out: &mut Vec<(PathBuf, String)>) {
        if path.is_dir() {
            let mut all: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
            all.sort();
            for p in &all {
                walk(p, out);
            }
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let lines = code.lines().map(|l| l.split("//").next().unwrap_or_default());
            out.push((path.to_owned(), lines.collect::<Vec<_>>().join("\n")));
        }
    }
    let mut out = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(below), &mut out);
    assert!(!out.is_empty(), "{below}");
    out
}

fn nowhere(below: &[&str], words: &[&str]) {
    let mut found = Vec::new();
    for (path, code) in below.iter().flat_map(|b| sources(b)) {
        for (i, line) in code.lines().enumerate() {
            if let Some(w) = words.iter().find(|w| line.contains(**w)) {
                found.push(format!("{}:{}: {w}", path.display(), i + 1));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn no_hash_map_on_the_board_nor_in_a_policy_nor_in_the_driver() {
    nowhere(&["ledger", "sched", "drive", "ranged.rs"], &["HashMap", "HashSet", "RandomState"]);
}

#[test]
fn a_hash_map_elsewhere_in_the_core_is_never_walked() {
    let walks =
        [".iter()", ".iter_mut()", ".keys()", ".values()", ".values_mut()", ".drain(", ".into_iter()"];
    for (path, code) in sources("") {
        // The names that are declared as hash maps in this file.
        let names: Vec<String> = code
            .lines()
            .filter(|l| l.contains("HashMap<") || l.contains("HashSet<"))
            .filter_map(|l| {
                l.split_once(':').map(|(n, _)| n.trim().trim_start_matches("pub(crate) ").to_owned())
            })
            .filter(|n| n.chars().all(|c| c.is_alphanumeric() || c == '_'))
            .collect();
        for line in code.lines() {
            let walked = names.iter().any(|n| {
                walks.iter().any(|w| line.contains(&format!("{n}{w}")))
                    || line.contains(&format!("in &self.{n}"))
            });
            assert!(!walked, "{}: {line}", path.display());
        }
    }
}

#[test]
fn every_select_of_the_core_is_biased() {
    let mut seen = 0;
    for (path, code) in sources("") {
        for part in code.split("select!").skip(1).filter(|p| p.trim_start().starts_with(['{', '('])) {
            seen += 1;
            let body = part.trim_start().trim_start_matches(['{', '(']).trim_start();
            let head: String = body.chars().take(60).collect();
            assert!(body.starts_with("biased;"), "{}: select! {{ {head}", path.display());
        }
    }
    assert!(seen >= 8, "{seen}");
    // These choose by chance, or by who comes first in real time.
    nowhere(&[""], &["futures::select!", "select_all", "FuturesUnordered", "thread_rng", "rand::"]);
}

#[test]
fn time_comes_from_tokio_whose_clock_a_test_can_stop() {
    let clocks = ["std::time::Instant", "SystemTime::now", "std::thread::sleep", "UNIX_EPOCH"];
    nowhere(&["ledger", "sched", "drive", "ranged.rs", "budget.rs", "throttle.rs", "retry.rs"], &clocks);
}

#[test]
fn a_policy_has_no_clock_of_its_own() {
    nowhere(
        &["sched", "ledger/board.rs", "ledger/meter.rs"],
        &["Instant::now", "tokio::spawn", ".await", "Mutex"],
    );
}
