//! `ALGO:HEX`: what is accepted has the right length and is written back the same.
#![no_main]

use dlm_core::Digest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(digest) = text.parse::<Digest>() else { return };
    assert_eq!(digest.value().len(), digest.algorithm().size());
    let written = digest.to_string();
    assert_eq!(written.parse::<Digest>().ok().as_ref(), Some(&digest));
    let (_, hex) = text.split_once(':').expect("it has a colon");
    assert!(written.ends_with(&hex.trim().to_ascii_lowercase()));
    assert_eq!(Digest::new(digest.algorithm(), digest.value()), Some(digest));
});
