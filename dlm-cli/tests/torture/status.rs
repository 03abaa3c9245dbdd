//! Status codes.

use std::time::Duration;

use bytes::Bytes;

use crate::harness::*;

fn always(status: u16) -> impl Fn(&Request, &Files) -> Answer {
    move |_, _| Answer::status(status).body("<html>no</html>")
}

/// The first so many GETs are answered with this status.
fn at_first(times: u64, status: u16) -> impl Fn(&Request, &Files) -> Answer {
    move |q, f| {
        if q.is_get() && q.nth_get < times {
            Answer::status(status).body("<html>no</html>")
        } else {
            f.answer(q)
        }
    }
}

fn waited(seconds: u64) -> impl Fn(&Bench, &Run) {
    move |_, run| assert!(run.took >= Duration::from_secs(seconds), "it did not wait: {run:?}")
}

scenarios! {
    not_found = refused(4, always(404)).says("404");
    gone = refused(4, always(410));
    forbidden = refused(4, always(403));
    unauthorized = refused(4, |_, _| Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\""));
    legal_reasons = refused(4, always(451));
    internal_error_three_times = ok(at_first(3, 500)).limit(60);
    internal_error_always = refused_as(&[3, 4, 9], always(500)).limit(90);
    bad_gateway_once = ok(at_first(1, 502));
    gateway_timeout_once = ok(at_first(1, 504));
    request_timeout_once = ok(at_first(1, 408));
    busy_once = ok(|q, f| if q.nth == 0 { Answer::status(503).header("Retry-After", "2") } else { f.answer(q) }).and(waited(2));
    too_many_requests_once = ok(|q, f| if q.nth == 0 { Answer::status(429).header("Retry-After", "1") } else { f.answer(q) }).and(waited(1));
    busy_without_saying_how_long = ok(at_first(2, 503));
    busy_with_a_senseless_date = ok(|q, f| if q.nth == 0 { Answer::status(503).header("Retry-After", "yesterday") } else { f.answer(q) });
    /// Asks for eleven days, each time.
    busy_for_eleven_days = refused_as(&[3, 4], |_, _| Answer::status(503).header("Retry-After", "999999")).limit(90);
    /// A second connection is refused while the first one works.
    one_connection_only_403 = ok(|q, f| if q.busy > 0 { Answer::status(403) } else { f.answer(q) }).rate(3 * MIB);
    one_connection_only_429 = ok(|q, f| if q.busy > 0 { Answer::status(429) } else { f.answer(q) }).rate(3 * MIB);
    /// Whoever is told that there are too many connections stops asking for more, instead of asking all the time.
    many_connections_are_not_forced = ok(|q, f| if q.busy > 0 { Answer::status(503) } else { f.answer(q) })
        .size(8 * MIB).rate(2 * MIB).flags(&["-x", "4"])
        .and(|b, _| assert!(b.server.requests() <= 30, "{} requests in four seconds", b.server.requests()));
    /// One connection is as healthy as can be; all others are asked to come back in half a minute.
    others_have_to_wait = ok(|q, f| if q.busy > 0 { Answer::status(503).header("Retry-After", "30") } else { f.answer(q) })
        .size(8 * MIB).rate(4 * MIB).flags(&["-x", "8"]).limit(15);
    /// The condition of every further request fails: another machine with another version answers.
    precondition_failed_once = ok(|q, f| if q.nth_get == 1 { Answer::status(412) } else { f.answer(q) }).rate(4 * MIB).flags(&["-x", "4"]);
    precondition_failed_for_every_range = either(|q, f| if q.start() > 0 { Answer::status(412) } else { f.answer(q).cut(1_000_000, End::Reset) })
        .rate(4 * MIB).flags(&["-x", "4"]).limit(90);
    no_content = refused_as(&[4, 9], |_, _| Answer::status(204).no_content_length());
    not_modified_unasked = refused_as(&[4, 9], |_, _| Answer::status(304).no_content_length());
    reset_content = refused_as(&[4, 9], always(205));
    switching_protocols = refused_as(&[3, 4, 9], |_, _| Answer::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")).limit(60);
    status_of_two_digits = refused_as(&[3, 9], |_, _| Answer::raw("HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n")).limit(60);
    status_of_four_digits = refused_as(&[3, 9], |_, _| Answer::raw("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n")).limit(60);
    status_999 = refused_as(&[4, 9], always(999));
    /// 100 Continue without end.
    endless_continue = refused_as(&[3, 9], |_, _| Answer::script(vec![
        Step::Flood(Bytes::from(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)), 2000),
    ])).limit(60);
    /// The link expires in the middle of the download.
    forbidden_after_half = either(|q, f| if q.served > f.len() / 2 { Answer::status(403) } else { f.answer(q).cut(400_000, End::Reset) });
    /// What an error page says is not the file.
    error_page_is_not_saved = refused(4, |_, f| Answer::status(404).body(f.data().clone()))
        .and(|b, _| assert!(!b.out.exists()));
}
