//! Redirects: how far, whither, and what travels along.

#![allow(clippy::unwrap_used, reason = "a panic is a report")]

mod common;

use common::{Server, Step, cx, error, kind, locator, resolve, say, say_and_close};
use dlm_core::{Kind, Retry};
use dlm_http::{HttpBackend, HttpOptions};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn backend() -> HttpBackend {
    HttpBackend::builder().build()
}

fn to(status: u16, location: &str) -> Vec<Step> {
    say(format!("HTTP/1.1 {status} R\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nbody"))
}

fn options() -> HttpOptions {
    let o = HttpOptions::new().header_line("X-Key: k").unwrap().header_line("Cookie: c=1").unwrap();
    o.user("me", "pw").unwrap()
}

#[tokio::test]
async fn all_five_lead_on() {
    for status in [301, 302, 303, 307, 308] {
        let server =
            Server::start(move |r| if r.target() == "/a" { to(status, "/dir/b?q#f") } else { say(HELLO) })
                .await;
        let found = resolve(&backend(), &server.url("/a"), &cx(None)).await.unwrap();
        assert_eq!(found.body.unwrap(), b"hello");
        // The user's own name for it, and the address that the user gave.
        assert_eq!(
            (found.name.as_str(), found.target.remote.reveal().as_str()),
            ("a", server.url("/a").as_str())
        );
        let seen = server.requests();
        assert_eq!(
            (seen[1].target(), seen[1].header("range"), seen[1].header("referer")),
            ("/dir/b?q", Some("bytes=0-"), None)
        );
        // The short body of the redirect was read, and the connection used again.
        assert_eq!(server.connections(), 1);
    }
    for status in [300, 305, 306] {
        let server = Server::start(move |_| to(status, "/b")).await;
        assert_eq!(kind(resolve(&backend(), &server.url("/a"), &cx(None)).await), Kind::Protocol);
    }
}

#[tokio::test]
async fn loops_end() {
    let server = Server::start(|_| to(302, "/a")).await;
    let e = error(resolve(&backend(), &server.url("/a"), &cx(None)).await);
    assert_eq!((e.kind(), e.retry(), server.requests().len()), (Kind::Protocol, Retry::Elsewhere, 21));
    let few = HttpBackend::builder().max_redirects(2).build();
    assert_eq!(kind(resolve(&few, &server.url("/a"), &cx(None)).await), Kind::Protocol);
    assert_eq!(server.requests().len(), 24);
}

#[tokio::test]
async fn bad_places() {
    for (location, want) in [
        ("Location: ftp://127.0.0.1/x\r\n", Kind::Unsupported),
        ("Location: file:///etc/passwd\r\n", Kind::Unsupported),
        ("Location: http://\r\n", Kind::Protocol),
        ("Location: /a\r\nLocation: /b\r\n", Kind::Protocol),
        ("Location: /a\tb\r\n", Kind::Protocol),
        ("", Kind::Protocol),
    ] {
        let server = Server::saying(format!("HTTP/1.1 302 F\r\n{location}Content-Length: 0\r\n\r\n")).await;
        let e = error(resolve(&backend(), &server.url("/a"), &cx(None)).await);
        assert_eq!((e.kind(), e.retry()), (want, Retry::Elsewhere), "{location}");
    }
}

#[tokio::test]
async fn a_long_or_slow_redirect_body_is_not_waited_for() {
    for first in [
        vec![
            Step::Send(b"HTTP/1.1 302 F\r\nLocation: /b\r\nContent-Length: 1000000000\r\n\r\n".to_vec()),
            Step::Flood(vec![0; 65536]),
        ],
        vec![
            Step::Send(b"HTTP/1.1 302 F\r\nLocation: /b\r\nContent-Length: 10\r\n\r\nx".to_vec()),
            Step::Sleep(std::time::Duration::from_mins(1)),
        ],
        vec![Step::Send(b"HTTP/1.1 302 F\r\nLocation: /b\r\n\r\n".to_vec()), Step::Flood(vec![0; 65536])],
    ] {
        let server =
            Server::start(move |r| if r.target() == "/a" { first.clone() } else { say(HELLO) }).await;
        let began = std::time::Instant::now();
        assert_eq!(resolve(&backend(), &server.url("/a"), &cx(None)).await.unwrap().body.unwrap(), b"hello");
        assert!(began.elapsed().as_millis() < 600);
        assert_eq!(server.connections(), 2);
    }
}

fn secrets(r: &common::Seen) -> bool {
    let seen = [r.header("x-key"), r.header("cookie"), r.header("authorization")];
    assert!(seen.iter().all(Option::is_some) || seen.iter().all(Option::is_none), "{r:?}");
    seen[0].is_some()
}

#[tokio::test]
async fn secrets_stay_at_home() {
    // a/start -> a/next -> b/x -> a/back: only the first two are home.
    let b_addr = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let b_for_a = b_addr.clone();
    let a = Server::start(move |r| match r.target() {
        "/start" => to(302, "/next"),
        "/next" => to(302, b_for_a.get().unwrap()),
        _ => say(HELLO),
    })
    .await;
    let back = a.url("/back");
    let b = Server::start(move |_| to(302, &back)).await;
    b_addr.set(b.url("/x")).unwrap();
    let named = cx(Some(options())).with_origin(locator(&a.url("/start")));
    resolve(&backend(), &a.url("/start"), &named).await.unwrap();
    assert_eq!(a.requests().iter().map(secrets).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(b.requests().iter().map(secrets).collect::<Vec<_>>(), [false]);
    assert_eq!(a.requests()[0].header("authorization"), Some("Basic bWU6cHc="));

    // Not on a later range either, which goes to the remembered end of the way at once.
    let backend = backend();
    for _ in 0..2 {
        common::open(&backend, &a.url("/start"), dlm_core::Span::ALL, &dlm_core::Identity::UNKNOWN, &named)
            .await
            .unwrap();
    }
    let last = a.requests().pop().unwrap();
    assert_eq!((last.target(), secrets(&last)), ("/back", false));
    // A mirror that the user did not name gets nothing.
    resolve(&backend, &b.url("/y"), &named).await.unwrap();
    assert!(!secrets(&b.requests().pop().unwrap()));
}

#[tokio::test]
async fn userinfo_is_a_login_at_its_own_host_only() {
    let other = Server::saying(HELLO).await;
    let place = format!("http://evil:login@{}/x", other.addr);
    let server =
        Server::start(move |r| if r.target() == "/a" { to(302, "/b") } else { to(302, &place) }).await;
    let found =
        resolve(&backend(), &format!("http://m%40e:p%3Aw@{}/a", server.addr), &cx(None)).await.unwrap();
    let logins: Vec<_> =
        server.requests().iter().map(|r| r.header("authorization").map(str::to_owned)).collect();
    assert_eq!(logins, [Some("Basic bUBlOnA6dw==".to_owned()), Some("Basic bUBlOnA6dw==".to_owned())]);
    assert_eq!(other.requests()[0].header("authorization"), None);
    assert!(!server.requests()[0].head.contains("m%40e"));
    assert!(!found.label.contains("evil") && !found.label.contains('@'));
}

#[tokio::test]
async fn a_bearer_token_and_an_agent() {
    let other = Server::saying(HELLO).await;
    let place = other.url("/x");
    let server = Server::start(move |_| to(302, &place)).await;
    let o = HttpOptions::new().bearer("t0ken").unwrap().user_agent("me/1").unwrap();
    resolve(&backend(), &server.url("/a"), &cx(Some(o))).await.unwrap();
    let (here, there) = (&server.requests()[0], &other.requests()[0]);
    assert_eq!((here.header("authorization"), there.header("authorization")), (Some("Bearer t0ken"), None));
    assert_eq!((here.header("user-agent"), there.header("user-agent")), (Some("me/1"), Some("me/1")));
}

#[tokio::test]
async fn the_address_policy_is_asked_on_every_hop() {
    use dlm_net::{AddressPolicy, Dialer};
    #[derive(Debug)]
    struct Not(u16);
    impl AddressPolicy for Not {
        fn allows(&self, _: &str, a: std::net::SocketAddr) -> bool {
            a.port() != self.0
        }
    }
    let inner = Server::saying(HELLO).await;
    let place = inner.url("/metadata");
    let server = Server::start(move |_| to(302, &place)).await;
    let backend =
        HttpBackend::builder().dialer(Dialer::builder().policy(Not(inner.addr.port())).build()).build();
    let e = error(resolve(&backend, &server.url("/a"), &cx(None)).await);
    assert_eq!(e.kind(), Kind::Denied);
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn errors_name_the_place_that_refused() {
    let other = Server::start(|_| say_and_close("HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n")).await;
    let place = other.url("/gone?sig=hush");
    let server = Server::start(move |_| to(302, &place)).await;
    let e = error(resolve(&backend(), &server.url("/a"), &cx(None)).await);
    assert_eq!(
        e.to_string(),
        format!("cannot fetch http://{}/gone?sig=***: the server says 404 Not Found", other.addr)
    );
}
