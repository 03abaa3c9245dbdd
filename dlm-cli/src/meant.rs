//! What a command line means: every value parsed, every secret found, a plan of downloads.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use dlm_core::{Digest, Error, JobSpec, Kind, Locator, MAX_NAME, RelPath, Result, Timeouts};

use crate::backends;
use crate::flags::{GetFlags, IfExists};
use crate::say::Level;
use crate::values::{Credentials, Header, Token, credentials, find_password, header, token};

/// A plan.
#[derive(Debug)]
pub(crate) struct Meant {
    /// What to download. One that this build cannot do is an error in its place: the others go on.
    pub(crate) downloads: Vec<Result<Download>>,
    /// Most at once.
    pub(crate) jobs: usize,
    /// Most bytes a second, all together.
    pub(crate) limit_rate: Option<u64>,
    /// How servers are trusted.
    pub(crate) trust: Trust,
}

/// How servers are trusted.
#[derive(Debug, Clone, Default)]
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "no backend of this build takes it"))]
pub(crate) struct Trust {
    /// Authorities besides those of the system, in PEM.
    pub(crate) cacert: Option<PathBuf>,
    /// Whoever answers.
    pub(crate) insecure: bool,
}

/// What is told to the origin of a locator, and to no other.
#[derive(Debug, Clone, Default)]
#[cfg_attr(not(feature = "http"), expect(dead_code, reason = "no backend of this build takes it"))]
pub(crate) struct Told {
    pub(crate) headers: Vec<Header>,
    pub(crate) user: Option<Credentials>,
    pub(crate) bearer: Option<Token>,
    pub(crate) user_agent: Option<String>,
}

/// One download.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) spec: JobSpec,
    pub(crate) place: Place,
    pub(crate) keep: Keeping,
}

/// Where a download goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Standard output, in order.
    Stdout,
    /// This file.
    File {
        /// Its folder.
        dir: PathBuf,
        /// Its name there.
        name: OsString,
    },
    /// A folder; the source names the file.
    Folder {
        /// Which.
        dir: PathBuf,
        /// What the file is probably called.
        guess: String,
    },
}

/// How files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keeping {
    pub(crate) if_exists: IfExists,
    pub(crate) mtime: bool,
}

/// How much to say; known before anything else is looked at.
pub(crate) fn level(flags: &GetFlags) -> Level {
    match (flags.talk.quiet, flags.talk.verbose) {
        (true, _) => Level::Quiet,
        (false, 0) => Level::Normal,
        (false, 1) => Level::Verbose,
        (false, _) => Level::Events,
    }
}

impl Meant {
    /// What `flags` mean. May ask for a password on the terminal.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: a value is wrong, or options contradict each other. [`Kind::Unsupported`]: a mirror's
    /// protocol is not in this build.
    pub(crate) fn new(flags: GetFlags) -> Result<Self> {
        let one = flags.locators.len() == 1;
        let only_one = |given: bool, option: &'static str| {
            if one || !given {
                return Ok(());
            }
            let e = Error::new(Kind::Invalid, "use")
                .on(option)
                .because("it speaks of one file, and there are several LOCATORs");
            Err(e.advise("download them by commands of their own"))
        };
        only_one(flags.output.is_some(), "--output")?;
        only_one(!flags.mirrors.is_empty(), "--mirror")?;
        only_one(!flags.checksums.is_empty(), "--checksum")?;

        let locators = flags.locators.iter().map(|t| locator(t)).collect::<Result<Vec<_>>>()?;
        let mirrors = flags.mirrors.iter().map(|t| locator(t)?.supported()).collect::<Result<Vec<_>>>()?;
        let digests = digests(&flags.checksums)?;
        let told = Told {
            headers: flags.headers.iter().map(|t| read_header(t)).collect::<Result<_>>()?,
            user_agent: flags.user_agent.map(user_agent).transpose()?,
            user: flags.user.map(|t| credentials(&t, find_password)).transpose()?,
            bearer: flags.bearer_file.map(|f| token(&f)).transpose()?,
        };
        let defaults = Timeouts::default();
        let timeouts = Timeouts::new(
            flags.connect_timeout.unwrap_or(defaults.connect),
            flags.idle_timeout.unwrap_or(defaults.idle),
        );
        let keep = Keeping { if_exists: flags.if_exists, mtime: !flags.no_mtime };
        let dir = flags.dir.unwrap_or_default();

        let mut downloads = Vec::with_capacity(locators.len());
        for named in locators {
            let locator = match named.supported() {
                Ok(locator) => locator,
                Err(e) => {
                    downloads.push(Err(e));
                    continue;
                }
            };
            let place = match &flags.output {
                Some(path) => output(&dir, path)?,
                None => folder(&dir, &locator),
            };
            let options = backends::options(&told, &locator)?;
            let mut spec = JobSpec::new(locator)
                .retries(flags.retries)
                .timeouts(timeouts)
                .durable(flags.durable)
                .resume(!flags.no_resume)
                .options(options);
            if let Some(n) = flags.connections {
                spec = spec.connections(n);
            }
            spec = mirrors.iter().cloned().fold(spec, JobSpec::mirror);
            spec = digests.iter().cloned().fold(spec, JobSpec::digest);
            downloads.push(Ok(Download { spec, place, keep }));
        }
        Ok(Self {
            downloads,
            jobs: flags.jobs as usize,
            limit_rate: flags.limit_rate.filter(|n| *n != 0),
            trust: Trust { cacert: flags.cacert, insecure: flags.insecure },
        })
    }
}

/// Something to download, as named.
enum Named {
    Address(Locator),
    /// The path of a document that describes a download.
    Document(String),
}

impl Named {
    fn supported(self) -> Result<Locator> {
        let cannot = |on: &dyn std::fmt::Display, what: String| {
            let e = Error::new(Kind::Unsupported, "download")
                .on(on)
                .because(format!("this build does not support {what}"));
            e.advise(format!("it supports {}, as in https://host/path", backends::supported()))
        };
        match self {
            Self::Address(l) if backends::SCHEMES.contains(&l.scheme()) => Ok(l),
            Self::Address(l) => Err(cannot(&l, format!("{}: addresses", l.scheme()))),
            Self::Document(path) => {
                Err(cannot(&Locator::mask(&path), "files that describe a download".to_owned()))
            }
        }
    }
}

fn locator(text: &OsStr) -> Result<Named> {
    let Some(text) = text.to_str() else {
        return Err(Error::new(Kind::Invalid, "understand the locator")
            .on(Locator::mask(&text.to_string_lossy()))
            .because("it is not UTF-8"));
    };
    match text.parse::<Locator>() {
        Ok(l) => Ok(Named::Address(l)),
        Err(_) if !text.contains(':') && is_description(text) => Ok(Named::Document(text.to_owned())),
        Err(e) => Err(e),
    }
}

fn is_description(path: &str) -> bool {
    let ending = Path::new(path).extension().and_then(OsStr::to_str).unwrap_or("").to_ascii_lowercase();
    matches!(ending.as_str(), "torrent" | "meta4" | "metalink")
}

fn digests(texts: &[String]) -> Result<Vec<Digest>> {
    let mut out: Vec<Digest> = Vec::with_capacity(texts.len());
    for text in texts {
        let digest: Digest = text.parse()?;
        if out.iter().any(|d| d.algorithm() == digest.algorithm() && *d != digest) {
            let e = Error::new(Kind::Invalid, "use --checksum").on(&digest);
            return Err(
                e.because(format!("another {} was given, and a file has only one", digest.algorithm()))
            );
        }
        out.push(digest);
    }
    Ok(out)
}

fn read_header(text: &OsStr) -> Result<Header> {
    let text = text
        .to_str()
        .ok_or_else(|| Error::new(Kind::Invalid, "send the header").because("it is not UTF-8"))?;
    header(text)
}

fn user_agent(text: String) -> Result<String> {
    if text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Ok(text);
    }
    Err(Error::new(Kind::Invalid, "use --user-agent")
        .on(text)
        .because("it holds something else than plain ASCII"))
}

/// The place that `--output` names. A relative path lies below the folder.
fn output(dir: &Path, path: &Path) -> Result<Place> {
    if path.as_os_str() == "-" {
        return Ok(Place::Stdout);
    }
    let wrong = |why: &str| {
        let e = Error::new(Kind::Invalid, "use --output").on(path.display()).because(why);
        e.advise("name the file, as in --output folder/name, or only a folder with --dir")
    };
    let text = path.as_os_str().as_encoded_bytes();
    if text.is_empty() || text.ends_with(b"/") || text.ends_with(b"/.") {
        return Err(wrong("it names no file"));
    }
    if text.contains(&0) {
        return Err(wrong("it holds a NUL character"));
    }
    let whole = dir.join(path);
    let name = path.file_name().ok_or_else(|| wrong("it names no file"))?.to_owned();
    if name.len() > MAX_NAME {
        return Err(wrong(&format!("the name is {} bytes long, and at most {MAX_NAME} fit", name.len())));
    }
    let dir = whole.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(Place::File { dir: here(dir), name })
}

fn folder(dir: &Path, locator: &Locator) -> Place {
    let guess = RelPath::from_server(&locator.file_name().unwrap_or_default()).to_string();
    Place::Folder { dir: here(dir.to_path_buf()), guess }
}

/// The empty path is the current folder.
fn here(dir: PathBuf) -> PathBuf {
    if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::typed::{Typed, parse};

    fn meant(args: &[&str]) -> Result<Meant> {
        match parse(std::iter::once("dlm").chain(args.iter().copied()).map(OsString::from)).unwrap() {
            Typed::Get(flags) => Meant::new(*flags),
            Typed::Show(text) => panic!("{text}"),
        }
    }

    #[test]
    fn unknown_protocols_are_unsupported() {
        for l in ["gopher://h/f", "magnet:?xt=urn:btih:00", "a.torrent", "dir/b.META4"] {
            let m = meant(&[l]).unwrap();
            let e = m.downloads[0].as_ref().unwrap_err();
            assert_eq!(e.kind(), Kind::Unsupported, "{l}");
            assert!(e.advice().contains(&backends::supported()), "{l}");
        }
    }

    #[test]
    fn what_is_no_address_is_wrong() {
        for l in ["", "file.bin", "http://h\n/", "./a.torrent.txt"] {
            assert_eq!(meant(&[l]).unwrap_err().kind(), Kind::Invalid, "{l}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_was_meant_to_be_an_address_shows_no_secret() {
        use std::os::unix::ffi::OsStringExt as _;
        let bytes = OsString::from_vec(b"http://al:S3CRET@h/\xff?k=S3CRET".to_vec());
        let e = locator(&bytes).err().unwrap();
        assert!(!format!("{e} {e:?}").contains("S3CRET"), "{e}");
        for l in ["al:S3CRET@h/f", "S3CRET@h/a.torrent", "al:S3CRET", "al:/S3CRET@h/f"] {
            let e = match meant(&[l]) {
                Ok(m) => m.downloads.into_iter().next().unwrap().unwrap_err(),
                Err(e) => e,
            };
            assert!(!format!("{e} {e:?} {}", e.advice()).contains("S3CRET"), "{e}");
        }
    }

    #[cfg(feature = "http")]
    #[test]
    fn options_of_one_file() {
        for more in
            [&["-o", "x"][..], &["-o", "-"], &["-m", "http://o/f"], &["--checksum", "crc32c:00000000"]]
        {
            let args: Vec<_> = ["http://h/a", "http://h/b"].iter().chain(more).copied().collect();
            assert_eq!(meant(&args).unwrap_err().kind(), Kind::Invalid, "{more:?}");
            assert!(meant(&args[1..]).is_ok(), "{more:?}");
        }
        assert_eq!(meant(&["http://h/a", "-m", "gopher://h/f"]).unwrap_err().kind(), Kind::Unsupported);
        let twice = ["http://h/a", "--checksum", "crc32c:00000000", "--checksum", "crc32c:00000001"];
        assert_eq!(meant(&twice).unwrap_err().kind(), Kind::Invalid);
    }

    #[cfg(feature = "http")]
    #[test]
    fn the_plan() {
        let m = meant(&[
            "http://h/d/a%20b",
            "--limit-rate",
            "0",
            "--no-resume",
            "--retries",
            "2",
            "--idle-timeout",
            "1.5",
        ])
        .unwrap();
        assert_eq!((m.limit_rate, m.jobs), (None, 8));
        let d = m.downloads[0].as_ref().unwrap();
        assert_eq!(d.place, Place::Folder { dir: ".".into(), guess: "a b".into() });
        assert!(!d.spec.resume && !d.spec.durable && d.spec.retries == 2 && d.keep.mtime);
        assert_eq!(d.spec.timeouts.idle.as_millis(), 1500);
    }

    #[test]
    fn places() {
        let place = |dir: &str, path: &str| output(Path::new(dir), Path::new(path));
        let file = |dir: &str, name: &str| Place::File { dir: dir.into(), name: name.into() };
        assert_eq!(place("", "-").unwrap(), Place::Stdout);
        assert_eq!(place("", "x").unwrap(), file(".", "x"));
        assert_eq!(place("", "a/b/x").unwrap(), file("a/b", "x"));
        assert_eq!(place("d", "a/x").unwrap(), file("d/a", "x"));
        assert_eq!(place("d", "/a/x").unwrap(), file("/a", "x"));
        for bad in ["", "a/", "a/.", ".", "..", "a/..", "/", &"x".repeat(MAX_NAME + 1)] {
            assert_eq!(place("", bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }
}
