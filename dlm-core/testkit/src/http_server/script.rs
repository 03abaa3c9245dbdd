//! The steps of which every answer is made, and how they are done.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::bucket::Bucket;
use super::shared::Shared;
use super::stream::Stream;

/// How long a stalled connection is held at most.
const STALL: Duration = Duration::from_mins(2);
/// A reset throws away what is still on its way to the peer: it comes a little later, so that what was sent is seen.
const BEFORE_RESET: Duration = Duration::from_millis(50);

/// One thing the server does on a connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// Sends these bytes at once; they do not count as served.
    Raw(Bytes),
    /// Sends these bytes so many times, or until the peer hangs up; they do not count as served.
    Flood(Bytes, u64),
    /// Sends these bytes within the rate limits; they count as served.
    Body(Bytes),
    /// Does nothing for this long (tokio's time).
    Pause(Duration),
    /// Sends nothing more, until the peer hangs up or two minutes have passed; then resets.
    Stall,
    /// Resets the connection (RST): the peer sees an error, not an end.
    Reset,
    /// Ends the connection in order: TLS `close_notify` where there is TLS, then FIN.
    Fin,
    /// Ends the TCP connection in order but, where there is TLS, without `close_notify`: what an attacker can do.
    Truncate,
}

/// How a connection ends in the middle of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// [`Step::Fin`].
    Fin,
    /// [`Step::Reset`], a moment later.
    Reset,
    /// [`Step::Stall`].
    Stall,
    /// [`Step::Truncate`].
    Truncate,
}

impl End {
    pub(super) fn steps(self) -> Vec<Step> {
        match self {
            Self::Fin => vec![Step::Fin],
            Self::Reset => vec![Step::Pause(BEFORE_RESET), Step::Reset],
            Self::Stall => vec![Step::Stall],
            Self::Truncate => vec![Step::Truncate],
        }
    }
}

/// Does one step. `Ok(false)`: the connection is over.
pub(super) async fn perform(
    step: Step,
    stream: &mut Stream,
    shared: &Shared,
    own: Option<&Bucket>,
) -> std::io::Result<bool> {
    match step {
        Step::Raw(bytes) => stream.write_all(&bytes).await?,
        Step::Flood(bytes, times) => {
            for _ in 0..times {
                stream.write_all(&bytes).await?;
            }
        }
        Step::Body(bytes) => body(&bytes, stream, shared, own).await?,
        Step::Pause(time) => {
            stream.flush().await?;
            sleep(time).await;
        }
        Step::Stall => {
            stream.flush().await?;
            let _ = timeout(STALL, stream.read(&mut [0])).await;
            stream.reset();
            return Ok(false);
        }
        Step::Reset => {
            stream.flush().await?;
            stream.reset();
            return Ok(false);
        }
        Step::Fin => {
            stream.flush().await?;
            stream.shutdown().await?;
            stream.drain().await;
            return Ok(false);
        }
        Step::Truncate => {
            stream.flush().await?;
            stream.tcp().shutdown().await?;
            stream.drain().await;
            return Ok(false);
        }
    }
    Ok(true)
}

async fn body(
    bytes: &Bytes,
    stream: &mut Stream,
    shared: &Shared,
    own: Option<&Bucket>,
) -> std::io::Result<()> {
    let limited = own.is_some() || shared.bucket.is_some();
    let size = if limited { 16 << 10 } else { 64 << 10 };
    for piece in bytes.chunks(size) {
        for bucket in own.into_iter().chain(&shared.bucket) {
            bucket.take(piece.len()).await;
        }
        stream.write_all(piece).await?;
        shared.served(piece.len());
    }
    stream.flush().await
}
