//! The same over TLS: what is verified, and what an end without a goodbye is.

#![allow(clippy::unwrap_used, reason = "a panic is a report")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{cx, error, kind, resolve};
use dlm_core::{Kind, Retry};
use dlm_http::HttpBackend;
use dlm_net::{Dialer, TlsConfig};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

struct Tls {
    addr: SocketAddr,
    pem: String,
    connections: Arc<AtomicUsize>,
}

/// Answers every request with this; then goes on, or ends without the `close_notify` that a clean end has.
async fn serve(answer: &'static str, cut: bool) -> Tls {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let mut request = Vec::new();
                while tls.read_buf(&mut request).await.is_ok_and(|n| n > 0) {
                    if request.ends_with(b"\r\n\r\n") {
                        request.clear();
                        let _ = tls.write_all(answer.as_bytes()).await;
                        let _ = tls.flush().await;
                        if cut {
                            return;
                        }
                        if !answer.contains("Content-Length") {
                            let _ = tls.shutdown().await;
                        }
                    }
                }
            });
        }
    });
    Tls { addr, pem: cert.pem(), connections }
}

fn trusting(server: &Tls) -> HttpBackend {
    let tls = TlsConfig::builder()
        .system_roots(false)
        .ca_pem(server.pem.as_bytes())
        .unwrap()
        .alpn(["http/1.1"])
        .build();
    HttpBackend::builder().dialer(Dialer::builder().tls(tls).build()).build()
}

async fn fetch(server: &Tls, backend: &HttpBackend) -> dlm_core::Result<common::Found> {
    resolve(backend, &format!("https://{}/f", server.addr), &cx(None)).await
}

#[tokio::test]
async fn bytes_come_and_connections_are_used_again() {
    let server = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false).await;
    let backend = trusting(&server);
    for _ in 0..3 {
        assert_eq!(fetch(&server, &backend).await.unwrap().body.unwrap(), b"hello");
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_no_request() {
    let server = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false).await;
    let e = error(fetch(&server, &HttpBackend::builder().build()).await);
    assert_eq!((e.kind(), e.retry()), (Kind::Tls, Retry::Elsewhere));
    let insecure = TlsConfig::builder().insecure(true).build();
    let insecure = HttpBackend::builder().dialer(Dialer::builder().tls(insecure).build()).build();
    assert_eq!(fetch(&server, &insecure).await.unwrap().body.unwrap(), b"hello");
}

#[tokio::test]
async fn an_end_without_a_goodbye_is_no_end() {
    let close_delimited = "HTTP/1.1 200 OK\r\n\r\nhello";
    let server = serve(close_delimited, false).await;
    assert_eq!(fetch(&server, &trusting(&server)).await.unwrap().body.unwrap(), b"hello");
    let server = serve(close_delimited, true).await;
    let found = fetch(&server, &trusting(&server)).await.unwrap();
    let e = found.body.unwrap_err();
    assert_eq!((found.len, e.kind(), e.detail()), (None, Kind::Reset, "the connection ended early"));
    // Where the length is known, the end is known too.
    let server = serve("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", true).await;
    assert_eq!(fetch(&server, &trusting(&server)).await.unwrap().body.unwrap(), b"hello");
}

#[tokio::test]
async fn https_does_not_lead_to_http() {
    let server =
        serve("HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", false).await;
    let e = error(fetch(&server, &trusting(&server)).await);
    assert_eq!((e.kind(), e.detail()), (Kind::Denied, "it redirects from https to http"));
}

#[tokio::test]
async fn clear_text_on_a_tls_port_and_the_other_way_round() {
    let server = serve("", false).await;
    let e = kind(resolve(&trusting(&server), &format!("http://{}/", server.addr), &cx(None)).await);
    assert!(matches!(e, Kind::Protocol | Kind::Reset));
    let plain = common::Server::saying("HTTP/1.1 400 B\r\nContent-Length: 0\r\n\r\n").await;
    let e = kind(resolve(&trusting(&server), &format!("https://{}/", plain.addr), &cx(None)).await);
    // The scripted server waits for the end of a request, which never comes.
    assert!(matches!(e, Kind::Timeout | Kind::Tls));
}
