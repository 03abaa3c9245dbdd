//! `Location`: where it leads is http or https, without a login, and never back from https.
#![no_main]

use dlm_core::Locator;
use dlm_http::fuzzing::{Rules, next};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (secure, allow_downgrade, location) = input;
    let from: Locator = if secure { "https://me:pw@host/a/b?c" } else { "http://me:pw@host/a/b?c" }
        .parse()
        .expect("it is one");
    let Ok(to) = next(&from, location, Rules { limit: 5, allow_downgrade }) else { return };
    assert!(matches!(to.scheme(), "http" | "https"), "{to}");
    assert!(to.scheme() == "https" || !secure || allow_downgrade, "{to}");
    assert!(to.host().is_some_and(|h| !h.is_empty()));
    let url = to.reveal();
    assert!(url.username().is_empty() && url.password().is_none(), "{to}");
    assert!(url.as_str().bytes().all(|b| b > b' ' && b != 0x7f), "it could end a request line");
});
