use proptest::prelude::*;

use super::format::{compact, encode, scan};
use super::*;
use crate::journal::{Claim, Record};
use crate::object::{FileId, FileSpec, Identity, ObjectId, Validator};
use crate::path::RelPath;
use crate::sink::Sink;
use crate::{Batch, FileSink, IfExists};

fn object(key: &str, generation: u32) -> Record {
    let identity = Identity::new(Some(1 << 30), Validator::Strong("\"v1\"".into()));
    Record::Object { key: key.into(), generation, identity, remote: "http://h/f?sig=***".into() }
}

fn wrote(key: &str, generation: u32, start: u64, crc: u32) -> Record {
    Record::Wrote { key: key.into(), generation, claims: vec![Claim::new(start..start + 10, crc)] }
}

fn text(records: &[Record]) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    for r in records {
        encode(r, &mut out).unwrap();
    }
    out
}

fn any_record() -> impl Strategy<Value = Record> {
    let key = prop::sample::select(vec!["", "a", "b/ü\n\"\u{0}"]).prop_map(Arc::<str>::from);
    let validator = prop_oneof![
        any::<String>().prop_map(|s| Validator::Strong(s.into())),
        (any::<Option<u64>>(), any::<Option<String>>())
            .prop_map(|(mtime, tag)| Validator::Weak { mtime, tag: tag.map(Into::into) }),
        Just(Validator::ContentAddressed),
        Just(Validator::Unknown),
    ];
    let range = (0u64..100, 0u64..20).prop_map(|(s, n)| s..s + n);
    let claim = (range.clone(), any::<u32>()).prop_map(|(r, c)| Claim::new(r, c));
    let claims = prop::collection::vec(claim, 1..5);
    let ranges = prop::collection::vec(range, 1..4);
    prop_oneof![
        2 => (key.clone(), 0u32..3, any::<Option<u64>>(), validator, any::<String>()).prop_map(|(key, generation, len, v, r)| {
            Record::Object { key, generation, identity: Identity::new(len, v), remote: r.into() }
        }),
        5 => (key.clone(), 0u32..3, claims).prop_map(|(key, generation, claims)| Record::Wrote { key, generation, claims }),
        1 => (key.clone(), 0u32..3, ranges).prop_map(|(key, generation, ranges)| Record::Retract { key, generation, ranges }),
        1 => (key, 0u32..3).prop_map(|(key, generation)| Record::Restart { key, generation }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(records in prop::collection::vec(any_record(), 0..20)) {
        let bytes = text(&records);
        let s = scan(&bytes);
        prop_assert_eq!(s.good, bytes.len());
        prop_assert_eq!(&s.records, &records);
        let saved = SidecarJournal::parse(&bytes).unwrap();
        prop_assert_eq!(&saved, &Saved::replay(&records));
        prop_assert_eq!(Saved::replay(&compact(&saved)), saved);
    }

    #[test]
    fn damage_leaves_a_prefix(
        records in prop::collection::vec(any_record(), 0..12), at in any::<prop::sample::Index>(), bit in 0u8..8,
        cut in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let bytes = text(&records);
        let mut flipped = bytes.clone();
        flipped[at.index(bytes.len())] ^= 1 << bit;
        let short = bytes[..cut.index(bytes.len())].to_vec();
        let mut overwritten = short.clone();
        overwritten.extend_from_slice(&noise);
        for damaged in [flipped, short, overwritten] {
            let s = scan(&damaged);
            prop_assert!(s.good <= damaged.len());
            prop_assert_eq!(&s.records[..], &records[..s.records.len()]);
            if let Some(saved) = SidecarJournal::parse(&damaged) {
                prop_assert_eq!(&saved, &Saved::replay(&records[..s.records.len()]));
                for o in &saved.objects {
                    for c in &o.claims {
                        let said = records.iter().any(|r| matches!(r, Record::Wrote { key, generation, claims }
                            if *key == o.key && *generation == o.generation && claims.contains(c)));
                        prop_assert!(said, "{:?} was never recorded", c);
                    }
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_no_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), json in ".{0,80}") {
        let _ = SidecarJournal::parse(&bytes);
        bytes.splice(..0, HEADER.iter().copied());
        let _ = SidecarJournal::parse(&bytes);
        // A right checksum over wrong JSON.
        let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, json.as_bytes());
        let line = [HEADER, format!("{sum:08x} {json}\n").as_bytes()].concat();
        let _ = SidecarJournal::parse(&line);
    }

    #[test]
    fn replay_laws(records in prop::collection::vec(any_record(), 0..30), again in any_record()) {
        let saved = Saved::replay(&records);
        for o in &saved.objects {
            for w in o.claims.windows(2) {
                prop_assert!(w[0].range.end <= w[1].range.start, "sorted, and none overlaps another");
            }
            prop_assert!(o.claims.iter().all(|c| c.range.start < c.range.end));
        }
        let keys: std::collections::BTreeSet<_> = saved.objects.iter().map(|o| &o.key).collect();
        prop_assert_eq!(keys.len(), saved.objects.len());
        // Byte by byte: the last claim that no retraction, restart or other version has touched since.
        for key in ["", "a", "b/ü\n\"\u{0}"] {
            let mut model: Option<(u32, Identity, Vec<Claim>)> = None;
            for r in &records {
                match (r, &mut model) {
                    (Record::Object { key: k, generation, identity, .. }, m) if &**k == key => {
                        let stays = m.take().filter(|(g, i, _)| g == generation && i.agrees(identity));
                        *m = Some((*generation, identity.clone(), stays.map(|(_, _, c)| c).unwrap_or_default()));
                    }
                    (Record::Wrote { key: k, generation, claims }, Some((g, _, held))) if &**k == key && g == generation => {
                        for c in claims.iter().filter(|c| !c.range.is_empty()) {
                            held.retain(|h| h.range.end <= c.range.start || c.range.end <= h.range.start);
                            held.push(c.clone());
                        }
                    }
                    (Record::Retract { key: k, generation, ranges }, Some((g, _, held))) if &**k == key && g == generation => {
                        held.retain(|h| ranges.iter().all(|r| h.range.end <= r.start || r.end <= h.range.start));
                    }
                    (Record::Restart { key: k, generation }, Some((g, _, held))) if &**k == key => {
                        *g = *generation;
                        held.clear();
                    }
                    _ => {}
                }
            }
            let want = model.map(|(g, i, mut held)| {
                held.sort_by_key(|c| c.range.start);
                (g, i, held)
            });
            prop_assert_eq!(saved.object(key).map(|o| (o.generation, o.identity.clone(), o.claims.clone())), want);
        }
        // The same record twice in a row is as good as once.
        let once: Vec<_> = records.iter().chain([&again]).cloned().collect();
        let twice: Vec<_> = once.iter().chain([&again]).cloned().collect();
        prop_assert_eq!(Saved::replay(&once), Saved::replay(&twice));
    }
}

#[test]
fn every_cut_and_every_flip_of_one_journal() {
    let records = [
        object("", 1),
        wrote("", 1, 0, 7),
        wrote("", 1, 10, 8),
        Record::Retract { key: "".into(), generation: 1, ranges: std::iter::once(3..4).collect() },
    ];
    let bytes = text(&records);
    let prefixes: Vec<_> = (0..=records.len()).map(|n| Saved::replay(&records[..n])).collect();
    for cut in 0..=bytes.len() {
        let saved = SidecarJournal::parse(&bytes[..cut]);
        assert_eq!(saved.is_some(), cut >= HEADER.len());
        assert!(saved.is_none_or(|s| prefixes.contains(&s)));
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut b = bytes.clone();
            b[at] ^= 1 << bit;
            let saved = SidecarJournal::parse(&b);
            assert!(saved.as_ref().is_none_or(|s| prefixes.contains(s)), "{at} {bit}");
            assert_eq!(saved.is_none(), at < HEADER.len());
        }
    }
}

#[test]
fn bounds() {
    let claims: Vec<_> = (0..100_000u64).map(|i| Claim::new(i * 10..i * 10 + 10, u32::MAX)).collect();
    let big = Record::Wrote { key: "".into(), generation: 1, claims: claims.clone() };
    let bytes = text(&[object("", 1), big]);
    assert!(bytes.split(|b| *b == b'\n').all(|l| l.len() < 1 << 20));
    assert_eq!(SidecarJournal::parse(&bytes).unwrap().objects[0].claims, claims);

    let long = Record::Restart { key: "k".repeat(2 << 20).into(), generation: 1 };
    assert_eq!(encode(&long, &mut Vec::new()).unwrap_err().kind(), Kind::Invalid);
    let mut endless = HEADER.to_vec();
    endless.resize(3 << 20, b'a');
    assert_eq!(SidecarJournal::parse(&endless), Some(Saved::default()));
    endless.resize(MAX_FILE as usize + 1, b'\n');
    assert_eq!(SidecarJournal::parse(&endless), None);
    assert_eq!(SidecarJournal::parse(b"dlm-journal 2\n"), None);
}

struct Bench {
    dir: tempfile::TempDir,
    sink: Arc<FileSink>,
    journal: Arc<SidecarJournal>,
}

impl Bench {
    fn open(dir: tempfile::TempDir) -> Self {
        let sink = FileSink::builder(dir.path()).name("f").if_exists(IfExists::Overwrite).build().unwrap();
        let journal = sink.journal();
        Self { dir, sink, journal }
    }
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap())
    }
    async fn prepare(&self) {
        let spec = FileSpec::whole(FileId(1), RelPath::name("x").unwrap(), ObjectId(1), None);
        self.sink.prepare(&[spec]).await.remove(0).1.unwrap();
        let some = Batch::new(ObjectId(1), 0, vec!["bytes".into()]);
        self.sink.write(some).await.unwrap();
    }
    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("f.part.dlm")
    }
    async fn record(&self, records: &[Record]) -> Result<()> {
        self.journal.record(&Checkpoint::new(records.to_vec())).await
    }
    /// As after a kill: nothing was closed.
    fn again(self) -> Self {
        let Self { dir, sink, journal } = self;
        drop((sink, journal));
        Self::open(dir)
    }
}

#[tokio::test]
async fn is_found_before_and_after_prepare() {
    use std::os::unix::fs::PermissionsExt;
    let b = Bench::new();
    assert_eq!(b.journal.load().await.unwrap(), None);
    assert_eq!(b.record(&[object("", 1)]).await.unwrap_err().kind(), Kind::Bug);
    b.prepare().await;
    assert_eq!(b.journal.load().await.unwrap(), None);
    assert!(!b.path().exists());
    let records = [object("", 1), wrote("", 1, 0, 1), wrote("", 1, 10, 2)];
    b.record(&records[..2]).await.unwrap();
    b.journal.record(&Checkpoint::new(records[2..].to_vec()).durable(true)).await.unwrap();
    assert_eq!(b.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let want = Some(Saved::replay(&records));
    let b = b.again();
    assert_eq!(b.journal.load().await.unwrap(), want);
    b.prepare().await;
    assert_eq!(b.journal.load().await.unwrap(), want);
    assert_eq!(b.journal.load().await.unwrap(), want);
    b.journal.close(Keep::Partial).await.unwrap();
    assert!(b.path().exists());
    b.record(&[wrote("", 1, 20, 3)]).await.unwrap();
    b.journal.close(Keep::Nothing).await.unwrap();
    assert!(!b.path().exists());
    assert!(b.record(&records).await.is_err());
    assert!(!b.path().exists());
}

#[tokio::test]
async fn a_damaged_end_is_cut_before_more_is_appended() {
    for (damage, left) in [(&b"deadbeef {\"wrote\""[..], 2), (b"\n\n\n", 2), (b"\0\0\0\0", 2)] {
        let b = Bench::new();
        b.prepare().await;
        let records = [object("", 1), wrote("", 1, 0, 1), wrote("", 1, 10, 2)];
        b.record(&records[..left]).await.unwrap();
        let mut bytes = std::fs::read(b.path()).unwrap();
        bytes.extend_from_slice(damage);
        std::fs::write(b.path(), &bytes).unwrap();
        let b = b.again();
        b.prepare().await;
        assert_eq!(b.journal.load().await.unwrap(), Some(Saved::replay(&records[..left])));
        b.record(&records[left..]).await.unwrap();
        assert_eq!(std::fs::read(b.path()).unwrap(), text(&records));
    }
    // Not even the header, or nothing at all: it begins again.
    for start in ["", "garbage", "dlm-journal 9\n"] {
        let b = Bench::new();
        b.prepare().await;
        std::fs::write(b.path(), start).unwrap();
        assert_eq!(b.journal.load().await.unwrap(), None);
        b.record(&[object("", 1)]).await.unwrap();
        assert_eq!(std::fs::read(b.path()).unwrap(), text(&[object("", 1)]));
    }
}

#[tokio::test]
async fn many_void_lines_are_written_anew() {
    let b = Bench::new();
    b.prepare().await;
    let mut records = vec![object("", 1)];
    records.extend((0..500).map(|i| wrote("", 1, (i % 7) * 10, i as u32)));
    b.record(&records).await.unwrap();
    let before = b.path().metadata().unwrap().len();
    let b = b.again();
    b.prepare().await;
    assert_eq!(b.journal.load().await.unwrap(), Some(Saved::replay(&records)));
    assert_eq!(b.path().metadata().unwrap().len(), before, "reading changes nothing");
    records.push(wrote("", 1, 70, 9));
    b.record(&records[501..]).await.unwrap();
    records.push(wrote("", 1, 80, 9));
    b.record(&records[502..]).await.unwrap();
    assert!(b.path().metadata().unwrap().len() < before / 20);
    let b = b.again();
    assert_eq!(b.journal.load().await.unwrap(), Some(Saved::replay(&records)));
    assert_eq!(std::fs::read_dir(b.dir.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn what_is_no_plain_file_is_refused() {
    let b = Bench::new();
    b.prepare().await;
    let other = b.dir.path().join("other");
    std::fs::write(&other, "mine").unwrap();
    std::os::unix::fs::symlink(&other, b.path()).unwrap();
    assert_eq!(b.journal.load().await.unwrap_err().kind(), Kind::Io);
    assert_eq!(b.record(&[object("", 1)]).await.unwrap_err().kind(), Kind::Io);
    std::fs::remove_file(b.path()).unwrap();
    std::fs::hard_link(&other, b.path()).unwrap();
    assert_eq!(b.record(&[object("", 1)]).await.unwrap_err().kind(), Kind::Io);
    assert_eq!(std::fs::read(&other).unwrap(), b"mine");
    std::fs::remove_file(b.path()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, b.path(), PRIVATE).unwrap();
    assert_eq!(b.record(&[object("", 1)]).await.unwrap_err().kind(), Kind::Io);
    // Before anything is settled it is not complained about, and nobody waits for a fifo.
    assert_eq!(b.again().journal.load().await.unwrap(), None);
}

#[tokio::test]
async fn what_would_be_too_long_says_less_and_fails_nothing() {
    let b = Bench::new();
    b.prepare().await;
    // Nothing touches anything. Some claims are long, and they are worth the most.
    let claim = |i: u64| {
        Claim::new(i << 20..(i << 20) + if i.is_multiple_of(1000) { 90_000 } else { 10_000 }, i as u32)
    };
    let all: Vec<Claim> = (0..700_000).map(claim).collect();
    let mut records = vec![object("", 1)];
    for part in all.chunks(350_000) {
        let claims = part.to_vec();
        records.push(Record::Wrote { key: "".into(), generation: 1, claims });
        b.record(&records[records.len() - 1 - usize::from(records.len() == 2)..]).await.unwrap();
        assert!(b.path().metadata().unwrap().len() <= MAX_FILE);
    }
    let later = [wrote("", 1, (1 << 20) - 10, 5), wrote("", 1, 500_000, 7)];
    b.record(&later).await.unwrap();
    let b = b.again();
    b.prepare().await;
    let left = b.journal.load().await.unwrap().unwrap().objects.remove(0);
    let written: std::collections::BTreeSet<(u64, u64, u32)> =
        all.iter().map(|c| (c.range.start, c.range.end, c.crc)).collect();
    let old: Vec<_> = left.claims.iter().filter(|c| c.range.end - c.range.start > 10).collect();
    assert!(old.iter().all(|c| written.contains(&(c.range.start, c.range.end, c.crc))), "nothing is made up");
    assert!(old.len() > 60_000, "{}", old.len());
    assert_eq!(
        old.iter().filter(|c| c.range.end - c.range.start == 90_000).count(),
        700,
        "the long ones stay"
    );
    assert_eq!(left.claims.len() - old.len(), 2, "what came later is there");
}

#[tokio::test]
async fn claims_that_touch_are_joined_before_any_is_lost() {
    const PART: u64 = 4096;
    let zeros = |len: u64| crate::ledger::crc32c(&[vec![0; len as usize].into()]);
    let b = Bench::new();
    b.prepare().await;
    let crc = zeros(PART);
    let all: Vec<Claim> = (0..500_000).map(|i| Claim::new(i * PART..(i + 1) * PART, crc)).collect();
    b.record(&[object("", 1)]).await.unwrap();
    for part in all.chunks(100_000) {
        b.record(&[Record::Wrote { key: "".into(), generation: 1, claims: part.to_vec() }]).await.unwrap();
    }
    assert!(b.path().metadata().unwrap().len() <= MAX_FILE);
    let b = b.again();
    let left = b.journal.load().await.unwrap().unwrap().objects.remove(0).claims;
    assert_eq!((left[0].range.start, left.last().unwrap().range.end), (0, all.len() as u64 * PART));
    assert!(left.windows(2).all(|w| w[0].range.end == w[1].range.start), "all of it");
    for c in left.iter().take(9) {
        assert_eq!(c.crc, zeros(c.range.end - c.range.start), "{c:?}");
    }
}

#[tokio::test]
async fn more_objects_than_it_can_name_and_names_that_are_too_long() {
    let b = Bench::new();
    b.prepare().await;
    let key = |i: usize| format!("{i}/{}", "x".repeat(900));
    b.record(&[object(&"k".repeat(2 << 20), 1), object("first", 1), wrote("first", 1, 0, 1)]).await.unwrap();
    for from in (0..20_000).step_by(1000) {
        let all: Vec<Record> = (from..from + 1000).map(|i| object(&key(i), 1)).collect();
        b.record(&all).await.unwrap();
        assert!(b.path().metadata().unwrap().len() <= MAX_FILE);
    }
    b.record(&[wrote("first", 1, 10, 2)]).await.unwrap();
    let b = b.again();
    let saved = b.journal.load().await.unwrap().unwrap();
    assert_eq!(saved.object("first").unwrap().claims.len(), 2, "what has claims stays");
    assert!(saved.objects.len() > 1000, "{}", saved.objects.len());
}
