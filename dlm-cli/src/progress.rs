//! The progress display: one calm line for each file that is being fetched, on a terminal and nowhere else.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use console::{Alignment, Term, measure_text_width, pad_str, truncate_str};
use dlm_core::{JobState, Snapshot};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::text;

/// How often a line is looked at, and at most drawn.
pub(crate) const REDRAW: Duration = Duration::from_millis(100);
/// Most lines at a time; a terminal that is full of them scrolls.
const MOST_LINES: usize = 12;
/// The width of a terminal that does not tell.
const WIDTH: usize = 80;
/// Lines that are wider are hard to follow.
const MOST_WIDTH: usize = 120;

/// The terminal on standard error.
#[derive(Debug)]
pub(crate) struct Screen {
    multi: MultiProgress,
    term: Term,
    lines: std::sync::atomic::AtomicUsize,
}

impl Screen {
    /// `None` where standard error is no terminal, or one that cannot move its cursor.
    pub(crate) fn find() -> Option<Arc<Self>> {
        let able = std::env::var_os("TERM").is_none_or(|t| t != "dumb" && !t.is_empty());
        if !able || !std::io::stderr().is_terminal() {
            return None;
        }
        let target = ProgressDrawTarget::stderr_with_hz(10);
        Some(Arc::new(Self {
            multi: MultiProgress::with_draw_target(target),
            term: Term::stderr(),
            lines: 0.into(),
        }))
    }

    /// Runs `write`, which prints lines, with the display out of the way.
    pub(crate) fn around(&self, write: impl FnOnce()) {
        self.multi.suspend(write);
    }

    fn width(&self) -> usize {
        self.term.size_checked().map_or(WIDTH, |(_, columns)| usize::from(columns))
    }
}

/// The line of one file. It is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    screen: Arc<Screen>,
    bar: ProgressBar,
    ticks: usize,
}

impl Line {
    /// A new line at the end; `None` when there are many already.
    pub(crate) fn new(screen: &Arc<Screen>) -> Option<Self> {
        use std::sync::atomic::Ordering::Relaxed;
        if screen.lines.fetch_add(1, Relaxed) >= MOST_LINES {
            screen.lines.fetch_sub(1, Relaxed);
            return None;
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Some(Self { screen: Arc::clone(screen), bar: screen.multi.add(bar), ticks: 0 })
    }

    /// Draws how far the file is.
    pub(crate) fn show(&mut self, name: &str, now: &Snapshot) {
        self.ticks += 1;
        // The last column stays free: some terminals wrap when it is written.
        self.bar.set_message(render(name, now, self.screen.width().saturating_sub(1), self.ticks));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.screen.multi.remove(&self.bar);
        self.screen.lines.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// How far a file is, in plain words: `12.3 MiB of 100.0 MiB, 3.2 MiB/s`.
pub(crate) fn words(now: &Snapshot) -> String {
    let done = text::bytes(now.done);
    let of = now.total.map(|t| format!(" of {}", text::bytes(t))).unwrap_or_default();
    format!("{done}{of}, {}/s", text::bytes(now.speed))
}

/// One line of at most `width` columns: the name on the left, the figures on the right, in columns that stand still.
/// `name` is escaped already.
fn render(name: &str, now: &Snapshot, width: usize, ticks: usize) -> String {
    let width = width.min(MOST_WIDTH);
    let spin = ["|", "/", "-", "\\"][ticks % 4];
    let (done, speed) = (text::bytes(now.done), text::bytes(now.speed));
    let right = match (now.state, now.total) {
        (JobState::Resolving, _) => format!("{spin} asking the source"),
        (JobState::Checking, _) => format!("{spin} checking what is there"),
        (JobState::Verifying, _) => format!("{spin} {done}  verifying"),
        (_, Some(total)) => {
            let left =
                total.saturating_sub(now.done).checked_div(now.speed).map_or("-".to_owned(), text::clock);
            format!("{done:>10} / {:<10}{speed:>10}/s{left:>8}", text::bytes(total))
        }
        (_, None) => format!("{spin} {done:>10}  {speed:>10}/s"),
    };
    let room = width.saturating_sub(measure_text_width(&right) + 2);
    if room < 4 {
        return truncate_str(&right, width, "").into_owned();
    }
    // The bar takes half of what is left, and is the first to go when that is little.
    let bar = match now.total {
        Some(total) if now.state == JobState::Running && room >= 24 => {
            format!("{}  ", bar(now.done, total, (room / 2).clamp(10, 30)))
        }
        _ => String::new(),
    };
    let room = room - bar.len();
    let name = pad_str(name, room, Alignment::Left, Some("…"));
    format!("{name}  {bar}{right}")
}

/// `[======>     ]`, this many columns wide.
fn bar(done: u64, total: u64, width: usize) -> String {
    let inner = width - 2;
    let full = if total == 0 {
        inner
    } else {
        (u128::from(done.min(total)) * inner as u128 / u128::from(total)) as usize
    };
    let head = if full < inner { ">" } else { "" };
    let empty = inner - full - head.len();
    format!("[{}{head}{}]", "=".repeat(full), " ".repeat(empty))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(state: JobState, done: u64, total: Option<u64>, speed: u64) -> Snapshot {
        let mut s = Snapshot::default();
        (s.state, s.done, s.total, s.speed) = (state, done, total, speed);
        s
    }

    #[test]
    fn shows_all_there_is() {
        let now = at(JobState::Running, 50 << 20, Some(100 << 20), 10 << 20);
        assert_eq!(
            render("file.bin", &now, 79, 0),
            "file.bin         [=======>       ]    50.0 MiB / 100.0 MiB   10.0 MiB/s    0:05"
        );
        let now = at(JobState::Running, 5 << 20, None, 0);
        assert_eq!(render("file.bin", &now, 50, 1), "file.bin                /    5.0 MiB         0 B/s");
        assert_eq!(render("f", &Snapshot::default(), 30, 2), "f          - asking the source");
    }

    #[test]
    fn fits_every_width() {
        let long = "名前".repeat(60);
        for name in ["", "a", "some-file-with-a-rather-long-name-0.1.2.tar.gz", &long] {
            for total in [None, Some(0), Some(1), Some(u64::MAX)] {
                for state in [JobState::Resolving, JobState::Running, JobState::Verifying] {
                    for width in 0..200 {
                        let line = render(name, &at(state, 1 << 40, total, 1 << 30), width, 0);
                        assert!(measure_text_width(&line) <= width, "{width}: {line:?}");
                    }
                }
            }
        }
    }
}
