//! `ETag`: what is accepted can be sent back in a header, and is the same then.
#![no_main]

use dlm_http::fuzzing::entity_tag;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    let Some(tag) = entity_tag(value) else { return };
    assert!(tag.opaque.len() >= 2 && tag.opaque.starts_with('"') && tag.opaque.ends_with('"'));
    assert!(!tag.opaque.bytes().any(|b| b.is_ascii_control()), "it could end a header line");
    let written = if tag.weak { format!("W/{}", tag.opaque) } else { tag.opaque.clone() };
    assert_eq!(entity_tag(written.as_bytes()), Some(tag));
});
