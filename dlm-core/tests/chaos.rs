//! Every call of a sink, a journal and a source fails once, in turn: the job ends, nothing wrong is put in place, and
//! another run with what is left completes it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::Arc;

use common::{Memory, Pipe};
use dlm_core::{Caps, Journal, Kind, MemoryJournal, MemorySink, Ranged, Sink, Source, StreamSink};
use dlm_testkit::chaos::{Chaos, Failures};
use dlm_testkit::sim::{Plan, Report, block_on, strong};

const LEN: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Where {
    Sink,
    Journal,
    Source,
}

fn plan(pieces: bool, failures: Option<Failures>) -> Plan {
    let plan = Plan::new(21, LEN).source(move |object| {
        let identity = strong(Some(LEN as u64));
        let memory = Arc::new(Memory {
            data: object.data.clone(),
            caps: Caps::RANGES,
            identity: identity.clone(),
            chunk: 30_000,
        });
        let source: Arc<dyn Source> = match &failures {
            Some(f) => Arc::new(Ranged::new(Chaos::new(memory, f.clone()))),
            None => Arc::new(Ranged::new(Chaos::new(memory, Failures::at(u64::MAX, Kind::Io)))),
        };
        (source, Caps::RANGES, identity)
    });
    if pieces { plan.pieces(100_000) } else { plan }
}

/// One run in which one call fails, and one after it. Returns whether the failure happened.
fn fails_at(n: u64, at: Where, kind: Kind, pieces: bool) -> bool {
    let failures = Failures::at(n, kind);
    let (memory, journal) = (MemorySink::new(), MemoryJournal::new());
    let name = format!("call {n} of the {at:?} ({kind:?}), pieces: {pieces}");
    let sink: Arc<dyn Sink> = match at {
        Where::Sink => Arc::new(Chaos::new(Arc::new(memory.clone()), failures.clone())),
        _ => Arc::new(memory.clone()),
    };
    let kept: Arc<dyn Journal> = match at {
        Where::Journal => Arc::new(Chaos::new(Arc::new(journal.clone()), failures.clone())),
        _ => Arc::new(journal.clone()),
    };
    let first = plan(pieces, (at == Where::Source).then(|| failures.clone()));
    let data = first.object.data.clone();
    let report: Report = block_on(first.run_into(sink, kept));
    let right = |report: &Report, which: &str| match (&report.result, memory.file("object")) {
        (Err(e), _) if e.detail() == "it hung" => panic!("{name}: the {which} run hung"),
        (Ok(_), None) => panic!("{name}: the {which} run says it is done, and there is no file"),
        (_, Some(file)) => assert!(file == data, "{name}: the {which} run put a wrong file in place"),
        (Err(_), None) => {}
    };
    right(&report, "first");
    if !failures.happened() {
        report.result.unwrap_or_else(|e| panic!("{name}: nothing failed, and yet: {e}\n{:#?}", report.trace));
        return false;
    }
    if let Err(e) = &report.result {
        assert_eq!(e.detail(), "the test says so", "{name}: the cause is told: {e}");
        assert!(at != Where::Source || kind != Kind::Reset, "{name}: a cut is survived: {e}");
    }
    let report = block_on(plan(pieces, None).run_into(Arc::new(memory.clone()), Arc::new(journal.clone())));
    right(&report, "second");
    let e = report.result.as_ref().err();
    assert!(e.is_none(), "{name}: the second run fails: {e:?}\n{:#?}", report.trace);
    true
}

fn every_call(at: Where) {
    for pieces in [false, true] {
        for kind in [Kind::Io, Kind::NoSpace, Kind::Reset] {
            let mut n = 0;
            while fails_at(n, at, kind, pieces) {
                n += 1;
            }
            assert!(n > 5, "there were more than {n} calls");
        }
    }
}

#[test]
fn every_call_of_a_sink_fails_once() {
    every_call(Where::Sink);
}

#[test]
fn every_call_of_a_journal_fails_once() {
    every_call(Where::Journal);
}

#[test]
fn every_call_of_a_source_fails_once() {
    every_call(Where::Source);
}

/// What has left cannot be taken back, and nobody resumes it; but what has left is right.
#[test]
fn every_call_of_a_stream_fails_once() {
    for pieces in [false, true] {
        let mut n = 0;
        loop {
            let failures = Failures::at(n, Kind::Io);
            let pipe = Pipe::default();
            let sink = Arc::new(Chaos::new(Arc::new(StreamSink::new(pipe.clone())), failures.clone()));
            let plan = plan(pieces, None);
            let report = block_on(plan.run_into(sink, Arc::new(MemoryJournal::new())));
            let (got, name) = (pipe.got(), format!("call {n}, pieces: {pieces}"));
            assert!(got == plan.object.data.slice(..got.len()), "{name}: wrong bytes left");
            match &report.result {
                Ok(_) => assert_eq!(got.len(), LEN, "{name}"),
                Err(e) => assert_eq!(e.detail(), "the test says so", "{name}: {e}"),
            }
            if !failures.happened() {
                assert!(report.result.is_ok() && n > 5, "{name}: {:?}", report.result);
                break;
            }
            n += 1;
        }
    }
}
