//! An object that starts over: leases are revoked, what is held drains, the journal says so, the place is emptied, and
//! only then anything is granted again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic in a test is a report")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::job::{Acting, Gate, Parked, Scripted, Told, add, bench, bind, found, object, start};
use dlm_core::{
    Algorithm, Ask, Caps, Exit, FixedPieces, Identity, Kind, Lease, MemorySink, Next, ObjectView, Proof,
    RangeSet, Record, Trust, Validator, Work, WorkBench, WorkClaim,
};
use dlm_testkit::fixtures;
use dlm_testkit::sim::{block_on, strong};

const MB: u64 = 1 << 20;

fn other(len: u64) -> Identity {
    Identity::new(Some(len), Validator::Strong("\"another\"".into()))
}

fn lease(claim: WorkClaim) -> Lease {
    match claim {
        WorkClaim::Lease(l) => l,
        other => panic!("no lease: {other:?}"),
    }
}

/// A bench where a batch of version one is being written, and two leases that belong to it.
async fn begun(gate: &Gate) -> (WorkBench, Work, Lease, Lease) {
    let bench = bench(Arc::new(gate.clone()), Some(4 * MB), 8 * MB, 4).await;
    let work = add(&bench, "a", Caps::RANGES, strong(Some(4 * MB)));
    let mut one = lease(work.try_claim(bench.object(), 0..MB));
    let mut two = lease(work.try_claim(bench.object(), MB..2 * MB));
    for l in [&mut one, &mut two] {
        l.agree(&strong(Some(4 * MB))).unwrap();
    }
    one.put(0, fixtures::bytes(1, 600_000)).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(gate.begun().len(), 1, "a write is on its way");
    (bench, work, one, two)
}

fn gate() -> Gate {
    Gate::new(Arc::new(MemorySink::new()))
}

/// An answer of another version comes.
fn change(work: &Work, bench: &WorkBench) {
    let mut l = lease(work.try_claim(bench.object(), 3 * MB..4 * MB));
    assert_eq!(l.agree(&other(4 * MB)).unwrap_err().kind(), Kind::Changed);
}

#[test]
fn starting_over_raises_the_generation_and_revokes_every_lease() {
    block_on(async {
        let (bench, work, one, two) = begun(&gate()).await;
        let mut told = [one.revoked(), two.revoked()].map(Parked::new);
        assert!(told.iter_mut().all(|t| t.poll().is_pending()));
        assert_eq!(bench.look(ObjectView::generation), 0);
        change(&work, &bench);
        assert_eq!(bench.look(ObjectView::generation), 1);
        assert!(told.iter_mut().all(|t| t.poll().is_ready()));
    });
}

#[test]
fn a_put_of_an_older_generation_is_stop() {
    block_on(async {
        let gate = gate();
        let (mut bench, work, mut one, mut two) = begun(&gate).await;
        change(&work, &bench);
        let before = bench.done();
        assert_eq!(one.put(600_000, fixtures::bytes(1, 1000)).unwrap().next, Next::Stop);
        assert_eq!(bench.done(), before, "while it drains");
        gate.open();
        bench.settle().await;
        let put = two.put(MB, fixtures::bytes(1, 1000)).unwrap();
        assert_eq!((put.taken, put.next), (0, Next::Stop), "and after that");
        assert!(bench.done().is_empty());
        // From now on one answer at a time.
        drop((one, two));
        let mut new = lease(work.try_claim(bench.object(), 3 * MB..4 * MB));
        new.agree(&other(4 * MB)).unwrap();
        assert_eq!(new.put(3 * MB, fixtures::bytes(2, 1000)).unwrap().taken, 1000, "the new one is welcome");
        bench.check().unwrap();
    });
}

#[test]
fn nothing_is_emptied_while_a_write_is_on_its_way_and_nothing_granted_before_it_is_empty() {
    block_on(async {
        let gate = gate();
        let (mut bench, work, one, two) = begun(&gate).await;
        change(&work, &bench);
        drop((one, two));
        bench.settle().await;
        assert_eq!(gate.log.count("truncate"), 0, "a write is on its way");
        assert!(!bench.look(|o| o.done().is_empty()), "what is held is held");
        assert!(matches!(work.try_claim(bench.object(), 2 * MB..3 * MB), WorkClaim::Busy));
        let asking = work.clone();
        let mut waiting = Parked::new(async move { asking.claim(Ask::ANY).await });
        assert!(waiting.poll().is_pending());
        gate.open();
        bench.settle().await;
        assert!(gate.log.last("truncate") > gate.log.last("wrote"), "{:?}", gate.log.all());
        assert!(waiting.poll().is_ready());
        assert!(bench.done().is_empty());
        assert_eq!(bench.in_flight(), 0);
    });
}

#[test]
fn nothing_is_emptied_while_it_is_being_checked_and_the_late_verdict_is_not_applied() {
    block_on(async {
        let gate = gate();
        gate.open();
        let mut bench = bench(Arc::new(gate.clone()), Some(4 * MB), 8 * MB, 4).await;
        let digests = vec![Algorithm::Crc32c.hasher().update(b"something else").finish(); 4];
        let pieces: Arc<dyn Proof> = Arc::new(FixedPieces::new(MB, 4 * MB, digests).unwrap());
        bench.proof(pieces, Trust::Locator);
        let work = add(&bench, "a", Caps::RANGES, strong(Some(4 * MB)));
        let peer = work.party("peer");
        let held = gate.reads.clone().write_owned().await;
        let mut l = lease(peer.try_claim(bench.object(), 0..MB));
        l.agree(&strong(Some(4 * MB))).unwrap();
        l.put(0, fixtures::bytes(1, MB as usize)).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(gate.log.count("read"), 1, "the piece is being checked: {:?}", gate.log.all());
        drop(l);
        change(&work, &bench);
        bench.settle().await;
        assert_eq!(gate.log.count("truncate"), 0);
        drop(held);
        bench.settle().await;
        assert_eq!(gate.log.count("truncate"), 1);
        let again = peer.try_claim(bench.object(), 0..MB);
        assert!(
            matches!(again, WorkClaim::Lease(_)),
            "nobody is convicted for the version before: {again:?}"
        );
    });
}

/// A job whose file changed while a write of the old one was on its way, and another had just returned. Returns what
/// happened, all of it and until that write returned.
fn changes_in_mid_write() -> (Told, Vec<String>) {
    block_on(async {
        let data = fixtures::bytes(2, MB as usize);
        let (memory, journal) = (MemorySink::new(), Told::default());
        let mut gate = Gate::new(Arc::new(memory.clone()));
        gate.log = journal.log.clone();
        let (log, new, door) = (journal.log.clone(), data.clone(), gate.clone());
        let source = Acting::doing("a", move |work| async move {
            let mut one = lease(work.claim(Ask::ANY).await);
            one.agree(&strong(Some(MB)))?;
            one.put(0, fixtures::bytes(1, 600_000))?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            // The first is journaled, the second not yet: that was only a moment ago. The third does not return.
            for n in 1..=2 {
                door.let_through(1);
                while door.log.count("wrote") < n {
                    tokio::task::yield_now().await;
                }
                one.put(500_000 + n as u64 * 100_000, fixtures::bytes(1, 100_000))?;
            }
            one.reopen();
            assert!(one.agree(&other(MB)).is_err());
            drop(one);
            log.say("changed");
            let mut two = lease(work.claim(Ask::ANY).await);
            log.say("granted");
            two.agree(&other(MB))?;
            two.put(0, new)?;
            Ok(Exit::Done)
        });
        let backend = Scripted::new(move |_, cx| {
            let (id, mut all) = object(cx, "f", Some(MB));
            all.push(bind(&source, id, Caps::RANGES, strong(Some(MB))));
            Ok(found(all))
        });
        let mut job = start(backend, Arc::new(gate.clone()), Arc::new(journal.clone()));
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before = journal.log.all();
        gate.open();
        let ended = tokio::time::timeout(Duration::from_mins(1), job.outcome()).await;
        ended.expect("it hung").unwrap();
        assert_eq!(memory.file("f").as_ref(), Some(&data), "only the new version");
        (journal, before)
    })
}

#[test]
fn it_drains_it_is_journaled_it_is_emptied_it_is_granted() {
    let (Told { log, .. }, before) = changes_in_mid_write();
    let last = before.iter().rposition(|l| l == "changed");
    assert_eq!(last, Some(before.len() - 1), "until the write has returned nothing else happens: {before:?}");
    let (changed, granted) = (last.unwrap(), log.last("granted").unwrap());
    let between = &log.all()[changed + 1..=granted];
    let [wrote, journal, truncate, grant] = between else { panic!("{between:?}") };
    assert!(wrote.starts_with("wrote"), "{between:?}");
    assert!(journal.starts_with("journal Restart") && journal.contains("generation: 1"), "{between:?}");
    assert_eq!((truncate.as_str(), grant.as_str()), ("truncate", "granted"));
}

#[test]
fn what_was_written_before_is_not_claimed_after_the_restart() {
    let (Told { records, log, .. }, _) = changes_in_mid_write();
    let (mut claimed, mut before) = (None, 0);
    for r in records.lock().unwrap().iter() {
        match (r, &mut claimed) {
            (Record::Restart { .. }, _) => claimed = Some(RangeSet::new()),
            (Record::Wrote { claims, .. }, None) => before += claims.len(),
            (Record::Wrote { claims, generation, .. }, Some(new)) => {
                assert_eq!(*generation, 1);
                for c in claims {
                    assert!(!new.touches(&c.range), "{:?} is claimed twice: {:?}", c.range, log.all());
                    new.insert(c.range.clone());
                }
            }
            _ => {}
        }
    }
    assert!(before == 1 && claimed.is_some(), "{:?}", log.all());
}
