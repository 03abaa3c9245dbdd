//! `RelPath`: the only way to name an output file.

use std::fmt;

use crate::error::{Error, Kind, Result, is_unprintable};

/// The longest component in bytes: `.part.dlm` still fits behind it where names have at most 255.
pub const MAX_NAME: usize = 246;
/// What the journal of a partial is called. A source that could choose such a name could plant a journal for a later
/// download.
const JOURNAL: &str = ".part.dlm";
const MAX_DEPTH: usize = 64;

/// A path below the place that the caller chose: one or more plain names.
///
/// Never absolute, never with `.` or `..`, NUL, control or invisible formatting characters, a separator of any system
/// inside a name, a name that a system reserves, one that ends as dlm's own journals do (`.part.dlm`), or a name longer
/// than [`MAX_NAME`] bytes. Built by one parser; then trusted. At most 64 names.
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
    /// refused. Reads no further than the first name that is refused, or the 65th.
    ///
    /// # Errors
    /// [`Kind::Invalid`], saying which name is wrong and why; also where there is no name, or there are more than 64.
    #[allow(
        single_use_lifetimes,
        reason = "an anonymous lifetime is not allowed in an argument's impl Trait"
    )]
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
    /// kept. Gives `download` when nothing is left. Never fails, and reads only the part after the last separator.
    pub fn from_server(suggested: &str) -> Self {
        let last = suggested.rsplit(['/', '\\']).find(|s| !s.is_empty()).unwrap_or("");
        let mut name: String = last
            .chars()
            .map(|c| {
                if is_unprintable(c) || matches!(c, '<' | '>' | ':' | '"' | '|' | '?' | '*' | '\u{fffd}') {
                    '_'
                } else {
                    c
                }
            })
            .collect();
        let kept = name.trim_end_matches(['.', ' ']).len();
        name.truncate(kept);
        let kept = name.trim_start_matches(' ').len();
        name.drain(..name.len() - kept);
        if name.starts_with(['.', '-', '~']) {
            name.replace_range(..1, "_");
        }
        if is_reserved(&name) {
            name.insert(0, '_');
        }
        if is_journal(&name) {
            name.push('_');
        }
        shorten(&mut name);
        if name.chars().all(|c| c == '_') || check(&name).is_err() {
            name = "download".into();
        }
        Self(vec![name])
    }

    /// The names, first folder first: 1 to 64 of them.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The last name: 1 to [`MAX_NAME`] bytes.
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
    if is_journal(name) {
        return Err("journals of dlm end so");
    }
    Ok(())
}

/// In any case of letters: not every file system tells them apart.
fn is_journal(name: &str) -> bool {
    let at = name.len().saturating_sub(JOURNAL.len());
    name.as_bytes()[at..].eq_ignore_ascii_case(JOURNAL.as_bytes())
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
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$" | "CLOCK$")
        || numbered("COM")
        || numbered("LPT")
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
    // What the cut has laid bare must not end the name.
    let at = name[..at].trim_end_matches(['.', ' ']).len();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn server_names() {
        let long = format!("{}.tar.zst", "x".repeat(400));
        for (suggested, want) in [
            ("file.bin", "file.bin"),
            ("../../etc/passwd", "passwd"),
            ("..\\..\\evil.exe", "evil.exe"),
            ("C:\\dir\\f", "f"),
            ("c:f", "c_f"),
            ("a/b/", "b"),
            ("", "download"),
            ("..", "download"),
            ("///", "download"),
            ("???", "download"),
            (".bashrc", "_bashrc"),
            ("...", "download"),
            ("..a", "_.a"),
            ("-rf", "_rf"),
            ("~root", "_root"),
            ("  -x", "_x"),
            ("name. . ", "name"),
            ("a\u{202e}gpj.exe", "a_gpj.exe"),
            ("a\u{0}b\nc", "a_b_c"),
            ("a\u{200b}b", "a_b"),
            ("nul", "_nul"),
            ("Com1.txt", "_Com1.txt"),
            ("lpt¹", "_lpt¹"),
            ("COM10", "COM10"),
            ("conin$", "_conin$"),
            ("CON .x", "_CON .x"),
            ("x.part", "x.part"),
            ("x.part.dlm", "x.part.dlm_"),
            ("x.PART.Dlm", "x.PART.Dlm_"),
            ("x.part.dlm.", "x.part.dlm_"),
            ("données 1.pdf", "données 1.pdf"),
            (&long, &format!("{}.zst", "x".repeat(242))),
        ] {
            assert_eq!(RelPath::from_server(suggested).to_string(), want, "{suggested:?}");
        }
    }

    #[test]
    fn reserved_and_long_fits() {
        let name = format!("nul.{}", "é".repeat(121));
        assert_eq!(name.len(), MAX_NAME);
        let safe = RelPath::from_server(&name).to_string();
        assert!(safe.starts_with("_nul.é") && safe.len() <= MAX_NAME);
        let name = format!("{}.part.dlm", "x".repeat(300));
        assert!(RelPath::from_server(&name).to_string().ends_with("x.dlm_"), "{name}");
    }

    #[test]
    fn refuses() {
        for bad in [
            "",
            ".",
            "..",
            "a//b",
            "/a",
            "a/",
            "a/../b",
            "a/./b",
            "a\\b",
            "a\nb",
            "a\u{202e}b",
            "nul",
            "a/CON.txt",
            "a/b.part.dlm",
            "a\u{feff}",
            &"x".repeat(247),
            &"a/".repeat(64),
            &["a"; 65].join("/"),
        ] {
            assert_eq!(RelPath::parse(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
        assert!(RelPath::from_parts(["a/b"]).is_err() && RelPath::from_parts([]).is_err());
        for good in ["a", ".hidden/x", "-dash", "a b/c", &"x".repeat(246), &["a"; 64].join("/")] {
            assert_eq!(RelPath::parse(good).unwrap().to_string(), good);
        }
    }

    #[test]
    fn other_last_name() {
        let p = RelPath::parse("a/b").unwrap();
        assert_eq!(p.with_file_name("c").unwrap().to_string(), "a/c");
        assert_eq!((p.file_name(), p.parts().len()), ("b", 2));
        assert!(p.with_file_name("..").is_err() && p.with_file_name("c/d").is_err());
    }

    /// Text with more of what matters than chance would give.
    fn nasty() -> impl Strategy<Value = String> {
        let bit = prop_oneof![
            4 => any::<String>(),
            2 => prop::sample::select(vec![
                "/", "\\", "..", ".", "-", "~", " ", "\0", "\r\n", "nul", "COM1", ".part", ".dlm", ".part.dlm", "\u{202e}", "%2f",
                "C:", "é", "日本", ".tar.gz",
            ]).prop_map(str::to_owned),
            1 => "[a-z.é]{200,300}",
        ];
        prop::collection::vec(bit, 0..6).prop_map(|v| v.concat())
    }

    proptest! {
        #[test]
        fn from_server_always_gives_one_good_name(s in nasty()) {
            let p = RelPath::from_server(&s);
            prop_assert_eq!(p.parts().len(), 1);
            let name = p.file_name();
            prop_assert!(check(name).is_ok(), "{:?}", name);
            prop_assert!(!name.starts_with(['.', '-', '~', ' ']) && !name.ends_with(['.', ' ']), "{:?}", name);
            prop_assert_eq!(RelPath::from_server(name), p.clone());
            prop_assert_eq!(RelPath::parse(name).unwrap(), p.clone());
        }

        #[test]
        fn parse_never_leaves_the_folder(s in nasty()) {
            if let Ok(p) = RelPath::parse(&s) {
                prop_assert_eq!(p.to_string(), s);
                for part in p.parts() {
                    prop_assert!(check(part).is_ok());
                    let plain = std::path::Path::new(part).components().collect::<Vec<_>>();
                    prop_assert!(matches!(plain[..], [std::path::Component::Normal(n)] if n == part));
                }
            }
        }
    }
}
