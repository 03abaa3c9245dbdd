//! The downloads: some at a time, each watched until it ends.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use dlm_core::{Engine, Error, EventKind, FileId, JobHandle, Kind, Outcome, Result, escape};
use futures::StreamExt as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::backends;
use crate::flags::GetFlags;
use crate::meant::{self, Download, Meant, Place};
use crate::notes;
use crate::output::Output;
use crate::progress::{self, Line, Screen};
use crate::report::{self, Codes};
use crate::say::{Level, Say};
use crate::signals::Stop;
use crate::stdout;
use crate::typed::{self, Typed};

/// How often progress is told where nothing can be drawn.
const NOW_AND_THEN: Duration = Duration::from_secs(30);
/// The engine ends a cancelled job within two seconds; a disk that hangs is not waited for.
const STOPPING: Duration = Duration::from_secs(5);
/// How long threads that hang in the system are waited for at the end.
const ENDING: Duration = Duration::from_millis(500);

/// Open files that the runtime and one plain download need; the runtime panics where it gets none.
#[cfg(unix)]
const FILES: usize = 12;

/// The whole program, for this command line.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match typed::parse(args) {
        Ok(Typed::Get(flags)) => get(*flags),
        Ok(Typed::Show(text)) => match stdout::show(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                Say::new(Level::Quiet, None).error(&e);
                ExitCode::from(report::code(&e, Duration::MAX))
            }
        },
        Err(line) => {
            Say::new(Level::Quiet, None).alarm(&line);
            ExitCode::from(report::WRONG)
        }
    }
}

fn get(flags: GetFlags) -> ExitCode {
    let level = meant::level(&flags);
    let say = Say::new(level, None);
    let failed = |e: &Error| {
        say.error(e);
        ExitCode::from(report::code(e, Duration::MAX))
    };
    let meant = match Meant::new(flags) {
        Ok(meant) => meant,
        Err(e) => return failed(&e),
    };
    if meant.trust.insecure {
        say.alarm("WARNING: --insecure: TLS is not verified. Anybody on the way can read and change what is downloaded");
    }
    if let Err(e) = room() {
        return failed(&Error::io("start", e));
    }
    // Small on purpose: two workers move more than a fast network brings. The engine's disk work may block a few more.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return failed(&Error::io("start threads", e)),
    };
    let code = runtime.block_on(all(meant, level));
    runtime.shutdown_timeout(ENDING);
    ExitCode::from(code)
}

/// Whether enough files can be opened to begin at all.
#[cfg(unix)]
fn room() -> std::io::Result<()> {
    use std::os::fd::AsFd as _;
    let any = std::io::stderr();
    (0..FILES).map(|_| any.as_fd().try_clone_to_owned()).collect::<std::io::Result<Vec<_>>>().map(drop)
}

/// Elsewhere there is no such limit.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on unix")]
fn room() -> std::io::Result<()> {
    Ok(())
}

/// What the downloads share.
#[derive(Debug)]
struct Shared {
    engine: Engine,
    say: Say,
    stop: Stop,
}

/// How one download ended.
#[derive(Debug)]
enum End {
    Done,
    Failed(u8),
    Stopped,
}

async fn all(meant: Meant, level: Level) -> u8 {
    let plain = Say::new(level, None);
    let failed_early = |e: &Error| {
        plain.error(e);
        report::code(e, Duration::MAX)
    };
    let stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(e) => return failed_early(&e),
    };
    let kept = meant.downloads.iter().flatten().any(|d| d.place != Place::Stdout);
    let drawn = level != Level::Quiet && (kept || !std::io::stdout().is_terminal());
    let screen = if drawn { Screen::find() } else { None };
    let say = Say::new(level, screen);
    let engine = match backends::engine(&meant.trust, meant.limit_rate, &say) {
        Ok(engine) => engine,
        Err(e) => return failed_early(&e),
    };
    let shared = Shared { engine, say, stop };

    let mut codes = Codes::default();
    let mut stopped = false;
    let mut ends = futures::stream::iter(meant.downloads)
        .map(|download| {
            let shared = &shared;
            async move {
                match download {
                    Ok(download) => Box::pin(one(download, shared)).await,
                    Err(e) => failed(shared, &e, Duration::MAX),
                }
            }
        })
        .buffer_unordered(meant.jobs);
    while let Some(end) = ends.next().await {
        match end {
            End::Done => {}
            End::Failed(code) => codes.add(code),
            End::Stopped => stopped = true,
        }
    }
    drop(ends);
    match shared.stop.seen() {
        Some(signal) if stopped => {
            let more = if kept { ". What came is kept: run the same command again to go on" } else { "" };
            shared.say.note(Level::Normal, &format!("stopped{more}"));
            signal.code()
        }
        _ => codes.all(),
    }
}

fn failed(shared: &Shared, e: &Error, patience: Duration) -> End {
    shared.say.error(e);
    End::Failed(report::code(e, patience))
}

/// One download, from its start to its last line.
async fn one(download: Download, shared: &Shared) -> End {
    if shared.stop.seen().is_some() {
        return End::Stopped;
    }
    let patience = download.spec.max_pause;
    let output = match Output::new(&download) {
        Ok(output) => output,
        Err(e) => return failed(shared, &e, patience),
    };
    let mut name = first_name(&download);
    let alone = download.spec.mirrors.is_empty();
    let handle = shared.engine.start(download.spec, output.sink.clone(), output.journal.clone());
    match watch(handle, &output, &mut name, alone, shared).await {
        Some(Ok(outcome)) => {
            notes::done(&shared.say, &name, &output, &outcome);
            End::Done
        }
        Some(Err(e)) if e.kind() == Kind::Cancelled && shared.stop.seen().is_some() => End::Stopped,
        Some(Err(e)) => failed(shared, &e, patience),
        None => End::Stopped,
    }
}

/// What a download is called before its source was asked; escaped.
fn first_name(download: &Download) -> String {
    match &download.place {
        Place::File { name, .. } => escape(&name.to_string_lossy()),
        Place::Folder { guess, .. } => escape(guess),
        Place::Stdout => {
            escape(&download.spec.locator.file_name().unwrap_or_else(|| "standard output".to_owned()))
        }
    }
}

/// Follows a job to its end: draws, tells, and stops it when a signal comes. `None`: it did not stop in time.
async fn watch(
    mut handle: JobHandle,
    output: &Output,
    name: &mut String,
    alone: bool,
    shared: &Shared,
) -> Option<Result<Outcome>> {
    let say = &shared.say;
    let mut line = say.screen().and_then(Line::new);
    let period = if line.is_some() { progress::REDRAW } else { NOW_AND_THEN };
    let mut tick = interval_at(Instant::now() + period, period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let snapshot = handle.snapshot();
    let mut events = handle.events();
    let (mut more, mut stopping, mut first) = (true, false, None);
    let mut stop = shared.stop.clone();
    let too_late = sleep(Duration::MAX);
    tokio::pin!(too_late);
    loop {
        // Losing branches: outcome, events, signals and ticks are still there at the next turn.
        tokio::select! {
            biased;
            () = stop.wait(), if !stopping => {
                stopping = true;
                handle.cancel();
                too_late.as_mut().reset(Instant::now() + STOPPING);
            }
            event = events.next(), if more => match event {
                Some(event) => {
                    if let EventKind::Found { file, path, .. } = &event.kind
                        && first.is_none()
                    {
                        first = Some(*file);
                        // A name that the user gave stays.
                        if output.is_named_by_source() {
                            *name = escape(path);
                        }
                    }
                    settle(name, first, output);
                    notes::tell(say, name, alone, &event.kind);
                }
                None => more = false,
            },
            outcome = handle.outcome() => return Some(outcome),
            _ = tick.tick() => {
                let now = snapshot.borrow().clone();
                settle(name, first, output);
                match &mut line {
                    Some(line) => line.show(name, &now),
                    None => say.done(&format!("{name}  {}", progress::words(&now))),
                }
            }
            () = &mut too_late, if stopping => return None,
        }
    }
}

/// Takes over the name that the sink settled on, once it has.
fn settle(name: &mut String, first: Option<FileId>, output: &Output) {
    if let Some(settled) = first.and_then(|file| output.name_of(file)) {
        *name = settled;
    }
}
