//! The text of a journal: a line that names the format, then one line a record, each with its own checksum.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::journal::{Claim, Record, Saved};
use crate::object::{Identity, Validator};

/// The first line.
pub(super) const HEADER: &[u8] = b"dlm-journal 1\n";
/// A longer journal is damaged, in bytes.
pub(super) const MAX_FILE: u64 = 16 << 20;
/// A longer line is damaged, in bytes with its end.
const MAX_LINE: usize = 1 << 20;
/// Most claims or ranges in one line: a claim has at most 57 bytes.
const MAX_CLAIMS: usize = 8 << 10;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line<'a> {
    Object {
        key: Cow<'a, str>,
        generation: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        len: Option<u64>,
        validator: Version<'a>,
        remote: Cow<'a, str>,
    },
    Wrote {
        key: Cow<'a, str>,
        generation: u32,
        claims: Vec<(u64, u64, Cow<'a, str>)>,
    },
    Retract {
        key: Cow<'a, str>,
        generation: u32,
        ranges: Vec<(u64, u64)>,
    },
    Restart {
        key: Cow<'a, str>,
        generation: u32,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Version<'a> {
    Strong(Cow<'a, str>),
    Weak { mtime: Option<u64>, tag: Option<Cow<'a, str>> },
    ContentAddressed,
    Unknown,
}

/// What is good of a journal's bytes.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) records: Vec<Record>,
    /// Length of what is good: the header and whole lines. 0 when not even the header is.
    pub(super) good: usize,
}

/// Reads until the first line that is cut, changed or not understood.
pub(super) fn scan(bytes: &[u8]) -> Scan {
    let mut scan = Scan::default();
    if bytes.len() as u64 > MAX_FILE || !bytes.starts_with(HEADER) {
        return scan;
    }
    scan.good = HEADER.len();
    while let Some(record) = next_line(&bytes[scan.good..]).and_then(|line| {
        let record = decode(line)?;
        scan.good += line.len() + 1;
        Some(record)
    }) {
        scan.records.push(record);
    }
    scan
}

/// The next whole line, without its end.
fn next_line(rest: &[u8]) -> Option<&[u8]> {
    let window = &rest[..rest.len().min(MAX_LINE)];
    window.iter().position(|b| *b == b'\n').map(|end| &window[..end])
}

/// One line: eight hex digits, a space, JSON.
fn decode(line: &[u8]) -> Option<Record> {
    let (sum, json) = (line.get(..8)?, line.get(9..)?);
    if line[8] != b' ' || hex8(std::str::from_utf8(sum).ok()?)? != crc(json) {
        return None;
    }
    let arc = |s: Cow<'_, str>| Arc::<str>::from(&*s);
    Some(match serde_json::from_slice(json).ok()? {
        Line::Object { key, generation, len, validator, remote } => Record::Object {
            key: arc(key),
            generation,
            identity: Identity::new(
                len,
                match validator {
                    Version::Strong(s) => Validator::Strong(arc(s)),
                    Version::Weak { mtime, tag } => Validator::Weak { mtime, tag: tag.map(arc) },
                    Version::ContentAddressed => Validator::ContentAddressed,
                    Version::Unknown => Validator::Unknown,
                },
            ),
            remote: arc(remote),
        },
        Line::Wrote { key, generation, claims } => {
            let claims =
                claims.into_iter().map(|(start, end, crc)| Some(Claim::new(start..end, hex8(&crc)?)));
            Record::Wrote { key: arc(key), generation, claims: claims.collect::<Option<_>>()? }
        }
        Line::Retract { key, generation, ranges } => Record::Retract {
            key: arc(key),
            generation,
            ranges: ranges.into_iter().map(|(s, e)| s..e).collect(),
        },
        Line::Restart { key, generation } => Record::Restart { key: arc(key), generation },
    })
}

/// Exactly eight lower-case hex digits, as they are written: another spelling is not ours.
fn hex8(s: &str) -> Option<u32> {
    let plain = s.len() == 8 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u32::from_str_radix(s, 16).ok())?
}

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Appends a record's lines.
///
/// # Errors
/// [`Kind::Invalid`] when a key or a locator is too long for a line.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) -> Result<()> {
    match record {
        Record::Object { key, generation, identity, remote } => {
            let validator = match &identity.validator {
                Validator::Strong(s) => Version::Strong(Cow::Borrowed(s)),
                Validator::Weak { mtime, tag } => {
                    Version::Weak { mtime: *mtime, tag: tag.as_deref().map(Cow::Borrowed) }
                }
                Validator::ContentAddressed => Version::ContentAddressed,
                Validator::Unknown => Version::Unknown,
            };
            let (key, remote) = (Cow::Borrowed(&**key), Cow::Borrowed(&**remote));
            line(&Line::Object { key, generation: *generation, len: identity.len, validator, remote }, out)
        }
        // One claim and all claims of a record are no different: a cut between two lines loses the later ones.
        Record::Wrote { key, generation, claims } => claims.chunks(MAX_CLAIMS).try_for_each(|part| {
            let one = |c: &Claim| (c.range.start, c.range.end, Cow::Owned(format!("{:08x}", c.crc)));
            let claims = part.iter().map(one).collect();
            line(&Line::Wrote { key: Cow::Borrowed(key), generation: *generation, claims }, out)
        }),
        Record::Retract { key, generation, ranges } => ranges.chunks(MAX_CLAIMS).try_for_each(|part| {
            let ranges = part.iter().map(|r: &Range<u64>| (r.start, r.end)).collect();
            line(&Line::Retract { key: Cow::Borrowed(key), generation: *generation, ranges }, out)
        }),
        Record::Restart { key, generation } => {
            line(&Line::Restart { key: Cow::Borrowed(key), generation: *generation }, out)
        }
    }
}

/// Appends the lines of these records. One that is too long for a line is left out: what it says is not resumed.
pub(super) fn encode_all(records: &[Record], out: &mut Vec<u8>) {
    for r in records {
        // Whole lines before it stay, and are right by themselves.
        let _ = encode(r, out);
    }
}

fn line(line: &Line<'_>, out: &mut Vec<u8>) -> Result<()> {
    let wrong = |why: &dyn std::fmt::Display| Error::new(Kind::Invalid, "write the journal").because(why);
    let json = serde_json::to_string(line).map_err(|e| wrong(&e))?;
    if json.len() + 10 > MAX_LINE {
        return Err(wrong(&"a name or a locator is longer than a line may be"));
    }
    out.extend_from_slice(format!("{:08x} {json}\n", crc(json.as_bytes())).as_bytes());
    Ok(())
}

/// The fewest records that say the same.
pub(super) fn compact(saved: &Saved) -> Vec<Record> {
    let mut out = Vec::new();
    for o in &saved.objects {
        out.push(Record::Object {
            key: o.key.clone(),
            generation: o.generation,
            identity: o.identity.clone(),
            remote: o.remote.clone(),
        });
        for claims in o.claims.chunks(MAX_CLAIMS) {
            out.push(Record::Wrote { key: o.key.clone(), generation: o.generation, claims: claims.to_vec() });
        }
    }
    out
}
