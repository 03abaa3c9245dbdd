//! A progress display of one's own: a line that is drawn from snapshots, and a line for each event that matters.
//!
//! ```text
//! cargo run -p dlm-http --example progress -- https://host/file [FOLDER]
//! ```
#![expect(clippy::print_stderr, reason = "an example talks to its user")]

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use dlm_core::{Engine, EventKind, FileSink, JobHandle, JobSpec, Outcome, Result, Snapshot};
use dlm_http::HttpBackend;

const WIDTH: usize = 30;

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (address, folder) = (args.next().unwrap_or_default(), args.next().unwrap_or_else(|| ".".into()));
    match download(&address, &folder).await {
        Ok(outcome) => {
            clear();
            eprintln!("{} bytes in {:.1} s", outcome.bytes, outcome.elapsed.as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(e) => {
            clear();
            // One line, safe to print: texts from the network are escaped, secrets are masked.
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

async fn download(address: &str, folder: &str) -> Result<Outcome> {
    let spec = JobSpec::new(address.parse()?);
    let engine = Engine::builder().backend(HttpBackend::builder().build()).build();
    let sink = FileSink::builder(folder).build()?;
    let journal = sink.journal();
    follow(engine.start(spec, sink, journal)).await
}

/// Shows a job until it ends.
async fn follow(mut job: JobHandle) -> Result<Outcome> {
    // A snapshot is a value that is replaced: looking at it seldom or often costs the engine nothing.
    let snapshot = job.snapshot();
    // Events are a bounded queue: a reader that is too slow is told how many it missed.
    let mut events = job.events();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut more = true;
    loop {
        // Whatever loses is still there at the next turn.
        tokio::select! {
            outcome = job.outcome() => return outcome,
            event = events.next(), if more => match event {
                Some(event) => tell(&event.kind),
                None => more = false,
            },
            _ = tick.tick() => draw(&snapshot.borrow()),
        }
    }
}

fn draw(now: &Snapshot) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let line = match now.total {
        Some(total) if total > 0 => {
            let full = (now.done.min(total) as f64 / total as f64 * WIDTH as f64) as usize;
            let bar = format!("{}{}", "#".repeat(full), ".".repeat(WIDTH - full));
            format!("[{bar}] {:.1} of {:.1} MiB", mib(now.done), mib(total))
        }
        _ => format!("{:?}, {:.1} MiB", now.state, mib(now.done)),
    };
    eprint!("\r\x1b[K{line}, {:.1} MiB/s, {} connections", mib(now.speed), now.leases);
    // A display that cannot be drawn is no reason to stop.
    let _ = std::io::stderr().flush();
}

fn clear() {
    eprint!("\r\x1b[K");
}

fn tell(event: &EventKind) {
    let line = match event {
        EventKind::Found { path, .. } => format!("found {path}"),
        EventKind::Resumed { bytes, damaged, .. } => {
            format!("goes on: {bytes} bytes are good, {damaged} are not")
        }
        EventKind::Restarted { why, .. } => format!("starts over: {why}"),
        EventKind::Retrying { error, after, .. } => format!("{error}; again in {:.1} s", after.as_secs_f64()),
        EventKind::SourceFailed { error, .. } => format!("given up: {error}"),
        EventKind::Blamed { suspects, range, .. } => {
            format!("bytes {}..{} from {} were wrong", range.start, range.end, suspects.join(" or "))
        }
        _ => return,
    };
    clear();
    eprintln!("{line}");
}
