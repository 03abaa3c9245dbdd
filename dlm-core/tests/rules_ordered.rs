//! Ordered output: the engine reorders, nothing leaves before it is verified, and a slow reader bounds the memory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::Arc;

use common::Pipe;
use dlm_core::{MemoryJournal, StreamSink};
use dlm_testkit::sim::{Plan, Report, SimRanged, SimTree, block_on};

fn run(plan: &Plan) -> (Report, Pipe) {
    let pipe = Pipe::default();
    let sink = Arc::new(StreamSink::new(pipe.clone()));
    (block_on(plan.run_into(sink, Arc::new(MemoryJournal::new()))), pipe)
}

#[test]
fn a_hash_tree_and_a_server_feed_one_pipe() {
    for seed in 0..20 {
        let mut server = SimRanged::new("server", 1e6);
        server.cut = (seed % 3 == 0).then_some(700_000);
        let mut plan = Plan::new(seed, 5_000_000 + seed as usize)
            .source(SimTree { rate: 2e6, leaf: 100_000 }.make())
            .source(server.make());
        plan.len_known = seed % 2 == 0;
        plan.memory = if seed % 5 == 4 { 512 << 10 } else { 4 << 20 };
        let (report, pipe) = run(&plan);
        let outcome = report.result.unwrap_or_else(|e| panic!("seed {seed}: {e}\n{:#?}", report.trace));
        assert_eq!(pipe.got(), plan.object.data, "seed {seed}");
        assert!(outcome.sources.iter().all(|s| s.bytes > 0), "seed {seed}: both delivered: {outcome:?}");
    }
}

#[test]
fn pieces_that_several_leases_deliver_leave_whole() {
    for piece in [10_000, 64 << 10, 300_000, 1 << 20, 6 << 20] {
        for memory in [256 << 10, 1 << 20, 8 << 20] {
            let mut plan = Plan::new(3, 12_000_000)
                .pieces(piece)
                .source(SimRanged::new("one", 1e6).make())
                .source(SimRanged::new("another", 2e6).make());
            plan.memory = memory;
            let (report, pipe) = run(&plan);
            let at = format!("pieces of {piece}, memory {memory}");
            report.result.unwrap_or_else(|e| panic!("{at}: {e}\n{:#?}", report.trace));
            assert_eq!(pipe.got(), plan.object.data, "{at}");
        }
    }
}

#[test]
fn a_wrong_piece_never_leaves_and_is_fetched_again() {
    for connections in [1, 4] {
        for seed in 0..10 {
            let mut liar = SimRanged::new("liar", 2e6);
            liar.corrupt = 0.02;
            let mut plan = Plan::new(seed, 3_000_000).pieces(100_000).source(liar.make());
            if seed % 2 == 0 {
                plan = plan.source(SimRanged::new("honest", 1e6).make());
            }
            plan.memory = 512 << 10;
            plan.spec = plan.spec.connections(connections);
            let (report, pipe) = run(&plan);
            let got = pipe.got();
            let at = format!("seed {seed}, {connections} connections");
            assert_eq!(got, plan.object.data.slice(..got.len()), "{at}: only right bytes leave");
            match report.result {
                Ok(_) => assert_eq!(got.len(), 3_000_000, "{at}"),
                // The only source may be given up; it may not hang.
                Err(e) => assert!(
                    seed % 2 == 1 && e.kind() == dlm_core::Kind::Corrupt,
                    "{at}: {e}\n{:#?}",
                    report.trace
                ),
            }
        }
    }
}
