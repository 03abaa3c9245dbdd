//! The backend: recognises addresses, and makes the first request of each.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use dlm_core::{
    Accept, Backend, Binding, Caps, Cx, Discovery, DiscoveryStream, Error, FileSpec, From, Hint, Kind,
    Locator, ObjectSpec, Ranged, RelPath, Result, Role, Span, Target, Validator,
};
use dlm_net::{Dialer, TlsConfig};
use futures::stream;
use http::header::{self, HeaderValue};

use crate::answer::{Meaning, meaning};
use crate::client::{Client, Reply, Visit};
use crate::finals::Finals;
use crate::headers::{content_coding, file_name};
use crate::notice::{Notice, Told};
use crate::origin::{Origin, body, is_range_refusal};
use crate::pool::Pool;
use crate::redirect::Rules;
use crate::request::Ask;

/// Sources that nobody uses any more are forgotten whenever there are this many.
const SWEEP: usize = 64;

/// HTTP and HTTPS. A clone is cheap and shares everything.
///
/// The first request for an address is a `GET` of a range that is open at its end, never a `HEAD`; what it answers is
/// what the backend goes by, and its body is handed on.
#[derive(Clone)]
pub struct HttpBackend {
    client: Arc<Client>,
    sources: Arc<Mutex<Sources>>,
    told: Told,
}

#[derive(Default)]
struct Sources {
    by_key: HashMap<Arc<str>, Weak<Ranged<Origin>>>,
    sweep_at: usize,
}

/// Builds an [`HttpBackend`].
#[derive(Debug)]
pub struct HttpBackendBuilder {
    dialer: Option<Dialer>,
    agent: HeaderValue,
    rules: Rules,
    told: Told,
}

impl HttpBackendBuilder {
    /// Makes connections with this dialer. Its TLS configuration must offer no other protocol than `http/1.1`.
    pub fn dialer(mut self, dialer: Dialer) -> Self {
        self.dialer = Some(dialer);
        self
    }
    /// Calls itself this, unless the options of a job say otherwise. Default: `dlm/VERSION`.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: a control character.
    pub fn user_agent(mut self, name: &str) -> Result<Self> {
        self.agent = HeaderValue::try_from(name).map_err(|_| {
            Error::new(Kind::Invalid, "use the user agent")
                .on(name)
                .because("it holds characters that are not allowed there")
        })?;
        Ok(self)
    }
    /// Most redirects in a row (20).
    pub fn max_redirects(mut self, limit: u32) -> Self {
        self.rules.limit = limit;
        self
    }
    /// Whether a redirect may lead from https to http (no).
    pub fn allow_downgrade(mut self, allowed: bool) -> Self {
        self.rules.allow_downgrade = allowed;
        self
    }
    /// Tells this what a person should know of an answer that is used all the same. Must not block. Default: nobody.
    pub fn notices(mut self, tell: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        self.told = Told::new(tell);
        self
    }
    /// The backend. Nothing is opened or read yet.
    pub fn build(self) -> HttpBackend {
        let dialer = self.dialer.unwrap_or_else(|| {
            Dialer::builder().tls(TlsConfig::builder().alpn(["http/1.1"]).build()).build()
        });
        let client = Client {
            dialer,
            agent: self.agent,
            rules: self.rules,
            pool: Arc::new(Pool::default()),
            finals: Finals::default(),
        };
        HttpBackend { client: Arc::new(client), sources: Arc::default(), told: self.told }
    }
}

impl HttpBackend {
    /// The system's name lookup and certificate authorities, 20 redirects, none from https to http.
    pub fn builder() -> HttpBackendBuilder {
        HttpBackendBuilder {
            dialer: None,
            agent: HeaderValue::from_static(concat!("dlm/", env!("CARGO_PKG_VERSION"))),
            rules: Rules { limit: 20, allow_downgrade: false },
            told: Told::default(),
        }
    }

    /// The source that serves `at`, by its origin (scheme, host, port): the same one for the same origin, as long as
    /// somebody holds it. Nothing is opened.
    ///
    /// # Errors
    /// [`Kind::Unsupported`]: another scheme than http and https. [`Kind::Invalid`]: no host.
    pub fn origin(&self, at: &Locator) -> Result<Arc<Ranged<Origin>>> {
        let origin = Origin::new(self.client.clone(), at)?;
        let key = dlm_core::RangeSource::info(&origin).key;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.by_key.get(&key).and_then(Weak::upgrade) {
            return Ok(source);
        }
        if sources.by_key.len() >= sources.sweep_at.max(SWEEP) {
            sources.by_key.retain(|_, s| s.strong_count() > 0);
            sources.sweep_at = sources.by_key.len() * 2;
        }
        let source = Arc::new(Ranged::new(origin));
        sources.by_key.insert(key, Arc::downgrade(&source));
        Ok(source)
    }

    /// The first answer, and whether the server refused to hear of ranges.
    async fn first(&self, visit: &Visit<'_>, start: u64, cx: &Cx) -> Result<(Reply, Meaning, bool)> {
        let mut ask = Ask::range(Span::from(start), cx.resume().filter(|_| start > 0).map(|r| &r.identity));
        loop {
            let reply = visit.fetch(visit.start(), &ask).await?;
            let ranged = ask.range;
            let status = reply.parts.status;
            if status.is_success() {
                match meaning(&reply, ranged.is_some()) {
                    Ok(m) => return Ok((reply, m, ranged.is_none())),
                    // A range that nobody can use: the whole may be better.
                    Err(_) if ranged.is_some() && status.as_u16() == 206 => {}
                    Err(e) => return Err(e),
                }
                // Its body is of no use, and may be long.
                drop(reply);
            } else if ranged.is_some() && is_range_refusal(&reply) {
                reply.drain().await;
            } else {
                return Err(reply.refuse().await);
            }
            // Nothing from there on: the beginning says what there is.
            ask = if status.as_u16() == 416 && ranged.is_some_and(|r| r.start > 0) {
                Ask::range(Span::ALL, None)
            } else {
                Ask::PLAIN
            };
        }
    }
}

/// How the file is called: by the server, else by the locator, else by where its redirects led.
fn name(reply: &Reply, locator: &Locator) -> RelPath {
    let said =
        reply.parts.headers.get_all(header::CONTENT_DISPOSITION).iter().find_map(|v| file_name(v.as_bytes()));
    let name = said.or_else(|| locator.file_name()).or_else(|| reply.hop.url.file_name());
    RelPath::from_server(name.as_deref().unwrap_or_default())
}

#[async_trait]
impl Backend for HttpBackend {
    fn name(&self) -> &'static str {
        "http"
    }

    fn accepts(&self, hint: &Hint<'_>) -> Accept {
        if !matches!(hint.locator.scheme(), "http" | "https") {
            return Accept::No;
        }
        let path = hint.locator.reveal().path().to_ascii_lowercase();
        if [".torrent", ".meta4", ".metalink"].iter().any(|e| path.ends_with(e)) {
            Accept::Carrier
        } else {
            Accept::Yes
        }
    }

    async fn resolve(&self, from: From, cx: &Cx) -> Result<DiscoveryStream> {
        let From::Locator(locator) = from else {
            return Err(Error::new(Kind::Unsupported, "read the document")
                .because("http fetches documents, and reads none"));
        };
        let visit = Visit::new(&self.client, &locator, cx)?;
        let target = |object| Target::new(object, locator.clone()).rank(cx.rank());
        let (known, start) = match cx.role() {
            Role::SameBytes { object, window } => {
                let target = target(*object).window(*window);
                let start = cx.resume().map_or(0, |r| target.remote_offset(r.at));
                (Some(target), start)
            }
            _ => (None, cx.resume().map_or(0, |r| r.at)),
        };
        let (reply, meaning, refused) = self.first(&visit, start, cx).await?;
        self.client.finals.put(&locator, &reply.hop);
        let coding = content_coding(&reply.parts.headers);
        if !coding.is_empty() {
            let name = name(&reply, &locator).to_string();
            self.told.tell(&Notice::packed(&locator, coding, &name));
        }

        let source = self.origin(&reply.hop.url)?;
        // Some servers answer a range that is all of it, or a condition that does not hold, with all of it. Where one says
        // that it knows ranges, and which version it is, it is believed until it ignores one.
        let known_version = meaning.identity.validator != Validator::Unknown;
        let ranges = meaning.partial || (meaning.offers_ranges && !refused && (start > 0 || known_version));
        let caps = if ranges { Caps::RANGES } else { Caps::STREAM };
        let mut found = Vec::with_capacity(3);
        let target = known.unwrap_or_else(|| {
            let (object, len) = (cx.new_object(), meaning.identity.len);
            found.push(Ok(Discovery::Object(ObjectSpec::new(object, "", len))));
            let file = FileSpec::whole(cx.new_file(), name(&reply, &locator), object, len);
            found.push(Ok(Discovery::File(file.modified(meaning.mtime))));
            target(object)
        });
        let first = body(reply, &meaning, &target)?;
        let binding = Binding::new(source, target, caps, first.identity.clone()).with_first(first);
        found.push(Ok(Discovery::Bind(binding)));
        Ok(Box::pin(stream::iter(found)))
    }
}

impl fmt::Debug for HttpBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBackend").field("rules", &self.client.rules).finish_non_exhaustive()
    }
}
