//! What a program gives a dialer and gets back from it: the way to each endpoint, and how TLS is spoken.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is a report")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dlm_core::Kind;
use dlm_net::{Dialer, Direct, Endpoint, Resolve, Route, Router, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const LIMIT: Duration = Duration::from_secs(5);
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// What was asked, in order.
type Asked = Arc<Mutex<Vec<String>>>;

#[derive(Debug)]
struct Noting(Asked);

impl Router for Noting {
    fn route(&self, to: &Endpoint) -> Route {
        self.0.lock().unwrap().push(format!("way to {to}, tls {}", to.is_tls()));
        Route::Direct
    }
}

#[async_trait]
impl Resolve for Noting {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.0.lock().unwrap().push(format!("name {host}"));
        Ok(vec![SocketAddr::new(HERE, port)])
    }
}

/// A server that takes connections and says nothing; its port.
async fn mute() -> u16 {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    port
}

#[tokio::test]
async fn the_router_is_asked_once_for_each_connection_and_first() {
    let asked = Asked::default();
    let dialer = Dialer::builder().router(Noting(asked.clone())).resolver(Noting(asked.clone())).build();
    let port = mute().await;
    let take = || std::mem::take(&mut *asked.lock().unwrap());

    let plain = dialer.connect(&Endpoint::plain("Name.test", port), LIMIT).await.unwrap();
    // The way is settled before anything is looked up: a proxy would do that itself.
    assert_eq!(take(), [format!("way to name.test:{port}, tls false"), "name name.test".into()]);

    // TLS on a connection that stands goes no new way.
    let to = Endpoint::tls("name.test", port);
    dialer.secure(plain, &to, Duration::from_millis(50)).await.expect_err("it says nothing");
    assert_eq!(take(), [""; 0]);

    for _ in 0..2 {
        // A clone is the same dialer.
        let error =
            dialer.clone().connect(&to, Duration::from_millis(50)).await.expect_err("it says nothing");
        assert_eq!(error.kind(), Kind::Timeout);
        assert_eq!(take(), [format!("way to name.test:{port}, tls true"), "name name.test".into()]);
    }
}

#[tokio::test]
async fn the_way_without_a_router_is_straight() {
    let port = mute().await;
    let to = Endpoint::plain("127.0.0.1", port);
    assert_eq!(Direct.route(&to), Route::Direct);
    let connection = Dialer::default().connect(&to, LIMIT).await.unwrap();
    assert_eq!(connection.peer(), SocketAddr::new(HERE, port));
}

/// An authority as PEM, and the port of a server that it vouches for.
async fn trusted_server() -> (String, u16) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.extend(acceptor.accept(stream).await);
        }
    });
    (ca.pem(), port)
}

#[tokio::test]
async fn the_tls_of_a_dialer_is_the_one_it_was_given() {
    assert!(!Dialer::default().tls_config().is_insecure());
    let loose = TlsConfig::builder().insecure(true).build();
    assert!(Dialer::builder().tls(loose).build().clone().tls_config().is_insecure());

    let (ca, port) = trusted_server().await;
    let to = Endpoint::tls("127.0.0.1", port);
    let strict = TlsConfig::builder().system_roots(false).ca_pem(ca.as_bytes()).unwrap().build();
    let first = Dialer::builder().tls(strict).build();
    // Another dialer trusts the same, by what the first one says.
    let second = Dialer::builder().tls(first.tls_config().clone()).build();
    assert!(!second.tls_config().is_insecure());
    for dialer in [&first, &second] {
        assert!(dialer.connect(&to, LIMIT).await.unwrap().is_tls());
    }
    let error =
        Dialer::default().connect(&to, LIMIT).await.expect_err("the system does not know the authority");
    assert_eq!(error.kind(), Kind::Tls);
}
