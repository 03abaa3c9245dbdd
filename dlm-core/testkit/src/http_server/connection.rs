//! One connection, from its first byte to its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::bucket::Bucket;
use super::request::Request;
use super::script::perform;
use super::shared::Shared;
use super::stream::Stream;

/// Largest request head that is read.
const HEAD: usize = 256 << 10;
/// Largest request body that is read.
const BODY: usize = 1 << 20;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_mins(2);

/// Serves one connection. How it ends is no news: peers that vanish are what this server is for.
pub(super) async fn serve(tcp: TcpStream, origin: usize, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let open = shared.opened();
    let _ = tcp.set_nodelay(true);
    let stream = match tls {
        None => Stream::Plain(tcp),
        Some(acceptor) => match timeout(IDLE, acceptor.accept(tcp)).await {
            Ok(Ok(s)) => Stream::Tls(Box::new(s)),
            _ => return,
        },
    };
    let _ = requests(stream, origin, open.id, &shared).await;
}

async fn requests(mut stream: Stream, origin: usize, connection: u64, shared: &Shared) -> io::Result<()> {
    let mut buf = BytesMut::with_capacity(8 << 10);
    while let Some(mut request) = read(&mut stream, &mut buf).await? {
        (request.origin, request.connection) = (origin, connection);
        let _busy = shared.admit(&mut request);
        let asked_to_close = request.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        let answer = shared.handler.answer(&request);
        let bucket = answer.limit().map(Bucket::new);
        for step in answer.steps(request.method != "HEAD") {
            if !perform(step, &mut stream, shared, bucket.as_ref()).await? {
                return Ok(());
            }
        }
        if asked_to_close {
            perform(super::Step::Fin, &mut stream, shared, None).await?;
            return Ok(());
        }
    }
    Ok(())
}

/// The next request; `None` when there is none, or what came is none.
async fn read(stream: &mut Stream, buf: &mut BytesMut) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if buf.len() > HEAD || !more(stream, buf).await? {
            return Ok(None);
        }
    };
    let Some(mut request) = Request::parse(&buf[..end]) else { return Ok(None) };
    buf.advance(end + 4);
    let length = request.header("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    if length > BODY {
        return Ok(None);
    }
    while buf.len() < length {
        if !more(stream, buf).await? {
            return Ok(None);
        }
    }
    request.body = buf.split_to(length).freeze();
    Ok(Some(request))
}

async fn more(stream: &mut Stream, buf: &mut BytesMut) -> io::Result<bool> {
    match timeout(IDLE, stream.read_buf(buf)).await {
        Ok(read) => Ok(read? > 0),
        Err(_) => Ok(false),
    }
}
