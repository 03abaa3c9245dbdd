//! A pipe whose source is cut: what has left cannot be taken back. It is read over where it would be the same again, and
//! otherwise the job ends with what cut it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::Pipe;
use common::job::{Scripted, bind, found, locator, object, start_with};
use dlm_core::{
    Body, Caps, Cx, Error, Identity, JobSpec, Kind, Ordered, Outcome, RangeSource, Ranged, Result, Scheduler,
    Source, SourceInfo, Span, StreamSink, Target, Validator,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};

const LEN: u64 = 2 << 20;
const CHUNK: u64 = 16 << 10;

/// One answer: the whole from its beginning, cut after so many bytes in this way.
#[derive(Clone)]
struct Answer {
    identity: Identity,
    cut: Option<(u64, Kind)>,
    /// Ends in order here, as if the object did.
    ends: Option<u64>,
    /// Whether ranges are honoured.
    ranges: bool,
}

/// Gives its answers one after the other, the last one again and again.
struct Server {
    data: Bytes,
    answers: Mutex<Vec<Answer>>,
    asked: Arc<Mutex<Vec<Span>>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

#[async_trait]
impl RangeSource for Server {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("test", "server", "server")
    }

    async fn open(&self, _: &Target, want: Span, _: &Identity, _: &Cx) -> Result<Body> {
        self.asked.lock().unwrap().push(want);
        let answer = {
            let mut all = self.answers.lock().unwrap();
            if all.len() > 1 { all.remove(0) } else { all[0].clone() }
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        let len = self.data.len() as u64;
        let from = if answer.ranges { want.start } else { 0 };
        let end = if answer.ranges { want.end.unwrap_or(len).min(len) } else { len };
        let data = self.data.slice(..end as usize);
        let stop = answer.ends.unwrap_or(end).min(end);
        let cut = answer.cut;
        let body = futures::stream::unfold(Some(from), move |at| {
            let data = data.clone();
            async move {
                let at = at?;
                tokio::time::sleep(Duration::from_millis(1)).await;
                if let Some((after, kind)) = cut
                    && at - from >= after
                {
                    return Some((Err(Error::new(kind, "fetch").because("it was cut")), None));
                }
                let next = (at + CHUNK).min(stop);
                (at < stop).then(|| (Ok(data.slice(at as usize..next as usize)), Some(next)))
            }
        });
        let told = answer.identity.len.is_some().then_some(end);
        Ok(Body::new(Span { start: from, end: told }, answer.identity, Box::pin(body)))
    }
}

struct Done {
    result: Result<Outcome>,
    got: Bytes,
    asked: Vec<Span>,
}

/// A job from such a server into a pipe.
fn job(data: &Bytes, caps: Caps, connections: u32, answers: &[Answer]) -> Done {
    let asked: Arc<Mutex<Vec<Span>>> = Arc::default();
    let server = Server { data: data.clone(), answers: Mutex::new(answers.to_vec()), asked: asked.clone() };
    let source: Arc<dyn Source> = Arc::new(Ranged::new(server));
    let identity = answers[0].identity.clone();
    let backend = Scripted::new(move |_, cx| {
        let (id, mut all) = object(cx, "f", identity.len);
        all.push(bind(&source, id, caps, identity.clone()));
        Ok(found(all))
    });
    let pipe = Pipe::default();
    let sink = Arc::new(StreamSink::new(pipe.clone()));
    let result = block_on(async {
        let spec = JobSpec::new(locator("")).connections(connections);
        let policy = |_| Box::new(Ordered::new()) as Box<dyn Scheduler>;
        let mut job = start_with(backend, sink, 8 << 20, policy, spec);
        tokio::time::timeout(Duration::from_mins(10), job.outcome()).await.expect("it hung")
    });
    let asked = asked.lock().unwrap().clone();
    Done { result, got: pipe.got(), asked }
}

fn data() -> Bytes {
    fixtures::bytes(1, LEN as usize)
}

#[test]
fn what_cut_it_is_told_where_nothing_tells_the_version() {
    for (kind, ranges) in [(Kind::Reset, true), (Kind::Timeout, false), (Kind::Reset, false)] {
        for len in [None, Some(LEN)] {
            let answer = Answer {
                identity: Identity::new(len, Validator::Unknown),
                cut: Some((LEN / 2, kind)),
                ends: None,
                ranges,
            };
            let caps = if ranges { Caps::RANGES } else { Caps::STREAM };
            let done = job(&data(), caps, 4, &[answer]);
            let e = done.result.unwrap_err();
            assert_eq!(e.kind(), kind, "{len:?} {ranges} {:?}: {e}", done.asked);
            let said = e.to_string();
            assert!(
                said.contains("it was cut") && said.contains(&format!("{} bytes", done.got.len())),
                "{said}"
            );
            assert!(said.contains("cannot be fetched again"), "{said}");
            assert_eq!(done.got, data().slice(..LEN as usize / 2), "{len:?}");
        }
    }
}

#[test]
fn a_change_after_a_cut_is_a_change() {
    let tag = |t: &str| Identity::new(Some(LEN), Validator::Strong(t.into()));
    let first = Answer { identity: tag("a"), cut: Some((LEN / 2, Kind::Reset)), ends: None, ranges: true };
    let then = Answer { identity: tag("b"), cut: None, ends: None, ranges: false };
    let done = job(&data(), Caps::RANGES, 1, &[first, then]);
    assert_eq!(done.result.unwrap_err().kind(), Kind::Changed);
    assert_eq!(done.got, data().slice(..LEN as usize / 2), "nothing of the other");
}

#[test]
fn what_has_left_is_read_over_where_it_is_the_same_again() {
    for len in [Some(LEN), None] {
        for (caps, connections) in [(Caps::RANGES, 1), (Caps::RANGES, 4), (Caps::STREAM, 4)] {
            let whole = Answer { identity: strong(len), cut: None, ends: None, ranges: false };
            let cut = |after| Answer { cut: Some((after, Kind::Reset)), ..whole.clone() };
            // Cut again and again, also while it reads over; it knows no ranges, whatever it seemed.
            let answers = [cut(LEN / 2), cut(LEN / 4), cut(LEN - CHUNK), whole];
            let done = job(&data(), caps, connections, &answers);
            let at = format!("{len:?} {caps:?} {:?}", done.asked);
            let outcome = done.result.unwrap_or_else(|e| panic!("{at}: {e}"));
            assert_eq!(done.got, data(), "{at}");
            assert!(outcome.duplicate >= LEN / 2, "{at}: {outcome:?}");
            assert!(done.asked.len() <= 8, "{at}");
        }
    }
}

#[test]
fn a_source_that_always_ends_before_what_has_left_is_given_up() {
    let answer = |after| Answer {
        identity: strong(Some(LEN)),
        cut: Some((after, Kind::Reset)),
        ends: None,
        ranges: false,
    };
    let done = job(&data(), Caps::STREAM, 4, &[answer(LEN / 2), answer(LEN / 4)]);
    assert_eq!(done.result.unwrap_err().kind(), Kind::Reset);
    assert!(done.asked.len() <= 10, "{:?}", done.asked);
}

#[test]
fn a_file_starts_over_as_it_did() {
    let whole = Answer {
        identity: Identity::new(Some(LEN), Validator::Unknown),
        cut: None,
        ends: None,
        ranges: false,
    };
    let cut = Answer { cut: Some((LEN / 2, Kind::Reset)), ..whole.clone() };
    // The first answer alone is refused by the pipe; before anything left there is nothing to take back.
    let done = job(&data(), Caps::STREAM, 4, &[Answer { cut: Some((0, Kind::Reset)), ..cut }, whole]);
    done.result.unwrap();
    assert_eq!(done.got, data());
}

#[test]
fn one_answer_is_enough_where_nothing_tells_the_version() {
    for connections in [1, 4] {
        let answer =
            Answer { identity: Identity::new(None, Validator::Unknown), cut: None, ends: None, ranges: true };
        let done = job(&data(), Caps::RANGES, connections, &[answer]);
        done.result.unwrap();
        assert_eq!((done.got, done.asked.len()), (data(), 1));
    }
}

#[test]
fn an_answer_that_ends_before_the_known_length_was_cut() {
    for caps in [Caps::RANGES, Caps::STREAM] {
        let known =
            Answer { identity: strong(Some(LEN)), cut: Some((0, Kind::Reset)), ends: None, ranges: false };
        let early = |at| Answer { identity: strong(None), cut: None, ends: Some(at), ranges: false };
        let whole = Answer { cut: None, ..known.clone() };
        let done = job(&data(), caps, 1, &[known.clone(), early(LEN / 2), early(LEN / 4), whole]);
        done.result.unwrap();
        assert_eq!(done.got, data());
        // Always: given up after as many tries as anything else.
        let done = job(&data(), caps, 1, &[known, early(LEN / 2)]);
        assert_eq!(done.result.unwrap_err().kind(), Kind::Reset);
        assert!(done.asked.len() <= 12, "{:?}", done.asked);
    }
}
