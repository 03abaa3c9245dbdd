//! Connections that are cut, stall, or carry what is no HTTP.

use std::time::Duration;

use bytes::Bytes;

use crate::harness::*;

/// Nothing beyond 60 % is ever sent.
fn wall(q: &Request, f: &Files) -> Answer {
    f.answer(q).cut((f.len() * 6 / 10).saturating_sub(q.start()), End::Fin)
}

fn raw(bytes: &'static str) -> impl Fn(&Request, &Files) -> Answer {
    move |_, _| Answer::raw(bytes)
}

/// Chunks as they are written here.
fn chunks(bytes: &'static str) -> impl Fn(&Request, &Files) -> Answer {
    move |_, _| Answer::raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{bytes}"))
}

/// The command with this many retries.
fn retries(n: u32) -> Scenario {
    refused(3, |_, _| Answer::script(vec![Step::Reset]))
        .drive(move |b| {
            let mut command = b.bare();
            command.arg(format!("--retries={n}")).arg("-o").arg(&b.out).arg(&b.locator);
            b.run_command(command)
        })
        .and(move |b, _| assert_eq!(b.server.requests(), u64::from(n) + 1))
}

scenarios! {
    no_retry_is_none = retries(0);
    one_retry_is_one = retries(1);
    never_beyond_a_point = refused(3, wall).limit(60);
    never_whole_and_no_ranges = refused(3, |q, f| f.first.ranges(false).answer(q).cut_share(0.6, End::Fin)).limit(60);
    cut_twice_and_no_ranges = ok(|q, f| {
        let a = f.first.ranges(false).answer(q);
        if q.nth_get < 2 { a.cut_share(0.7, End::Reset) } else { a }
    });
    /// Each answer is cut after 200 KB, and each brings us further: that is no reason to give up.
    every_answer_is_cut = ok(|q, f| f.answer(q).cut(200_000, End::Reset)).limit(60);
    every_answer_ends_early = ok(|q, f| f.answer(q).cut(200_000, End::Fin)).limit(60);
    first_answers_are_cut_at_once = ok(|q, f| if q.nth_get < 2 { f.answer(q).cut(0, End::Reset) } else { f.answer(q) });
    /// One byte an answer: it gives up, or is done, and does not ask all the time.
    one_byte_an_answer = either(|q, f| f.answer(q).cut(1, End::Reset)).limit(90)
        .and(|b, _| assert!(b.server.requests() <= 60, "{} requests", b.server.requests()));
    stalls_once = ok(|q, f| if q.nth_get == 0 { f.answer(q).cut_share(0.3, End::Stall) } else { f.answer(q) });
    stalls_always = refused(3, |q, f| f.answer(q).cut(10_000_u64.saturating_sub(q.start()), End::Stall)).limit(90);
    no_answer_once = ok(|q, f| if q.nth == 0 { Answer::script(vec![Step::Stall]) } else { f.answer(q) });
    stalls_in_the_head_once = ok(|q, f| if q.nth == 0 {
        Answer::script(vec![Step::Raw(Bytes::from_static(b"HTTP/1.1 200 OK\r\nETag: \"v")), Step::Stall])
    } else {
        f.answer(q)
    });
    hangs_up_without_an_answer_twice = ok(|q, f| if q.nth < 2 { Answer::script(vec![Step::Fin]) } else { f.answer(q) });
    resets_without_an_answer_twice = ok(|q, f| if q.nth < 2 { Answer::script(vec![Step::Reset]) } else { f.answer(q) });
    resets_always = refused(3, |_, _| Answer::script(vec![Step::Reset])).limit(60);
    nobody_listens = refused(3, honest).on(99).limit(60);
    no_such_host = refused(3, honest).locator(|_, path| format!("http://nowhere.invalid{path}")).limit(60);
    one_connection_of_four_stalls = ok(|q, f| match q.connection {
        1 => f.answer(q).cut(50_000, End::Stall),
        _ => f.answer(q),
    }).size(8 * MIB).rate(4 * MIB).flags(&["-x", "4"]);
    one_connection_of_four_is_slow = ok(|q, f| match q.connection {
        1 => f.answer(q).rate(20_000),
        _ => f.answer(q),
    }).size(8 * MIB).rate(4 * MIB).flags(&["-x", "4"]).limit(20);

    no_http = refused_as(&[3, 9], raw("SSH-2.0-OpenSSH_9.2p1\r\n")).limit(60);
    nothing_but_noise = refused_as(&[3, 9], raw("\u{0}\u{1}\u{2}\u{7f}\r\n\r\n\r\n")).limit(60);
    http_0_9 = refused_as(&[3, 9], raw("<html>hello</html>\r\n\r\n")).limit(60);
    http_9_9 = refused_as(&[3, 9], raw("HTTP/9.9 200 OK\r\nContent-Length: 3\r\n\r\nabc")).limit(60);

    chunk_of_no_number = refused_as(&[3, 9], chunks("5\r\nhello\r\nzz-not-hex\r\nabc\r\n0\r\n\r\n")).limit(60);
    chunk_beyond_64_bits = refused_as(&[3, 9], chunks("5\r\nhello\r\nfffffffffffffffff\r\nabc")).limit(60);
    chunk_of_negative_length = refused_as(&[3, 9], chunks("5\r\nhello\r\n-5\r\nabc")).limit(60);
    chunk_without_its_end = refused_as(&[3, 9], chunks("5\r\nhelloXX5\r\nworld\r\n0\r\n\r\n")).limit(60);
    chunks_without_the_last = refused_as(&[3, 9], chunks("5\r\nhello\r\n")).limit(60);
    chunk_with_endless_extension = refused_as(&[3, 9], |_, _| Answer::script(vec![
        Step::Raw(Bytes::from_static(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;")),
        Step::Flood(Bytes::from_static(&[b'x'; 8192]), 5000),
    ])).limit(60);
    endless_trailers = refused_as(&[3, 9], |_, _| Answer::script(vec![
        Step::Raw(Bytes::from_static(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n")),
        Step::Flood(Bytes::from_static(b"X-Pad: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"), 500_000),
    ])).limit(60);
    chunked_cut_once = ok(|q, f| {
        let a = f.first.ranges(false).answer(q).chunked(40_000);
        if q.nth_get == 0 { a.cut_share(0.5, End::Fin) } else { a }
    });
    /// Both kinds of framing at once, and they disagree.
    chunked_with_a_length = either(|q, f| f.first.ranges(false).answer(q).chunked(40_000).content_length("1000"));
    unknown_transfer_coding = either(|q, f| f.first.ranges(false).answer(q).header("Transfer-Encoding", "gzip").close());
    /// What follows the body looks like another answer.
    more_than_announced = either(|q, f| f.answer(q).then(Step::Raw(Bytes::from(
        format!("HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n{}", "E".repeat(8000))
    ))));
    /// Only the end of the connection ends this body, and it ends by a reset: that is no whole file.
    reset_where_only_the_end_ends = refused(3, |q, f| f.first.ranges(false).answer(q).no_content_length().cut_share(0.5, End::Reset)).limit(60);
    pauses_in_the_middle = ok(|_, f| {
        let half = f.len() as usize / 2;
        Answer::status(200).header("ETag", "\"v1\"").content_length(f.len().to_string())
            .body(f.data().slice(..half)).then(Step::Pause(Duration::from_secs(2))).then(Step::Body(f.data().slice(half..)))
    });
}
