//! Blocks of addresses: what is accepted is written back the same, and holds what it says.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dlm_net::{AddressPolicy, Block, PublicOnly, is_public};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u128, &str)| {
    let (number, text) = input;
    let six = IpAddr::V6(Ipv6Addr::from(number));
    let four = Ipv4Addr::from(number as u32);
    // An address is as public as the one that it stands for.
    assert_eq!(is_public(four.to_ipv6_mapped().into()), is_public(four.into()));
    assert_eq!(is_public(six), is_public(six.to_canonical()));

    let Ok(block) = text.parse::<Block>() else { return };
    let written = block.to_string();
    assert_eq!(written.parse::<Block>().ok(), Some(block), "{written}");
    let (base, prefix) = written.split_once('/').expect("it has a prefix");
    let base: IpAddr = base.parse().expect("an address");
    let prefix: u32 = prefix.parse().expect("a number");
    assert!(block.contains(base) && prefix <= if base.is_ipv4() { 32 } else { 128 });

    for ip in [six, four.into()] {
        // By the book: the first bits are the same.
        let same = match (base.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros() >= prefix,
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros() >= prefix,
            _ => false,
        };
        assert_eq!(block.contains(ip), same, "{written} {ip}");
        let policy = PublicOnly::new().except(block);
        assert_eq!(policy.allows("h", SocketAddr::new(ip, 80)), is_public(ip) || same);
    }
});
