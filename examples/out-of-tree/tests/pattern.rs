//! The backend with dlm's engine, through public items alone.

use std::sync::Arc;

use dlm_core::{Algorithm, Engine, JobSpec, Journal, Kind, MemoryJournal, MemorySink, Outcome, Result, Sink, VerifiedBy};
use dlm_pattern::{PatternBackend, pattern};

// ---------------------------------------------------------------------------------------------------------------------
// CONFORMANCE: the suites of `dlm_testkit::conformance` for a `RangeSource` and a `Backend` are called here.
// ---------------------------------------------------------------------------------------------------------------------

fn engine() -> Engine {
    Engine::builder().backend(PatternBackend::new()).build()
}

async fn run(spec: JobSpec, sink: &MemorySink) -> Result<Outcome> {
    let (sink, journal): (Arc<dyn Sink>, Arc<dyn Journal>) = (Arc::new(sink.clone()), Arc::new(MemoryJournal::new()));
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
