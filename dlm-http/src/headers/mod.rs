//! Header fields, read strictly: pure functions from bytes to values, none of which can panic.

mod content_range;
mod disposition;
mod etag;
mod retry_after;

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, header};

pub use content_range::{ContentRange, content_range, unsatisfied_range};
pub use disposition::file_name;
pub use etag::{EntityTag, entity_tag};
pub use retry_after::retry_after;

/// A number of digits only, without sign or space, that fits.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The value of a field that must not occur twice; `None` also when it does, with different values.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    all.all(|v| v == first).then_some(first)
}

/// `Last-Modified` (RFC 9110, 8.8.2), when it is one valid HTTP-date.
pub fn last_modified(headers: &HeaderMap) -> Option<SystemTime> {
    let value = single(headers, &header::LAST_MODIFIED)?.to_str().ok()?;
    let date = httpdate::parse_http_date(value).ok()?;
    (date >= UNIX_EPOCH).then_some(date)
}

/// The content codings in the order in which they were applied (RFC 9110, 8.4), `identity` left out, in lower case,
/// with commas between; empty when the bytes are not coded.
pub fn content_coding(headers: &HeaderMap) -> String {
    let mut out = String::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        for coding in String::from_utf8_lossy(value.as_bytes()).split(',') {
            let coding = coding.trim();
            if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
                if !out.is_empty() {
                    out.push(',');
                }
                out.push_str(&coding.to_ascii_lowercase());
            }
        }
    }
    out
}

/// Whether `Accept-Ranges` (RFC 9110, 14.3) names bytes.
pub fn accepts_ranges(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_RANGES)
        .iter()
        .any(|v| v.as_bytes().split(|b| *b == b',').any(|u| u.trim_ascii().eq_ignore_ascii_case(b"bytes")))
}
