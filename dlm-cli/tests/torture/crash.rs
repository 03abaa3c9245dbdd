//! kill -9, again and again, at points nobody chose.

use dlm_testkit::fixtures;

use crate::harness::*;

/// Killed so many times, each time once a random share of the file more was served; in the end everything is there and
/// little was fetched twice. Returns the last run.
fn killed_at_random(seed: u64, kills: usize, percent: u64) -> impl Fn(&mut Bench) -> Run {
    move |b| {
        let random = fixtures::bytes(seed, kills);
        let mut killed = 0;
        for byte in &random {
            // Shares that add up to less than the whole, so that every kill finds it at work.
            let share = (0.5 + f64::from(*byte) / 255.0) / kills as f64 * 0.6;
            let run = b.run_until(share);
            killed += usize::from(run.killed);
        }
        let run = b.run();
        let (served, len) = (b.server.served(), b.files.len());
        assert_eq!(killed, kills, "it was done too early");
        assert!(
            served <= len * percent / 100,
            "{kills} kills: served {served} of {len}, {:.1} % more",
            served as f64 / len as f64 * 100.0 - 100.0
        );
        run
    }
}

scenarios! {
    /// The promise: at most 5 % more over five kills, on a slow line with one connection.
    five_kills_on_one_connection = ok(honest).size(6 * MIB).rate(1_258_291).flags(&["-x", "1"]).drive(killed_at_random(1, 5, 105));
    five_kills_on_one_connection_again = ok(honest).size(6 * MIB).rate(1_258_291).flags(&["-x", "1"]).drive(killed_at_random(2, 5, 105));
    /// The same for a larger file with four: as long as 1 GiB at 130 MB/s takes.
    five_kills_on_four_connections = ok(honest).size(64 * MIB).rate(8_000_000).flags(&["-x", "4"]).drive(killed_at_random(3, 5, 105));
    many_kills = ok(honest).size(8 * MIB).rate(3 * MIB).flags(&["-x", "4"]).drive(killed_at_random(4, 16, 140)).limit(60);
    many_kills_and_cuts = ok(|q, f| f.answer(q).cut(500_000, End::Reset)).size(8 * MIB).rate(3 * MIB).flags(&["-x", "3"])
        .drive(killed_at_random(5, 8, 140)).limit(60);
    many_kills_with_a_checksum = ok(honest).size(8 * MIB).rate(4 * MIB).drive(killed_at_random(6, 8, 130)).checksum();
    /// Each record waits for the disk, so there are fewer of them.
    many_kills_while_durable = ok(honest).size(8 * MIB).rate(4 * MIB).flags(&["--durable"]).drive(killed_at_random(7, 8, 200));
    /// The bytes were all there: killed around the last step, where names change.
    kills_around_the_end = ok(honest).size(MIB).drive(|b| {
        for delay in &fixtures::bytes(8, 24) {
            let started = std::time::Instant::now();
            let run = match b.spawn().until(|| started.elapsed().as_millis() as u64 * 4 >= u64::from(*delay)) {
                Ok(ended) => ended,
                Err(running) => running.kill(),
            };
            judge::standing(b, &run);
        }
        b.run()
    });
}
