//! A file as an honest server has it.

use std::borrow::Cow;

use bytes::Bytes;

use super::answer::{Answer, Part};
use super::request::Request;

/// Bytes with a name for their version, and how a server hands them out. Cheap to clone; each setting gives a new one,
/// so that a scenario can start from the honest file and change one thing.
///
/// ```
/// use dlm_testkit::http_server::{Request, Resource};
/// use dlm_testkit::fixtures;
///
/// let file = Resource::new(fixtures::bytes(1, 1000));
/// let no_validators = file.etag(None).last_modified(None);
/// let deaf = file.ranges(false);
/// # let _ = (no_validators, deaf);
/// ```
#[derive(Debug, Clone)]
pub struct Resource {
    data: Bytes,
    etag: Option<Cow<'static, str>>,
    last_modified: Option<Cow<'static, str>>,
    ranges: bool,
    conditions: bool,
    longest: u64,
}

impl Resource {
    /// These bytes, of type `application/octet-stream`, with an `ETag` of `"v1"` and a `Last-Modified` in 2024, served
    /// with ranges and conditions as RFC 9110 wants it.
    pub fn new(data: impl Into<Bytes>) -> Self {
        Self {
            data: data.into(),
            etag: Some(Cow::Borrowed("\"v1\"")),
            last_modified: Some(Cow::Borrowed("Mon, 01 Jan 2024 00:00:00 GMT")),
            ranges: true,
            conditions: true,
            longest: u64::MAX,
        }
    }
    /// The same file with other bytes, under the same validators: what a careless server does.
    pub fn with_data(&self, data: impl Into<Bytes>) -> Self {
        Self { data: data.into(), ..self.clone() }
    }
    /// The entity tag as it is sent, quotes and `W/` included; `None`: no `ETag`.
    pub fn etag(&self, etag: impl Into<Option<&'static str>>) -> Self {
        Self { etag: etag.into().map(Cow::Borrowed), ..self.clone() }
    }
    /// The date as it is sent; `None`: no `Last-Modified`.
    pub fn last_modified(&self, date: impl Into<Option<&'static str>>) -> Self {
        Self { last_modified: date.into().map(Cow::Borrowed), ..self.clone() }
    }
    /// Neither `ETag` nor `Last-Modified`.
    pub fn without_validators(&self) -> Self {
        self.etag(None).last_modified(None)
    }
    /// Another version: other bytes, `ETag` `"v2"`, a `Last-Modified` one day later.
    pub fn second_version(&self, data: impl Into<Bytes>) -> Self {
        self.with_data(data).etag("\"v2\"").last_modified("Tue, 02 Jan 2024 00:00:00 GMT")
    }
    /// Whether `Range` is understood, and `Accept-Ranges: bytes` sent.
    pub fn ranges(&self, yes: bool) -> Self {
        Self { ranges: yes, ..self.clone() }
    }
    /// Whether `If-Range`, `If-Match` and `If-None-Match` are obeyed. Without, a range is always answered from the bytes
    /// that are there now.
    pub fn conditions(&self, yes: bool) -> Self {
        Self { conditions: yes, ..self.clone() }
    }
    /// Most bytes of one 206 answer; a longer range is answered in part, with a `Content-Range` that says so.
    pub fn longest_range(&self, bytes: u64) -> Self {
        Self { longest: bytes.max(1), ..self.clone() }
    }
    /// Its bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.data.len() as u64
    }
    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The honest answer to this request: 200, 206, 304, 412 or 416.
    pub fn answer(&self, request: &Request) -> Answer {
        let total = self.len();
        let is_current = |v: &str| {
            v == "*"
                || v.split(',').any(|v| {
                    Some(v.trim()) == self.etag.as_deref() || Some(v.trim()) == self.last_modified.as_deref()
                })
        };
        if self.conditions {
            if request.header("if-match").is_some_and(|v| !is_current(v)) {
                return self.describe(Answer::status(412));
            }
            if request.header("if-none-match").is_some_and(is_current) {
                return self.describe(Answer::status(304).no_content_length());
            }
        }
        let mut range = request.range.filter(|_| self.ranges);
        // A weak tag never matches (RFC 9110, section 13.1.5).
        if self.conditions
            && request.header("if-range").is_some_and(|v| v.starts_with("W/") || !is_current(v))
        {
            range = None;
        }
        let Some(range) = range else {
            return self.describe(Answer::status(200).body(self.data.clone()));
        };
        let Some((first, last)) = range.within(total) else {
            return self.describe(Answer::status(416).header("Content-Range", format!("bytes */{total}")));
        };
        let last = last.min(first.saturating_add(self.longest - 1));
        let body = self.data.slice(first as usize..=last as usize);
        self.describe(Answer::status(206).body(body)).part(Part { first, last, total })
    }

    fn describe(&self, answer: Answer) -> Answer {
        let mut answer = answer.header("Content-Type", "application/octet-stream");
        if self.ranges {
            answer = answer.header("Accept-Ranges", "bytes");
        }
        if let Some(tag) = &self.etag {
            answer = answer.header("ETag", tag.as_ref());
        }
        if let Some(date) = &self.last_modified {
            answer = answer.header("Last-Modified", date.as_ref());
        }
        answer
    }
}
