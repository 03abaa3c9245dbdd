//! `pattern://LEN/SEED`, read strictly.

use dlm_core::{Error, Identity, Kind, Locator, Result, Validator};

/// The longest pattern, in bytes: 1 PiB. No length is believed without a bound.
const MAX_LEN: u64 = 1 << 50;

/// What a locator names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) len: u64,
    pub(crate) seed: u64,
}

impl Place {
    /// # Errors
    /// [`Kind::Invalid`], saying what is wrong with it.
    pub(crate) fn of(locator: &Locator) -> Result<Self> {
        let wrong = |why: &'static str| {
            Error::new(Kind::Invalid, "understand")
                .on(locator)
                .because(why)
                .advise("write pattern://LEN/SEED, in bytes")
        };
        let len =
            digits(locator.host().unwrap_or_default()).ok_or_else(|| wrong("its length is no number"))?;
        let path = locator.reveal().path();
        let seed = path.strip_prefix('/').and_then(digits).ok_or_else(|| wrong("its seed is no number"))?;
        if len > MAX_LEN {
            return Err(wrong("it is longer than 1 PiB"));
        }
        Ok(Self { len, seed })
    }

    /// A pattern never changes, and two locators have the same bytes exactly when both numbers are equal.
    pub(crate) fn identity(self) -> Identity {
        Identity::new(Some(self.len), Validator::Strong(format!("{}/{}", self.len, self.seed).into()))
    }

    pub(crate) fn file_name(self) -> String {
        format!("pattern-{}-{}.bin", self.len, self.seed)
    }
}

/// Digits and nothing else: `u64::from_str` takes a sign too.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_right_and_refuses_the_rest() {
        let of = |s: &str| Place::of(&s.parse().unwrap());
        assert_eq!(of("pattern://1000/7").unwrap(), Place { len: 1000, seed: 7 });
        for bad in [
            "pattern://1000",
            "pattern://1000/",
            "pattern:///7",
            "pattern://1e3/7",
            "pattern://1000/-7",
            "pattern://1000/7/8",
            "pattern://99999999999999999999/7",
            "pattern://1125899906842625/7",
        ] {
            assert_eq!(of(bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }
}
