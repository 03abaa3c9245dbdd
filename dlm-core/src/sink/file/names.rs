//! Names of final files, partials and journals.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::error::{Error, Kind, Result};
use crate::path::MAX_NAME;

/// How many numbered names are tried before the folder is called full.
pub(super) const MAX_NUMBER: u32 = 9_999;

/// The name of what holds the bytes.
pub(crate) fn part(name: &OsStr) -> OsString {
    with(name, ".part")
}

/// The name of what makes them resumable.
pub(crate) fn journal(name: &OsStr) -> OsString {
    with(name, ".part.dlm")
}

fn with(name: &OsStr, ending: &str) -> OsString {
    let mut n = name.to_owned();
    n.push(ending);
    n
}

/// Checks a name that the user gave. Freer than [`RelPath`](crate::RelPath): what the user wants is meant, be it
/// hidden, not UTF-8 or strange elsewhere. Only what cannot work is refused.
pub(super) fn check(name: &OsStr) -> Result<()> {
    let b = name.as_bytes();
    let why = match b {
        b"" => "it is empty",
        b"." | b".." => "it is a folder",
        _ if b.contains(&b'/') => "it holds a path separator",
        _ if b.contains(&0) => "it holds a NUL",
        _ if b.len() > MAX_NAME => "it is longer than 246 bytes, and .part.dlm has to fit behind it",
        _ => return Ok(()),
    };
    Err(Error::new(Kind::Invalid, "use the file name")
        .on(name.display())
        .because(why)
        .advise("choose another name"))
}

/// `name.bin` as `name.3.bin`, cut so that it still is no longer than [`MAX_NAME`].
pub(super) fn numbered(name: &OsStr, n: u32) -> OsString {
    let b = name.as_bytes();
    let dot = |b: &[u8]| b.iter().rposition(|c| *c == b'.').filter(|i| *i > 0 && b.len() - i <= 20);
    let at = match dot(b) {
        Some(i) if b[..i].to_ascii_lowercase().ends_with(b".tar") && i > 4 => i - 4,
        Some(i) => i,
        None => b.len(),
    };
    let (stem, ending) = b.split_at(at);
    let number = format!(".{n}");
    let mut keep = stem.len().min(MAX_NAME.saturating_sub(ending.len() + number.len()));
    // Not in the middle of a UTF-8 character.
    while keep > 0 && keep < stem.len() && stem[keep] & 0xc0 == 0x80 {
        keep -= 1;
    }
    let mut out = stem[..keep].to_vec();
    out.extend_from_slice(number.as_bytes());
    out.extend_from_slice(ending);
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_before_the_ending() {
        for (name, want) in [
            ("a.bin", "a.1.bin"),
            ("a", "a.1"),
            (".hidden", ".hidden.1"),
            ("a.tar.gz", "a.1.tar.gz"),
            (".tar.gz", ".tar.1.gz"),
            ("v1.2 of a thing without an ending", "v1.2 of a thing without an ending.1"),
        ] {
            assert_eq!(numbered(OsStr::new(name), 1), want, "{name}");
        }
        let long = format!("{}.bin", "é".repeat(121));
        let n = numbered(OsStr::new(&long), 12);
        assert!(n.len() <= MAX_NAME && n.to_str().unwrap().ends_with(".12.bin"), "{n:?}");
    }

    #[test]
    fn the_user_may_name_nearly_anything() {
        for good in ["-", "-x", ".hidden", "a\nb", "CON", "~"] {
            assert!(check(OsStr::new(good)).is_ok(), "{good:?}");
        }
        assert!(check(OsStr::from_bytes(b"\xff\xfe")).is_ok());
        for bad in ["", ".", "..", "a/b", "a\0b", &"x".repeat(247)] {
            assert_eq!(check(OsStr::new(bad)).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
    }
}
