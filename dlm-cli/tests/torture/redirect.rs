//! Redirects, and what must not travel with them.

use crate::harness::judge::{no_leak, no_leak_on_disk};
use crate::harness::*;

const TOKEN: &str = "tok-S3CRET-9f8e7d";
const PASSWORD: &str = "hunter2-S3CRET-PW";

/// `/file.bin` redirects so, everything else is the file.
fn to(make: fn(&Request) -> Answer) -> impl Fn(&Request, &Files) -> Answer {
    move |q, f| if q.origin == 0 && q.path() == "/file.bin" { make(q) } else { f.answer(q) }
}

/// This header of this secret must never have come to origin 1.
fn kept(header: &'static str, secret: &'static str) -> impl Fn(&Bench, &Run) {
    move |b, _| {
        let log = b.server.log();
        let sent = |origin: usize| {
            log.iter().any(|q| q.origin == origin && q.header(header).is_some_and(|v| v.contains(secret)))
        };
        assert!(sent(0), "{header} was not sent to its own origin");
        let leaked = log.iter().any(|q| q.origin == 1 && format!("{q:?}").contains(secret));
        assert!(!leaked && !sent(1), "{header} was sent to another origin");
        assert!(log.iter().all(|q| q.header("referer").is_none()), "a Referer was sent");
    }
}

fn with_login(server: &Server, path: &str) -> String {
    server.url(path).replace("://", &format!("://alice:{PASSWORD}@"))
}

/// In a file beside the place where the download goes.
fn with_token(b: &mut Bench) {
    let file = b.aside.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    b.flags.extend(["--bearer-file".to_owned(), file.to_str().unwrap().to_owned()]);
}

scenarios! {
    in_circles = refused_as(&[4, 9], |q, _| Answer::redirect(302, if q.path() == "/a" { "/b" } else { "/a" }));
    to_itself = refused_as(&[4, 9], |q, _| Answer::redirect(302, q.target.clone()));
    without_end = refused_as(&[4, 9], |q, _| Answer::redirect(302, format!("/{}", q.nth)));
    moved_301 = ok(to(|_| Answer::redirect(301, "/final")));
    found_302 = ok(to(|_| Answer::redirect(302, "final")));
    see_other_303 = ok(to(|_| Answer::redirect(303, "./x/../final?a=b")));
    temporary_307 = ok(to(|q| Answer::redirect(307, q.url(0, "/final"))));
    permanent_308 = ok(to(|q| Answer::redirect(308, q.url(1, "/final"))));
    without_a_scheme = ok(to(|q| Answer::redirect(302, q.url(1, "/final").replace("http:", ""))));
    of_four_hops = ok(|q, f| match q.path() {
        "/file.bin" => Answer::redirect(302, "/1"),
        "/1" => Answer::redirect(301, q.url(1, "/2")),
        "/2" => Answer::redirect(307, "/3"),
        _ => f.answer(q),
    });
    /// The body of a redirect is not the file.
    with_a_body = ok(to(|_| Answer::redirect(302, "/final").body("moved ".repeat(1000))));
    to_a_file = refused_as(&[4, 8, 9], to(|_| Answer::redirect(302, "file:///etc/hostname")));
    to_gopher = refused_as(&[4, 8, 9], to(|_| Answer::redirect(302, "gopher://127.0.0.1:70/_x")));
    to_data = refused_as(&[4, 8, 9], to(|_| Answer::redirect(302, "data:text/plain,hello")));
    to_nowhere = refused_as(&[4, 9], to(|_| Answer::status(302)));
    to_an_empty_place = refused_as(&[4, 9], |_, _| Answer::redirect(302, ""));
    to_port_zero = refused(9, to(|_| Answer::redirect(302, "http://127.0.0.1:0/final")));
    to_no_url = refused_as(&[4, 8, 9], to(|_| Answer::redirect(302, "http://[::1")));
    to_two_places = either(to(|q| Answer::redirect(302, "/final").header("Location", q.url(1, "/other"))));
    to_what_is_no_utf8 = either(to(|_| Answer::redirect(302, b"/fin\xff\xfeal".to_vec())));
    with_escapes_in_the_place = refused_as(&[4, 8, 9], to(|_| Answer::redirect(302, b"gopher://\x1b]0;pwned\x07/".to_vec())));
    to_a_dead_host = refused(3, to(|q| Answer::redirect(302, q.url(9, "/final")))).limit(60);

    header_follows_inside_one_origin = ok(|q, f| {
        if !q.header("authorization").is_some_and(|v| v.contains(TOKEN)) { return Answer::status(401) }
        if q.path() == "/file.bin" { Answer::redirect(302, "/final") } else { f.answer(q) }
    }).flags(&["-H", "Authorization: Bearer tok-S3CRET-9f8e7d"]);
    authorization_stays = either(to(|q| Answer::redirect(302, q.url(1, "/final"))))
        .flags(&["-H", "Authorization: Bearer tok-S3CRET-9f8e7d"]).and(kept("authorization", TOKEN));
    cookie_header_stays = either(to(|q| Answer::redirect(302, q.url(1, "/final"))))
        .flags(&["-H", "Cookie: sid=tok-S3CRET-9f8e7d"]).and(kept("cookie", TOKEN));
    any_header_of_the_user_stays = either(to(|q| Answer::redirect(302, q.url(1, "/final"))))
        .flags(&["-H", "X-Amz-Security-Token: tok-S3CRET-9f8e7d"]).and(kept("x-amz-security-token", TOKEN));
    /// Host A to host B and back to A: what was dropped on the way is not picked up again by mistake at B.
    header_stays_over_a_detour = either(|q, f| match (q.origin, q.path()) {
        (0, "/file.bin") => Answer::redirect(302, q.url(1, "/via")),
        (1, "/via") => Answer::redirect(302, q.url(0, "/final")),
        _ => f.answer(q),
    }).flags(&["-H", "X-Key: tok-S3CRET-9f8e7d"]).and(kept("x-key", TOKEN));
    /// A password that stands on no command line.
    password_of_the_environment_is_used = ok(|q, f| {
        // alice:hunter2-S3CRET-PW
        let right = q.header("authorization") == Some("Basic YWxpY2U6aHVudGVyMi1TM0NSRVQtUFc=");
        if right { f.answer(q) } else { Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\"") }
    }).drive(|b| {
        let mut command = b.command();
        command.args(["--user", "alice"]).env("DLM_PASSWORD", PASSWORD);
        b.run_command(command)
    }).and(|b, run| no_leak(b, run, PASSWORD));
    /// And where there is neither that nor a terminal, nothing is sent at all.
    no_password_to_be_had = refused(2, honest).flags(&["--user", "alice"]).says("DLM_PASSWORD")
        .and(|b, _| assert_eq!(b.server.requests(), 0));
    bearer_token_of_a_file_is_used = ok(|q, f| {
        let right = q.header("authorization") == Some("Bearer tok-S3CRET-9f8e7d");
        if right { f.answer(q) } else { Answer::status(401).header("WWW-Authenticate", "Bearer") }
    }).before(with_token).and(|b, run| no_leak(b, run, TOKEN));
    bearer_token_of_a_file_stays = either(to(|q| Answer::redirect(302, q.url(1, "/final"))))
        .before(with_token).and(kept("authorization", TOKEN));
    bearer_token_of_a_file_is_not_in_an_error = refused(4, |_, _| Answer::status(403))
        .before(with_token).and(|b, run| no_leak(b, run, TOKEN));
    login_of_the_url_is_used = ok(|q, f| {
        // alice:hunter2-S3CRET-PW
        let right = q.header("authorization") == Some("Basic YWxpY2U6aHVudGVyMi1TM0NSRVQtUFc=");
        if right { f.answer(q) } else { Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\"") }
    }).locator(with_login).and(|b, run| no_leak(b, run, PASSWORD));
    login_of_the_url_stays = either(to(|q| Answer::redirect(302, q.url(1, "/final")))).locator(with_login)
        .and(|b, _| assert!(b.server.log().iter().all(|q| q.origin == 0 || q.header("authorization").is_none())));
    login_is_not_in_an_error = refused(4, |_, _| Answer::status(404)).locator(with_login)
        .and(|b, run| no_leak(b, run, PASSWORD));
    token_of_the_query_is_not_in_an_error = refused(4, |_, _| Answer::status(404)).path("/file.bin?sig=tok-S3CRET-9f8e7d")
        .and(|b, run| no_leak(b, run, TOKEN));
    /// kill -9 in the middle: neither the password nor the header is on disk.
    secrets_are_not_in_the_state = ok(honest).rate(1_400_000).locator(with_login)
        .flags(&["-H", "X-Key: tok-S3CRET-9f8e7d"])
        .killed_and(0.47, |b| {
            no_leak_on_disk(b, PASSWORD);
            no_leak_on_disk(b, TOKEN);
        });
    /// A mirror is another origin too.
    header_is_not_for_mirrors = either(|q, f| if q.origin == 0 { f.answer(q).cut(300_000, End::Reset) } else { f.answer(q) })
        .flags(&["-H", "X-Key: tok-S3CRET-9f8e7d"])
        .before(|b| { let mirror = b.server.url_on(1, "/file.bin"); b.flags.extend(["--mirror".to_owned(), mirror]); })
        .and(kept("x-key", TOKEN));
}
