//! Rules for a [`RangeSource`].

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dlm_core::{
    Binding, Body, Caps, Cx, Identity, MemorySink, RangeSource, Ranged, Result, Seek, Span, Target, WorkBench,
};
use futures::StreamExt as _;

/// A range source, and what it should deliver.
#[derive(Debug, Clone)]
pub struct RangeFixture {
    /// The source.
    pub source: Arc<dyn RangeSource>,
    /// Something it has, of at least 100,000 bytes.
    pub target: Target,
    /// That thing's bytes.
    pub data: Bytes,
    /// What it can do with it.
    pub caps: Caps,
    /// The job around the calls.
    pub cx: Cx,
}

impl RangeFixture {
    async fn open(&self, want: Span, held: &Identity) -> Result<Body> {
        tokio::time::timeout(Duration::from_secs(20), self.source.open(&self.target, want, held, &self.cx))
            .await
            .expect("open: it must not take longer than its time limits")
    }
}

/// Forwards to a source behind a pointer.
#[derive(Debug)]
struct Shared(Arc<dyn RangeSource>);

#[async_trait::async_trait]
impl RangeSource for Shared {
    fn info(&self) -> dlm_core::SourceInfo {
        self.0.info()
    }
    async fn open(&self, target: &Target, want: Span, held: &Identity, cx: &Cx) -> Result<Body> {
        self.0.open(target, want, held, cx).await
    }
}

async fn read(mut body: Body, most: usize) -> Bytes {
    let mut out = BytesMut::new();
    while let Some(chunk) = tokio::time::timeout(Duration::from_secs(20), body.stream.next())
        .await
        .expect("stream: it must not hang")
    {
        out.extend_from_slice(&chunk.expect("stream: an honest source does not fail"));
        if out.len() >= most {
            break;
        }
    }
    out.freeze()
}

/// Every rule for a range source. Each answer and each chunk has 20 s to come, the whole job a minute. Dropped, it drops
/// the answer it was reading.
///
/// # Panics
/// When a rule is broken.
pub async fn range_source(f: &RangeFixture) {
    let len = f.data.len() as u64;
    assert!(len >= 100_000, "fixture: at least 100,000 bytes");
    let info = f.source.info();
    assert_eq!(info, f.source.info(), "info: it is the same at each call");
    assert!(!info.label.is_empty() && !info.key.is_empty(), "info: a label and a key");

    let first = f.open(Span::ALL, &Identity::UNKNOWN).await.expect("open: all of it");
    let identity = first.identity.clone();
    assert!(identity.len.is_none_or(|l| l == len), "identity: the length is the whole object's");
    assert_eq!(first.at.start, 0, "open: all of it begins at 0");
    assert!(first.at.end.is_none_or(|e| e == len), "open: all of it ends at the end");
    assert_eq!(read(first, usize::MAX).await, f.data, "open: all of it");

    if f.caps.seek != Seek::None {
        for (start, end) in [(0, 1), (1, 2), (99_999, len), (len - 1, len), (5_000, 70_000), (65_535, 65_537)]
        {
            let body = f.open(Span::new(start, end), &identity).await.expect("open: a range");
            assert!(body.at.start <= start, "open: the answer may begin before what was asked, not after it");
            assert!(identity.agrees(&body.identity), "identity: it stays the same while the object does");
            let (from, to) = (body.at.start, body.at.end.unwrap_or(len));
            assert!(to > start && to <= len, "open: the answer's end is honest");
            if f.caps.seek == Seek::Any {
                assert_eq!((from, to), (start, end), "open: no more than was asked");
            }
            assert_eq!(
                read(body, usize::MAX).await,
                f.data.slice(from as usize..to as usize),
                "open: {start}..{end}"
            );
        }
        let body = f.open(Span::from(12_345), &identity).await.expect("open: to the end");
        assert_eq!(read(body, usize::MAX).await, f.data.slice(12_345..), "open: to the end");
        dropped_and_at_once(f, &identity).await;
    }
    whole_job(f, &identity).await;
}

async fn dropped_and_at_once(f: &RangeFixture, identity: &Identity) {
    let body = f.open(Span::from(0), identity).await.expect("open: to be dropped");
    assert_eq!(read(body, 1).await[..1], f.data[..1], "stream: dropped after its first chunk");
    let both = [(1_000, 50_000), (50_000, 99_000)].map(|(s, e)| async move {
        let body = f.open(Span::new(s, e), identity).await.expect("open: several at once");
        let to = if f.caps.seek == Seek::Any { (e - s) as usize } else { usize::MAX };
        (s, read(body, to).await)
    });
    let most = f.caps.max_parallel.min(2) as usize;
    for (s, got) in futures::stream::iter(both).buffer_unordered(most).collect::<Vec<_>>().await {
        assert_eq!(got, f.data.slice(s as usize..s as usize + got.len()), "open: several at once");
    }
}

async fn whole_job(f: &RangeFixture, identity: &Identity) {
    let sink = MemorySink::new();
    let mut bench =
        WorkBench::new(Arc::new(sink.clone()), identity.len, 4 << 20, f.cx.clone()).await.expect("bench");
    let ranged = Arc::new(Ranged::new(Shared(f.source.clone())));
    let mut target = f.target.clone();
    target.object = bench.object();
    let work =
        bench.add(Binding::new(ranged.clone(), target, f.caps, identity.clone())).expect("bench: binding");
    let whole = bench.run(ranged, work, Duration::from_mins(1)).await;
    assert!(whole, "job: it ends ({:?})", bench.error());
    bench.check().expect("job: states");
    assert_eq!(sink.bytes(bench.object()).as_deref(), Some(&f.data[..]), "job: the right bytes");
}
