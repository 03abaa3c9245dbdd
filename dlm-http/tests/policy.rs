//! The address policy: asked for every request, whichever connection carries it.

#![allow(clippy::unwrap_used, reason = "a panic is a report")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Server, cx, error, resolve, say};
use dlm_core::Kind;
use dlm_http::HttpBackend;
use dlm_net::{AddressPolicy, Dialer, PublicOnly};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Says yes so often, and then no.
#[derive(Debug, Clone)]
struct Times {
    left: usize,
    asked: Arc<AtomicUsize>,
}

impl AddressPolicy for Times {
    fn allows(&self, host: &str, address: SocketAddr) -> bool {
        assert_eq!((host, address.ip().is_loopback()), ("127.0.0.1", true));
        self.asked.fetch_add(1, Ordering::SeqCst) < self.left
    }
}

fn backend(policy: impl AddressPolicy) -> HttpBackend {
    HttpBackend::builder().dialer(Dialer::builder().policy(policy).build()).build()
}

fn redirects(to: String) -> impl Fn(&common::Seen) -> Vec<common::Step> {
    move |r| {
        if r.target() == "/a" {
            say(format!("HTTP/1.1 302 F\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"))
        } else {
            say(HELLO)
        }
    }
}

#[tokio::test]
async fn a_kept_connection_is_asked_for_again() {
    let server = Server::start(redirects("/b".to_owned())).await;
    let policy = Times { left: usize::MAX, asked: Arc::default() };
    let open = backend(policy.clone());
    for _ in 0..2 {
        assert_eq!(resolve(&open, &server.url("/a"), &cx(None)).await.unwrap().body.unwrap(), b"hello");
    }
    assert_eq!(
        (server.connections(), server.requests().len(), policy.asked.load(Ordering::SeqCst)),
        (1, 4, 4),
        "one connection, and a question for each request"
    );

    // What was allowed for the first request is not for the second, after a redirect to the same place.
    let closed = backend(Times { left: 1, asked: Arc::default() });
    let e = error(resolve(&closed, &server.url("/a"), &cx(None)).await);
    assert_eq!(e.kind(), Kind::Denied, "{e}");
    assert_eq!(server.requests().len(), 5);
}

/// One host, by its name.
#[derive(Debug)]
struct ByName;

impl AddressPolicy for ByName {
    fn allows(&self, host: &str, _: SocketAddr) -> bool {
        host == "127.0.0.1"
    }
}

#[tokio::test]
async fn a_redirect_does_not_lead_past_it() {
    let other = Server::start(|_| say(HELLO)).await;
    let server = Server::start(redirects(format!("http://localhost:{}/b", other.addr.port()))).await;
    let here = PublicOnly::new();
    let e = error(resolve(&backend(here), &server.url("/a"), &cx(None)).await);
    assert_eq!((e.kind(), server.requests().len()), (Kind::Denied, 0));

    let e = error(resolve(&backend(ByName), &server.url("/a"), &cx(None)).await);
    assert_eq!((e.kind(), server.requests().len(), other.requests().len()), (Kind::Denied, 1, 0));
}
