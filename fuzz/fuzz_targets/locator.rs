//! Locators: a second reading changes nothing, and no secret is shown.
#![no_main]

use dlm_core::Locator;
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "S3cr3tS3cr3t";

fuzz_target!(|text: &str| {
    let Ok(locator) = text.parse::<Locator>() else { return };
    // A fuzzer finds the word, and puts it where it is no secret.
    if locator.reveal().as_str().to_ascii_lowercase().contains(&SECRET.to_ascii_lowercase()) {
        return;
    }
    let again: Locator = locator.reveal().as_str().parse().expect("a locator that was accepted is one");
    assert_eq!(again, locator);
    assert!(!locator.to_string().chars().any(char::is_control));
    if locator.host().is_some() {
        assert!(locator.same_origin(&again));
    }
    if let Some(name) = locator.file_name() {
        assert!(!name.is_empty());
    }

    let mut url = locator.reveal().clone();
    if url.set_password(Some(SECRET)).is_ok() {
        let shown = Locator::from_url(url.clone());
        assert!(!format!("{shown} {shown:?}").contains(SECRET), "{shown}");
        // Nor does it travel to where a reference leads.
        if let Ok(next) = shown.join("x") {
            assert!(!next.reveal().as_str().contains(SECRET));
        }
    }
    url.set_query(Some(&format!("sig={SECRET}")));
    let shown = Locator::from_url(url);
    assert!(!format!("{shown} {shown:?}").contains(SECRET), "{shown}");
    let _ = locator.join(text);
});
