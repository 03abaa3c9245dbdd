//! Digests, and mirrors that do not have the same bytes.

use crate::harness::*;

/// The second origin is a mirror.
fn mirrored(s: Scenario) -> Scenario {
    s.before(|b| {
        let mirror = b.server.url_on(1, "/file.bin");
        b.flags.extend(["--mirror".to_owned(), mirror]);
    })
}

fn silence() -> Answer {
    Answer::script(vec![Step::Stall])
}

scenarios! {
    digest_fits = ok(honest).checksum();
    digest_does_not_fit = refused(5, |q, f| f.first.with_data(f.second.data().clone()).answer(q)).checksum().limit(60);
    digest_does_not_fit_and_no_ranges = refused(5, |q, f| f.second.ranges(false).answer(q)).checksum().limit(60);
    digest_of_a_shorter_file = refused(5, |q, f| f.first.with_data(f.data().slice(..1_000_000)).answer(q)).checksum().limit(60);
    every_kind_of_digest = ok(|q, f| f.first.with_data("123456789").answer(q)).accept(|_| vec!["123456789".into()]).flags(&[
        "--checksum=crc32c:e3069283",
        "--checksum=md5:25f9e794323b453885f5181f1b624d0b",
        "--checksum=sha1:f7c3bc1d808e04732adf679965ccc34ca7ae3441",
        "--checksum=sha256:15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    ]);
    two_digests_and_one_does_not_fit = refused(5, |q, f| f.first.with_data("123456789").answer(q)).flags(&[
        "--checksum=crc32c:e3069283", "--checksum=md5:00000000000000000000000000000000",
    ]).limit(60);
    /// The first answer is a page that asks to log in, with status 200.
    captive_portal = either(|q, f| if q.nth_get == 0 {
        Answer::status(200).header("Content-Type", "text/html").body("<html>log in</html>".repeat(50))
    } else {
        f.answer(q)
    }).checksum();
    /// One byte is flipped on the way, once.
    one_byte_flipped_once = either(|q, f| if q.nth_get == 0 { flipped(f).answer(q) } else { f.answer(q) }).checksum();
    one_byte_flipped_always = refused(5, |q, f| flipped(f).answer(q)).checksum().limit(60);
    /// A wrong file under the name of the right one, from the start: nothing is replaced.
    wrong_file_leaves_the_old_one = refused(5, |q, f| f.first.with_data(f.second.data().clone()).answer(q)).checksum()
        .flags(&["--if-exists", "overwrite"]).before(|b| b.occupy(b"the old one")).limit(60);

    mirror_helps = mirrored(ok(|q, f| if q.origin == 0 { f.answer(q).cut(100_000_u64.saturating_sub(q.start()), End::Reset) } else { f.answer(q) }));
    mirror_helps_where_the_first_is_gone = mirrored(ok(|q, f| if q.origin == 0 { Answer::status(404) } else { f.answer(q) }));
    mirror_is_gone = mirrored(ok(|q, f| if q.origin == 1 { Answer::status(404) } else { f.answer(q) }));
    mirror_is_dead = ok(honest).flags(&["--mirror", "http://127.0.0.1:1/file.bin"]);
    mirror_of_another_length = mirrored(either(|q, f| if q.origin == 1 { f.second.answer(q) } else { f.answer(q) }))
        .second_size(2 * MIB).accept_both().rate(4 * MIB).flags(&["-x", "4"]);
    /// The same length, other bytes: the digest finds out.
    mirror_of_other_bytes = mirrored(either(|q, f| if q.origin == 1 { f.second.answer(q) } else { f.answer(q) }).checksum())
        .rate(4 * MIB).flags(&["-x", "4"]).limit(60);
    /// Equal lengths and no validators say nothing: the bytes of the two never stand side by side.
    mirror_without_validators = mirrored(ok(|q, f| {
        let file = if q.origin == 1 { &f.second } else { &f.first };
        file.without_validators().answer(q)
    })).accept_both().second_size(3 * MIB).rate(2 * MIB).flags(&["-x", "8"]);
    mirror_with_weak_validators = mirrored(ok(|q, f| {
        let file = if q.origin == 1 { &f.second } else { &f.first };
        file.last_modified(None).etag("W/\"same\"").answer(q)
    })).accept_both().second_size(3 * MIB).rate(2 * MIB).flags(&["-x", "8"]);
    /// One of them breaks off all the time: the other one goes on alone, from the start.
    mirror_without_validators_takes_over = mirrored(ok(|q, f| {
        let file = if q.origin == 1 { &f.second } else { &f.first };
        let answer = file.without_validators().ranges(false).answer(q);
        if q.origin == 0 { answer.cut(700_000, End::Reset) } else { answer }
    })).accept_both().second_size(3 * MIB).flags(&["-x", "4"]).limit(90);
    /// Nobody waits for who says nothing.
    mirror_is_silent = mirrored(ok(|q, f| if q.origin == 1 { silence() } else { f.answer(q) })).limit(15);
    first_is_silent = mirrored(ok(|q, f| if q.origin == 0 { silence() } else { f.answer(q) })).limit(15);
    both_are_gone = mirrored(refused(4, |_, _| Answer::status(404)));
}

fn flipped(f: &Files) -> Resource {
    let mut bytes = f.data().to_vec();
    bytes[1_234_567] ^= 0x10;
    f.first.with_data(bytes)
}
