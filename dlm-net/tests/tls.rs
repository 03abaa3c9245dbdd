//! TLS: who is believed, and how failures are told apart.
#![allow(clippy::unwrap_used, reason = "a panic is a report")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dlm_core::{Kind, Result, Retry};
use dlm_net::{Connection, Dialer, Endpoint, Overrides, SystemResolver, TlsConfig, TlsConfigBuilder};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const LIMIT: Duration = Duration::from_secs(5);
type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    // Each has a name of its own, as real ones have.
    params.distinguished_name.push(DnType::CommonName, format!("{:?}", &key.public_key_raw()[..16]));
    CertifiedIssuer::self_signed(params, key).unwrap()
}

/// What the server does once TLS stands.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Clean,
    Cut,
}

/// A server for `names`; the port it listens at.
async fn server(ca: &Authority, names: &[&str], expired: bool, end: End) -> u16 {
    let key = KeyPair::generate().unwrap();
    let mut params =
        CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    if expired {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    }
    let certificate = params.signed_by(&key, ca).unwrap();
    serve(certificate.der().clone(), &key, end).await
}

/// A server that shows this certificate; the port it listens at.
async fn serve(certificate: CertificateDer<'static>, key: &KeyPair, end: End) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let _ = tls.write_all(&vec![7; 100_000]).await;
                let _ = tls.flush().await;
                if end == End::Clean {
                    let _ = tls.shutdown().await;
                }
            });
        }
    });
    port
}

fn trusting(ca: &Authority) -> TlsConfigBuilder {
    TlsConfig::builder().system_roots(false).ca_pem(ca.pem().as_bytes()).unwrap()
}

async fn dial(tls: TlsConfig, host: &str, port: u16) -> Result<Connection> {
    let here: IpAddr = [127, 0, 0, 1].into();
    let names =
        Overrides::new(Arc::new(SystemResolver)).fix("good.test", port, here).fix("bad.test", port, here);
    Dialer::builder().resolver(names).tls(tls).build().connect(&Endpoint::tls(host, port), LIMIT).await
}

#[tokio::test]
async fn a_trusted_server() {
    let ca = authority();
    let port = server(&ca, &["good.test", "127.0.0.1"], false, End::Clean).await;
    for host in ["good.test", "GOOD.test", "127.0.0.1"] {
        let mut c = dial(trusting(&ca).alpn(["http/1.1"]).build(), host, port).await.unwrap();
        assert!(c.is_tls());
        assert_eq!(c.alpn(), Some(&b"http/1.1"[..]));
        let mut got = Vec::new();
        c.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, vec![7; 100_000]);
        assert!(c.into_tcp().is_err());
    }
}

#[tokio::test]
async fn servers_that_are_not_trusted() {
    let (ca, other) = (authority(), authority());
    let good = server(&ca, &["good.test"], false, End::Clean).await;
    let expired = server(&ca, &["good.test"], true, End::Clean).await;
    for (tls, host, port, why) in [
        (trusting(&ca), "bad.test", good, "its certificate is for another name"),
        (trusting(&ca), "127.0.0.1", good, "its certificate is for another name"),
        (trusting(&ca), "good.test", expired, "its certificate has expired"),
        (trusting(&other), "good.test", good, "its certificate comes from an authority that is not trusted"),
        // The system does not know this authority either.
        (
            TlsConfig::builder(),
            "good.test",
            good,
            "its certificate comes from an authority that is not trusted",
        ),
    ] {
        let e = dial(tls.build(), host, port).await.unwrap_err();
        assert_eq!((e.kind(), e.retry(), e.detail()), (Kind::Tls, Retry::Elsewhere, why));
        assert_eq!(e.subject(), format!("{host}:{port}"));
        // How one is trusted is for the program to say.
        assert_eq!(e.advice().is_empty(), why.ends_with("not trusted"));
        // Unless everything is.
        let insecure = TlsConfig::builder().insecure(true).build();
        assert!(insecure.is_insecure());
        dial(insecure, host, port).await.unwrap();
    }
    let e = dial(TlsConfig::builder().system_roots(false).build(), "good.test", good).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Tls);
}

/// What `openssl req -x509` makes: signed by itself, and an authority; or an ordinary one of an authority.
fn of_its_own(name: &str, years: (i32, i32), ca: Option<&Authority>) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    let certificate = if let Some(ca) = ca {
        params.signed_by(&key, ca)
    } else {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&key)
    };
    (certificate.unwrap(), key)
}

#[tokio::test]
async fn the_servers_own_certificate_is_trusted_when_it_is_named() {
    const NOW: (i32, i32) = (2020, 4000);
    let ca = authority();
    let pinned = |c: &rcgen::Certificate| {
        TlsConfig::builder().system_roots(false).ca_pem(c.pem().as_bytes()).unwrap().build()
    };
    for issuer in [None, Some(&ca)] {
        let (own, key) = of_its_own("good.test", NOW, issuer);
        let port = serve(own.der().clone(), &key, End::Clean).await;
        let mut c = dial(pinned(&own), "good.test", port).await.unwrap();
        let mut got = Vec::new();
        assert_eq!(c.read_to_end(&mut got).await.unwrap(), 100_000);

        // Another name, and another certificate of the same name, are refused all the same.
        let e = dial(pinned(&own), "bad.test", port).await.unwrap_err();
        assert_eq!(e.detail(), "its certificate is for another name");
        let (other, _) = of_its_own("good.test", NOW, issuer);
        let e = dial(pinned(&other), "good.test", port).await.unwrap_err();
        assert!(e.detail().ends_with("not trusted"), "{e}");

        for (years, why) in [
            ((2001, 2002), "its certificate has expired"),
            ((3999, 4000), "its certificate is not valid yet"),
        ] {
            let (own, key) = of_its_own("good.test", years, issuer);
            let port = serve(own.der().clone(), &key, End::Clean).await;
            assert_eq!(dial(pinned(&own), "good.test", port).await.unwrap_err().detail(), why);
        }
    }
}

#[tokio::test]
async fn several_authorities_are_trusted_together() {
    let (one, two) = (authority(), authority());
    let both = trusting(&one).ca_pem(two.pem().as_bytes()).unwrap().build();
    for ca in [&one, &two] {
        let port = server(ca, &["good.test"], false, End::Clean).await;
        dial(both.clone(), "good.test", port).await.unwrap();
    }
}

#[tokio::test]
async fn an_end_that_was_not_announced_is_an_error() {
    let ca = authority();
    let port = server(&ca, &["good.test"], false, End::Cut).await;
    let mut c = dial(trusting(&ca).build(), "good.test", port).await.unwrap();
    let mut got = Vec::new();
    let e = c.read_to_end(&mut got).await.unwrap_err();
    assert_eq!(got.len(), 100_000);
    assert_eq!(e.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(dlm_net::explain("fetch", &e).kind(), Kind::Reset);
}

#[tokio::test]
async fn handshakes_that_fail_otherwise() {
    for (says, kind) in [
        (&b""[..], Kind::Reset),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Kind::Tls),
        (b"220 ftp ready\r\n", Kind::Tls),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut s, _) = listener.accept().await.unwrap();
            if says.is_empty() {
                s.set_zero_linger().unwrap();
                return;
            }
            s.write_all(says).await.unwrap();
            let mut rest = Vec::new();
            let _ = s.read_to_end(&mut rest).await;
        });
        let e = dial(TlsConfig::builder().insecure(true).build(), "127.0.0.1", port).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
    }
}

#[tokio::test]
async fn tls_on_a_connection_that_began_without() {
    let ca = authority();
    let port = server(&ca, &["good.test"], false, End::Clean).await;
    let dialer = Dialer::builder().tls(trusting(&ca).build()).build();
    let plain = dialer.connect(&Endpoint::plain("127.0.0.1", port), LIMIT).await.unwrap();
    let mut c = dialer.secure(plain, &Endpoint::plain("good.test", port), LIMIT).await.unwrap();
    assert!(c.is_tls());
    let mut got = Vec::new();
    c.read_to_end(&mut got).await.unwrap();
    assert_eq!(
        dialer.secure(c, &Endpoint::plain("good.test", port), LIMIT).await.unwrap_err().kind(),
        Kind::Invalid
    );
}

#[test]
fn authorities_that_are_none() {
    let ca = authority().pem();
    let cut = &ca[..ca.len() / 2];
    for bad in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", cut] {
        assert_eq!(TlsConfig::builder().ca_pem(bad.as_bytes()).unwrap_err().kind(), Kind::Invalid, "{bad}");
    }
    #[cfg(unix)]
    for (bad, part) in [("/dev/zero", "no regular file"), ("/dev/null", "no regular file"), ("/", "a folder")]
    {
        let e = TlsConfig::builder().ca_file(bad.as_ref()).unwrap_err();
        assert_eq!(e.kind(), Kind::Invalid, "{e}");
        assert!(e.detail().contains(part) && e.subject() == bad && !e.advice().is_empty(), "{e}");
    }
    let e = TlsConfig::builder().ca_file("/no/such/file".as_ref()).unwrap_err();
    assert_eq!(e.kind(), Kind::Io);
    assert!(e.to_string().contains("/no/such/file"));
}
