//! The server tells exactly the lies it is asked to tell.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a report")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use dlm_testkit::fixtures;
use dlm_testkit::http_server::{Answer, End, Handler, Origin, Request, Resource, Server, Step, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends one request and reads to the end: head, body, and whether the end was a reset.
async fn send(server: &Server, line: &str, headers: &str) -> (String, Vec<u8>, bool) {
    let mut tcp = TcpStream::connect(server.url("").trim_start_matches("http://")).await.unwrap();
    tcp.write_all(format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let reset = loop {
        match tcp.read_buf(&mut all).await {
            Ok(0) => break false,
            Ok(_) => {}
            Err(e) => break e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    };
    let at = all.windows(4).position(|w| w == b"\r\n\r\n").map_or(all.len(), |p| p + 4);
    let body = all.split_off(at);
    (String::from_utf8(all).unwrap(), body, reset)
}

async fn ask(server: &Server, line: &str) -> (String, Vec<u8>, bool) {
    send(server, line, "").await
}

async fn get(server: &Server, headers: &str) -> (String, Vec<u8>, bool) {
    send(server, "GET /f", headers).await
}

fn file() -> (Bytes, Resource) {
    let data = fixtures::bytes(1, 200_000);
    (data.clone(), Resource::new(data))
}

async fn with(handler: impl Handler) -> Server {
    Server::start(handler).await.unwrap()
}

#[tokio::test]
async fn honest_answers() {
    let (data, file) = file();
    let server = with(move |q: &Request| file.answer(q)).await;
    let (head, body, _) = get(&server, "").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nETag: \"v1\"\r\n"), "{head}");
    assert_eq!(body, data);
    let (head, body, _) = get(&server, "Range: bytes=1000-1999\r\nIf-Range: \"v1\"\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 206 ") && head.contains("Content-Range: bytes 1000-1999/200000\r\n"),
        "{head}"
    );
    assert_eq!(body, data[1000..2000]);
    let (head, body, _) = get(&server, "Range: bytes=1000-\r\nIf-Range: \"v0\"\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body == data);
    assert!(get(&server, "Range: bytes=200000-\r\n").await.0.starts_with("HTTP/1.1 416 "));
    assert!(get(&server, "If-None-Match: \"v1\"\r\n").await.0.starts_with("HTTP/1.1 304 "));
    assert!(get(&server, "If-Match: \"v9\"\r\n").await.0.starts_with("HTTP/1.1 412 "));
    let (head, body, _) = ask(&server, "HEAD /f").await;
    assert!(head.contains("Content-Length: 200000\r\n") && body.is_empty());
    assert_eq!((server.requests(), server.connections()), (7, 7));
    assert_eq!(server.log()[1].header("range"), Some("bytes=1000-1999"));
    assert_eq!(server.served(), 200_000 + 1000 + 200_000);
}

#[tokio::test]
async fn cuts_in_every_way() {
    let (data, file) = file();
    let server = with(move |q: &Request| {
        let end = match q.path() {
            "/fin" => End::Fin,
            "/reset" => End::Reset,
            _ => End::Truncate,
        };
        file.answer(q).cut(70_000, end)
    })
    .await;
    for (path, reset) in [("/fin", false), ("/reset", true), ("/truncate", false)] {
        let (head, body, was_reset) = ask(&server, &format!("GET {path}")).await;
        assert!(head.contains("Content-Length: 200000\r\n"));
        assert_eq!((body.len(), was_reset), (70_000, reset), "{path}");
        assert_eq!(body, data[..70_000]);
    }
    assert_eq!(server.served(), 210_000);
}

#[tokio::test]
async fn lies_about_lengths_and_ranges() {
    let (_, file) = file();
    let server = with(move |q: &Request| match q.path() {
        "/cl" => file.answer(q).content_length("7").content_length("8"),
        "/none" => file.answer(q).no_content_length(),
        "/chunked" => file.answer(q).chunked(100_000),
        "/raw" => Answer::raw("nonsense"),
        "/flood" => Answer::script(vec![Step::Flood(Bytes::from_static(b"X: y\r\n"), 1000)]),
        _ => file.answer(q).content_range(|a, b, t| format!("bytes {b}-{a}/{}", t + 1)),
    })
    .await;
    let (head, ..) = ask(&server, "GET /cl").await;
    assert!(head.contains("Content-Length: 7\r\nContent-Length: 8\r\n"), "{head}");
    let (head, body, _) = ask(&server, "GET /none").await;
    assert!(!head.contains("Content-Length") && body.len() == 200_000);
    let (head, body, _) = ask(&server, "GET /chunked").await;
    assert!(head.contains("Transfer-Encoding: chunked\r\n") && !head.contains("Content-Length"));
    assert_eq!(body.len(), 2 * (7 + 100_000 + 2) + 5);
    assert_eq!(ask(&server, "GET /raw").await.0, "nonsense");
    assert_eq!(ask(&server, "GET /flood").await.0.len(), 6000);
    let (head, ..) = get(&server, "Range: bytes=5-9\r\n").await;
    assert!(head.contains("Content-Range: bytes 9-5/200001\r\n"), "{head}");
}

#[tokio::test]
async fn keeps_the_rate() {
    let (_, file) = file();
    let server = Server::builder().rate(400_000).start(move |q: &Request| file.answer(q)).await.unwrap();
    let start = Instant::now();
    let (a, b) =
        tokio::join!(get(&server, "Range: bytes=0-99999\r\n"), get(&server, "Range: bytes=0-99999\r\n"));
    let took = start.elapsed();
    assert_eq!(a.1.len() + b.1.len(), 200_000);
    assert!(took > Duration::from_millis(380) && took < Duration::from_secs(2), "{took:?}");
    assert_eq!(server.most_open_connections(), 2);
    assert!(server.log().iter().any(|q| q.busy == 1));
}

#[tokio::test]
async fn keeps_connections_and_names_origins() {
    let server = Server::builder()
        .origin(Origin::http())
        .origin(Origin::http().on_other_host())
        .origin(Origin::https(Tls::Good).named())
        .start(|q: &Request| Answer::redirect(302, q.url(1, "/x")))
        .await
        .unwrap();
    assert!(server.url_on(1, "/").starts_with("http://127.0.0.2:"));
    assert!(server.url_on(2, "/").starts_with("https://localhost:"));
    assert!(server.ca_pem().unwrap().contains("BEGIN CERTIFICATE"));
    let mut tcp = TcpStream::connect(server.url("").trim_start_matches("http://")).await.unwrap();
    for _ in 0..3 {
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            tcp.read_buf(&mut answer).await.unwrap();
        }
        assert!(
            String::from_utf8(answer).unwrap().contains(&format!("Location: {}\r\n", server.url_on(1, "/x")))
        );
    }
    assert_eq!((server.requests(), server.connections(), server.open_connections()), (3, 1, 1));
    let url = server.url("");
    server.stop().await;
    assert!(TcpStream::connect(url.trim_start_matches("http://")).await.is_err());
}
