//! Small documents that a backend fetches through the engine, whoever serves them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod rules_kit;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Accept, Backend, Binding, Body, Caps, Cx, Discovery, DiscoveryStream, Engine, Error, From, Hint,
    Identity, JobSpec, Kind, Locator, MemoryJournal, MemorySink, RangeSource, Ranged, Result, SourceInfo,
    Span, Target,
};
use dlm_testkit::sim::block_on;
use futures::StreamExt as _;
use rules_kit::lock;
use tokio::time::Instant;

/// How a document comes.
#[derive(Debug, Clone)]
enum Script {
    /// In these chunks, announced or not.
    Chunks(&'static [&'static [u8]], bool),
    /// One chunk a second, so many of them, each a byte.
    Slowly(u64),
    /// One chunk, then nothing more.
    Silence,
    /// One chunk, then this.
    Fails(Kind),
    /// Nobody has it.
    Nothing,
    /// Resolving fails.
    Refused(Kind),
}

/// Serves `doc:` by a script.
#[derive(Debug)]
struct Documents(Script);

#[derive(Debug)]
struct NoRanges;

#[async_trait]
impl RangeSource for NoRanges {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("doc", "doc", "doc")
    }
    async fn open(&self, _: &Target, _: Span, _: &Identity, _: &Cx) -> Result<Body> {
        Err(Error::new(Kind::Bug, "open a document again"))
    }
}

impl Documents {
    fn stream(&self) -> (Option<u64>, dlm_core::ByteStream) {
        let one = futures::stream::once(async { Ok(Bytes::from_static(b"first")) });
        match &self.0 {
            Script::Chunks(chunks, told) => {
                let len = chunks.iter().map(|c| c.len() as u64).sum();
                let all = chunks.iter().map(|c| Ok(Bytes::from_static(c)));
                (told.then_some(len), Box::pin(futures::stream::iter(all.collect::<Vec<_>>())))
            }
            Script::Slowly(n) => {
                let all = futures::stream::iter(0..*n).then(|_| async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok(Bytes::from_static(b"."))
                });
                (None, Box::pin(all))
            }
            Script::Silence => (None, Box::pin(one.chain(futures::stream::pending()))),
            Script::Fails(kind) => {
                let error = Error::new(*kind, "read on").because("the test says so");
                (None, Box::pin(one.chain(futures::stream::iter([Err(error)]))))
            }
            Script::Nothing | Script::Refused(_) => (None, Box::pin(futures::stream::empty())),
        }
    }
}

#[async_trait]
impl Backend for Documents {
    fn name(&self) -> &'static str {
        "doc"
    }
    fn accepts(&self, hint: &Hint<'_>) -> Accept {
        if hint.locator.scheme() == "doc" { Accept::Yes } else { Accept::No }
    }
    async fn resolve(&self, from: From, cx: &Cx) -> Result<DiscoveryStream> {
        let From::Locator(locator) = from else { return Err(Error::new(Kind::Unsupported, "read")) };
        if let Script::Refused(kind) = self.0 {
            return Err(Error::new(kind, "fetch").on(&locator));
        }
        if matches!(self.0, Script::Nothing) {
            return Ok(Box::pin(futures::stream::empty()));
        }
        let (len, stream) = self.stream();
        let identity = Identity { len, ..Identity::UNKNOWN };
        let target = Target::new(cx.new_object(), locator);
        let body = Body::new(Span::ALL, identity.clone(), stream);
        let binding = Binding::new(Arc::new(Ranged::new(NoRanges)), target, Caps::STREAM, identity);
        Ok(Box::pin(futures::stream::iter([Ok(Discovery::Bind(binding.with_first(body)))])))
    }
}

/// Fetches a document and notes what came of it; finds nothing else.
#[derive(Debug)]
struct Reader {
    locator: Locator,
    max: usize,
    got: Arc<Mutex<Option<Result<Bytes>>>>,
}

#[async_trait]
impl Backend for Reader {
    fn name(&self) -> &'static str {
        "list"
    }
    fn accepts(&self, hint: &Hint<'_>) -> Accept {
        if hint.locator.scheme() == "list" { Accept::Yes } else { Accept::No }
    }
    async fn resolve(&self, _: From, cx: &Cx) -> Result<DiscoveryStream> {
        let got = cx.fetch(&self.locator, self.max).await;
        *lock(&self.got) = Some(got);
        Err(Error::new(Kind::NotFound, "read the list").because("it is empty"))
    }
}

/// What comes of fetching at most `max` bytes of `doc:x`, and after how many seconds.
fn fetch_from(locator: &str, script: Script, max: usize) -> (Result<Bytes>, u64) {
    let got = Arc::default();
    let reader = Reader { locator: locator.parse().unwrap(), max, got: Arc::clone(&got) };
    let engine = Engine::builder().backend(reader).backend(Documents(script)).deterministic().build();
    block_on(async {
        let began = Instant::now();
        let spec = JobSpec::new("list://here/".parse().unwrap());
        let (sink, journal) = (Arc::new(MemorySink::new()), Arc::new(MemoryJournal::new()));
        let error =
            rules_kit::run(&engine, spec, sink, journal).await.expect_err("there is nothing to download");
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        let got = lock(&got).take().expect("the backend was asked");
        (got, began.elapsed().as_secs())
    })
}

fn fetch(script: Script, max: usize) -> Result<Bytes> {
    fetch_from("doc://there/x", script, max).0
}

const PARTS: &[&[u8]] = &[b"one ", b"", b"two ", b"three"];

#[test]
fn a_document_comes_whole_through_another_backend() {
    for told in [true, false] {
        assert_eq!(fetch(Script::Chunks(PARTS, told), 13).unwrap(), "one two three");
        assert_eq!(fetch(Script::Chunks(PARTS, told), usize::MAX).unwrap(), "one two three");
        assert_eq!(fetch(Script::Chunks(&[], told), 0).unwrap(), "", "an empty one is one");
    }
}

#[test]
fn one_that_is_too_long_is_refused_announced_or_not() {
    for told in [true, false] {
        let error = fetch(Script::Chunks(PARTS, told), 12).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(
            error.to_string().contains("12 bytes") && error.to_string().contains("doc://there/x"),
            "{error}"
        );
    }
}

#[test]
fn errors_on_the_way_are_those_of_the_backend() {
    assert_eq!(fetch(Script::Fails(Kind::Reset), 100).unwrap_err().kind(), Kind::Reset, "never a part of it");
    assert_eq!(fetch(Script::Refused(Kind::Denied), 100).unwrap_err().kind(), Kind::Denied);
    assert_eq!(fetch(Script::Nothing, 100).unwrap_err().kind(), Kind::Unsupported, "it is no document");
}

#[test]
fn silence_ends_it_and_slowness_does_not() {
    let (got, seconds) = fetch_from("doc://there/x", Script::Silence, 100);
    assert_eq!((got.unwrap_err().kind(), seconds), (Kind::Timeout, 30));
    let (got, seconds) = fetch_from("doc://there/x", Script::Slowly(90), 100);
    assert_eq!((got.unwrap().len(), seconds), (90, 90));
    let (got, seconds) = fetch_from("doc://there/x", Script::Slowly(90), 50);
    assert_eq!((got.unwrap_err().kind(), seconds), (Kind::Invalid, 51), "no longer than it must");
}

#[test]
fn without_an_engine_or_a_backend_there_is_no_document() {
    let (got, _) = fetch_from("other://there/x", Script::Silence, 100);
    assert_eq!(got.unwrap_err().kind(), Kind::Unsupported, "nobody serves it");
    let alone = block_on(async { Cx::new().fetch(&"doc://there/x".parse().unwrap(), 100).await });
    assert_eq!(alone.unwrap_err().kind(), Kind::Unsupported, "there is no engine");
    let own = Cx::new().with_fetch(|locator, max| async move { Ok(format!("{locator} {max}").into()) });
    let got = block_on(async { own.fetch(&"doc://there/x".parse().unwrap(), 7).await });
    assert_eq!(got.unwrap(), "doc://there/x 7", "a test's own way");
}

#[test]
fn a_fetch_that_is_dropped_drops_the_answer() {
    let engine = |script| {
        let reader = Reader { locator: "doc://there/x".parse().unwrap(), max: 100, got: Arc::default() };
        Engine::builder().backend(reader).backend(Documents(script)).deterministic().build()
    };
    block_on(async {
        let (sink, journal) = (Arc::new(MemorySink::new()), Arc::new(MemoryJournal::new()));
        let mut job =
            engine(Script::Silence).start(JobSpec::new("list://here/".parse().unwrap()), sink, journal);
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        job.cancel();
        let kind = job.outcome().await.unwrap_err().kind();
        assert!(
            kind == Kind::Cancelled && began.elapsed() < Duration::from_secs(5),
            "{kind:?} {:?}",
            began.elapsed()
        );
    });
}
