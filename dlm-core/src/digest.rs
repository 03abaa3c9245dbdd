//! Digests: which algorithm, which value, and a hasher for each.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

use crate::error::{Error, Kind, Result};

/// A digest algorithm this build can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Algorithm {
    /// CRC-32C (Castagnoli): finds accidents, not malice.
    Crc32c,
    /// MD5 (RFC 1321): finds accidents, not malice.
    Md5,
    /// SHA-1 (FIPS 180-4): broken against malice.
    Sha1,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// BLAKE3.
    Blake3,
}

impl Algorithm {
    /// Every algorithm, weakest first.
    pub const ALL: [Self; 6] =
        [Self::Crc32c, Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512, Self::Blake3];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "crc32c",
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
        }
    }

    /// Length of a value in bytes.
    pub const fn size(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha512 => 64,
        }
    }

    /// A hasher that has seen nothing yet.
    pub fn hasher(self) -> Hasher {
        Hasher(match self {
            Self::Crc32c => State::Crc32c(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi)),
            Self::Md5 => State::Md5(md5::Md5::new()),
            Self::Sha1 => State::Sha1(sha1::Sha1::new()),
            Self::Sha256 => State::Sha256(sha2::Sha256::new()),
            Self::Sha512 => State::Sha512(sha2::Sha512::new()),
            Self::Blake3 => State::Blake3(Box::new(blake3::Hasher::new())),
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A digest of some bytes: `sha256:9f86d0…`.
///
/// ```
/// let d: dlm_core::Digest = "crc32c:E3069283".parse().unwrap();
/// assert_eq!(d.algorithm().hasher().update(b"123456789").finish(), d);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    value: Vec<u8>,
}

impl Digest {
    /// A digest from its parts; `None` when the value has not the algorithm's length.
    pub fn new(algorithm: Algorithm, value: impl Into<Vec<u8>>) -> Option<Self> {
        let value = value.into();
        (value.len() == algorithm.size()).then_some(Self { algorithm, value })
    }
    /// Which algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

impl FromStr for Digest {
    type Err = Error;
    /// Reads `ALGO:HEX`; case does not matter, `sha-256` is `sha256`.
    fn from_str(s: &str) -> Result<Self> {
        let wrong = |why: String| Error::new(Kind::Invalid, "read the checksum").on(s).because(why);
        let (name, hex) = s
            .split_once(':')
            .ok_or_else(|| wrong("it is not ALGO:HEX".into()).advise("write for example sha256:9f86d0…"))?;
        let plain = name.to_ascii_lowercase().replace('-', "");
        let algorithm = Algorithm::ALL.into_iter().find(|a| a.name() == plain).ok_or_else(|| {
            let known: Vec<_> = Algorithm::ALL.iter().map(|a| a.name()).collect();
            wrong(format!("the algorithm is not one of {}", known.join(", ")))
        })?;
        let hex = hex.trim();
        let digits = hex.as_bytes();
        if digits.len() != algorithm.size() * 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong(format!("{} needs {} hex digits", algorithm, algorithm.size() * 2)));
        }
        let nibble = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
        let value = digits.chunks_exact(2).map(|p| nibble(p[0]) << 4 | nibble(p[1])).collect();
        Ok(Self { algorithm, value })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm)?;
        self.value.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A running hash. A clone is a midstate that can go on by itself.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Crc32c(crc_fast::Digest),
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Takes more bytes.
    pub fn update(mut self, bytes: &[u8]) -> Self {
        self.push(bytes);
        self
    }
    /// Takes more bytes, in place.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Crc32c(h) => h.update(bytes),
            State::Md5(h) => h.update(bytes),
            State::Sha1(h) => h.update(bytes),
            State::Sha256(h) => h.update(bytes),
            State::Sha512(h) => h.update(bytes),
            State::Blake3(h) => {
                h.update(bytes);
            }
        }
    }
    /// The digest of all that came.
    pub fn finish(self) -> Digest {
        let (algorithm, value) = match self.0 {
            State::Crc32c(h) => (Algorithm::Crc32c, (h.finalize() as u32).to_be_bytes().to_vec()),
            State::Md5(h) => (Algorithm::Md5, h.finalize().to_vec()),
            State::Sha1(h) => (Algorithm::Sha1, h.finalize().to_vec()),
            State::Sha256(h) => (Algorithm::Sha256, h.finalize().to_vec()),
            State::Sha512(h) => (Algorithm::Sha512, h.finalize().to_vec()),
            State::Blake3(h) => (Algorithm::Blake3, h.finalize().as_bytes().to_vec()),
        };
        Digest { algorithm, value }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        for text in [
            "crc32c:364b3fb7",
            "md5:900150983cd24fb0d6963f7d28e17f72",
            "sha1:a9993e364706816aba3e25717850c26c9cd0d89d",
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        ] {
            let want: Digest = text.parse().unwrap();
            assert_eq!(want.algorithm().hasher().update(b"a").update(b"bc").finish(), want);
            assert_eq!(want.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_no_digest() {
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:xy",
            "nope:00",
            "md5:900150983cd24fb0d6963f7d28e17f7",
            "crc32c:+64b3fb7",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!(
            "SHA-256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"
                .parse::<Digest>()
                .is_ok()
        );
    }
}
