//! What the server says, honest or not.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;

use super::script::{End, Step};

/// Which bytes of a whole an honest 206 speaks of; `last` is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) total: u64,
}

#[derive(Debug, Clone)]
enum Length {
    /// `Content-Length` of the body, or none when it is chunked.
    Honest,
    /// No `Content-Length`.
    Absent,
    /// These values, a header line each.
    Lies(Vec<String>),
}

/// An answer that is not sent yet: an honest one, and then what is changed about it.
///
/// ```
/// use dlm_testkit::http_server::{Answer, End};
/// // Announces 1,000 bytes, sends 300 of them and resets the connection.
/// let cut = Answer::status(200).body(vec![0; 1000]).cut(300, End::Reset);
/// // Says what it likes.
/// let lie = Answer::status(200).content_length("-1").body("hello").close();
/// # let _ = (cut, lie);
/// ```
#[derive(Debug, Clone)]
pub struct Answer {
    version: &'static str,
    /// `None`: no head at all, only steps.
    status: Option<u16>,
    reason: Option<Cow<'static, str>>,
    headers: Vec<(String, Vec<u8>)>,
    length: Length,
    body: Bytes,
    part: Option<Part>,
    chunk: Option<usize>,
    cut: Option<(u64, End)>,
    before: Vec<Step>,
    after: Vec<Step>,
    rate: Option<u64>,
    close: bool,
}

impl Answer {
    /// An answer of this status without a body.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), close: false, ..Self::script(Vec::new()) }
    }
    /// A redirect of this status to this place.
    pub fn redirect(status: u16, location: impl Into<Vec<u8>>) -> Self {
        Self::status(status).header("Location", location)
    }
    /// No answer as such: exactly these steps, and then the end of the connection.
    pub fn script(steps: Vec<Step>) -> Self {
        Self {
            version: "HTTP/1.1",
            status: None,
            reason: None,
            headers: Vec::new(),
            length: Length::Honest,
            body: Bytes::new(),
            part: None,
            chunk: None,
            cut: None,
            before: Vec::new(),
            after: steps,
            rate: None,
            close: true,
        }
    }
    /// These bytes as they are, and then the end of the connection.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::script(vec![Step::Raw(bytes.into())])
    }

    /// One more header, as it stands; the same name may come several times.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
    /// Takes every header of this name away; case does not matter.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }
    /// Another status than the honest one, with all else left as it is.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }
    /// Another reason phrase.
    pub fn reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }
    /// Another protocol version, such as `HTTP/1.0`.
    pub fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }
    /// The body. `Content-Length` follows it.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
    /// What `Content-Length` says, whatever the body is; called again, one more line of it.
    pub fn content_length(mut self, value: impl Into<String>) -> Self {
        match &mut self.length {
            Length::Lies(all) => all.push(value.into()),
            other => *other = Length::Lies(vec![value.into()]),
        }
        self
    }
    /// No `Content-Length`: the end of the connection ends the body, unless it is chunked.
    pub fn no_content_length(mut self) -> Self {
        self.length = Length::Absent;
        self
    }
    /// What `Content-Range` says, made from the honest first byte, last byte and total. Does nothing to an answer that
    /// is no honest 206.
    pub fn content_range(self, say: impl FnOnce(u64, u64, u64) -> String) -> Self {
        match self.part {
            Some(p) => {
                let value = say(p.first, p.last, p.total);
                self.without("content-range").header("Content-Range", value)
            }
            None => self,
        }
    }
    /// Sends the body in chunks of this many bytes (RFC 9112, section 7.1).
    pub fn chunked(mut self, size: usize) -> Self {
        self.chunk = Some(size.max(1));
        self
    }
    /// Sends this many bytes of the body and then ends the connection in this way. A body that is not longer is sent
    /// whole.
    pub fn cut(mut self, after: u64, end: End) -> Self {
        self.cut = Some((after, end));
        self
    }
    /// The same, after this share (0 to 1) of the body.
    pub fn cut_share(self, share: f64, end: End) -> Self {
        let after = (self.body.len() as f64 * share) as u64;
        self.cut(after, end)
    }
    /// Waits before the first byte of the answer (tokio's time).
    pub fn delay(self, time: Duration) -> Self {
        self.first(Step::Pause(time))
    }
    /// One more thing to do before the head is sent.
    pub fn first(mut self, step: Step) -> Self {
        self.before.push(step);
        self
    }
    /// One more thing to do once the body is sent; not reached when the body is cut.
    pub fn then(mut self, step: Step) -> Self {
        self.after.push(step);
        self
    }
    /// Most bytes a second of this answer's body, beside the server's own limit.
    pub fn rate(mut self, bytes_per_second: u64) -> Self {
        self.rate = Some(bytes_per_second.max(1));
        self
    }
    /// Says `Connection: close` and does so.
    pub fn close(mut self) -> Self {
        self.close = true;
        self.header("Connection", "close")
    }
    /// Ends the connection after the answer without having said so.
    pub fn hang_up(mut self) -> Self {
        self.close = true;
        self
    }
    /// How many bytes the body has.
    pub fn body_len(&self) -> u64 {
        self.body.len() as u64
    }

    pub(super) fn part(mut self, part: Part) -> Self {
        self.part = Some(part);
        self.header("Content-Range", format!("bytes {}-{}/{}", part.first, part.last, part.total))
    }
    pub(super) fn limit(&self) -> Option<u64> {
        self.rate
    }

    /// Everything that has to be done, in order.
    pub(super) fn steps(self, with_body: bool) -> Vec<Step> {
        let mut steps = self.before.clone();
        if let Some(status) = self.status {
            steps.push(Step::Raw(self.head(status)));
        }
        // After a body that only the end of the connection ends, the connection ends.
        let endless = self.status.is_some_and(|s| s >= 200 && s != 304 && s != 204)
            && matches!(self.length, Length::Absent)
            && self.chunk.is_none();
        if with_body {
            let whole = self.body.len() as u64;
            let cut = self.cut.filter(|(after, _)| *after < whole);
            let body = self.body.slice(..cut.map_or(whole, |(after, _)| after) as usize);
            match self.chunk {
                Some(size) => chunks(&body, size, cut.is_none(), &mut steps),
                None if body.is_empty() => {}
                None => steps.push(Step::Body(body)),
            }
            if let Some((_, end)) = cut {
                steps.extend(end.steps());
                return steps;
            }
            steps.extend(self.after);
        } else if self.status.is_none() {
            steps.extend(self.after);
        }
        if self.close || endless {
            steps.push(Step::Fin);
        }
        steps
    }

    fn head(&self, status: u16) -> Bytes {
        let mut text = String::new();
        let reason = self.reason.as_deref().unwrap_or_else(|| phrase(status));
        let _ = write!(text, "{} {status} {reason}\r\n", self.version);
        let mut out = text.into_bytes();
        let mut line = |name: &str, value: &[u8]| {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        };
        for (name, value) in &self.headers {
            line(name, value);
        }
        match &self.length {
            Length::Honest if self.chunk.is_none() => {
                line("Content-Length", self.body.len().to_string().as_bytes());
            }
            Length::Lies(all) => all.iter().for_each(|v| line("Content-Length", v.as_bytes())),
            Length::Honest | Length::Absent => {}
        }
        if self.chunk.is_some() {
            line("Transfer-Encoding", b"chunked");
        }
        out.extend_from_slice(b"\r\n");
        Bytes::from(out)
    }
}

fn chunks(body: &Bytes, size: usize, end: bool, steps: &mut Vec<Step>) {
    for from in (0..body.len()).step_by(size) {
        let piece = body.slice(from..body.len().min(from + size));
        steps.push(Step::Raw(Bytes::from(format!("{:x}\r\n", piece.len()))));
        steps.push(Step::Body(piece));
        steps.push(Step::Raw(Bytes::from_static(b"\r\n")));
    }
    if end {
        steps.push(Step::Raw(Bytes::from_static(b"0\r\n\r\n")));
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        103 => "Early Hints",
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        410 => "Gone",
        412 => "Precondition Failed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Unnamed",
    }
}
