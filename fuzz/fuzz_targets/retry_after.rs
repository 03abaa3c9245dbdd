//! `Retry-After`: never longer than a day, and a number of seconds is that number.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use dlm_http::fuzzing::retry_after;
use libfuzzer_sys::fuzz_target;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fuzz_target!(|input: (u32, &[u8])| {
    let (seconds, value) = input;
    let now = UNIX_EPOCH + Duration::from_secs(u64::from(seconds));
    if let Some(pause) = retry_after(value, now) {
        assert!(pause <= DAY);
    }
    let asked = Duration::from_secs(u64::from(seconds));
    assert_eq!(retry_after(seconds.to_string().as_bytes(), now), Some(asked.min(DAY)));
});
