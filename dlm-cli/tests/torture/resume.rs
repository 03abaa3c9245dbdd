//! What a stopped download leaves, and what the next run makes of it.

use std::sync::atomic::{AtomicBool, Ordering};

use dlm_testkit::fixtures;

use crate::harness::process::Signal;
use crate::harness::*;

/// Slow enough to be stopped in the middle.
const RATE: u64 = 1_400_000;

/// Stopped at this share by this signal with this exit code, then run again; both together fetch little more than once.
fn stopped(signal: Signal, code: i32) -> Scenario {
    ok(honest)
        .rate(RATE)
        .drive(move |b| {
            let first = b.run_signalled(0.5, signal);
            assert_eq!(first.code, Some(code), "{first:?}");
            assert!(b.part().exists() && b.journal().exists(), "nothing to resume from");
            b.run()
        })
        .and(thrifty(110))
}

/// All runs together were served at most this percentage of the file.
fn thrifty(percent: u64) -> impl Fn(&Bench, &Run) {
    move |b, _| {
        assert!(
            b.server.served() <= b.files.len() * percent / 100,
            "served {} of {}",
            b.server.served(),
            b.files.len()
        );
    }
}

static DATE_OF_ONE: AtomicBool = AtomicBool::new(false);
static DATE_OF_FOUR: AtomicBool = AtomicBool::new(false);

/// The other file once it is told so, under the same date and without a tag.
fn changed_later(changed: &'static AtomicBool) -> impl Fn(&Request, &Files) -> Answer {
    move |q, f| {
        let data = if changed.load(Ordering::Relaxed) { f.second.data() } else { f.data() };
        f.first.with_data(data.clone()).etag(None).conditions(false).answer(q)
    }
}

fn fetch_all_again(b: &Bench, _: &Run) {
    assert!(b.server.served() > b.files.len() * 140 / 100, "served only {}", b.server.served());
}

scenarios! {
    after_sigint = stopped(Signal::INT, 130);
    after_sigterm = stopped(Signal::TERM, 143);
    after_kill = ok(honest).rate(RATE).killed(0.5).and(thrifty(112));
    after_kill_with_dates_only = ok(|q, f| f.first.etag(None).answer(q)).rate(RATE).killed(0.5);
    /// Without a validator nobody knows whether it is still the same file.
    after_kill_without_validators = ok(|q, f| f.first.without_validators().answer(q)).rate(RATE).killed(0.5);
    after_kill_without_ranges = ok(|q, f| f.first.ranges(false).answer(q)).rate(RATE).killed(0.5).and(fetch_all_again);
    after_kill_of_chunked = ok(|q, f| f.first.ranges(false).answer(q).chunked(10_000)).rate(RATE).killed(0.5);
    when_told_not_to = ok(honest).rate(RATE).killed_and(0.5, |b| b.flags.push("--no-resume".to_owned())).and(fetch_all_again);
    with_other_connections = ok(honest).size(6 * MIB).rate(2 * MIB).flags(&["-x", "4"])
        .killed_and(0.5, |b| b.flags = ["-x", "1"].map(str::to_owned).to_vec()).and(thrifty(112));
    with_a_checksum = ok(honest).rate(RATE).killed(0.5).checksum();
    /// Another file of the same length and date: what is there is compared before it is gone on with.
    after_a_change_under_the_same_date = ok(changed_later(&DATE_OF_ONE)).accept_both().second_size(3 * MIB).rate(RATE)
        .flags(&["-x", "1"]).killed_and(0.5, |_| DATE_OF_ONE.store(true, Ordering::Relaxed));
    after_a_change_under_the_same_date_on_four = ok(changed_later(&DATE_OF_FOUR)).accept_both().second_size(3 * MIB).rate(RATE)
        .flags(&["-x", "4"]).killed_and(0.5, |_| DATE_OF_FOUR.store(true, Ordering::Relaxed));
    /// The same name, another locator with other bytes under the same validators: that is another file.
    for_another_locator = ok(|q, f| {
        if q.path() == "/other.bin" { f.first.with_data(f.second.data().clone()).answer(q) } else { f.answer(q) }
    }).accept_both().rate(RATE).killed_and(0.5, |b| {
        b.locator = b.server.url("/other.bin");
        b.accept = vec![b.files.second.data().clone()];
    });
    /// A partial that somebody else left.
    from_a_foreign_partial = either(honest).before(|b| std::fs::write(b.part(), fixtures::bytes(9, 500_000)).unwrap());
    from_a_foreign_partial_of_the_right_length = either(honest)
        .before(|b| std::fs::write(b.part(), fixtures::bytes(9, b.files.len() as usize)).unwrap());
    /// The file is gone when it goes on: refused, and the partial is still there for later.
    when_the_file_is_gone = ok(|q, f| if q.path() == "/gone" { Answer::status(404) } else { f.answer(q) }).rate(RATE)
        .killed_and(0.5, |b| {
            let locator = std::mem::replace(&mut b.locator, b.server.url("/gone"));
            let run = b.run();
            assert_eq!(run.code, Some(4), "{run:?}");
            b.locator = locator;
        });
    /// Nobody answers when it goes on; later somebody does.
    when_nobody_answers = ok(|q, f| if q.header("x-dead").is_some() { Answer::script(vec![Step::Reset]) } else { f.answer(q) })
        .rate(RATE).limit(60).killed_and(0.5, |b| {
            b.flags.push("--header=X-Dead: yes".to_owned());
            let run = b.run();
            assert_eq!(run.code, Some(3), "{run:?}");
            b.flags.pop();
        }).and(thrifty(110));
    /// Everything had come, and only the last step was missing.
    at_the_very_end = ok(honest).rate(2 * MIB).killed(0.999);
    at_the_very_start = ok(honest).rate(RATE).killed(0.01);
}
