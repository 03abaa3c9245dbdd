//! Journals: what is read back makes sense, and damage at the end costs the end only.
#![no_main]

use dlm_core::{Saved, SidecarJournal};
use libfuzzer_sys::fuzz_target;

/// Lines of the input as a journal whose checksums are right, so that the fuzzer gets beyond them.
fn with_checksums(input: &[u8]) -> Vec<u8> {
    let mut out = b"dlm-journal 1\n".to_vec();
    for json in input.split(|b| *b == b'\n') {
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, json) as u32;
        out.extend_from_slice(format!("{crc:08x} ").as_bytes());
        out.extend_from_slice(json);
        out.push(b'\n');
    }
    out
}

fn check(saved: &Saved) {
    for object in &saved.objects {
        assert_eq!(saved.objects.iter().filter(|o| o.key == object.key).count(), 1, "one entry a key");
        assert_eq!(saved.object(&object.key), Some(object));
        assert!(object.claims.iter().all(|c| c.range.start < c.range.end), "no empty claim");
        assert!(object.claims.is_sorted_by(|a, b| a.range.end <= b.range.start), "in order, none overlaps");
    }
}

fuzz_target!(|input: &[u8]| {
    if let Some(saved) = SidecarJournal::parse(input) {
        check(&saved);
    }
    let journal = with_checksums(input);
    let saved = SidecarJournal::parse(&journal).expect("the first line is good");
    check(&saved);
    // A torn last line is cut off.
    let torn = [&journal[..], b"00000000 {\"wrote\""].concat();
    assert_eq!(SidecarJournal::parse(&torn), Some(saved));
    // Any beginning of it is a journal too.
    if let Some(saved) = SidecarJournal::parse(&journal[..journal.len() / 2]) {
        check(&saved);
    }
});
