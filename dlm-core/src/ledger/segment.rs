//! Bytes that are gathered for one write.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::budget::Permit;

/// Bytes gathered for one write.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) bufs: Vec<Bytes>,
    pub(crate) len: u64,
    pub(crate) since: Instant,
    pub(crate) permit: Permit,
}

/// Fewer bytes than this are copied, and put together with those before them up to that length.
const FEW: usize = 4 << 10;
const TOGETHER: usize = 16 << 10;

impl Segment {
    /// Adds bytes. A few of them may hold on to a whole read buffer, which nobody counts, and each delivery has a handle
    /// that may be larger than it is: they are copied.
    pub(crate) fn push(bufs: &mut Vec<Bytes>, data: Bytes) {
        if data.len() >= FEW {
            bufs.push(data);
            return;
        }
        let before = bufs.pop_if(|b| b.len() + data.len() <= TOGETHER).map(Bytes::try_into_mut);
        let mut copy = match before {
            // Nobody else looks at it: it may grow.
            Some(Ok(b)) => b,
            Some(Err(b)) => {
                bufs.push(b);
                BytesMut::with_capacity(data.len())
            }
            None => BytesMut::with_capacity(data.len()),
        };
        copy.extend_from_slice(&data);
        bufs.push(copy.freeze());
    }
}
