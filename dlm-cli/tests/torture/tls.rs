//! Who the server is, and whether the stream is whole.

use crate::harness::*;

/// The locator is on a TLS origin with this certificate (origin 2).
fn on(scenario: Scenario, tls: Tls) -> Scenario {
    scenario.origin(Origin::https(tls)).on(2)
}

fn trusted(scenario: Scenario) -> Scenario {
    on(scenario, Tls::Good).before(Bench::trust)
}

/// What `--cacert` names is none, and that is found out at once, in little memory.
fn no_certificates(prepare: impl Fn(&Bench) -> std::path::PathBuf + 'static, says: &'static str) -> Scenario {
    on(refused(2, honest), Tls::Good)
        .before(move |b| {
            let file = prepare(b);
            b.flags.push(format!("--cacert={}", file.display()));
        })
        .limit(20)
        .says(says)
        .and(|b, _| assert_eq!(b.server.requests(), 0))
}

scenarios! {
    certificates_without_end = no_certificates(|_| "/dev/zero".into(), "no regular file");
    certificates_of_nobody = no_certificates(|b| {
        let pipe = b.root().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        pipe
    }, "no regular file");
    certificates_in_a_folder = no_certificates(|b| b.root().to_owned(), "SSL_CERT_DIR");
    too_many_certificates = no_certificates(|b| {
        let file = b.root().join("large.pem");
        std::fs::File::create(&file).unwrap().set_len((16 << 20) + 1).unwrap();
        file
    }, "larger than 16 MiB");
    trusted_authority = trusted(ok(honest));
    trusted_authority_with_ranges = trusted(ok(honest).size(8 * MIB).rate(8 * MIB).flags(&["-x", "4"]));
    unknown_authority = on(refused(3, honest), Tls::Good).limit(60).says("--cacert");
    self_signed = on(refused(3, honest), Tls::SelfSigned).before(Bench::trust).limit(60).says("--cacert");
    other_name = on(refused(3, honest), Tls::OtherName).before(Bench::trust).limit(60);
    expired = on(refused(3, honest), Tls::Expired).before(Bench::trust).limit(60);
    /// It says so, loudly.
    insecure_is_possible = on(ok(honest), Tls::SelfSigned).flags(&["--insecure"])
        .and(|_, run| assert!(!run.stderr.trim().is_empty(), "not a word: {run:?}"));
    no_certificate_in_the_file = on(refused_as(&[2, 3, 6], honest), Tls::Good).before(|b| {
        std::fs::write(b.root().join("ca.pem"), "nonsense").unwrap();
        b.trust();
    }).limit(60);
    /// https redirects to http: never without being told.
    downgrade = trusted(refused_as(&[3, 4, 8, 9], |q, f| if q.origin == 2 { Answer::redirect(302, q.url(0, "/final")) } else { f.answer(q) }))
        .and(|b, _| assert!(b.server.log().iter().all(|q| q.origin == 2), "it went there"));
    upgrade = trusted(ok(|q, f| if q.origin == 0 { Answer::redirect(302, q.url(2, "/final")) } else { f.answer(q) })).on(0);
    header_stays_at_the_upgrade = trusted(either(|q, f| if q.origin == 0 { Answer::redirect(302, q.url(2, "/final")) } else { f.answer(q) }))
        .on(0).flags(&["-H", "X-Key: S3CRET"])
        .and(|b, _| assert!(b.server.log().iter().all(|q| q.origin == 0 || q.header("x-key").is_none())));
    /// Only the end ends this body, and the TLS stream ends without `close_notify`: anybody can have cut it.
    truncated = trusted(refused(3, |q, f| f.first.ranges(false).answer(q).no_content_length().cut_share(0.5, End::Truncate))).limit(60);
    /// The same with a length, once: survived.
    truncated_once = trusted(ok(|q, f| if q.nth_get == 0 { f.answer(q).cut_share(0.5, End::Truncate) } else { f.answer(q) }));
    reset_once = trusted(ok(|q, f| if q.nth_get == 0 { f.answer(q).cut_share(0.5, End::Reset) } else { f.answer(q) }));
    killed_and_resumed = trusted(ok(honest).rate(1_400_000).killed(0.5));
    plain_http_on_the_port = refused(3, honest).locator(|s, path| s.url(path).replace("http://", "https://")).limit(60);
    tls_on_a_plain_port = on(refused_as(&[3, 9], honest), Tls::Good).locator(|s, path| s.url_on(2, path).replace("https://", "http://")).limit(60);
}
