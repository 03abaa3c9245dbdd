//! Happy eyeballs (RFC 8305): several addresses, a new attempt every now and then, the first success wins.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;

/// Interleaves the families, IPv6 first unless `v4_first`, each family in the resolver's order (RFC 8305, section 4).
pub(crate) fn interleave(addresses: Vec<SocketAddr>, v4_first: bool) -> Vec<SocketAddr> {
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv4() == v4_first);
    let mut out = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let before = out.len();
        out.extend(first.next());
        out.extend(second.next());
        if out.len() == before {
            return out;
        }
    }
}

/// Tries each address in order. A further attempt starts when the last one fails or `stagger` has passed; the losers
/// are dropped. All errors, in the order in which they came, when nothing worked.
pub(crate) async fn race<T, F>(
    addresses: &[SocketAddr],
    stagger: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, Vec<io::Error>>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.iter().copied();
    let mut running = FuturesUnordered::new();
    let mut errors = Vec::new();
    loop {
        let more = waiting.next().map(|a| running.push(connect(a))).is_some();
        let result = if more && waiting.len() > 0 {
            let pause = pin!(tokio::time::sleep(stagger));
            match select(running.next(), pause).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => continue,
            }
        } else {
            running.next().await
        };
        match result {
            Some(Ok(won)) => return Ok(won),
            Some(Err(e)) => errors.push(e),
            None => return Err(errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};

    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn families_alternate() {
        let mixed = addresses(&["1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1", "[::1]:1"]);
        assert_eq!(
            interleave(mixed.clone(), false),
            addresses(&["[::1]:1", "1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1"])
        );
        assert_eq!(interleave(mixed, true), addresses(&["1.0.0.1:1", "[::1]:1", "1.0.0.2:1", "1.0.0.3:1"]));
    }

    /// Address 1.0.0.N fails (odd) or works (even) after as many tenths of a second as its port says.
    async fn fake(a: SocketAddr) -> io::Result<SocketAddr> {
        sleep(Duration::from_millis(u64::from(a.port()) * 100)).await;
        let SocketAddr::V4(v4) = a else { unreachable!() };
        if v4.ip().octets()[3] % 2 == 0 { Ok(a) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_first_address_costs_one_stagger() {
        let began = Instant::now();
        let list = addresses(&["1.0.0.1:600", "1.0.0.2:1"]);
        let won = race(&list, Duration::from_millis(250), fake).await.unwrap();
        assert_eq!(won, list[1]);
        assert_eq!(began.elapsed().as_millis(), 350);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_starts_the_next_at_once() {
        let began = Instant::now();
        let list = addresses(&["1.0.0.1:0", "1.0.0.3:0", "1.0.0.2:1"]);
        race(&list, Duration::from_millis(250), fake).await.unwrap();
        assert!(began.elapsed().as_millis() < 110);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_still_wins_when_the_second_is_slower() {
        let list = addresses(&["1.0.0.2:4", "1.0.0.4:4"]);
        assert_eq!(race(&list, Duration::from_millis(250), fake).await.unwrap(), list[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_errors_are_kept() {
        let list = addresses(&["1.0.0.1:5", "1.0.0.3:1"]);
        let seen = Mutex::new(Vec::new());
        let failed = race(&list, Duration::from_millis(250), |a| {
            seen.lock().unwrap().push(a);
            fake(a)
        });
        assert_eq!(failed.await.unwrap_err().len(), 2);
        assert_eq!(*seen.lock().unwrap(), list);
        assert!(race(&[], Duration::ZERO, fake).await.unwrap_err().is_empty());
    }
}
