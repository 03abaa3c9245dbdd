//! Events of a download, and its end, as lines for a person.

use std::fmt::Write as _;

use dlm_core::{EventKind, Outcome, VerifiedBy, escape};

use crate::output::Output;
use crate::say::{Level, Say};
use crate::text;

/// Says what a person should know of an event, according to how much is asked for.
///
/// `name` is escaped. `alone` says that the download has one source: its failure is told as the download's own.
pub(crate) fn tell(say: &Say, name: &str, alone: bool, event: &EventKind) {
    let note = |level, line: String| say.note(level, &format!("{name}: {line}"));
    // Of an only source the last line tells enough.
    let among_others = if alone { Level::Verbose } else { Level::Normal };
    match event {
        EventKind::Retrying { source, error, after } => {
            note(Level::Verbose, format!("{}: {error}; again in {}", escape(source), text::time(*after)));
        }
        EventKind::SourceFailed { error, .. } => {
            note(among_others, format!("warning: a source is given up: {error}"));
        }
        EventKind::Restarted { why, .. } => note(Level::Normal, format!("warning: starts over: {why}")),
        EventKind::Resumed { bytes, damaged: 0, .. } => {
            note(Level::Verbose, format!("goes on with {} from an earlier run", text::bytes(*bytes)));
        }
        EventKind::Resumed { bytes, damaged, .. } => {
            let (bytes, damaged) = (text::bytes(*bytes), text::bytes(*damaged));
            note(
                Level::Normal,
                format!(
                    "warning: goes on with {bytes} from an earlier run; {damaged} more were damaged and come again"
                ),
            );
        }
        EventKind::Blamed { suspects, range, .. } => {
            let who: Vec<_> = suspects.iter().map(|s| escape(s)).collect();
            note(
                among_others,
                format!("warning: bytes {}..{} from {} were wrong", range.start, range.end, who.join(" or ")),
            );
        }
        EventKind::Lagged { missed } => note(Level::Events, format!("{missed} events were missed")),
        EventKind::State(state) => note(Level::Events, format!("{state:?}").to_lowercase()),
        EventKind::Found { path, len, .. } => {
            let len = len.map_or_else(|| "of unknown length".to_owned(), |n| format!("{n} bytes"));
            note(Level::Events, format!("found {}, {len}", escape(path)));
        }
        EventKind::Committed { .. } => note(Level::Events, "in place".to_owned()),
        // Events that are newer than this file. Their texts are escaped where they are made.
        other => note(Level::Events, escape(&format!("{other:?}"))),
    }
}

/// Says what a person should know of an answer that is used all the same.
#[cfg(feature = "http")]
pub(crate) fn notice(say: &Say, notice: &dlm_http::Notice) {
    use dlm_http::Notice;
    match notice {
        Notice::Packed { at, coding, expected } => {
            let level = if *expected { Level::Verbose } else { Level::Normal };
            let (at, coding) = (escape(&at.to_string()), escape(coding));
            say.note(
                level,
                &format!(
                    "warning: {at} came packed ({coding}), which was not asked for; it is kept as it came"
                ),
            );
        }
        // Newer than this file. Texts in it are escaped by their `Debug`.
        other => say.note(Level::Verbose, &escape(&format!("{other:?}"))),
    }
}

/// The last line of a download that is in place; one for each of its files.
pub(crate) fn done(say: &Say, name: &str, output: &Output, outcome: &Outcome) {
    let single = outcome.files.len() == 1;
    for file in &outcome.files {
        let name = match output.name_of(file.id) {
            Some(name) => name,
            None if single => name.to_owned(),
            None => escape(&file.path),
        };
        let verified = match file.verified_by {
            VerifiedBy::Digest(algorithm) => format!(", verified by {algorithm}"),
            VerifiedBy::Pieces => ", verified piece by piece".to_owned(),
            _ => String::new(),
        };
        if file.existed {
            say.done(&format!("{name} is already there{verified}"));
        } else if single {
            say.done(&format!("{name}  {}{verified}", figures(outcome)));
        } else {
            say.done(&format!("{name}  {}{verified}", text::bytes(file.len)));
        }
    }
    if !single {
        say.done(&format!("{name}  {} files, {}", outcome.files.len(), figures(outcome)));
    }
}

/// `123.4 MiB in 3.2 s (38.6 MiB/s), 2 sources`.
fn figures(outcome: &Outcome) -> String {
    let mut out = format!("{} in {}", text::bytes(outcome.bytes), text::time(outcome.elapsed));
    if let Some(speed) = text::speed(outcome.received, outcome.elapsed).filter(|s| *s != 0) {
        let _ = write!(out, " ({}/s)", text::bytes(speed));
    }
    if outcome.resumed != 0 {
        let _ = write!(out, ", {} from an earlier run", text::bytes(outcome.resumed));
    }
    let sources = outcome.sources.iter().filter(|s| s.bytes != 0).count();
    if sources > 1 {
        let _ = write!(out, ", {sources} sources");
    }
    out
}
