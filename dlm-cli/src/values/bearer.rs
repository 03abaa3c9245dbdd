//! A bearer token, from a file: on the command line every user of the machine could read it.

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use dlm_core::{Error, Kind, Result};

/// More than any server takes in a header.
const MOST: u64 = 64 << 10;

/// A token. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Reads a token from a file, or from a pipe such as `<(pass show token)` makes. White space around it does not count.
///
/// # Errors
/// [`Kind::Invalid`]: it cannot be read, is empty, has more than one line, or is longer than 64 KiB.
pub(crate) fn token(file: &Path) -> Result<Token> {
    let wrong = |why: &dyn fmt::Display| {
        Error::new(Kind::Invalid, "use --bearer-file")
            .on(file.display())
            .because(why)
            .advise("name a file that holds the token and nothing else")
    };
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|f| f.take(MOST + 1).read_to_string(&mut text));
    read.map_err(|e| match e.kind() {
        // Of what is in it nothing is told.
        std::io::ErrorKind::InvalidData => wrong(&"it holds no text"),
        _ => wrong(&e),
    })?;
    if text.len() as u64 > MOST {
        return Err(wrong(&format_args!("it is longer than {} KiB", MOST >> 10)));
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(wrong(&"it is empty"));
    }
    if text.contains(char::is_whitespace) {
        return Err(wrong(&"it holds more than one word"));
    }
    Ok(Token(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        let read = |what: &[u8]| {
            std::fs::write(&file, what).unwrap();
            token(&file)
        };
        assert_eq!(read(b"abc.DEF-123==\n").unwrap().0, "abc.DEF-123==");
        assert_eq!(read(b"  a \r\n").unwrap().0, "a");
        for bad in [&b""[..], b"\n", b"hush hush", b"hush\nhush", b"hush\xff", &vec![b'a'; 70_000]] {
            let e = read(bad).unwrap_err();
            assert_eq!(e.kind(), Kind::Invalid);
            assert!(!e.to_string().contains("hush") && !e.to_string().contains("aaa"), "{e}");
        }
        assert_eq!(token(dir.path()).unwrap_err().kind(), Kind::Invalid);
        assert!(!format!("{:?}", read(b"hush").unwrap()).contains("hush"));
    }
}
