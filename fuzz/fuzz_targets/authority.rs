//! Certificate authorities in PEM: files that a user names, and that come from anywhere.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dlm_core::Kind;
use dlm_net::TlsConfig;
use libfuzzer_sys::fuzz_target;

fn check(pem: &[u8]) {
    match TlsConfig::builder().ca_pem(pem) {
        Ok(_) => {
            // Twice the same is no mistake.
            let twice = [pem, b"\n", pem].concat();
            assert!(TlsConfig::builder().ca_pem(&twice).is_ok());
        }
        Err(e) => {
            assert_eq!(e.kind(), Kind::Invalid);
            assert!(!e.to_string().chars().any(char::is_control), "{e:?}");
        }
    }
}

fuzz_target!(|input: &[u8]| {
    check(input);
    // As what is inside a certificate, so that the fuzzer gets beyond the armour.
    let armoured =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(input));
    check(armoured.as_bytes());
});
