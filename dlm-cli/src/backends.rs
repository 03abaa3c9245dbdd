//! Which protocols this build has: cargo features become an engine.

use dlm_core::{Engine, Options, Result};

use crate::meant::{Told, Trust};
use crate::say::Say;

/// The schemes that this build can download.
pub(crate) const SCHEMES: &[&str] = &[
    #[cfg(feature = "http")]
    "http",
    #[cfg(feature = "http")]
    "https",
];

/// What `--version` says.
pub(crate) const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nprotocols:",
    cfg_select! { feature = "http" => " http https", _ => "" },
);

/// The schemes, for people.
pub(crate) fn supported() -> String {
    let all: Vec<_> = SCHEMES.iter().map(|s| format!("{s}:")).collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
}

/// An engine with every backend of this build.
///
/// # Errors
/// The certificate file cannot be read, or holds no certificate.
#[cfg_attr(
    not(feature = "http"),
    expect(clippy::unnecessary_wraps, reason = "without backends nothing is refused")
)]
pub(crate) fn engine(trust: &Trust, limit_rate: Option<u64>, say: &Say) -> Result<Engine> {
    let engine = Engine::builder().limit_rate(limit_rate);
    #[cfg(feature = "http")]
    let engine = engine.backend(http::backend(trust, say.clone())?);
    #[cfg(not(feature = "http"))]
    let _ = (trust, say);
    Ok(engine.build())
}

/// What is told to the origin of a locator, as the backends take it.
///
/// # Errors
/// A header or a name cannot be sent.
#[cfg_attr(
    not(feature = "http"),
    expect(clippy::unnecessary_wraps, reason = "without backends nothing is refused")
)]
pub(crate) fn options(told: &Told, home: &dlm_core::Locator) -> Result<Options> {
    #[cfg_attr(not(feature = "http"), expect(unused_mut, reason = "no backend takes any"))]
    let mut options = Options::new();
    #[cfg(feature = "http")]
    options.insert(http::options(told)?.home(home));
    #[cfg(not(feature = "http"))]
    let _ = (told, home);
    Ok(options)
}

#[cfg(feature = "http")]
mod http {
    use dlm_core::Result;
    use dlm_http::{HttpBackend, HttpOptions};
    use dlm_net::{Dialer, TlsConfig};

    use crate::meant::{Told, Trust};
    use crate::notes;
    use crate::say::Say;

    pub(super) fn backend(trust: &Trust, say: Say) -> Result<HttpBackend> {
        // The backend speaks HTTP/1.1 and has to say so.
        let mut tls = TlsConfig::builder().alpn(["http/1.1"]).insecure(trust.insecure);
        if let Some(file) = &trust.cacert {
            tls = tls.ca_file(file)?;
        }
        let dialer = Dialer::builder().tls(tls.build()).build();
        Ok(HttpBackend::builder().dialer(dialer).notices(move |n| notes::notice(&say, n)).build())
    }

    pub(super) fn options(told: &Told) -> Result<HttpOptions> {
        let mut options = HttpOptions::new();
        for h in &told.headers {
            options = options.header(&h.name, &h.value)?;
        }
        if let Some(user) = &told.user {
            options = options.user(&user.name, &user.password)?;
        }
        if let Some(token) = &told.bearer {
            options = options.bearer(&token.0)?;
        }
        if let Some(name) = &told.user_agent {
            options = options.user_agent(name)?;
        }
        Ok(options)
    }
}
