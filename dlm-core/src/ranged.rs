//! Makes a [`Source`] of a [`RangeSource`]: workers, retry, resume in mid-stream, identity checks, racing.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::backend::Cx;
use crate::error::{Error, Kind, Result};
use crate::ledger::{Ask, Claim, Lease, Next, Work};
use crate::object::{Identity, Span};
use crate::range::{Body, RangeSource};
use crate::source::{Exit, Source, SourceInfo};

/// An answer that begins this much before what was asked is read over.
const NEAR: u64 = 256 << 10;
/// So much of what is held is fetched again where no strong validator vouches for the rest.
const OVERLAP: u64 = 16 << 10;
/// How long to wait for the end of an answer that is complete, so that its connection can be used again.
const TAIL: Duration = Duration::from_millis(200);

/// A [`Source`] that reads ranges.
///
/// It keeps one claim in the ledger's queue; each lease it gets is served by a task of its own, so the policy alone
/// decides how many run at once. Every answer is checked before its first byte counts: its place against what was
/// asked, its identity against what is held, and, where there is no strong validator, a stretch of bytes that are held
/// already. A failed answer gives its lease back: how it is counted, and what follows, is the ledger's business.
#[derive(Debug)]
pub struct Ranged<S>(Arc<S>);

impl<S: RangeSource> Ranged<S> {
    /// Wraps a range source.
    pub fn new(source: S) -> Self {
        Self(Arc::new(source))
    }
    /// The range source inside.
    pub fn get(&self) -> &S {
        &self.0
    }
}

#[async_trait]
impl<S: RangeSource> Source for Ranged<S> {
    fn info(&self) -> SourceInfo {
        self.0.info()
    }

    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let mut workers = JoinSet::new();
        let mut stopped = pin!(work.stopped());
        'claims: loop {
            let mut claim = pin!(work.claim(Ask::ANY));
            loop {
                // Both losers are kept: the claim is polled again, and a worker that ended is only counted.
                tokio::select! {
                    biased;
                    () = &mut stopped => break 'claims,
                    Some(_) = workers.join_next(), if !workers.is_empty() => {}
                    got = &mut claim => match got {
                        Claim::Lease(lease) => {
                            workers.spawn(serve(self.0.clone(), lease, work.cx().clone()));
                            break;
                        }
                        Claim::Busy => break,
                        Claim::Retire => break 'claims,
                    },
                }
            }
        }
        // Their leases are revoked or done: they end by themselves; dropping the set stops the others.
        let _ = timeout(Duration::from_secs(1), async { while workers.join_next().await.is_some() {} }).await;
        Ok(Exit::Done)
    }
}

/// Serves one lease, over as many answers as it takes.
async fn serve<S: RangeSource>(source: Arc<S>, mut lease: Lease, cx: Cx) {
    let mut first = lease.first();
    let revoked = lease.revoked();
    let mut revoked = pin!(revoked);
    loop {
        lease.reopen();
        let want = lease.rest();
        if want.is_empty() {
            return;
        }
        let held = lease.held();
        let overlap =
            if held.validator.is_strong() { Bytes::new() } else { lease.before(want.start, OVERLAP).await };
        // An answer that begins behind what there is to compare with says too little; it is asked for again.
        let fits =
            |b: &Body| b.at.start.saturating_add(overlap.len() as u64) <= want.start || overlap.is_empty();
        let (body, overlap) = if let Some(body) = first.take().filter(fits) {
            (body, overlap)
        } else {
            let ask = Span { start: want.start - overlap.len() as u64, end: want.end };
            let limits = cx.timeouts();
            let patience = limits.connect + limits.idle + Duration::from_secs(5);
            // Dropping an open is always allowed.
            let opened = tokio::select! {
                biased;
                () = &mut revoked => return,
                r = timeout(patience, source.open(lease.target(), ask, &held, &cx)) => r,
            };
            match opened.unwrap_or_else(|_| Err(silence(&lease))) {
                Ok(body) => (body, overlap),
                Err(e) => return lease.setback(&e),
            }
        };
        match deliver(&mut lease, body, want, overlap, &cx, &mut revoked).await {
            Answer::More => {}
            Answer::Over => return,
            Answer::Ended(len) => {
                // What contradicts the length was counted by the ledger; there is nobody else to tell.
                let _ = lease.end_of_object(len);
                return;
            }
            Answer::Failed(e) => return lease.setback(&e),
            Answer::Contradicts(e) => return lease.contradict(e),
        }
    }
}

enum Answer {
    /// It was complete, and the lease wants more.
    More,
    /// Nothing more is wanted of this lease.
    Over,
    /// It ended, and with it the object, at this length.
    Ended(u64),
    Failed(Error),
    Contradicts(Error),
}

/// Delivers one answer.
async fn deliver(
    lease: &mut Lease,
    body: Body,
    want: Span,
    overlap: Bytes,
    cx: &Cx,
    revoked: &mut (impl Future<Output = ()> + Unpin),
) -> Answer {
    let Body { at: span, identity, mut stream } = body;
    if lease.agree(&identity).is_err() {
        return Answer::Over;
    }
    if let Err(e) = placed(lease, span, &identity, want) {
        return Answer::Failed(e);
    }
    let began = want.start;
    let mut at = span.start;
    let mut compare = overlap;
    let mut compare_at = began - compare.len() as u64;
    loop {
        if let Err(e) = lease.ready().await {
            return Answer::Failed(e);
        }
        // A stream may be dropped at any await; what it had not yielded is fetched again.
        let item = tokio::select! {
            biased;
            () = &mut *revoked => return Answer::Over,
            r = timeout(cx.timeouts().idle, stream.next()) => r,
        };
        let data = match item {
            Err(_) => return Answer::Failed(silence(lease)),
            Ok(Some(Err(e))) => return Answer::Failed(e),
            Ok(Some(Ok(data))) => data,
            Ok(None) => {
                return match span.end {
                    Some(end) if at < end => Answer::Failed(cut(lease, end - at)),
                    Some(_) if at > began => Answer::More,
                    Some(_) => Answer::Failed(
                        Error::new(Kind::Protocol, "fetch")
                            .on(&lease.target().remote)
                            .because("the answer holds nothing new"),
                    ),
                    None => Answer::Ended(at),
                };
            }
        };
        let len = data.len() as u64;
        if !compare.is_empty() && at + len > compare_at {
            let skip = compare_at.saturating_sub(at).min(len) as usize;
            let n = compare.len().min(data.len() - skip);
            if compare[..n] != data[skip..skip + n] {
                let e = Error::new(Kind::Changed, "fetch").on(&lease.target().remote);
                return Answer::Contradicts(e.because("bytes that were fetched before are different now"));
            }
            compare = compare.slice(n..);
            compare_at += n as u64;
        }
        let put = match lease.put(at, data) {
            Ok(p) => p,
            Err(e) => return Answer::Failed(e),
        };
        at += len;
        match put.next {
            Next::Continue => {}
            // What lies between is read over: asking anew would cost a connection.
            Next::From(p) if span.end.is_none_or(|e| p < e) => {}
            Next::From(_) => return Answer::More,
            Next::Stop => {
                if span.end == Some(at) {
                    // Complete: let its connection go back to the pool.
                    let _ = timeout(TAIL, stream.next()).await;
                }
                return Answer::Over;
            }
        }
    }
}

/// Whether an answer's place fits what was asked. An earlier start is read over when it is near, or when there is no
/// other way.
fn placed(lease: &Lease, span: Span, identity: &Identity, want: Span) -> Result<()> {
    let remote = &lease.target().remote;
    if span.start > want.start || span.end.is_some_and(|e| e <= want.start && e > span.start) {
        return Err(Error::new(Kind::RangeIgnored, "fetch")
            .on(remote)
            .because("the server sent another range than was asked for"));
    }
    if want.start - span.start > NEAR && !lease.reads_over() {
        return Err(Error::new(Kind::RangeIgnored, "fetch").on(remote).because("the server ignores ranges"));
    }
    if let (Some(end), Some(len)) = (span.end, identity.len)
        && end > len
    {
        return Err(Error::new(Kind::Protocol, "fetch")
            .on(remote)
            .because("the server's range ends behind the file's end"));
    }
    Ok(())
}

fn silence(lease: &Lease) -> Error {
    Error::new(Kind::Timeout, "fetch").on(&lease.target().remote).because("nothing came for too long")
}

fn cut(lease: &Lease, missing: u64) -> Error {
    Error::new(Kind::Reset, "fetch")
        .on(&lease.target().remote)
        .because(format_args!("the answer ended {missing} bytes early"))
}
