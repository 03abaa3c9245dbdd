//! One object from several kinds of sources at once, in virtual time.

#![expect(clippy::print_stdout, reason = "the figures are wanted when the test is run by hand")]

use dlm_core::{Caps, Seek};
use dlm_testkit::sim::{Object, Peer, Plan, Report, Rng, SimRanged, SimSwarm, block_on};

const LEN: usize = 16 << 20;
const PIECE: u64 = 256 << 10;

/// A ranged source of two connections, six peers with two thirds of the pieces each, one of them a liar, and a stream
/// that only knows a start and says nothing of its length. The ideal is the sum of their rates.
fn mixed(object: Object) -> (Plan, f64, String) {
    let mut rng = Rng::new(object.seed);
    let fast = rng.between(0.5e6, 2.5e6);
    let stream = rng.between(0.5e6, 1.5e6);
    let mut rate = 2.0 * fast + stream;
    let liar = rng.below(6) as usize;
    let mut peers = Vec::new();
    for i in 0..6 {
        let corrupt = if i == liar { 1.0 } else { 0.0 };
        let peer = Peer { label: format!("peer {i}"), rate: rng.between(0.2e6, 0.8e6), share: 0.67, corrupt };
        if i != liar {
            rate += peer.rate;
        }
        peers.push(peer);
    }
    let mut ranged = SimRanged::new("ranged", fast);
    ranged.caps = Caps::RANGES.max_parallel(2);
    if rng.chance(0.3) {
        ranged.cut = Some(1 << 20);
    }
    let mut lengthless = SimRanged::new("stream", stream);
    lengthless.lengthless = true;
    lengthless.caps = Caps::RANGES.seek(Seek::StartOnly).max_parallel(1);
    let ideal = object.data.len() as f64 / rate;
    let plan =
        Plan::of(object).source(ranged.make()).source(SimSwarm { peers }.make()).source(lengthless.make());
    (plan, ideal, format!("peer {liar}"))
}

fn object(seed: u64, data: &bytes::Bytes) -> Object {
    Object { data: data.clone(), piece: Some(PIECE), seed }
}

fn run(seed: u64, data: &bytes::Bytes) -> (Report, f64, String) {
    let (plan, ideal, liar) = mixed(object(seed, data));
    let (report, sink) = block_on(async { plan.run().await });
    let outcome = report.result.as_ref().unwrap_or_else(|e| panic!("seed {seed}: {e}\n{:#?}", report.trace));
    assert_eq!(sink.file("object").as_ref(), Some(data), "seed {seed}");
    assert_eq!(outcome.bytes, LEN as u64, "seed {seed}");
    (report, ideal, liar)
}

fn many(seeds: u64) {
    let data = dlm_testkit::fixtures::bytes(1, LEN);
    let mut ratios = Vec::new();
    let mut duplicate = 0;
    for seed in 0..seeds {
        let (report, ideal, liar) = run(seed, &data);
        // The liar lies whenever it delivers: it is named unless it never got to deliver a piece.
        let delivered = report.suspects.contains(&liar);
        assert!(
            !delivered || report.banned == [liar.clone()],
            "seed {seed}: banned {:?}, liar {liar}",
            report.banned
        );
        assert!(delivered, "seed {seed}: the liar was never caught");
        duplicate += report.snapshot.duplicate;
        ratios.push(report.seconds / ideal);
    }
    ratios.sort_by(f64::total_cmp);
    let at = |p: f64| ratios[((ratios.len() - 1) as f64 * p) as usize];
    let (median, p95) = (at(0.5), at(0.95));
    println!(
        "{seeds} seeds: median {median:.3} of the ideal, p95 {p95:.3}, worst {:.3}, duplicate {} KiB a run",
        at(1.0),
        (duplicate / seeds) >> 10
    );
    assert!(median <= 1.15 && p95 <= 1.35, "median {median:.3}, p95 {p95:.3}");
}

#[test]
fn a_ranged_source_a_swarm_and_a_stream_together_come_near_the_ideal() {
    many(40);
}

/// `cargo xtask sim` runs this one.
#[test]
#[ignore = "takes a minute: run in a release build"]
fn the_same_over_2000_seeds() {
    many(2000);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let data = dlm_testkit::fixtures::bytes(1, LEN);
    for seed in [3, 17] {
        let (a, b) = (run(seed, &data).0, run(seed, &data).0);
        assert_eq!(a.trace, b.trace, "seed {seed}");
        assert_eq!(a.seconds.to_bits(), b.seconds.to_bits());
    }
}
