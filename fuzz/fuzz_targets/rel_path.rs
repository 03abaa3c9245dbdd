//! Names of files: whatever is accepted stays below the folder, and a server's wish always becomes such a name.
#![no_main]

use dlm_core::{MAX_NAME, RelPath};
use libfuzzer_sys::fuzz_target;

fn is_safe(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= MAX_NAME
        && !name.contains(['/', '\\', '\0', '\u{202e}', '\u{200b}'])
        && !name.chars().any(char::is_control)
}

fuzz_target!(|text: &str| {
    let name = RelPath::from_server(text);
    assert_eq!(name.parts().len(), 1);
    assert!(is_safe(name.file_name()), "{name:?}");
    assert!(!name.file_name().starts_with(['.', '-']), "{name:?}");
    // What was made acceptable is acceptable, and does not change again.
    assert_eq!(RelPath::name(name.file_name()).ok().as_ref(), Some(&name));
    assert_eq!(RelPath::from_server(name.file_name()), name);

    if let Ok(path) = RelPath::parse(text) {
        assert!(path.parts().all(is_safe), "{path:?}");
        assert_eq!(path.to_string(), text);
        assert!(!std::path::Path::new(text).is_absolute());
        assert_eq!(RelPath::from_parts(path.parts()).ok(), Some(path));
    }
});
