//! A scripted server, and what a test wants to know of an answer.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a panic is a report")]

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlm_core::{
    Backend, Body, Caps, Cx, Discovery, Error, From, Identity, Kind, Locator, Options, RangeSource, Result,
    Seek, Span, Target, Timeouts, Validator,
};
use dlm_http::{HttpBackend, HttpOptions};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One step of a script.
#[derive(Clone)]
pub enum Step {
    Send(Vec<u8>),
    Sleep(Duration),
    /// Sends this over and over, until the peer closes.
    Flood(Vec<u8>),
    Close,
    /// Closes so that the peer sees a reset.
    Reset,
}

/// What a request looked like.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which connection it came by, from 0.
    pub connection: usize,
    pub head: String,
}

impl Seen {
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|l| l.split_once(": "));
        lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }
}

pub struct Server {
    pub addr: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
}

/// Sends this and keeps the connection open.
pub fn say(text: impl AsRef<[u8]>) -> Vec<Step> {
    vec![Step::Send(text.as_ref().to_vec())]
}

/// Sends this and closes.
pub fn say_and_close(text: impl AsRef<[u8]>) -> Vec<Step> {
    vec![Step::Send(text.as_ref().to_vec()), Step::Close]
}

impl Server {
    /// A server that answers each request by a script.
    pub async fn start(answer: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (log, count, answer) = (seen.clone(), connections.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let n = count.fetch_add(1, Ordering::SeqCst);
                let (log, answer) = (log.clone(), answer.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, n, &log, &*answer).await;
                });
            }
        });
        Self { addr, seen, connections }
    }

    /// A server that says the same to everybody.
    pub async fn saying(text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref().to_vec();
        Self::start(move |_| say(&text)).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    log: &Mutex<Vec<Seen>>,
    answer: &(dyn Fn(&Seen) -> Vec<Step> + Send + Sync),
) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await? == 0 {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let seen = Seen { connection, head: String::from_utf8(head).unwrap() };
        let steps = answer(&seen);
        log.lock().unwrap().push(seen);
        for step in steps {
            match step {
                Step::Send(bytes) => stream.write_all(&bytes).await?,
                Step::Sleep(time) => tokio::time::sleep(time).await,
                Step::Flood(bytes) => loop {
                    stream.write_all(&bytes).await?;
                },
                Step::Close => {
                    stream.shutdown().await?;
                    // Wait for the peer, so that unread bytes do not turn the close into a reset.
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                    return Ok(());
                }
                Step::Reset => {
                    stream.set_zero_linger()?;
                    return Ok(());
                }
            }
        }
    }
}

pub fn locator(text: &str) -> Locator {
    text.parse().unwrap()
}

/// Short time limits, and these options.
pub fn cx(options: Option<HttpOptions>) -> Cx {
    let mut all = Options::new();
    if let Some(o) = options {
        all.insert(o);
    }
    Cx::new()
        .with_timeouts(Timeouts::new(Duration::from_secs(1), Duration::from_millis(700)))
        .with_options(Arc::new(all))
}

/// What resolving told.
#[derive(Debug)]
pub struct Found {
    pub name: String,
    pub len: Option<u64>,
    pub mtime: bool,
    pub caps: Caps,
    pub identity: Identity,
    pub at: Span,
    pub target: Target,
    pub label: String,
    pub body: Result<Vec<u8>>,
}

pub async fn resolve(backend: &HttpBackend, url: &str, cx: &Cx) -> Result<Found> {
    let mut stream = backend.resolve(From::Locator(locator(url)), cx).await?;
    let (mut name, mut len, mut mtime) = (String::new(), None, false);
    while let Some(found) = stream.next().await {
        match found? {
            Discovery::Object(o) => {
                assert_eq!(&*o.key, "");
                len = o.len;
            }
            Discovery::File(f) => {
                name = f.path.to_string();
                mtime = f.mtime.is_some();
            }
            Discovery::Bind(b) => {
                let first = b.first.unwrap();
                let at = first.at;
                let label = b.source.info().label.to_string();
                let body = collect(first).await;
                return Ok(Found {
                    name,
                    len,
                    mtime,
                    caps: b.caps,
                    identity: b.identity,
                    at,
                    target: b.target,
                    label,
                    body,
                });
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no binding")
}

/// A source for `url`, as resolving it gives.
pub async fn open(backend: &HttpBackend, url: &str, want: Span, held: &Identity, cx: &Cx) -> Result<Body> {
    let target = Target::new(cx.new_object(), locator(url));
    backend.origin(&locator(url)).unwrap().get().open(&target, want, held, cx).await
}

pub async fn collect(body: Body) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut stream = body.stream;
    while let Some(data) = stream.next().await {
        out.extend_from_slice(&data?);
    }
    Ok(out)
}

/// The error's kind, of whatever should have failed.
pub fn kind<T: Debug>(result: Result<T>) -> Kind {
    result.unwrap_err().kind()
}

pub fn error<T: Debug>(result: Result<T>) -> Error {
    result.unwrap_err()
}

pub fn ranges(caps: Caps) -> bool {
    caps.seek == Seek::Any
}

pub fn strong(tag: &str) -> Validator {
    Validator::Strong(tag.into())
}
