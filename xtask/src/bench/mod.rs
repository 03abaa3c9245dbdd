//! `cargo xtask bench`: the release build beside its peers, at one nginx on loopback.
//!
//! Small on purpose. It shows what the programs cost where the network costs nothing, so a change that makes dlm slower
//! or hungrier is seen; it says nothing about the networks that people have. Rounds alternate between the programs, so
//! that what else the machine does falls on all of them.

mod measure;
mod site;
mod table;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::command::{Result, cargo, run as build, target};
use crate::tools;

pub(crate) use measure::{MEASURED, measured};
use measure::{Took, took};
use site::{Interrupted, Site};

const ROUNDS: usize = 5;

/// What is downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Gibibyte,
    Mebibyte,
}

impl Size {
    const ALL: [Self; 2] = [Self::Gibibyte, Self::Mebibyte];

    fn bytes(self) -> u64 {
        match self {
            Self::Gibibyte => 1 << 30,
            Self::Mebibyte => 1 << 20,
        }
    }
    /// Also its name at the server.
    fn text(self) -> &'static str {
        match self {
            Self::Gibibyte => "1GiB",
            Self::Mebibyte => "1MiB",
        }
    }
}

/// The programs that take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Dlm,
    Curl,
    Aria2c,
}

/// One kind of run: who fetches what, with which words.
#[derive(Debug)]
struct Case {
    peer: Peer,
    words: &'static [&'static str],
    size: Size,
}

/// In the order in which a round does them.
const CASES: [Case; 7] = [
    Case { peer: Peer::Dlm, words: &["-x1"], size: Size::Gibibyte },
    Case { peer: Peer::Curl, words: &[], size: Size::Gibibyte },
    Case { peer: Peer::Dlm, words: &["-x4"], size: Size::Gibibyte },
    Case {
        peer: Peer::Aria2c,
        words: &["-x4", "-s4", "-k1M", "--file-allocation=none"],
        size: Size::Gibibyte,
    },
    Case { peer: Peer::Dlm, words: &["-x16"], size: Size::Gibibyte },
    Case { peer: Peer::Dlm, words: &[], size: Size::Mebibyte },
    Case { peer: Peer::Curl, words: &[], size: Size::Mebibyte },
];

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Dlm => "dlm",
            Self::Curl => "curl",
            Self::Aria2c => "aria2c",
        }
    }
    /// Words that make it quiet, independent of the user's own settings, and write to this file.
    fn words(self, out: &Path) -> Vec<OsString> {
        match self {
            Self::Dlm => vec!["-q".into(), "-o".into(), out.into()],
            // The first word of curl's keeps it from its settings.
            Self::Curl => {
                ["-q", "-sS", "--fail", "-o"].map(OsString::from).into_iter().chain([out.into()]).collect()
            }
            Self::Aria2c => vec![
                "--no-conf=true".into(),
                "-q".into(),
                "-d".into(),
                out.parent().unwrap_or(Path::new(".")).into(),
                "-o".into(),
                out.file_name().unwrap_or_default().into(),
            ],
        }
    }
}

impl Case {
    fn label(&self) -> String {
        let flags: Vec<_> = self.words.iter().filter(|w| !w.starts_with("--")).copied().collect();
        format!("{} {}", self.peer.name(), flags.join(" ")).trim_end().to_owned()
    }
}

/// Does it all.
pub(crate) fn run(words: &[String]) -> Result {
    let rounds = rounds(words)?;
    let nginx = tools::find("nginx").ok_or("nginx is not installed")?;
    build(&mut cargo(["build", "--release", "-p", "dlm-cli"]))?;
    let programs: Vec<(Peer, Option<PathBuf>)> = vec![
        (Peer::Dlm, Some(target().join("release/dlm"))),
        (Peer::Curl, tools::find(Peer::Curl.name())),
        (Peer::Aria2c, tools::find(Peer::Aria2c.name())),
    ];
    let interrupted = Interrupted::watch()?;
    let site = Site::open(&nginx)?;
    println!("{rounds} rounds in {}", site.folder().display());

    let mut results: Vec<(&Case, Vec<Took>)> = CASES.iter().map(|case| (case, Vec::new())).collect();
    for round in 1..=rounds {
        println!("round {round}");
        for (case, runs) in &mut results {
            interrupted.check()?;
            let program = programs.iter().find(|(peer, _)| *peer == case.peer).and_then(|p| p.1.as_deref());
            if let Some(program) = program {
                runs.push(one(&site, case, program).map_err(|e| format!("{}: {e}", case.label()))?);
            }
        }
    }
    print!("\n{}", table::text(&results));
    for (peer, _) in programs.iter().filter(|(_, program)| program.is_none()) {
        println!("{} was not found", peer.name());
    }
    Ok(())
}

/// One run into an empty folder; what came is compared.
fn one(site: &Site, case: &Case, program: &Path) -> Result<Took> {
    let out = site.fresh_output()?;
    let mut words = case.peer.words(&out);
    words.extend(case.words.iter().map(OsString::from));
    words.push(site.url(case.size).into());
    let took = took(program, &words, site.folder())?;
    site.compare(case.size, &out)?;
    Ok(took)
}

fn rounds(words: &[String]) -> Result<usize> {
    let number = match words {
        [] => return Ok(ROUNDS),
        [word, number] if word == "--rounds" => number.as_str(),
        [word] => word.strip_prefix("--rounds=").ok_or("bench takes --rounds N")?,
        _ => return Err("bench takes --rounds N".into()),
    };
    match number.parse() {
        Ok(n) if (1..=1000).contains(&n) => Ok(n),
        _ => Err(format!("--rounds {number}: a number from 1 to 1000 is wanted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_rounds() {
        let parse = |words: &[&str]| rounds(&words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]), Ok(5));
        assert_eq!(parse(&["--rounds", "7"]), Ok(7));
        assert_eq!(parse(&["--rounds=9"]), Ok(9));
        for wrong in
            [&["--rounds"][..], &["--rounds", "0"], &["--rounds", "x"], &["7"], &["--rounds", "7", "8"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
