//! Which addresses may be reached. Asked after name lookup, for the very address that is then connected to, so that
//! a name that changes its mind between check and use (DNS rebinding) gains nothing.

use std::fmt::{self, Debug};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use dlm_core::{Error, Kind, Result};

/// Decides for every resolved address, just before it is connected to, and again before a connection to it that was kept
/// carries another request.
pub trait AddressPolicy: Debug + Send + Sync + 'static {
    /// Whether `host`, found at `address`, may be connected to. Must not block.
    fn allows(&self, host: &str, address: SocketAddr) -> bool;
}

/// Every address.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unrestricted;

impl AddressPolicy for Unrestricted {
    fn allows(&self, _: &str, _: SocketAddr) -> bool {
        true
    }
}

/// Public addresses, and the exceptions that were named.
///
/// ```
/// use dlm_net::{AddressPolicy, PublicOnly};
/// let policy = PublicOnly::new().except("127.0.0.1/32".parse().unwrap());
/// assert!(policy.allows("h", "127.0.0.1:80".parse().unwrap()));
/// assert!(!policy.allows("h", "127.0.0.2:80".parse().unwrap()));
/// ```
#[derive(Debug, Clone, Default)]
pub struct PublicOnly {
    exceptions: Vec<Block>,
}

impl PublicOnly {
    /// No exceptions.
    pub fn new() -> Self {
        Self::default()
    }
    /// Allows this block too.
    pub fn except(mut self, block: Block) -> Self {
        self.exceptions.push(block);
        self
    }
}

impl AddressPolicy for PublicOnly {
    fn allows(&self, _: &str, address: SocketAddr) -> bool {
        is_public(address.ip()) || self.exceptions.iter().any(|b| b.contains(address.ip()))
    }
}

/// A block of addresses in CIDR notation: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    base: IpAddr,
    prefix: u8,
}

impl Block {
    /// Whether the block holds `address`. An IPv4 address written as IPv6 (`::ffff:1.2.3.4`) counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.base.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                same_prefix(u32::from(a).into(), u32::from(b).into(), 32, self.prefix)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => same_prefix(a.into(), b.into(), 128, self.prefix),
            _ => false,
        }
    }
}

fn same_prefix(a: u128, b: u128, bits: u8, prefix: u8) -> bool {
    prefix == 0 || (a ^ b) >> (bits - prefix.min(bits)) == 0
}

impl FromStr for Block {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let wrong = |why: &str| Error::new(Kind::Invalid, "understand the address block").on(s).because(why);
        let (base, prefix) = s.split_once('/').map_or((s, None), |(b, p)| (b, Some(p)));
        let base: IpAddr = base.parse().map_err(|_| wrong("it is no IP address"))?;
        let base = base.to_canonical();
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(p) if p.bytes().all(|c| c.is_ascii_digit()) => {
                p.parse().ok().filter(|p| *p <= bits).ok_or_else(|| wrong("its prefix is too long"))?
            }
            Some(_) => return Err(wrong("its prefix is no number")),
        };
        Ok(Self { base, prefix })
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// Whether an address is meant to be reached from anywhere (the special-purpose registries of RFC 6890 and its
/// successors): not loopback, private, shared, link-local, unique-local, multicast, reserved, for documentation, or
/// the metadata service of a cloud; nor one of these inside an IPv6 address (mapped, NAT64, 6to4).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => is_public_v4(a),
        IpAddr::V6(a) => is_public_v6(a),
    }
}

fn is_public_v4(a: Ipv4Addr) -> bool {
    // Azure's metadata and health service has an address that looks public.
    const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    let [b0, b1, b2, _] = a.octets();
    let special = b0 == 0
        || b0 == 10
        || b0 == 127
        || b0 >= 224
        || (b0 == 100 && (64..128).contains(&b1))
        || (b0 == 169 && b1 == 254)
        || (b0 == 172 && (16..32).contains(&b1))
        || (b0 == 192 && b1 == 168)
        || (b0 == 192 && b1 == 0 && (b2 == 0 || b2 == 2))
        || (b0 == 192 && b1 == 88 && b2 == 99)
        || (b0 == 198 && (b1 == 18 || b1 == 19))
        || (b0 == 198 && b1 == 51 && b2 == 100)
        || (b0 == 203 && b1 == 0 && b2 == 113);
    !special && a != AZURE
}

fn is_public_v6(a: Ipv6Addr) -> bool {
    let s = a.segments();
    let embedded = |hi: u16, lo: u16| is_public_v4(Ipv4Addr::from((u32::from(hi) << 16) | u32::from(lo)));
    if let Some(v4) = a.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    // NAT64 (RFC 6052) reaches the IPv4 address in its last 32 bits, 6to4 (RFC 3056) the one after 2002.
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return embedded(s[6], s[7]);
    }
    if s[0] == 0x2002 {
        return embedded(s[1], s[2]);
    }
    // Only 2000::/3 is given out for global use; of it, 2001::/23 serves protocols (Teredo, ORCHID), and two blocks
    // are for documentation.
    let global = s[0] & 0xe000 == 0x2000;
    let protocols = s[0] == 0x2001 && s[1] < 0x200;
    let documentation = (s[0] == 0x2001 && s[1] == 0xdb8) || (s[0] == 0x3fff && s[1] < 0x1000);
    global && !protocols && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_public_from_special() {
        for a in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "2002:808:808::1",
        ] {
            assert!(is_public(a.parse().unwrap()), "{a}");
        }
        for a in [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.100.200",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.192",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fec0::1",
        ] {
            assert!(!is_public(a.parse().unwrap()), "{a}");
        }
    }

    #[test]
    fn blocks() {
        let block: Block = "10.0.0.0/8".parse().unwrap();
        assert!(block.contains("10.255.0.1".parse().unwrap()));
        assert!(block.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!block.contains("11.0.0.1".parse().unwrap()));
        assert!(!block.contains("::1".parse().unwrap()));
        assert!("::/0".parse::<Block>().unwrap().contains("::1".parse().unwrap()));
        assert!("::1".parse::<Block>().unwrap().contains("::1".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/", "h/8"]
        {
            assert!(bad.parse::<Block>().is_err(), "{bad}");
        }
    }
}
