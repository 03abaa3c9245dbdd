//! `Content-Disposition`: whatever name a server suggests, the file is one safe name.
#![no_main]

use dlm_core::RelPath;
use dlm_http::fuzzing::file_name;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    let Some(name) = file_name(value) else { return };
    assert!(!name.is_empty());
    let safe = RelPath::from_server(&name);
    assert_eq!(safe.parts().len(), 1);
    assert_eq!(RelPath::name(safe.file_name()).ok(), Some(safe.clone()));

    // A plain name comes through as it is.
    if name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        let plain = format!("attachment; filename=\"{name}\"");
        assert_eq!(file_name(plain.as_bytes()).as_deref(), Some(&*name));
    }
});
