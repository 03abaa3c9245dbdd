//! The backend with dlm's engine, through public items alone.

use std::sync::Arc;

use bytes::Bytes;
use dlm_core::{
    Algorithm, Caps, Cx, Engine, Identity, JobSpec, Journal, Kind, MemoryJournal, MemorySink, ObjectId,
    Outcome, RangeSource, Ranged, Result, Sink, Source, Span, Target, VerifiedBy,
};
use dlm_pattern::{Generator, PatternBackend, pattern};
use dlm_testkit::conformance::{self, RangeFixture, SourceFixture, range_source};
use futures_util::TryStreamExt;

/// What dlm asks of its own backends: every rule for a source that opens ranges, and for the source made of it.
#[tokio::test]
async fn conforms() {
    let len = 300_000;
    let data = pattern(3, 0..len);
    let remote = |seed: u64, len: u64| format!("pattern://{len}/{seed}").parse().unwrap();
    let cx = Cx::new();
    let source = Arc::new(Generator);
    let target = Target::new(cx.new_object(), remote(3, len));
    range_source(&RangeFixture {
        source: source.clone(),
        target,
        data: data.clone(),
        caps: Caps::RANGES,
        cx: cx.clone(),
    })
    .await;

    let make = move |object| {
        let source: Arc<dyn Source> = Arc::new(Ranged::new(Generator));
        (source, Target::new(object, remote(3, len)))
    };
    let identity =
        source.open(&make(ObjectId(0)).1, Span::ALL, &Identity::UNKNOWN, &cx).await.unwrap().identity;
    conformance::source(&SourceFixture {
        make: Arc::new(make),
        data,
        caps: Caps::RANGES,
        identity,
        proof: None,
    })
    .await;
}

/// A pattern that stands for the middle of something else: offsets and the end are the object's.
#[tokio::test]
async fn a_window_has_the_offsets_of_the_object() {
    let cx = Cx::new();
    let target =
        Target::new(cx.new_object(), "pattern://1000/4".parse().unwrap()).window(Span::new(500, 1500));
    for (want, at) in [
        (Span::ALL, Span::new(500, 1500)),
        (Span::from(700), Span::new(700, 1500)),
        (Span::new(900, 901), Span::new(900, 901)),
    ] {
        let body = Generator.open(&target, want, &Identity::UNKNOWN, &cx).await.unwrap();
        assert_eq!(body.at, at);
        let bytes: Vec<Bytes> = body.stream.try_collect().await.unwrap();
        let range = at.to_range();
        assert_eq!(bytes.concat(), pattern(4, range.start - 500..range.end - 500));
    }
    let e = Generator.open(&target, Span::from(1500), &Identity::UNKNOWN, &cx).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Invalid);
}

fn engine() -> Engine {
    Engine::builder().backend(PatternBackend::new()).build()
}

async fn run(spec: JobSpec, sink: &MemorySink) -> Result<Outcome> {
    let (sink, journal): (Arc<dyn Sink>, Arc<dyn Journal>) =
        (Arc::new(sink.clone()), Arc::new(MemoryJournal::new()));
    engine().start(spec, sink, journal).await
}

#[tokio::test]
async fn every_length_is_delivered() {
    for len in [0, 1, 7, 8, 65_536, 65_537, 3_000_000] {
        let sink = MemorySink::new();
        let spec = JobSpec::new(format!("pattern://{len}/5").parse().unwrap());
        let outcome = run(spec, &sink).await.unwrap();
        assert_eq!((outcome.bytes, outcome.received), (len, len));
        assert_eq!(sink.file(&format!("pattern-{len}-5.bin")).unwrap(), pattern(5, 0..len));
    }
}

#[tokio::test]
async fn several_connections_and_a_mirror() {
    let (len, sink) = (20_000_000, MemorySink::new());
    let data = pattern(1, 0..len);
    let locator = format!("pattern://{len}/1");
    let spec = JobSpec::new(locator.parse().unwrap())
        .mirror(locator.parse().unwrap())
        .connections(4)
        .digest(Algorithm::Sha256.hasher().update(&data).finish());
    let outcome = run(spec, &sink).await.unwrap();
    assert_eq!(sink.file(&format!("pattern-{len}-1.bin")).unwrap(), data);
    assert_eq!(outcome.files[0].verified_by, VerifiedBy::Digest(Algorithm::Sha256));
}

#[tokio::test]
async fn a_digest_that_does_not_fit_is_found() {
    let sink = MemorySink::new();
    let other = Algorithm::Sha256.hasher().update(b"something else").finish();
    let spec = JobSpec::new("pattern://100000/1".parse().unwrap()).digest(other);
    assert_eq!(run(spec, &sink).await.unwrap_err().kind(), Kind::Corrupt);
    assert!(sink.committed().is_empty());
}

#[tokio::test]
async fn a_job_that_was_stopped_goes_on() {
    let (len, sink, journal) = (4_000_000, MemorySink::new(), MemoryJournal::new());
    let locator = format!("pattern://{len}/9");
    let start = |rate: Option<u64>| {
        let mut spec = JobSpec::new(locator.parse().unwrap());
        if let Some(rate) = rate {
            spec = spec.limit_rate(rate);
        }
        engine().start(spec, Arc::new(sink.clone()), Arc::new(journal.clone()))
    };
    let mut job = start(Some(4_000_000));
    let mut snapshot = job.snapshot();
    snapshot.wait_for(|s| s.done > 1_000_000).await.unwrap();
    job.cancel();
    assert_eq!(job.outcome().await.unwrap_err().kind(), Kind::Cancelled);

    let outcome = start(None).await.unwrap();
    assert!(outcome.resumed > 0 && outcome.received < len, "{outcome:?}");
    assert_eq!(sink.file(&format!("pattern-{len}-9.bin")).unwrap(), pattern(9, 0..len));
}

#[tokio::test]
async fn a_locator_that_is_wrong_is_refused() {
    for bad in ["pattern://many/7", "pattern://1/seed", "pattern://99999999999999999999/7"] {
        let spec = JobSpec::new(bad.parse().unwrap());
        assert_eq!(run(spec, &MemorySink::new()).await.unwrap_err().kind(), Kind::Invalid, "{bad}");
    }
    let spec = JobSpec::new("gopher://1/7".parse().unwrap());
    assert_eq!(run(spec, &MemorySink::new()).await.unwrap_err().kind(), Kind::Unsupported);
}
