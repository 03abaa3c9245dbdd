//! Credentials: `NAME[:PASSWORD]`, and where the password comes from when it is not there.

use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal as _;

use dlm_core::{Error, Kind, Result, escape};

/// The environment variable that holds the password.
const VARIABLE: &str = "DLM_PASSWORD";

/// A name and a password. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) name: String,
    pub(crate) password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(***)")
    }
}

/// Reads `NAME[:PASSWORD]`; a password that is not there is taken from `password`, called with the name.
///
/// # Errors
/// [`Kind::Invalid`]: there is no name, something holds control characters or is not UTF-8, or `password` fails.
pub(crate) fn credentials(
    text: &OsStr,
    password: impl FnOnce(&str) -> Result<String>,
) -> Result<Credentials> {
    let wrong = |why: &str| {
        Error::new(Kind::Invalid, "use --user")
            .because(why)
            .advise("write --user NAME, and the password in DLM_PASSWORD")
    };
    let text = text.to_str().ok_or_else(|| wrong("it is not UTF-8"))?;
    let (name, given) = match text.split_once(':') {
        Some((name, given)) => (name, Some(given)),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(wrong("there is no name"));
    }
    if name.chars().any(char::is_control) {
        return Err(wrong("the name holds control characters"));
    }
    let password = match given {
        Some(given) => given.to_owned(),
        None => password(name)?,
    };
    if password.chars().any(char::is_control) {
        return Err(wrong("the password holds control characters"));
    }
    Ok(Credentials { name: name.to_owned(), password })
}

/// The password from the environment, else from a person at a terminal, who does not see it being typed.
///
/// Waits for the person as long as it takes.
///
/// # Errors
/// [`Kind::Invalid`]: it is not in the environment, and there is no terminal to ask on.
pub(crate) fn find_password(name: &str) -> Result<String> {
    let wrong = |why: &str| {
        Error::new(Kind::Invalid, "log in as")
            .on(name)
            .because(why)
            .advise("put the password into the environment variable DLM_PASSWORD")
    };
    match std::env::var(VARIABLE) {
        Ok(password) => return Ok(password),
        Err(std::env::VarError::NotUnicode(_)) => return Err(wrong("DLM_PASSWORD is not UTF-8")),
        Err(std::env::VarError::NotPresent) => {}
    }
    if !std::io::stderr().is_terminal() {
        return Err(wrong("no password was given, and there is no terminal to ask on"));
    }
    rpassword::prompt_password(format!("Password of {}: ", escape(name)))
        .map_err(|e| wrong("the password could not be asked for").caused_by(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Credentials> {
        credentials(OsStr::new(text), |_| Ok("asked".into()))
    }

    #[test]
    fn reads_credentials() {
        for (text, name, password) in [
            ("me:pw", "me", "pw"),
            ("me", "me", "asked"),
            ("me:", "me", ""),
            ("me:a:b", "me", "a:b"),
            ("ü:ß", "ü", "ß"),
        ] {
            let c = read(text).unwrap();
            assert_eq!((c.name.as_str(), c.password.as_str()), (name, password), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_keeps_secrets() {
        for text in ["", ":hunter2", "a\nb:hunter2", "me:hunter2\r\n"] {
            let e = read(text).unwrap_err();
            assert_eq!(e.kind(), Kind::Invalid);
            assert!(!format!("{e} {e:?}").contains("hunter2"), "{text}");
        }
        assert_eq!(format!("{:?}", read("me:hunter2").unwrap()), "Credentials(***)");
    }
}
