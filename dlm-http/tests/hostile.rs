//! Servers that send too much, too little, or too slowly; and connections that are used again, or must not be.

#![allow(clippy::unwrap_used, reason = "a panic is a report")]

mod common;

use std::time::{Duration, Instant};

use common::{Server, Step, collect, cx, error, kind, open, resolve, say, say_and_close};
use dlm_core::{Identity, Kind, Retry, Span};
use dlm_http::{HttpBackend, HttpOptions};
use futures::StreamExt;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn backend() -> HttpBackend {
    HttpBackend::builder().build()
}

#[tokio::test]
async fn heads_are_bounded() {
    let cookies = "Set-Cookie: a=b\r\n".repeat(3000);
    let fields = "X: y\r\n".repeat(300);
    let long = format!("X: {}\r\n", "y".repeat(70_000));
    for fields in [&cookies, &fields, &long] {
        let server = Server::saying(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n")).await;
        assert_eq!(
            kind(resolve(&backend(), &server.url("/"), &cx(None)).await),
            Kind::Protocol,
            "{}",
            fields.len()
        );
    }
    // One that is merely large passes.
    let server = Server::saying(format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
        format!("X: {}\r\n", "y".repeat(1000)).repeat(60)
    ))
    .await;
    resolve(&backend(), &server.url("/"), &cx(None)).await.unwrap();
    // One without end costs neither memory nor time.
    for endless in
        ["X: y\r\n", "x", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"]
    {
        let begin = if endless.starts_with("HTTP") { "" } else { "HTTP/1.1 200 OK\r\n" };
        let server = Server::start(move |_| {
            vec![Step::Send(begin.into()), Step::Flood(endless.repeat(100).into_bytes())]
        })
        .await;
        let began = Instant::now();
        assert_eq!(kind(resolve(&backend(), &server.url("/"), &cx(None)).await), Kind::Protocol, "{endless}");
        assert!(began.elapsed() < Duration::from_millis(650), "{endless}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn heads_have_a_time_limit() {
    let drip = |bytes: &[u8]| -> Vec<Step> {
        bytes
            .iter()
            .cycle()
            .take(100)
            .flat_map(|b| [Step::Send(vec![*b]), Step::Sleep(Duration::from_millis(20))])
            .collect()
    };
    let interim: Vec<Step> = (0..100)
        .flat_map(|_| {
            [Step::Send(b"HTTP/1.1 102 Processing\r\n\r\n".to_vec()), Step::Sleep(Duration::from_millis(20))]
        })
        .collect();
    for steps in [vec![Step::Sleep(Duration::from_mins(1))], drip(b"H"), drip(b"\r\n"), interim] {
        let server = Server::start(move |_| steps.clone()).await;
        let began = Instant::now();
        let e = error(resolve(&backend(), &server.url("/"), &cx(None)).await);
        assert!(began.elapsed() < Duration::from_millis(1200));
        assert!(matches!(e.kind(), Kind::Timeout | Kind::Protocol), "{e}");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let server = Server::start(|r| match r.target() {
        "/gone" => say("HTTP/1.1 404 N\r\nContent-Length: 3\r\n\r\nno."),
        "/chunked" => say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        _ => say(HELLO),
    })
    .await;
    let backend = backend();
    for path in ["/a", "/b", "/gone", "/chunked", "/c"] {
        let _ = resolve(&backend, &server.url(path), &cx(None)).await.map(|f| f.body.unwrap());
    }
    assert_eq!((server.requests().len(), server.connections()), (5, 1));
    // Two at once need two; both are kept.
    for _ in 0..2 {
        let (url, cx) = (server.url("/x"), cx(None));
        let one = open(&backend, &url, Span::ALL, &Identity::UNKNOWN, &cx).await.unwrap();
        let two = open(&backend, &url, Span::ALL, &Identity::UNKNOWN, &cx).await.unwrap();
        collect(one).await.unwrap();
        collect(two).await.unwrap();
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn connections_are_not_used_again_when_they_should_not() {
    for (answer, why) in [
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", "the server says so"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.0 keeps nothing"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            "nobody asked for the second answer",
        ),
    ] {
        let server = Server::start(move |_| say(answer)).await;
        let backend = backend();
        for _ in 0..2 {
            assert_eq!(resolve(&backend, &server.url("/"), &cx(None)).await.unwrap().body.unwrap(), b"hello");
        }
        assert_eq!(server.connections(), 2, "{why}");
    }
    // A body that was not read to its end takes its connection along.
    let server = Server::saying(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}",
        "x".repeat(1_000_000)
    ))
    .await;
    let backend = backend();
    for _ in 0..2 {
        let mut body =
            open(&backend, &server.url("/"), Span::ALL, &Identity::UNKNOWN, &cx(None)).await.unwrap();
        body.stream.next().await.unwrap().unwrap();
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn credentials_have_connections_of_their_own() {
    let server = Server::saying(HELLO).await;
    let backend = backend();
    let login = |name| cx(Some(HttpOptions::new().user(name, "pw").unwrap()));
    for cx in [login("a"), cx(None), login("b"), login("a"), cx(None)] {
        resolve(&backend, &server.url("/"), &cx).await.unwrap().body.unwrap();
    }
    assert_eq!(server.requests().iter().map(|r| r.connection).collect::<Vec<_>>(), [0, 1, 2, 0, 1]);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced_in_silence() {
    // The second request on each connection is met with a close, or a reset.
    for end in [Step::Close, Step::Reset] {
        let served = std::sync::Mutex::new(std::collections::HashSet::new());
        let server = Server::start(move |r| {
            if served.lock().unwrap().insert(r.connection) { say(HELLO) } else { vec![end.clone()] }
        })
        .await;
        let backend = backend();
        for _ in 0..3 {
            assert_eq!(resolve(&backend, &server.url("/"), &cx(None)).await.unwrap().body.unwrap(), b"hello");
        }
        assert_eq!((server.requests().len(), server.connections()), (5, 3));
    }
    // Closed while it waited: not even tried.
    let server = Server::start(|_| say_and_close(HELLO)).await;
    let backend = backend();
    for _ in 0..2 {
        resolve(&backend, &server.url("/"), &cx(None)).await.unwrap().body.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((server.requests().len(), server.connections()), (2, 2));
    // A new connection that is closed is a failure.
    let server = Server::start(|_| vec![Step::Close]).await;
    let e = error(resolve(&backend, &server.url("/"), &cx(None)).await);
    assert_eq!((e.kind(), e.retry(), server.requests().len()), (Kind::Reset, Retry::Backoff, 1));
}

#[tokio::test]
async fn a_body_that_stops_says_nothing_and_hangs_nobody() {
    // The engine watches the time between bytes; the stream only has to wait, and to be droppable.
    let server = Server::start(|_| {
        vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec()),
            Step::Sleep(Duration::from_mins(1)),
        ]
    })
    .await;
    let mut body =
        open(&backend(), &server.url("/"), Span::ALL, &Identity::UNKNOWN, &cx(None)).await.unwrap();
    assert_eq!(body.stream.next().await.unwrap().unwrap(), "hello");
    assert!(tokio::time::timeout(Duration::from_millis(100), body.stream.next()).await.is_err());
    // A reset in the middle is an error, and the end after it is final.
    let server = Server::start(|_| {
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec();
        vec![Step::Send(half), Step::Sleep(Duration::from_millis(50)), Step::Reset]
    })
    .await;
    let mut body =
        open(&backend(), &server.url("/"), Span::ALL, &Identity::UNKNOWN, &cx(None)).await.unwrap();
    assert_eq!(body.stream.next().await.unwrap().unwrap(), "hello");
    let e = body.stream.next().await.unwrap().unwrap_err();
    assert_eq!((e.kind(), e.detail()), (Kind::Reset, "the connection was reset"));
    assert!(body.stream.next().await.is_none());
}

#[tokio::test]
async fn many_bytes_come_whole() {
    // Larger than every buffer, in frames and chunks of odd sizes, with pauses.
    let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for c in data.chunks(70_001) {
        chunked.extend_from_slice(format!("{:X}\r\n", c.len()).as_bytes());
        chunked.extend_from_slice(c);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let mut sized = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", data.len()).into_bytes();
    sized.extend_from_slice(&data);
    let server = Server::start(move |r| {
        let all = if r.target() == "/chunked" { &chunked } else { &sized };
        all.chunks(999_983)
            .flat_map(|c| [Step::Send(c.to_vec()), Step::Sleep(Duration::from_millis(5))])
            .collect()
    })
    .await;
    let backend = backend();
    for path in ["/chunked", "/sized", "/chunked"] {
        assert!(
            resolve(&backend, &server.url(path), &cx(None)).await.unwrap().body.unwrap() == data,
            "{path}"
        );
    }
    assert_eq!(server.connections(), 1);
}
