//! The bytes of a pattern. Any offset is reached at once, so ranges cost what they are long.

use std::ops::Range;

use bytes::Bytes;
use dlm_core::Result;
use futures_util::Stream;
use futures_util::stream::unfold;

/// The length of what the stream yields at a time, in bytes.
const CHUNK: u64 = 64 << 10;

/// These bytes of the pattern of `seed`, all of them in memory.
///
/// ```
/// let whole = dlm_pattern::pattern(1, 0..100);
/// assert_eq!(dlm_pattern::pattern(1, 13..20), whole[13..20]);
/// assert_ne!(dlm_pattern::pattern(2, 0..100), whole);
/// ```
pub fn pattern(seed: u64, range: Range<u64>) -> Bytes {
    range.map(|at| word(seed, at / 8)[(at % 8) as usize]).collect()
}

/// The same as a stream that makes each chunk when it is asked for: whoever reads slowly has little in memory.
pub(crate) fn stream(seed: u64, range: Range<u64>) -> impl Stream<Item = Result<Bytes>> + Send {
    unfold(range, move |rest| async move {
        let end = rest.end.min(rest.start.saturating_add(CHUNK));
        (rest.start < end).then(|| (Ok(pattern(seed, rest.start..end)), end..rest.end))
    })
}

/// The `index`-th eight bytes (`SplitMix64` with a counter).
fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut x = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)).to_le_bytes()
}
