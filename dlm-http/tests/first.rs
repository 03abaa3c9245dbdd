//! The first request: what raw answers are taken for.

#![allow(clippy::unwrap_used, reason = "a panic is a report")]

mod common;

use common::{
    Found, Server, Step, collect, cx, error, kind, locator, open, ranges, resolve, say, say_and_close, strong,
};
use dlm_core::{
    Accept, Backend, Fault, Hint, Identity, Kind, Result, ResumeHint, Retry, Role, Span, Validator,
};
use dlm_http::HttpBackend;

fn backend() -> HttpBackend {
    HttpBackend::builder().build()
}

/// Resolves against a server that says this and closes.
async fn told(answer: &str) -> Result<Found> {
    let answer = answer.replace('\n', "\r\n");
    let server = Server::start(move |_| say_and_close(&answer)).await;
    resolve(&backend(), &server.url("/dir/a%20name.bin?x=1"), &cx(None)).await
}

/// `len at ranges body` of an answer, or the kinds of its errors.
fn short(found: &Result<Found>) -> String {
    match found {
        Err(e) => format!("{:?}", e.kind()),
        Ok(f) => {
            let body = match &f.body {
                Ok(b) => String::from_utf8_lossy(b).into_owned(),
                Err(e) => format!("{:?}", e.kind()),
            };
            let len = f.len.map_or("?".to_owned(), |l| l.to_string());
            format!("{len} {:?} {} {body}", f.at, if ranges(f.caps) { "RANGES" } else { "STREAM" })
        }
    }
}

#[tokio::test]
async fn what_answers_mean() {
    for (answer, want) in [
        // Ranges.
        ("HTTP/1.1 206 P\nContent-Range: bytes 0-4/5\nContent-Length: 5\n\nhello", "5 0..5 RANGES hello"),
        ("HTTP/1.1 206 P\nContent-Range: bytes 0-4/9\nContent-Length: 5\n\nhello", "9 0..5 RANGES hello"),
        ("HTTP/1.1 206 P\nContent-Range: bytes 0-4/*\nContent-Length: 5\n\nhello", "? 0..5 RANGES hello"),
        ("HTTP/1.1 206 P\nContent-Range: bytes 2-4/5\nContent-Length: 3\n\nllo", "5 2..5 RANGES llo"),
        (
            "HTTP/1.1 206 P\nContent-Range: bytes 0-4/5\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n",
            "5 0..5 RANGES hello",
        ),
        ("HTTP/1.1 206 P\nContent-Range: bytes 0-4/5\n\nhello", "5 0..5 RANGES hello"),
        // A label that the body does not match.
        (
            "HTTP/1.1 206 P\nContent-Range: bytes 0-4/5\nTransfer-Encoding: chunked\n\n6\nhello!\n0\n\n",
            "5 0..5 RANGES Protocol",
        ),
        (
            "HTTP/1.1 206 P\nContent-Range: bytes 0-4/5\nTransfer-Encoding: chunked\n\n4\nhell\n0\n\n",
            "5 0..5 RANGES Reset",
        ),
        ("HTTP/1.1 206 P\nContent-Range: bytes 0-4/5\n\nhell", "5 0..5 RANGES Reset"),
        ("HTTP/1.1 206 P\nContent-Range: bytes 0-4/5\n\nhello!", "5 0..5 RANGES Protocol"),
        // No ranges.
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "5 0..5 STREAM hello"),
        ("HTTP/1.1 200 OK\nAccept-Ranges: bytes\nContent-Length: 5\n\nhello", "5 0..5 STREAM hello"),
        ("HTTP/1.1 200 OK\nETag: \"v\"\nContent-Length: 5\n\nhello", "5 0..5 STREAM hello"),
        (
            "HTTP/1.1 200 OK\nAccept-Ranges: none\nETag: \"v\"\nContent-Length: 5\n\nhello",
            "5 0..5 STREAM hello",
        ),
        // None yet, and it says that there are.
        (
            "HTTP/1.1 200 OK\nAccept-Ranges: bytes\nETag: \"v\"\nContent-Length: 5\n\nhello",
            "5 0..5 RANGES hello",
        ),
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\nhello and more", "5 0..5 STREAM hello"),
        ("HTTP/1.1 203 X\nContent-Length: 5\n\nhello", "5 0..5 STREAM hello"),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", "0 0..0 STREAM "),
        ("HTTP/1.0 200 OK\n\nhello", "? 0.. STREAM hello"),
        ("HTTP/1.1 200 OK\n\nhello", "? 0.. STREAM hello"),
        (
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5;x=y\nhello\n0\nX-Trailer: y\n\n",
            "? 0.. STREAM hello",
        ),
        (
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 3\n\n5\nhello\n0\n\n",
            "? 0.. STREAM hello",
        ),
        ("HTTP/1.1 103 Early\nLink: x\n\nHTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "5 0..5 STREAM hello"),
        // Lengths.
        ("HTTP/1.1 200 OK\nContent-Length: 5, 5\n\nhello", "5 0..5 STREAM hello"),
        ("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\nhello", "5 0..5 STREAM hello"),
        ("HTTP/1.1 200 OK\nContent-Length: 5, 6\n\nhello", "Protocol"),
        ("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\nhello", "Protocol"),
        ("HTTP/1.1 200 OK\nContent-Length: +5\n\nhello", "Protocol"),
        ("HTTP/1.1 200 OK\nContent-Length: -5\n\nhello", "Protocol"),
        ("HTTP/1.1 200 OK\nContent-Length:\n\nhello", "Protocol"),
        ("HTTP/1.1 200 OK\nContent-Length: 0x5\n\nhello", "Protocol"),
        ("HTTP/1.1 200 OK\nContent-Length: 5 5\n\nhello", "Protocol"),
        ("HTTP/1.1 200 OK\nContent-Length: 18446744073709551616\n\nhello", "Protocol"),
        ("HTTP/1.1 200 OK\nContent-Length: 18446744073709551615\n\nhello", "Protocol"),
        ("HTTP/1.1 200 OK\nContent-Length: 9223372036854775808\n\nhello", "Protocol"),
        // Cut short, or damaged.
        ("HTTP/1.1 200 OK\nContent-Length: 6\n\nhello", "6 0..6 STREAM Reset"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n", "? 0.. STREAM Reset"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello", "? 0.. STREAM Reset"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n+5\nhello\n0\n\n", "? 0.. STREAM Protocol"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhelloXX0\n\n", "? 0.. STREAM Protocol"),
        (
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nfffffffffffffffff\nhello\n0\n\n",
            "? 0.. STREAM Protocol",
        ),
        ("", "Reset"),
        ("HTTP/1.1 200 OK\nContent-Le", "Reset"),
        ("HTTP/1.1 100 Continue\n\n", "Reset"),
        ("SSH-2.0-OpenSSH\n\n", "Protocol"),
        ("HTTP/2 200 OK\n\n", "Protocol"),
        ("HTTP/1.1 20 OK\n\n", "Protocol"),
        ("HTTP/1.1 200 OK\nBad Name: x\n\n", "Protocol"),
        ("HTTP/1.1 200 OK\nX: a\n folded\nContent-Length: 5\n\nhello", "Protocol"),
        // What nobody asked for.
        ("HTTP/1.1 204 No\n\n", "Protocol"),
        ("HTTP/1.1 202 Later\nContent-Length: 0\n\n", "Protocol"),
        ("HTTP/1.1 101 Switching\nUpgrade: x\nConnection: upgrade\n\n", "Protocol"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n5\nhello\n0\n\n", "Protocol"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: identity\n\nhello", "Protocol"),
        ("HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n", "Protocol"),
        ("HTTP/1.1 304 Not\n\n", "Protocol"),
        ("HTTP/1.1 404 Not\nContent-Length: 5\n\nhello", "NotFound"),
        ("HTTP/1.1 403 No\nContent-Length: 0\n\n", "Denied"),
        ("HTTP/1.1 500 Oops\nContent-Length: 0\n\n", "Throttled"),
    ] {
        let found = told(answer).await;
        assert_eq!(short(&found), want, "{answer:?}: {found:?}");
    }
}

#[tokio::test]
async fn a_range_that_nobody_can_use_is_asked_for_as_a_whole() {
    for part in [
        "HTTP/1.1 206 P\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 206 P\r\nContent-Range: bytes 4-0/5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 206 P\r\nContent-Range: bytes 0-4/5\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 206 P\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 4\r\n\r\nhell",
        "HTTP/1.1 206 P\r\nContent-Type: multipart/byteranges; boundary=x\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 206 P\r\nContent-Encoding: gzip\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 400 B\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 403 F\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 405 M\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 406 N\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 416 R\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 501 N\r\nContent-Length: 0\r\n\r\n",
    ] {
        let server = Server::start(move |r| {
            if r.header("range").is_some() {
                say(part)
            } else {
                say("HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nContent-Length: 3\r\n\r\nall")
            }
        })
        .await;
        let found = resolve(&backend(), &server.url("/f"), &cx(None)).await;
        assert_eq!(short(&found), "3 0..3 STREAM all", "{part:?}");
        assert_eq!(server.requests().len(), 2);
    }
    // An empty file, which has no range at all.
    let server = Server::start(|r| match r.header("range") {
        Some(_) => say("HTTP/1.1 416 R\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n"),
        None => say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    })
    .await;
    assert_eq!(short(&resolve(&backend(), &server.url("/f"), &cx(None)).await), "0 0..0 STREAM ");
    // A server that refuses both is asked no third time.
    let server = Server::saying("HTTP/1.1 403 F\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(kind(resolve(&backend(), &server.url("/f"), &cx(None)).await), Kind::Denied);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn the_request() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    resolve(&backend(), &server.url("/a b?q=1#frag"), &cx(None)).await.unwrap();
    let r = &server.requests()[0];
    assert!(r.head.starts_with("GET /a%20b?q=1 HTTP/1.1\r\n"));
    assert_eq!(r.header("host"), Some(server.addr.to_string().as_str()));
    assert_eq!(r.header("range"), Some("bytes=0-"));
    assert_eq!(r.header("accept-encoding"), Some("identity"));
    assert_eq!(r.header("user-agent"), Some(concat!("dlm/", env!("CARGO_PKG_VERSION"))));
    for none in ["if-range", "authorization", "referer", "cookie"] {
        assert_eq!(r.header(none), None);
    }
}

#[tokio::test]
async fn names_and_dates() {
    for (headers, path, name) in [
        ("", "/d/a%20b.txt?x=y", "a b.txt"),
        ("", "/", "download"),
        ("", "/..%2f..%2fetc%2fpasswd", "passwd"),
        ("", "/%2e%2e", "download"),
        ("", "/.bashrc", "_bashrc"),
        ("Content-Disposition: attachment; filename=\"../../x.sh\"\r\n", "/f", "x.sh"),
        (
            "Content-Disposition: attachment; filename*=UTF-8''%e2%82%ac.txt; filename=e.txt\r\n",
            "/f",
            "\u{20ac}.txt",
        ),
        ("Content-Disposition: inline\r\n", "/f", "f"),
        ("Content-Disposition: attachment; filename*=UTF-8''..%2F.ssh%2Fid\r\n", "/f", "id"),
        ("Content-Disposition: attachment; filename=\"-rf\"\r\n", "/f", "_rf"),
        ("Content-Disposition: attachment; filename=\"a\u{202e}b\"\r\n", "/f", "a_b"),
    ] {
        let server = Server::saying(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 0\r\n\r\n")).await;
        let found = resolve(&backend(), &server.url(path), &cx(None)).await.unwrap();
        assert_eq!(found.name, name, "{headers} {path}");
        assert!(!found.mtime);
    }
    let dated =
        "HTTP/1.1 200 OK\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
    let server = Server::saying(dated).await;
    let found = resolve(&backend(), &server.url("/"), &cx(None)).await.unwrap();
    assert!(found.mtime);
    assert_eq!(found.identity.validator, Validator::Weak { mtime: Some(784_111_777), tag: None });
}

#[tokio::test]
async fn a_resumed_job_asks_from_where_it_stopped() {
    let identity = |tag: &str| Identity::new(Some(10), strong(tag));
    let server = Server::start(|r| match (r.header("range"), r.header("if-range")) {
        (Some("bytes=5-"), Some("\"v1\"")) => say(
            "HTTP/1.1 206 P\r\nETag: \"v1\"\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nworld",
        ),
        _ => say("HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nETag: \"v2\"\r\nContent-Length: 3\r\n\r\nnew"),
    })
    .await;
    let at = |at, tag| cx(None).with_resume(Some(ResumeHint { at, identity: identity(tag) }));
    let found = resolve(&backend(), &server.url("/f"), &at(5, "\"v1\"")).await.unwrap();
    assert_eq!((found.at, found.len, found.identity), (Span::new(5, 10), Some(10), identity("\"v1\"")));
    assert_eq!(found.body.unwrap(), b"world");
    // Another version: all of it, in one answer.
    let found = resolve(&backend(), &server.url("/f"), &at(5, "\"v0\"")).await;
    assert_eq!(short(&found), "3 0..3 RANGES new");
    // Nothing there any more: the beginning tells what there is.
    let server = Server::start(|r| match r.header("range") {
        Some("bytes=0-") => {
            say("HTTP/1.1 206 P\r\nContent-Range: bytes 0-2/3\r\nContent-Length: 3\r\n\r\nnew")
        }
        _ => say("HTTP/1.1 416 R\r\nContent-Range: bytes */3\r\nContent-Length: 0\r\n\r\n"),
    })
    .await;
    assert_eq!(short(&resolve(&backend(), &server.url("/f"), &at(5, "\"v1\"")).await), "3 0..3 RANGES new");
}

#[tokio::test]
async fn a_mirror_only_binds() {
    let server =
        Server::saying("HTTP/1.1 206 P\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nhello")
            .await;
    let object = cx(None).new_object();
    let role = |window| cx(None).with_role(Role::SameBytes { object, window }, 7);
    let found = resolve(&backend(), &server.url("/f"), &role(Span::ALL)).await.unwrap();
    assert_eq!(
        (found.name.as_str(), found.target.rank, found.at, found.identity.len),
        ("", 7, Span::new(0, 5), Some(5))
    );
    // Standing for a part of the object: its bytes are that part's.
    let found = resolve(&backend(), &server.url("/f"), &role(Span::new(100, 105))).await.unwrap();
    assert_eq!(
        (found.at, found.identity.len, found.body.unwrap()),
        (Span::new(100, 105), None, b"hello".to_vec())
    );
    // One of another length is another thing.
    assert_eq!(kind(resolve(&backend(), &server.url("/f"), &role(Span::new(100, 106))).await), Kind::Changed);
}

#[tokio::test]
async fn sources_are_shared_by_origin() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let backend = backend();
    let (a, b) = (
        backend.origin(&locator(&server.url("/a"))).unwrap(),
        backend.origin(&locator(&server.url("/b"))).unwrap(),
    );
    assert!(std::sync::Arc::ptr_eq(&a, &b));
    let other = backend.origin(&locator("http://127.0.0.1:1/a")).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&a, &other));
    let info = dlm_core::RangeSource::info(a.get());
    assert_eq!(
        (&*info.key, &*info.label),
        (format!("http://{}", server.addr).as_str(), server.addr.to_string().as_str())
    );
}

#[test]
fn accepts() {
    for (l, want) in [
        ("http://h/a", Accept::Yes),
        ("https://h/", Accept::Yes),
        ("https://h/a.TORRENT?x", Accept::Carrier),
        ("http://h/a.meta4", Accept::Carrier),
        ("http://h/a.metalink", Accept::Carrier),
        ("ftp://h/a", Accept::No),
        ("magnet:?xt=urn:btih:00", Accept::No),
        ("file:///a", Accept::No),
    ] {
        assert_eq!(backend().accepts(&Hint::new(&locator(l))), want, "{l}");
    }
}

#[tokio::test]
async fn errors_speak_of_what_was_tried() {
    let server = Server::saying("HTTP/1.1 503 Doom\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n").await;
    let e = error(resolve(&backend(), &server.url("/f?sig=hush"), &cx(None)).await);
    assert_eq!(
        e.to_string(),
        format!("cannot fetch http://{}/f?sig=***: the server says 503 Service Unavailable", server.addr)
    );
    assert_eq!(e.retry(), Retry::After(std::time::Duration::from_secs(7)));
    let e = error(resolve(&backend(), "http://127.0.0.1:1/f", &cx(None)).await);
    assert_eq!(e.to_string(), "cannot connect to 127.0.0.1:1: the connection was refused");
    assert_eq!((e.kind(), e.fault(), e.retry()), (Kind::Reset, Fault::Network, Retry::Backoff));
    let server = Server::start(|_| vec![Step::Reset]).await;
    let e = error(resolve(&backend(), &server.url("/f"), &cx(None)).await);
    assert_eq!((e.kind(), e.retry()), (Kind::Reset, Retry::Backoff));
}

#[tokio::test]
async fn compressed_bytes_are_the_object_and_not_the_plain_one() {
    let server = Server::start(|r| {
        if r.target() == "/gz" {
            say("HTTP/1.1 200 OK\r\nETag: \"v\"\r\nContent-Encoding: gzip\r\nAccept-Ranges: bytes\r\nContent-Length: 3\r\n\r\n\x1f\u{b}x")
        } else {
            say("HTTP/1.1 206 P\r\nETag: \"v\"\r\nContent-Range: bytes 1-2/3\r\nContent-Length: 2\r\n\r\nxy")
        }
    })
    .await;
    let backend = backend();
    let found = resolve(&backend, &server.url("/gz"), &cx(None)).await.unwrap();
    assert!(!ranges(found.caps));
    let body =
        open(&backend, &server.url("/plain"), Span::from(1), &found.identity, &cx(None)).await.unwrap();
    assert!(!found.identity.agrees(&body.identity));
    assert_eq!(server.requests().last().unwrap().header("if-range"), None);
    collect(body).await.unwrap();
}
