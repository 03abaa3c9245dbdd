//! Rules for a [`Journal`].

use std::sync::Arc;

use dlm_core::{Checkpoint, Claim, Identity, Journal, Keep, Record, Saved, Validator};

fn object(key: &str, generation: u32, tag: &str) -> Record {
    let identity = Identity::new(Some(1 << 40), Validator::Strong(tag.into()));
    Record::Object { key: key.into(), generation, identity, remote: "http://host/path?sig=***".into() }
}

fn wrote(key: &str, generation: u32, start: u64, end: u64) -> Record {
    Record::Wrote { key: key.into(), generation, claims: vec![Claim::new(start..end, (start ^ end) as u32)] }
}

/// Every rule for a journal. `open` opens the same place again at each call; the first finds nothing there, and after a
/// success nothing is there any more. Dropped, it leaves what it has recorded so far.
///
/// # Panics
/// When a rule is broken.
pub async fn journal(open: impl Fn() -> Arc<dyn Journal>) {
    assert_eq!(open().load().await.expect("load: nothing there is no error"), None, "load: nothing there");
    let all = [
        object("", 0, "\"one\""),
        wrote("", 0, 0, 100),
        wrote("", 0, 100, 4_000_000_000),
        Record::Retract { key: "".into(), generation: 0, ranges: std::iter::once(50..60).collect() },
        object("dir/ä b\n\"", 0, "W/x\u{7f}"),
        wrote("dir/ä b\n\"", 0, 5, 10),
        Record::Restart { key: "".into(), generation: 1 },
        object("", 1, "\"two\""),
        wrote("", 1, 7, 9),
        wrote("unknown", 0, 0, 9),
    ];
    for (i, record) in all.iter().enumerate() {
        let j = open();
        // A journal is read before it is written to, as the engine does.
        let before = j.load().await.expect("load");
        assert_eq!(before.unwrap_or_default(), Saved::replay(&all[..i]), "load: exactly what was recorded");
        let c = Checkpoint::new(vec![record.clone()]).durable(i % 2 == 0);
        j.record(&c).await.expect("record");
        j.close(Keep::Partial).await.expect("close: it stays");
    }
    let j = open();
    assert_eq!(j.load().await.expect("load"), Some(Saved::replay(&all)), "load: everything");
    assert_eq!(j.load().await.expect("load"), Some(Saved::replay(&all)), "load: it may be called again");
    j.record(&Checkpoint::new(vec![wrote("", 1, 9, 20), wrote("", 1, 30, 40)]))
        .await
        .expect("record: several at once");
    let claims = open().load().await.expect("load").and_then(|s| s.object("").map(|o| o.claims.len()));
    assert_eq!(claims, Some(3), "record: several at once");
    let j = open();
    j.load().await.expect("load");
    j.close(Keep::Nothing).await.expect("close: it goes");
    assert_eq!(open().load().await.expect("load"), None, "close: it is gone");
}
