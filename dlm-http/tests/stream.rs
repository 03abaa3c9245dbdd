//! Whole jobs into a pipe: what has left it cannot be taken back.

#![allow(clippy::unwrap_used, reason = "a panic is a report")]

mod common;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use common::{Seen, Server, Step};
use dlm_core::{Engine, JobSpec, Kind, MemoryJournal, Outcome, Result, StreamSink};
use dlm_http::HttpBackend;
use tokio::io::AsyncWrite;

const LEN: usize = 2 << 20;

/// A pipe whose other end keeps everything. Clones share it.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn data() -> Vec<u8> {
    (0..LEN as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// All of it, in chunks, and cut after so many bytes.
fn chunked(head: &str, cut: Option<usize>) -> Vec<Step> {
    let data = data();
    let mut out = format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in data[..cut.unwrap_or(LEN)].chunks(40_000) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    if cut.is_some() {
        return vec![Step::Send(out), Step::Close];
    }
    out.extend_from_slice(b"0\r\n\r\n");
    vec![Step::Send(out)]
}

/// All of it, by its length, and cut after so many bytes.
fn plain(head: &str, cut: usize) -> Vec<Step> {
    let mut out = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {LEN}\r\n\r\n").into_bytes();
    out.extend_from_slice(&data()[..cut]);
    vec![Step::Send(out), Step::Close]
}

async fn run(
    answer: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static,
) -> (Result<Outcome>, Vec<u8>, usize) {
    let server = Server::start(move |seen: &Seen| answer(seen.connection)).await;
    let engine = Engine::builder().backend(HttpBackend::builder().build()).build();
    let pipe = Pipe::default();
    let sink = Arc::new(StreamSink::new(pipe.clone()));
    let spec = JobSpec::new(server.url("/f").parse().unwrap());
    let result = engine.start(spec, sink, Arc::new(MemoryJournal::new())).await;
    let got = pipe.0.lock().unwrap().clone();
    (result, got, server.requests().len())
}

#[tokio::test]
async fn a_cut_without_validators_is_no_change() {
    for length_is_known in [true, false] {
        let cut = move || if length_is_known { plain("", LEN / 2) } else { chunked("", Some(LEN / 2)) };
        let (result, got, requests) = run(move |_| cut()).await;
        let e = result.unwrap_err();
        assert_eq!(e.kind(), Kind::Reset, "{e}");
        assert!(
            e.to_string().contains(&format!("{} bytes have left already", got.len())),
            "{e}, not {}",
            got.len()
        );
        assert!(!got.is_empty() && data().starts_with(&got));
        assert_eq!(requests, 1, "nothing can come of another");
    }
}

#[tokio::test]
async fn a_whole_answer_with_the_same_tag_goes_on_where_the_first_was_cut() {
    let tag = "ETag: \"v1\"\r\n";
    for accepts_ranges in [true, false] {
        let head = if accepts_ranges { format!("{tag}Accept-Ranges: bytes\r\n") } else { tag.to_owned() };
        let (result, got, requests) = run(move |n| match n {
            0 => plain(&head, LEN / 2),
            1 => chunked(tag, Some(LEN / 4)),
            _ => chunked(tag, None),
        })
        .await;
        result.unwrap();
        assert!(got == data(), "{accepts_ranges}: {} bytes", got.len());
        assert!(requests >= 3, "{requests}");
    }
}

#[tokio::test]
async fn a_whole_answer_with_another_tag_is_a_change() {
    let (result, got, _) = run(|n| match n {
        0 => plain("ETag: \"v1\"\r\n", LEN / 2),
        _ => chunked("ETag: \"v2\"\r\n", None),
    })
    .await;
    assert_eq!(result.unwrap_err().kind(), Kind::Changed);
    assert!(got.len() <= LEN / 2 && data().starts_with(&got));
}
