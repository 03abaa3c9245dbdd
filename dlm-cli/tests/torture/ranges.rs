//! Ranges that lie. Several connections meet them at once, one connection when it resumes after kill -9.

use crate::harness::*;

/// Slow enough that a run can be killed in the middle.
const RATE: u64 = 1_400_000;

/// Every answer to a range that starts beyond 0 is changed so.
fn later(
    change: impl Fn(Answer) -> Answer + Send + Sync + 'static,
) -> impl Fn(&Request, &Files) -> Answer + Send + Sync + 'static {
    move |q, f| if q.start() == 0 { f.answer(q) } else { change(f.answer(q)) }
}

/// Every range that starts beyond 0 is answered so.
fn instead(
    answer: fn(&Request, &Files) -> Answer,
) -> impl Fn(&Request, &Files) -> Answer + Send + Sync + 'static {
    move |q, f| if q.start() == 0 { f.answer(q) } else { answer(q, f) }
}

fn resumed(s: Scenario) -> Scenario {
    s.rate(RATE).killed(0.47)
}

scenarios! {
    /// No answer says how long the whole is; only that nothing lies behind its end.
    total_is_never_told = ok(|q, f| {
        let (len, start) = (f.len(), q.start());
        if start >= len {
            Answer::status(416).header("Content-Range", format!("bytes */{len}"))
        } else {
            f.answer(q).content_range(|a, b, _| format!("bytes {a}-{b}/*"))
        }
    }).flags(&["-x", "4"]).and(|b, _| assert!(b.server.served() <= b.files.len() * 2, "served {}", b.server.served()));
    /// The first stream is healthy, and nothing else ever is.
    others_stall = ok(instead(|_, _| Answer::script(vec![Step::Stall]))).rate(RATE)
        .flags(&["-x", "8"]).limit(30);
    others_are_led_to_another_scheme = ok(instead(|_, _| Answer::redirect(302, "file:///etc/hostname"))).rate(RATE).flags(&["-x", "8"]);
    others_are_led_to_a_dead_host = ok(instead(|q, _| Answer::redirect(302, q.url(9, "/x")))).rate(RATE).flags(&["-x", "8"]).limit(60);
    others_are_not_found = ok(instead(|_, _| Answer::status(404))).rate(RATE).flags(&["-x", "8"]);
    others_are_nonsense = ok(instead(|_, _| Answer::raw("HTTP/1.1 2x6 ?\r\n\r\n"))).rate(RATE).flags(&["-x", "8"]).limit(60);
    total_differs = resumed(either(later(|a| a.content_range(|a, b, t| format!("bytes {a}-{b}/{}", t + 777)))));
    /// From the first answer on: no file has so many bytes. Asked for all of it, the server says something better, or not.
    total_that_cannot_be = ok(|q, f| f.answer(q).content_range(|a, b, _| format!("bytes {a}-{b}/{}", u64::MAX)));
    total_that_can_never_be = refused(9, |_, f| {
        Answer::status(206).header("Content-Range", format!("bytes 0-9/{}", u64::MAX)).body(f.data().slice(..10))
    });
    /// The whole for a range that is all of it, always cut; ranges beyond are honoured, and so the cut is survived.
    whole_file_as_200_first = ok(|q, f| match q.start() {
        0 => f.answer(q).with_status(200).without("content-range").cut_share(0.6, End::Reset),
        _ => f.answer(q),
    });
    numbers_beyond_64_bits = resumed(either(later(|a| a.content_range(|a, _, _| format!("bytes {a}-{}/{}", 1_u128 << 70, 1_u128 << 71)))));
    end_before_start = resumed(either(later(|a| a.content_range(|a, b, t| format!("bytes {b}-{a}/{t}")))));
    end_beyond_total = resumed(either(later(|a| a.content_range(|a, b, t| format!("bytes {a}-{}/{t}", b + t)))));
    another_unit = resumed(either(later(|a| a.content_range(|a, b, t| format!("lines {a}-{b}/{t}")))));
    /// `bytes A-B/*` is legal.
    total_unknown = resumed(ok(later(|a| a.content_range(|a, b, _| format!("bytes {a}-{b}/*")))));
    no_content_range = resumed(either(later(|a| a.without("content-range"))));
    two_content_ranges = resumed(either(later(|a| a.header("Content-Range", "bytes 0-9/10"))));
    another_tag = resumed(either(later(|a| a.without("etag").header("ETag", "\"v7\""))));
    no_tag_any_more = resumed(either(later(|a| a.without("etag").without("last-modified"))));
    labelled_200 = resumed(either(later(|a| a.with_status(200))));
    labelled_203 = resumed(either(later(|a| a.with_status(203))));

    /// 4 KiB more than the label says.
    longer_than_its_label = resumed(either(instead(|q, f| {
        let range = q.range.and_then(|r| r.within(f.len())).unwrap_or((0, 0));
        let mut body = f.data()[range.0 as usize..=range.1 as usize].to_vec();
        body.extend([b'Z'; 4096]);
        f.answer(q).body(body)
    })));
    /// 4 KiB less than the label says, and a length that fits what comes.
    shorter_than_its_label = resumed(either(instead(|q, f| {
        let range = q.range.and_then(|r| r.within(f.len())).unwrap_or((0, 0));
        let short = (range.1 + 1).saturating_sub(4096).max(range.0);
        f.answer(q).body(f.data().slice(range.0 as usize..short as usize))
    })));
    /// Starts 4 KiB earlier than asked, and says so.
    starts_earlier = resumed(either(instead(|q, f| {
        let (a, b) = q.range.and_then(|r| r.within(f.len())).unwrap_or((4096, 4096));
        let (a, b) = (a.saturating_sub(4096), b.saturating_sub(4096));
        f.answer(q).content_range(|_, _, t| format!("bytes {a}-{b}/{t}")).body(f.data().slice(a as usize..=b as usize))
    })));
    /// Status 206, and the whole file from its start.
    whole_file_as_206 = resumed(either(instead(|q, f| {
        f.answer(q).content_range(|_, _, t| format!("bytes 0-{}/{t}", t - 1)).body(f.data().clone())
    })));
    multipart_for_one_range = resumed(either(instead(|q, f| {
        let (a, b) = q.range.and_then(|r| r.within(f.len())).unwrap_or((0, 0));
        let mut body = format!("--BB\r\nContent-Range: bytes {a}-{b}/{}\r\n\r\n", f.len()).into_bytes();
        body.extend_from_slice(&f.data()[a as usize..=b as usize]);
        body.extend_from_slice(b"\r\n--BB--\r\n");
        Answer::status(206).header("Content-Type", "multipart/byteranges; boundary=BB").header("ETag", "\"v1\"").body(body)
    })));
    /// A page that asks to log in, as 206 of another type, without a tag.
    page_as_206 = resumed(either(instead(|_, _| {
        Answer::status(206).header("Content-Type", "text/html").body("<html>please log in</html>".repeat(100))
    })));
    /// Ranges are announced, and each beyond 0 refused.
    always_416 = resumed(ok(instead(|_, f| Answer::status(416).header("Content-Range", format!("bytes */{}", f.len())))));
    /// Ranges are announced, and ignored.
    always_200 = resumed(ok(instead(|q, f| f.first.ranges(false).answer(q))));
    always_501 = resumed(either(instead(|_, _| Answer::status(501))));
    /// The second half does not exist.
    half_is_404 = resumed(either(|q, f| if q.start() >= f.len() / 2 { Answer::status(404) } else { f.answer(q) }));
    /// 206 with the first 100 KB for a plain GET.
    unasked_206 = either(|q, f| if q.range.is_some() { f.answer(q) } else {
        Answer::status(206).header("Content-Range", format!("bytes 0-99999/{}", f.len())).body(f.data().slice(..100_000))
    });
    /// At most 100,000 bytes of what was asked for, honestly labelled.
    answered_in_part = ok(|q, f| f.first.longest_range(100_000).answer(q));
    /// No range is served to more than one connection at a time: the others are told to wait.
    one_range_at_a_time = ok(|q, f| if q.busy > 0 { Answer::status(503) } else { f.answer(q) }).rate(4 * MIB).flags(&["-x", "4"]);
    /// Every byte of every range is asked for once: nothing is fetched twice without need.
    nothing_twice = ok(honest).size(16 * MIB).rate(16 * MIB).flags(&["-x", "4"]).and(|b, _| {
        assert!(b.server.served() <= b.files.len() * 105 / 100, "served {} of {}", b.server.served(), b.files.len());
    });
    /// `-x 1` is one connection.
    one_connection = ok(honest).flags(&["-x", "1"]).and(|b, _| assert_eq!(b.server.most_open_connections(), 1));
    at_most_three_connections = ok(honest).size(16 * MIB).rate(16 * MIB).flags(&["-x", "3"]).and(|b, _| {
        // One that the client has closed already may still count as open here.
        assert!(b.server.most_open_connections() <= 3 + 1, "{}", b.server.most_open_connections());
    });
}
