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
    let args: Vec<OsString> = args.into_iter().collect();
    match Flags::try_parse_from(&args) {
        Ok(Flags { command: Some(Command::Get(get)), .. } | Flags { command: None, get }) => {
            Ok(Typed::Get(Box::new(get)))
        }
        Err(e) => match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Typed::Show(e.to_string())),
            _ => Err(one_line(&masked(e.to_string(), &args))),
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
    format!("{}. See 'dlm --help'", escape(&out))
}

/// With the secrets of every address among the words masked: one that stands where a number should is repeated by clap,
/// with or without the option that it was attached to.
fn masked(mut text: String, args: &[OsString]) -> String {
    for arg in args.iter().skip(1) {
        let arg = arg.to_string_lossy();
        let attached = arg.split_once('=').map(|(_, value)| value);
        let short = arg.strip_prefix('-').and_then(|a| a.get(1..));
        for word in [Some(&*arg), attached, short].into_iter().flatten() {
            // Options and numbers are no addresses, and one of a single letter would be found everywhere.
            let shown = Locator::mask(word);
            if word.len() > 1 && !word.starts_with('-') && shown != word {
                text = text.replace(word, &shown);
            }
        }
    }
    text
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
            &["-x", "me:hunter2@h/f"],
            &["-xme:hunter2@h/f"],
            &["--connections=http://me:hunt'er2@h/f"],
            &["-x", "http://me:hunter2'@h/f?a='hunter2"],
            &["-x", "http://me:\thunter2@h/f"],
            &["-x", "Authorization: hunter2"],
            &["http://h/f", "-H", "Authorization: hunter2", "--nope=hunter2"],
        ] {
            let line = get(args).unwrap_err();
            assert!(!line.contains("hunter2") && !line.contains("er2"), "{line}");
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
