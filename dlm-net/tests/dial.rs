//! Dialling in clear text: addresses, families, policy, time limits.
#![allow(clippy::unwrap_used, reason = "a panic is a report")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dlm_core::{Fault, Kind, Retry};
use dlm_net::{AddressPolicy, Dialer, Endpoint, Family, Overrides, PublicOnly, Resolve, SystemResolver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(5);

/// The same addresses for every name.
#[derive(Debug)]
struct Fixed(Vec<IpAddr>);

#[async_trait]
impl Resolve for Fixed {
    async fn resolve(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(self.0.iter().map(|a| SocketAddr::new(*a, port)).collect())
    }
}

#[derive(Debug)]
struct Never;

#[async_trait]
impl Resolve for Never {
    async fn resolve(&self, _: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        std::future::pending().await
    }
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

async fn listen(addr: &str) -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(addr).await?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

#[tokio::test]
async fn bytes_pass() {
    let (listener, port) = listen("127.0.0.1:0").await.unwrap();
    tokio::spawn(async move {
        let (mut s, _) = listener.accept().await.unwrap();
        let mut got = [0; 4];
        s.read_exact(&mut got).await.unwrap();
        s.write_all(&got).await.unwrap();
    });
    let mut c = Dialer::default().connect(&Endpoint::plain("127.0.0.1", port), LIMIT).await.unwrap();
    assert!(!c.is_tls() && c.alpn().is_none());
    assert_eq!(c.peer(), SocketAddr::new(v4(1), port));
    c.write_all(b"ping").await.unwrap();
    let mut got = Vec::new();
    c.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"ping");
    assert!(c.into_tcp().unwrap().nodelay().unwrap());
}

#[tokio::test]
async fn dead_addresses_are_passed_over() {
    let (_listener, port) = listen("127.0.0.1:0").await.unwrap();
    let dialer =
        Dialer::builder().resolver(Fixed(vec![Ipv6Addr::LOCALHOST.into(), v4(7), v4(8), v4(1)])).build();
    let began = Instant::now();
    let c = dialer.connect(&Endpoint::plain("many", port), LIMIT).await.unwrap();
    assert_eq!(c.peer().ip(), v4(1));
    assert!(began.elapsed() < Duration::from_millis(200));

    let dead = Dialer::builder().resolver(Fixed(vec![v4(7), v4(8)])).build();
    let e = dead.connect(&Endpoint::plain("many", port), LIMIT).await.unwrap_err();
    assert_eq!(
        e.to_string(),
        format!("cannot connect to many:{port}: the connection was refused, by all 2 addresses")
    );
    assert_eq!((e.kind(), e.fault(), e.retry()), (Kind::Reset, Fault::Network, Retry::Backoff));
}

#[tokio::test]
async fn families() {
    let Ok((_six, port)) = listen("[::1]:0").await else { return };
    let Ok((_four, _)) = listen(&format!("127.0.0.1:{port}")).await else { return };
    let resolver = || Fixed(vec![v4(1), Ipv6Addr::LOCALHOST.into()]);
    for (family, six) in
        [(Family::PreferV6, true), (Family::V6, true), (Family::PreferV4, false), (Family::V4, false)]
    {
        let dialer = Dialer::builder().resolver(resolver()).family(family).build();
        assert_eq!(
            dialer.connect(&Endpoint::plain("both", port), LIMIT).await.unwrap().peer().is_ipv6(),
            six
        );
    }
    // An IPv6 address by itself, with its brackets.
    let c = Dialer::default().connect(&Endpoint::plain("[::1]", port), LIMIT).await.unwrap();
    assert!(c.peer().is_ipv6());
    let only_four = Dialer::builder().family(Family::V4).build();
    assert_eq!(
        only_four.connect(&Endpoint::plain("::1", port), LIMIT).await.unwrap_err().kind(),
        Kind::Reset
    );
    // From a local address, which decides the family too.
    let from = Dialer::builder().resolver(resolver()).local_address(Some(v4(9))).build();
    let c = from.connect(&Endpoint::plain("both", port), LIMIT).await.unwrap().into_tcp().unwrap();
    assert_eq!(c.local_addr().unwrap().ip(), v4(9));
}

#[tokio::test]
async fn the_policy_sees_every_address_and_stops_those_it_refuses() {
    #[derive(Debug, Clone)]
    struct OnlyOne(Arc<Mutex<Vec<SocketAddr>>>);
    impl AddressPolicy for OnlyOne {
        fn allows(&self, host: &str, address: SocketAddr) -> bool {
            assert_eq!(host, "many");
            self.0.lock().unwrap().push(address);
            address.ip() == v4(1)
        }
    }
    // Everything listens; only one may be reached.
    let (_listener, port) = listen("0.0.0.0:0").await.unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let dialer =
        Dialer::builder().resolver(Fixed(vec![v4(2), v4(3), v4(1)])).policy(OnlyOne(asked.clone())).build();
    let c = dialer.connect(&Endpoint::plain("many", port), LIMIT).await.unwrap();
    assert_eq!(c.peer().ip(), v4(1));
    assert_eq!(asked.lock().unwrap().len(), 3);

    let public = Dialer::builder().resolver(Fixed(vec![v4(1)])).policy(PublicOnly::new()).build();
    for host in ["rebound.example", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
        let e = public.connect(&Endpoint::plain(host, port), LIMIT).await.unwrap_err();
        assert_eq!((e.kind(), e.retry()), (Kind::Denied, Retry::Elsewhere), "{host}");
    }
    let allowed = PublicOnly::new().except("127.0.0.1/32".parse().unwrap());
    let some = Dialer::builder().policy(allowed).build();
    some.connect(&Endpoint::plain("127.0.0.1", port), LIMIT).await.unwrap();
}

#[tokio::test]
async fn overrides() {
    let (_listener, port) = listen("127.0.0.1:0").await.unwrap();
    let resolver = Overrides::new(Arc::new(Fixed(Vec::new()))).fix("Example.ORG", port, v4(1));
    let dialer = Dialer::builder().resolver(resolver).build();
    dialer.connect(&Endpoint::plain("example.org", port), LIMIT).await.unwrap();
    let e = dialer.connect(&Endpoint::plain("other.org", port), LIMIT).await.unwrap_err();
    assert_eq!(
        e.to_string(),
        format!("cannot connect to other.org:{port}: name lookup failed: the name has no address")
    );
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    let dialer = Dialer::builder().resolver(SystemResolver).build();
    let e = dialer.connect(&Endpoint::plain("no-such-host.invalid", 80), LIMIT).await.unwrap_err();
    assert_eq!((e.kind(), e.fault()), (Kind::Reset, Fault::Network));
    assert!(e.detail().starts_with("name lookup failed"), "{e}");
}

#[tokio::test]
async fn time_limits() {
    let limit = Duration::from_millis(100);
    let e = Dialer::builder()
        .resolver(Never)
        .build()
        .connect(&Endpoint::plain("slow", 80), limit)
        .await
        .unwrap_err();
    assert_eq!(e.to_string(), "cannot connect to slow:80: name lookup took longer than 100ms");
    assert_eq!((e.kind(), e.retry()), (Kind::Timeout, Retry::Backoff));
    // A server that accepts, and says nothing.
    let (_listener, port) = listen("127.0.0.1:0").await.unwrap();
    let e = Dialer::default().connect(&Endpoint::tls("127.0.0.1", port), limit).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Timeout);
    assert!(e.detail().starts_with("the TLS handshake took longer"), "{e}");
}
