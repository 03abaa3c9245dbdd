//! What was typed: a command line of the right form.

use std::ffi::OsString;

use clap::Parser as _;
use clap::error::ErrorKind;
use dlm_core::{Locator, escape};

use crate::flags::{Command, Flags, GetFlags};

/// A command line of the right form.
#[derive(Debug)]
pub(crate) enum Typed {
    /// Download.
    Get(Box<GetFlags>),
    /// Text to show on standard output: the help, the version.
    Show(String),
}

/// Reads a command line, the program's name first.
///
/// # Errors
/// One line that says what is wrong with its form.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Typed, String> {
    match Flags::try_parse_from(args) {
        Ok(Flags { command: Some(Command::Get(get)), .. } | Flags { command: None, get }) => {
            Ok(Typed::Get(Box::new(get)))
        }
        Err(e) => match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Typed::Show(e.to_string())),
            _ => Err(one_line(&e.to_string())),
        },
    }
}

/// Clap explains in a paragraph, a tip and a usage; an error of ours is one line.
fn one_line(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().map(str::trim) {
        let line = line.strip_prefix("error: ").unwrap_or(line);
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        if line.is_empty() {
            continue;
        }
        if !out.is_empty() {
            out.push_str(if out.ends_with(':') { " " } else { "; " });
        }
        out.push_str(line);
    }
    format!("{}. See 'dlm --help'", escape(&masked(&out)))
}

/// With the secrets of every address between quotes masked: one that stands where a number should is repeated by clap.
fn masked(text: &str) -> String {
    let mask = |part: &str| match part.parse::<Locator>() {
        Ok(l) if part.contains("://") => l.to_string(),
        _ => part.to_owned(),
    };
    text.split('\'').map(mask).collect::<Vec<_>>().join("'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(args: &[&str]) -> Result<GetFlags, String> {
        match parse(std::iter::once("dlm").chain(args.iter().copied()).map(OsString::from))? {
            Typed::Get(get) => Ok(*get),
            Typed::Show(text) => Err(text),
        }
    }

    #[test]
    fn definitions_are_sound() {
        <Flags as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn get_is_implied() {
        for args in
            [&["http://h/f", "-x", "4"][..], &["get", "-x4", "http://h/f"], &["-x=4", "--", "http://h/f"]]
        {
            let flags = get(args).unwrap();
            assert_eq!(
                (flags.locators, flags.connections, flags.jobs),
                (vec![OsString::from("http://h/f")], Some(4), 8)
            );
        }
    }

    #[test]
    fn wrong_lines_are_told_in_one() {
        for (args, part) in [
            (&[][..], "LOCATOR"),
            (&["get"], "LOCATOR"),
            (&["http://h/f", "--if-exist", "skip"], "--if-exists"),
            (&["http://h/f", "--if-exists", "burn"], "rename"),
            (&["http://h/f", "-x", "0"], "--connections"),
            (&["http://h/f", "--limit-rate", "fast"], "500K"),
            (&["http://h/f", "--idle-timeout", "0"], "seconds"),
            (&["http://h/f", "-q", "-v"], "quiet"),
            (&["http://h/f", "--a\u{1b}[2Jb"], "\\u{1b}"),
        ] {
            let line = get(args).unwrap_err();
            assert!(
                line.contains(part) && !line.contains('\n') && !line.contains('\u{1b}'),
                "{args:?}: {line}"
            );
        }
    }

    #[test]
    fn secrets_are_not_repeated() {
        for args in [
            &["-x", "http://me:hunter2@h/f?sig=hunter2"][..],
            &["--if-exists", "http://me:hunter2@h/f", "http://h/f"],
            &["http://me:hunter2@h/f", "--user", "me:hunter2", "--nope"],
            &["http://h/f", "-H", "Authorization: hunter2", "--nope=hunter2"],
        ] {
            let line = get(args).unwrap_err();
            assert!(!line.contains("hunter2"), "{line}");
        }
    }

    #[test]
    fn help_and_version_are_shown() {
        assert!(get(&["--version"]).unwrap_err().starts_with(concat!("dlm ", env!("CARGO_PKG_VERSION"))));
        let (short, long) = (get(&["-h"]).unwrap_err(), get(&["--help"]).unwrap_err());
        assert!(long.contains("DLM_PASSWORD") && long.contains("Exit codes") && short.len() < long.len());
        assert!(get(&["get", "--help"]).unwrap_err().contains("DLM_PASSWORD"));
    }
}
