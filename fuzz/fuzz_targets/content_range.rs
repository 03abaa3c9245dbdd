//! `Content-Range`: what is accepted is a range, and is what was written.
#![no_main]

use dlm_http::fuzzing::{content_range, unsatisfied_range};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    if let Some(range) = content_range(value) {
        assert!(range.start < range.end);
        assert!(range.total.is_none_or(|total| range.end <= total));
        let total = range.total.map_or("*".to_owned(), |t| t.to_string());
        let written = format!("bytes {}-{}/{total}", range.start, range.end - 1);
        assert_eq!(content_range(written.as_bytes()), Some(range));
        assert_eq!(unsatisfied_range(value), None, "it cannot be both");
    }
    if let Some(total) = unsatisfied_range(value) {
        assert_eq!(unsatisfied_range(format!("bytes */{total}").as_bytes()), Some(total));
    }
});
