//! `RelPath`: the only way to name an output file.

use std::fmt;

use crate::error::{Error, Kind, Result, is_unprintable};

/// The longest component in bytes: `.part.dlm` still fits behind it where names have at most 255.
pub const MAX_NAME: usize = 246;
const MAX_DEPTH: usize = 64;

/// A path below the place that the caller chose: one or more plain names.
///
/// Never absolute, never with `.` or `..`, NUL, control or invisible formatting characters, a separator of any system
/// inside a name, a name that a system reserves, or a name longer than [`MAX_NAME`] bytes. Built by one parser; then
/// trusted.
///
/// ```
/// use dlm_core::RelPath;
/// assert_eq!(RelPath::parse("a/b.txt").unwrap().to_string(), "a/b.txt");
/// assert!(RelPath::parse("../b.txt").is_err());
/// assert_eq!(RelPath::from_server("../../.bashrc").to_string(), "_bashrc");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Vec<String>);

impl RelPath {
    /// A path of one name, which must be acceptable as it is.
    ///
    /// # Errors
    /// [`Kind::Invalid`], saying what is wrong with it.
    pub fn name(name: &str) -> Result<Self> {
        check(name).map_err(|why| refused(name, why))?;
        Ok(Self(vec![name.to_owned()]))
    }

    /// A path of several names with `/` between them, each of which must be acceptable as it is.
    ///
    /// # Errors
    /// [`Kind::Invalid`], saying what is wrong with it.
    pub fn parse(path: &str) -> Result<Self> {
        Self::from_parts(path.split('/'))
    }

    /// A path of the given names, each of which must be acceptable as it is. Names are not split: a `/` in one is
    /// refused.
    ///
    /// # Errors
    /// [`Kind::Invalid`], saying what is wrong with it.
    pub fn from_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut out = Vec::new();
        for p in parts {
            check(p).map_err(|why| refused(p, why))?;
            if out.len() == MAX_DEPTH {
                return Err(refused(p, "it lies deeper than 64 folders"));
            }
            out.push(p.to_owned());
        }
        if out.is_empty() { Err(refused("", "it is empty")) } else { Ok(Self(out)) }
    }

    /// One acceptable name made from whatever a server suggests: the part after the last separator, with each
    /// unacceptable character replaced by `_`, a leading dot, dash or tilde too, shortened to fit with its ending
    /// kept. Gives `download` when nothing is left.
    pub fn from_server(suggested: &str) -> Self {
        let last = suggested.rsplit(['/', '\\']).find(|s| !s.is_empty()).unwrap_or("");
        let mut name: String = last
            .chars()
            .map(|c| if is_unprintable(c) || matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*' | '\u{fffd}') { '_' } else { c })
            .collect();
        let kept = name.trim_end_matches(['.', ' ']).len();
        name.truncate(kept);
        let kept = name.trim_start_matches(' ').len();
        name.drain(..name.len() - kept);
        if name.starts_with(['.', '-', '~']) {
            name.replace_range(..1, "_");
        }
        shorten(&mut name);
        if is_reserved(&name) {
            name.insert(0, '_');
        }
        if name.chars().all(|c| c == '_') || check(&name).is_err() {
            name = "download".into();
        }
        Self(vec![name])
    }

    /// The names, first folder first.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The last name.
    pub fn file_name(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// The same path with another last name.
    ///
    /// # Errors
    /// [`Kind::Invalid`], saying what is wrong with the name.
    pub fn with_file_name(&self, name: &str) -> Result<Self> {
        check(name).map_err(|why| refused(name, why))?;
        let mut parts = self.0.clone();
        parts.pop();
        parts.push(name.to_owned());
        Ok(Self(parts))
    }
}

fn refused(name: &str, why: &str) -> Error {
    Error::new(Kind::Invalid, "use the file name").on(name).because(why)
}

fn check(name: &str) -> std::result::Result<(), &'static str> {
    match name {
        "" => return Err("it is empty"),
        "." | ".." => return Err("it would leave the folder"),
        _ => {}
    }
    if name.len() > MAX_NAME {
        return Err("it is longer than 246 bytes");
    }
    if name.contains(['/', '\\']) {
        return Err("it holds a path separator");
    }
    if name.chars().any(is_unprintable) {
        return Err("it holds control or invisible characters");
    }
    if is_reserved(name) {
        return Err("the name is reserved");
    }
    Ok(())
}

/// Device names of Windows, with any ending: they are no files there, and a folder is often shared.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or("").trim_end_matches(' ').to_ascii_uppercase();
    let numbered = |p: &str| {
        stem.strip_prefix(p).is_some_and(|n| {
            let mut c = n.chars();
            matches!((c.next(), c.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
        })
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$") || numbered("COM") || numbered("LPT")
}

/// Cuts a name to [`MAX_NAME`] bytes between characters, keeping an ending of up to 20 bytes.
fn shorten(name: &mut String) {
    if name.len() <= MAX_NAME {
        return;
    }
    let ending = name.rfind('.').map(|i| &name[i..]).filter(|e| e.len() <= 20).unwrap_or("").to_owned();
    let mut at = MAX_NAME - ending.len();
    while !name.is_char_boundary(at) {
        at -= 1;
    }
    name.truncate(at);
    name.push_str(&ending);
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.join("/"))
    }
}
