//! Fetches an address and counts its bytes, to measure what the data path costs by itself.
//!
//! `count URL [TIMES]` reads through the backend, which drives each connection from its body. `count URL spawn` runs
//! hyper's connection in a task of its own instead, for comparison.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use dlm_core::{Backend, Cx, Discovery, Error, From, Kind, Locator, Result};
use dlm_http::HttpBackend;
use dlm_net::{Dialer, Endpoint, TlsConfig};
use futures::StreamExt;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url: Locator = args.next().unwrap_or_default().parse()?;
    let how = args.next().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Error::io("start", e))?;
    let dialer =
        Dialer::builder().tls(TlsConfig::builder().alpn(["http/1.1"]).insecure(true).build()).build();
    let began = Instant::now();
    let task = async move {
        if how == "spawn" {
            spawned(&url, &dialer).await
        } else {
            driven(url, dialer, how.parse().unwrap_or(1)).await
        }
    };
    let (bytes, frames) = runtime.block_on(async { tokio::spawn(task).await.map_err(|e| failed(&e))? })?;
    println!(
        "{bytes} bytes in {frames} frames, {:?}, {:.3} s on a processor",
        began.elapsed(),
        processor_time()
    );
    Ok(())
}

/// Seconds that the threads of this process have run, by the scheduler's exact account (Linux; 0 elsewhere).
fn processor_time() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let stats = threads.filter_map(|t| std::fs::read_to_string(t.path().join("schedstat")).ok());
    stats.filter_map(|s| s.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
}

fn failed(e: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Bug, "count").because(e)
}

async fn driven(url: Locator, dialer: Dialer, times: u32) -> Result<(u64, u64)> {
    let backend = HttpBackend::builder().dialer(dialer).build();
    let (mut bytes, mut frames) = (0, 0);
    for _ in 0..times {
        let mut found = backend.resolve(From::Locator(url.clone()), &Cx::new()).await?;
        while let Some(discovery) = found.next().await {
            if let Discovery::Bind(mut binding) = discovery?
                && let Some(mut body) = binding.first.take()
            {
                while let Some(data) = body.stream.next().await {
                    bytes += data?.len() as u64;
                    frames += 1;
                }
            }
        }
    }
    Ok((bytes, frames))
}

async fn spawned(url: &Locator, dialer: &Dialer) -> Result<(u64, u64)> {
    let url = url.reveal();
    let to = Endpoint::new(
        url.scheme() == "https",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or(80),
    );
    let connection = dialer.connect(&to, Duration::from_secs(5)).await?;
    let io = TokioIo::new(connection);
    let (mut send, drive) = hyper::client::conn::http1::handshake(io).await.map_err(|e| failed(&e))?;
    tokio::spawn(drive);
    let mut request = http::Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = url.path().parse().map_err(|e| failed(&e))?;
    request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
    let mut body = send.send_request(request).await.map_err(|e| failed(&e))?.into_body();
    let (mut bytes, mut frames) = (0, 0);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|e| failed(&e))?.into_data() {
            bytes += data.len() as u64;
            frames += 1;
        }
    }
    Ok((bytes, frames))
}
