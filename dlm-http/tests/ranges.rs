//! Opening ranges: what is asked, what is compared, and what an answer is taken for.

#![allow(clippy::unwrap_used, reason = "a panic is a report")]

mod common;

use common::{Server, Step, collect, cx, error, kind, locator, open, say, say_and_close, strong};
use dlm_core::{Identity, Kind, RangeSource, Retry, Span, Target, Validator};
use dlm_http::HttpBackend;

fn backend() -> HttpBackend {
    HttpBackend::builder().build()
}

const NEW: Identity = Identity::UNKNOWN;

#[tokio::test]
async fn what_is_asked() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let weak = |mtime, tag: Option<&str>| Validator::Weak { mtime, tag: tag.map(Into::into) };
    for (want, validator, range, condition) in [
        (Span::ALL, Validator::Unknown, "bytes=0-", None),
        (Span::new(0, 1), strong("\"t\""), "bytes=0-0", Some("\"t\"")),
        (
            Span::new(10, 20),
            weak(Some(784_111_777), None),
            "bytes=10-19",
            Some("Sun, 06 Nov 1994 08:49:37 GMT"),
        ),
        (Span::from(10), weak(None, Some("\"w\"")), "bytes=10-", None),
    ] {
        let held = Identity::new(None, validator);
        collect(open(&backend(), &server.url("/f"), want, &held, &cx(None)).await.unwrap()).await.unwrap();
        let r = server.requests().pop().unwrap();
        assert_eq!((r.header("range"), r.header("if-range")), (Some(range), condition));
    }
}

#[tokio::test]
async fn what_it_gets() {
    for (answer, want) in [
        (
            "206 P\nContent-Range: bytes 5-9/10\nContent-Length: 5\n\nworld",
            Ok((Span::new(5, 10), Some(10), "world")),
        ),
        // Not what was asked: the engine compares.
        (
            "206 P\nContent-Range: bytes 3-4/10\nContent-Length: 2\n\nlo",
            Ok((Span::new(3, 5), Some(10), "lo")),
        ),
        (
            "206 P\nContent-Range: bytes 5-20/21\nContent-Length: 16\n\nworldworldworld!",
            Ok((Span::new(5, 21), Some(21), "worldworldworld!")),
        ),
        ("200 OK\nContent-Length: 10\n\nhelloworld", Ok((Span::new(0, 10), Some(10), "helloworld"))),
        ("200 OK\n\nhelloworld", Ok((Span::from(0), None, "helloworld"))),
        ("206 P\nContent-Length: 5\n\nworld", Err(Kind::Protocol)),
        ("206 P\nContent-Range: bytes 5-9/10\nContent-Length: 6\n\nworld!", Err(Kind::Protocol)),
        ("206 P\nContent-Range: bytes 9-5/10\nContent-Length: 5\n\nworld", Err(Kind::Protocol)),
        ("206 P\nContent-Range: bytes 5-9/9\nContent-Length: 5\n\nworld", Err(Kind::Protocol)),
        (
            "206 P\nContent-Encoding: br\nContent-Range: bytes 5-9/10\nContent-Length: 5\n\nworld",
            Err(Kind::RangeIgnored),
        ),
        (
            "206 P\nContent-Type: Multipart/ByteRanges; boundary=x\nContent-Length: 5\n\nworld",
            Err(Kind::RangeIgnored),
        ),
        ("416 R\nContent-Length: 0\n\n", Err(Kind::RangeIgnored)),
        ("416 R\nContent-Range: bytes */10\nContent-Length: 0\n\n", Err(Kind::RangeIgnored)),
        ("416 R\nContent-Range: bytes */7\nContent-Length: 0\n\n", Err(Kind::Changed)),
        ("412 P\nContent-Length: 0\n\n", Err(Kind::Changed)),
        ("304 N\n\n", Err(Kind::Protocol)),
        ("404 N\nContent-Length: 0\n\n", Err(Kind::NotFound)),
        ("410 G\nContent-Length: 0\n\n", Err(Kind::NotFound)),
        ("401 U\nContent-Length: 0\n\n", Err(Kind::Denied)),
        ("503 S\nContent-Length: 0\n\n", Err(Kind::Throttled)),
        ("206 P\nContent-Range: bytes 5-9/10\nContent-Length: 5\n\nwor", Err(Kind::Reset)),
    ] {
        let text = format!("HTTP/1.1 {answer}").replace('\n', "\r\n");
        let server = Server::start(move |_| say_and_close(&text)).await;
        let held = Identity::new(Some(10), Validator::Unknown);
        let got = match open(&backend(), &server.url("/f"), Span::new(5, 10), &held, &cx(None)).await {
            Err(e) => Err(e),
            Ok(b) => {
                let (at, len) = (b.at, b.identity.len);
                collect(b).await.map(|bytes| (at, len, String::from_utf8(bytes).unwrap()))
            }
        };
        match (&got, &want) {
            (Ok((at, len, bytes)), Ok((at2, len2, bytes2))) => {
                assert_eq!((at, len, bytes.as_str()), (at2, len2, *bytes2), "{answer}");
            }
            (Err(e), Err(k)) => assert_eq!(e.kind(), *k, "{answer}"),
            _ => panic!("{answer}: {got:?}"),
        }
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_server_without_ranges_still_gives_all() {
    let server = Server::start(|r| match r.header("range") {
        Some(_) => say("HTTP/1.1 400 B\r\nContent-Length: 0\r\n\r\n"),
        None => say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    })
    .await;
    let body = open(&backend(), &server.url("/f"), Span::ALL, &NEW, &cx(None)).await.unwrap();
    assert_eq!(collect(body).await.unwrap(), b"hello");
    assert_eq!(kind(open(&backend(), &server.url("/f"), Span::from(1), &NEW, &cx(None)).await), Kind::Denied);
}

#[tokio::test]
async fn windows() {
    // The resource stands for bytes 100..110 of the object, from its own byte 3 on.
    let server = Server::start(|r| match r.header("range") {
        Some("bytes=5-7") => {
            say("HTTP/1.1 206 P\r\nContent-Range: bytes 5-7/20\r\nContent-Length: 3\r\n\r\ncde")
        }
        _ => say("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n...abcdefghij......."),
    })
    .await;
    let url = locator(&server.url("/f"));
    let mut target = Target::new(cx(None).new_object(), url.clone()).window(Span::new(100, 110));
    target.remote_base = 3;
    let backend = backend();
    let origin = backend.origin(&url).unwrap();
    let body = origin.get().open(&target, Span::new(102, 105), &NEW, &cx(None)).await.unwrap();
    assert_eq!((body.at, body.identity.len), (Span::new(102, 105), None));
    assert_eq!(collect(body).await.unwrap(), b"cde");
    // A range that was ignored: what lies before and after the window is cut off.
    let body = origin.get().open(&target, Span::new(101, 110), &NEW, &cx(None)).await.unwrap();
    assert_eq!(body.at, Span::new(100, 110));
    assert_eq!(collect(body).await.unwrap(), b"abcdefghij");
    assert_eq!(server.requests()[1].header("range"), Some("bytes=4-12"));
}

#[tokio::test]
async fn an_expired_address_is_found_anew() {
    // /f leads to a signed address that works once.
    let n = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |r| {
        if r.target() == "/f" {
            let n = n.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            return say(format!("HTTP/1.1 302 F\r\nLocation: /signed?{n}\r\nContent-Length: 0\r\n\r\n"));
        }
        let good = match r.header("range") {
            Some("bytes=0-4" | "bytes=5-9") => "/signed?0",
            _ => "/signed?1",
        };
        if r.target() == good {
            say("HTTP/1.1 206 P\r\nContent-Range: bytes 0-4/15\r\nContent-Length: 5\r\n\r\nhello")
        } else {
            say("HTTP/1.1 403 F\r\nContent-Length: 7\r\n\r\nexpired")
        }
    })
    .await;
    let backend = backend();
    for want in [Span::new(0, 5), Span::new(5, 10), Span::new(10, 15)] {
        collect(open(&backend, &server.url("/f"), want, &NEW, &cx(None)).await.unwrap()).await.unwrap();
    }
    let targets: Vec<String> = server.requests().iter().map(|r| r.target().to_owned()).collect();
    assert_eq!(targets, ["/f", "/signed?0", "/signed?0", "/signed?0", "/f", "/signed?1"]);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_final_address_that_fails_is_forgotten() {
    let dead = Server::start(|_| vec![Step::Reset]).await;
    let to = dead.url("/x");
    let server =
        Server::start(move |_| say(format!("HTTP/1.1 302 F\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")))
            .await;
    let backend = backend();
    for _ in 0..2 {
        let e = error(open(&backend, &server.url("/f"), Span::ALL, &NEW, &cx(None)).await);
        assert_eq!((e.kind(), e.retry()), (Kind::Reset, Retry::Backoff));
    }
    assert_eq!(server.requests().len(), 2);
}
