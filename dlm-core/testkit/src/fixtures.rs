//! Bytes that are the same in every run, on every machine.

use bytes::Bytes;

/// `len` bytes that look random and depend on `seed` alone.
///
/// Fast (one mix for eight bytes) and not compressible; two seeds share no aligned word but by chance, so a test that
/// mixes two versions of a file always notices.
///
/// ```
/// use dlm_testkit::fixtures::bytes;
/// assert_eq!(bytes(1, 100), bytes(1, 200)[..100]);
/// assert_ne!(bytes(1, 100), bytes(2, 100));
/// ```
pub fn bytes(seed: u64, len: usize) -> Bytes {
    let mut data = vec![0; len];
    fill(seed, 0, &mut data);
    Bytes::from(data)
}

/// Writes to `out` the bytes that [`bytes()`] of the same seed has from `offset` on. Lets a test check, or serve, a file
/// far larger than memory.
///
/// ```
/// use dlm_testkit::fixtures::{bytes, fill};
/// let mut middle = [0; 50];
/// fill(7, 13, &mut middle);
/// assert_eq!(middle[..], bytes(7, 63)[13..]);
/// ```
pub fn fill(seed: u64, offset: u64, out: &mut [u8]) {
    let mut at = offset;
    let mut rest = out;
    let skip = (at % 8) as usize;
    if skip != 0 {
        let n = rest.len().min(8 - skip);
        let (head, tail) = rest.split_at_mut(n);
        head.copy_from_slice(&word(seed, at / 8)[skip..skip + n]);
        (rest, at) = (tail, at + n as u64);
    }
    let mut index = at / 8;
    let mut words = rest.chunks_exact_mut(8);
    for chunk in &mut words {
        chunk.copy_from_slice(&word(seed, index));
        index += 1;
    }
    let tail = words.into_remainder();
    tail.copy_from_slice(&word(seed, index)[..tail.len()]);
}

/// The `index`-th eight bytes: `SplitMix64` with a counter, so that any offset is reached at once.
fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut x = seed
        .wrapping_mul(0xd134_2543_de82_ef95)
        .wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)).to_le_bytes()
}

/// A gzip stream (RFC 1952) of `len` zero bytes, 160 times smaller than what it unpacks to. A client that unpacks what
/// it saves shows itself by its memory and by its file.
pub fn gzip_bomb(len: u32) -> Bytes {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits = Bits { out: &mut out, hold: 0, held: 0 };
    // One final block with the fixed Huffman codes of RFC 1951, section 3.2.6.
    bits.push(1, 1);
    bits.push(0b01, 2);
    if len > 0 {
        bits.code(0x30, 8);
        let mut left = len - 1;
        while left >= 258 {
            // Length 258 is code 285, distance 1 is code 0.
            bits.code(0xc5, 8);
            bits.code(0, 5);
            left -= 258;
        }
        for _ in 0..left {
            bits.code(0x30, 8);
        }
    }
    bits.code(0, 7);
    bits.finish();
    out.extend(crc32_of_zeros(len).to_le_bytes());
    out.extend(len.to_le_bytes());
    Bytes::from(out)
}

struct Bits<'a> {
    out: &'a mut Vec<u8>,
    hold: u32,
    held: u32,
}

impl Bits<'_> {
    fn push(&mut self, value: u32, n: u32) {
        self.hold |= value << self.held;
        self.held += n;
        while self.held >= 8 {
            self.out.push(self.hold as u8);
            self.hold >>= 8;
            self.held -= 8;
        }
    }
    /// Huffman codes go in from their highest bit.
    fn code(&mut self, value: u32, n: u32) {
        self.push(value.reverse_bits() >> (32 - n), n);
    }
    fn finish(self) {
        if self.held > 0 {
            self.out.push(self.hold as u8);
        }
    }
}

fn crc32_of_zeros(len: u32) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|i| {
        (0..8).fold(i as u32, |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    });
    !(0..len).fold(u32::MAX, |c, _| table[(c & 0xff) as usize] ^ (c >> 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_window_is_the_same() {
        let all = bytes(3, 4096);
        for (from, len) in [(0, 4096), (1, 1), (7, 2), (8, 8), (9, 1000), (4095, 1), (5, 0)] {
            let mut out = vec![0; len];
            fill(3, from as u64, &mut out);
            assert_eq!(out, all[from..from + len], "{from}+{len}");
        }
    }

    #[test]
    fn gzip_of_zeros_has_the_known_form() {
        // CRC-32 of one and of 1,000 zero bytes, as zlib has them.
        assert_eq!(crc32_of_zeros(1), 0xd202_ef8d);
        assert_eq!(crc32_of_zeros(1000), 0x060b_1780);
        let bomb = gzip_bomb(16 << 20);
        assert!(bomb.len() < 120_000, "{}", bomb.len());
    }
}
