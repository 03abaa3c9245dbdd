//! Somebody else tests a source of theirs through the public suite, which finds out what is wrong with it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Ask, Body, Caps, Cx, Error, Exit, Identity, Kind, Next, RangeSource, Ranged, Result, Source, SourceInfo,
    Span, Target, Work, WorkClaim,
};
use dlm_testkit::conformance::{self, SourceFixture};
use dlm_testkit::fixtures;
use dlm_testkit::sim::strong;

const LEN: u64 = 8_000_000;

fn data() -> Bytes {
    fixtures::bytes(31, LEN as usize)
}

/// A source of somebody else's, with a fault that its author should hear of.
#[derive(Debug)]
enum Faulty {
    Deaf,
    Wrong,
    Hoards,
    Errs,
}

#[async_trait]
impl Source for Faulty {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("test", "faulty", "faulty")
    }
    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let mut kept = Vec::new();
        while let WorkClaim::Lease(mut lease) = work.claim(Ask::ANY).await {
            lease.agree(&strong(Some(LEN)))?;
            while !lease.rest().is_empty() {
                let at = lease.rest().start;
                let mut part = data().slice(at as usize..(at + 100_000).min(LEN) as usize).to_vec();
                tokio::time::sleep(Duration::from_millis(1)).await;
                if matches!(*self, Self::Wrong) && at > 0 {
                    part[0] ^= 1;
                }
                if lease.put(at, part.into())?.next == Next::Stop {
                    break;
                }
            }
            if matches!(*self, Self::Hoards) {
                kept.push(lease);
            }
        }
        match *self {
            Self::Deaf => std::future::pending().await,
            Self::Errs => Err(Error::new(Kind::Bug, "stop")),
            Self::Hoards => {
                // Somebody else holds them on.
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(kept);
                });
                Ok(Exit::Done)
            }
            Self::Wrong => Ok(Exit::Done),
        }
    }
}

async fn conforms(make: impl Fn() -> Arc<dyn Source> + Send + Sync + 'static) {
    let make = move |id| (make(), Target::new(id, "theirs://object/".parse().unwrap()));
    let (caps, identity) = (Caps::RANGES.max_parallel(1), strong(Some(LEN)));
    conformance::source(&SourceFixture { make: Arc::new(make), data: data(), caps, identity, proof: None })
        .await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "stop: run returns within two seconds")]
async fn a_third_partys_source_that_does_not_stop_is_found_out() {
    conforms(|| Arc::new(Faulty::Deaf)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "stop: every lease was given back")]
async fn a_third_partys_source_that_keeps_leases_is_found_out() {
    conforms(|| Arc::new(Faulty::Hoards)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "stop: it is no error")]
async fn a_third_partys_source_that_calls_a_stop_an_error_is_found_out() {
    conforms(|| Arc::new(Faulty::Errs)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "run: the right bytes")]
async fn a_third_partys_source_that_delivers_wrong_bytes_is_found_out() {
    conforms(|| Arc::new(Faulty::Wrong)).await;
}

#[tokio::test(start_paused = true)]
async fn a_third_partys_source_that_keeps_the_rules_conforms() {
    /// As short as somebody else would write one.
    #[derive(Debug)]
    struct Theirs;
    #[async_trait]
    impl RangeSource for Theirs {
        fn info(&self) -> SourceInfo {
            SourceInfo::new("theirs", "theirs", "theirs")
        }
        async fn open(&self, _: &Target, want: Span, _: &Identity, _: &Cx) -> Result<Body> {
            let at = Span::new(want.start, want.end.unwrap_or(LEN).min(LEN));
            let range = at.to_range();
            let part = data().slice(range.start as usize..range.end as usize);
            tokio::time::sleep(Duration::from_millis(10)).await;
            let chunks: Vec<_> = part.chunks(200_000).map(|c| Ok(part.slice_ref(c))).collect();
            Ok(Body::new(at, strong(Some(LEN)), Box::pin(futures::stream::iter(chunks))))
        }
    }
    conforms(|| Arc::new(Ranged::new(Theirs))).await;
}
