//! Which crate may use which, and what `dlm-core` must not contain: read from the manifests and the sources themselves,
//! so that a wrong arrow fails here and not in a review.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate of the workspace, and those of the workspace that it may use. A new crate needs a line here.
const ARROWS: &[(&str, &[&str])] = &[
    ("dlm-core", &[]),
    ("dlm-net", &["dlm-core"]),
    ("dlm-http", &["dlm-core", "dlm-net"]),
    ("dlm-cli", &["dlm-core", "dlm-http", "dlm-net"]),
    ("dlm-testkit", &["dlm-core"]),
    ("xtask", &[]),
];
/// What every crate may use in its tests.
const IN_TESTS: &str = "dlm-testkit";

/// Schemes of addresses. No text in the code of `dlm-core` holds one of these words…
const SCHEMES: &[&str] = &[
    "bittorrent",
    "file",
    "ftp",
    "ftps",
    "gs",
    "http",
    "https",
    "ipfs",
    "ipns",
    "magnet",
    "s3",
    "sftp",
    "webdav",
];
/// …except these: where, and the whole text.
const EXCEPTIONS: &[(&str, &str)] = &[
    // Advice to a person who wrote no address at all.
    ("locator.rs", "write a full address, such as https://host/path"),
    // The URL standard itself gives this one an empty host, which has to be shown.
    ("locator.rs", "file"),
];
/// Words of messages that are a scheme too.
const PLAIN_WORDS: &[&str] = &["file"];

/// What opens a socket, or would bring what does.
const SOCKETS: &[&str] = &[
    "TcpListener",
    "TcpSocket",
    "TcpStream",
    "UdpSocket",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
    "hyper",
    "net",
    "reqwest",
    "rustls",
    "socket2",
];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

fn texts<'a>(list: &'a Value, member: &str) -> Vec<&'a str> {
    list[member].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

/// Every dependency: who, on whom, and in which way (`normal`, `dev`, `build`).
fn dependencies(metadata: &Value) -> Vec<(&str, &str, &str)> {
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .flat_map(|p| {
            let name = p["name"].as_str().unwrap();
            let all = p["dependencies"].as_array().unwrap();
            all.iter()
                .map(move |d| (name, d["name"].as_str().unwrap(), d["kind"].as_str().unwrap_or("normal")))
        })
        .collect()
}

/// The dependencies that no line of [`ARROWS`] allows.
fn wrong<'a>(all: &[(&'a str, &'a str, &'a str)]) -> Vec<(&'a str, &'a str, &'a str)> {
    let table: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let ours = |name: &str| table.contains_key(name) || name.starts_with("dlm-");
    all.iter()
        .copied()
        .filter(|(from, to, kind)| {
            let allowed = table.get(from).is_some_and(|to_all| to_all.contains(to));
            let in_tests = *kind == "dev" && *to == IN_TESTS;
            ours(to) && !allowed && !in_tests
        })
        .collect()
}

#[test]
fn crates_use_only_what_they_may() {
    let metadata = metadata();
    let wrong = wrong(&dependencies(&metadata));
    assert!(wrong.is_empty(), "wrong arrows: {wrong:?}");
}

#[test]
fn every_crate_has_its_line() {
    let metadata = metadata();
    let known: Vec<_> = ARROWS.iter().map(|(name, _)| *name).collect();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        assert!(known.contains(&name), "{name} has no line in ARROWS");
    }
}

#[test]
fn a_wrong_arrow_is_found() {
    let all = [
        ("dlm-core", "dlm-net", "normal"),
        ("dlm-http", "dlm-cli", "dev"),
        ("dlm-net", "dlm-testkit", "normal"),
        ("dlm-ftp", "dlm-core", "normal"),
        ("dlm-core", "dlm-testkit", "dev"),
        ("dlm-http", "dlm-core", "normal"),
        ("dlm-http", "bytes", "normal"),
    ];
    assert_eq!(wrong(&all), all[..4]);
}

#[test]
fn the_core_asks_for_no_network() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let core = packages.iter().find(|p| p["name"] == "dlm-core").unwrap();
    for d in core["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null()) {
        let name = d["name"].as_str().unwrap();
        assert!(!SOCKETS.contains(&name), "dlm-core uses {name}");
        let features = texts(d, "features");
        assert!(!features.contains(&"net") && !features.contains(&"full"), "{name} with {features:?}");
    }
}

#[test]
fn the_core_names_no_scheme_and_no_socket() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for path in sources(&root) {
        let source = std::fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(&root).unwrap().display().to_string();
        found.extend(offences(&source, &shown).into_iter().map(|what| format!("{shown}: {what}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_must_not_stand_there_is_found() {
    for (source, what) in [
        ("fn f() { g(\"http\") }", "\"http\""),
        ("fn f() { g(r#\"see ftp://x\"#) }", "\"see ftp://x\""),
        ("const A: &[u8] = b\"s3\";", "\"s3\""),
        ("fn f(l: &L) { l.scheme() == \"file\" }", "\"file\""),
        ("use tokio::net::TcpStream;", "net"),
        ("fn f(s: TcpStream) { '\"'; '\\''; }", "TcpStream"),
        ("#[cfg(test)] mod t { g(\"http\") } fn f() { g(\"https\") }", "\"https\""),
    ] {
        assert_eq!(offences(source, "x.rs").first().map(String::as_str), Some(what), "{source}");
    }
    for source in [
        "// http\n/* ftp /* s3 */ TcpStream */ fn f<'a>(x: &'a str) {}",
        "/// ```\n/// \"http\"\n/// ```\nfn f() { g(\"the file changed\", \"network\", \"https3\") }",
        "#[cfg(test)]\nmod tests { fn f() { g(\"http\", '{', \"}\") } }",
        "#[cfg(test)]\nmod tests;\nfn internet() {}",
    ] {
        assert_eq!(offences(source, "x.rs"), Vec::<String>::new(), "{source}");
    }
}

/// Every source file below `dir` that is not only tests.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        if path.is_dir() {
            out.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out.sort();
    out
}

/// Scheme names in texts, and sockets in code; comments and tests do not count.
fn offences(source: &str, file: &str) -> Vec<String> {
    let (code, literals) = split(source);
    let code = without_tests(&code);
    let mut out = Vec::new();
    for (at, text) in &literals {
        // A literal of a test is a blank in the code now.
        let excepted = EXCEPTIONS.iter().any(|(f, t)| file == *f && text == t);
        if code.as_bytes()[*at] == b'"' && !excepted && names_a_scheme(text) {
            out.push(format!("{text:?}"));
        }
    }
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    out.extend(words.filter(|w| SOCKETS.contains(w)).map(str::to_owned));
    out
}

fn names_a_scheme(text: &str) -> bool {
    let alone = SCHEMES.contains(&text);
    let with_colon = |w: &str| text.contains(&format!("{w}:"));
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    alone || words.filter(|w| SCHEMES.contains(w)).any(|w| !PLAIN_WORDS.contains(&w) || with_colon(w))
}

/// The source with comments and the insides of texts blanked out, byte for byte; and the texts, with their places.
fn split(source: &str) -> (String, Vec<(usize, String)>) {
    let bytes = source.as_bytes();
    let mut code = vec![b' '; bytes.len()];
    let mut literals = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let rest = &bytes[i..];
        let end = if rest.starts_with(b"//") {
            i + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            end_of_comment(bytes, i)
        } else if let Some(hashes) = raw_text(bytes, i) {
            let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
            let from = i + hashes + 2;
            let len = bytes[from..].windows(close.len()).position(|w| w == close).expect("a raw text ends");
            code[i] = b'"';
            literals.push((i, source[from..from + len].to_owned()));
            from + len + close.len()
        } else if rest[0] == b'"' {
            let mut end = i + 1;
            while bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            code[i] = b'"';
            literals.push((i, source[i + 1..end].to_owned()));
            end + 1
        } else if rest[0] == b'\'' {
            end_of_quote(bytes, i)
        } else {
            code[i] = if rest[0].is_ascii() { rest[0] } else { b'_' };
            i + 1
        };
        i = end;
    }
    (String::from_utf8(code).expect("ASCII"), literals)
}

/// Comments nest.
fn end_of_comment(bytes: &[u8], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    loop {
        match bytes.get(i..i + 2) {
            Some(b"/*") => (depth, i) = (depth + 1, i + 2),
            Some(b"*/") => (depth, i) = (depth - 1, i + 2),
            Some(_) => i += 1,
            None => return bytes.len(),
        }
        if depth == 0 {
            return i;
        }
    }
}

/// The number of `#` of a raw text that begins at the `r` here.
fn raw_text(bytes: &[u8], at: usize) -> Option<usize> {
    let in_word =
        at > 0 && (bytes[at - 1].is_ascii_alphanumeric() && bytes[at - 1] != b'b' || bytes[at - 1] == b'_');
    if bytes[at] != b'r' || in_word {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    (bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// Behind a character, or behind the quote alone where it begins a lifetime.
fn end_of_quote(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        return at + 3 + bytes[at + 3..].iter().position(|b| *b == b'\'').expect("a character ends") + 1;
    }
    // A character is one to four bytes long; a lifetime is never followed by a quote so closely.
    let close = (2..=5).find(|n| bytes.get(at + n) == Some(&b'\''));
    let one =
        close.filter(|n| std::str::from_utf8(&bytes[at + 1..at + n]).is_ok_and(|s| s.chars().count() == 1));
    at + one.map_or(1, |n| n + 1)
}

/// The same with every item under `#[cfg(test)]` blanked out. The code holds no texts and no comments.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(start) = code[from..].find(MARK).map(|n| from + n) {
        let mut depth = 0;
        let mut end = start + MARK.len();
        loop {
            match code.as_bytes().get(end) {
                Some(b'{') => depth += 1,
                Some(b'}') if depth == 1 => break,
                Some(b'}') => depth -= 1,
                Some(b';') if depth == 0 => break,
                None => break,
                Some(_) => {}
            }
            end += 1;
        }
        out[start..end.min(code.len())].fill(b' ');
        from = end.min(code.len());
    }
    String::from_utf8(out).expect("ASCII")
}
