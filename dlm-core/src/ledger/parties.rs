//! Parties: whom bytes are blamed on. Peers come and go for months; who is gone and has nothing left to answer for is
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::object::{PartyId, SourceId};

use super::{Ledger, State};

/// So many of those who are gone are kept before it is looked for who may be forgotten.
const GONE: usize = 256;

/// The unit of blame.
#[derive(Debug)]
pub(crate) struct Party {
    pub(crate) label: Arc<str>,
    pub(crate) source: SourceId,
    pub(crate) banned: bool,
    pub(crate) strikes: u32,
}

/// All parties of a job, by numbers that are not used again.
#[derive(Debug, Default)]
pub(crate) struct Parties {
    all: BTreeMap<PartyId, Party>,
    next: u32,
    /// The source as a whole: never gone.
    main: BTreeMap<SourceId, PartyId>,
    gone: BTreeSet<PartyId>,
    look_at: usize,
}

impl Parties {
    /// A party of a source; the first one is the source itself.
    pub(crate) fn add(&mut self, label: Arc<str>, source: SourceId) -> PartyId {
        let id = PartyId(self.next);
        self.next += 1;
        self.main.entry(source).or_insert(id);
        self.all.insert(id, Party { label, source, banned: false, strikes: 0 });
        id
    }

    pub(crate) fn get(&self, id: PartyId) -> Option<&Party> {
        self.all.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: PartyId) -> Option<&mut Party> {
        self.all.get_mut(&id)
    }

    /// Whether nothing more is taken from it.
    pub(crate) fn is_banned(&self, id: PartyId) -> bool {
        self.all.get(&id).is_none_or(|p| p.banned)
    }

    pub(crate) fn source(&self, id: PartyId) -> Option<SourceId> {
        self.all.get(&id).map(|p| p.source)
    }

    /// The party that a source itself is.
    pub(crate) fn main(&self, source: SourceId) -> Option<PartyId> {
        self.main.get(&source).copied()
    }
}

impl State {
    /// Nobody will act as this party again; bytes of it may still be judged.
    fn party_gone(&mut self, id: PartyId) {
        self.parties.gone.insert(id);
        if self.parties.gone.len() < self.parties.look_at.max(GONE) {
            return;
        }
        let mut needed: BTreeSet<PartyId> = self.board.leases.values().map(|l| l.party).collect();
        needed.extend(self.objects.values().flat_map(|o| o.origin.within(0..u64::MAX)).map(|(_, p)| *p));
        let p = &mut self.parties;
        let (all, gone) = (&mut p.all, &mut p.gone);
        gone.retain(|id| {
            let keep = needed.contains(id);
            if !keep {
                all.remove(id);
            }
            keep
        });
        // Not each time when most of them are still needed.
        p.look_at = 2 * gone.len();
    }
}

/// Held by everybody who acts as a party that is not the source itself.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) ledger: Arc<Ledger>,
    pub(super) party: PartyId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.ledger.with(|s, _| s.party_gone(self.party));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_used_again_and_the_source_is_its_first_party() {
        let mut p = Parties::default();
        let (a, b) = (SourceId(0), SourceId(1));
        let ids = [p.add("a".into(), a), p.add("b".into(), b), p.add("peer".into(), a)];
        assert_eq!((p.main(a), p.main(b)), (Some(ids[0]), Some(ids[1])));
        assert_eq!(p.source(ids[2]), Some(a));
        assert!(p.is_banned(PartyId(7)) && !p.is_banned(ids[2]));
    }

    /// A bench, the work of a source on it, and the bench's ledger.
    async fn work(len: u64) -> (super::super::WorkBench, super::super::Work) {
        let sink = Arc::new(crate::MemorySink::new());
        let bench = super::super::WorkBench::new(sink, Some(len), 8 << 20, crate::Cx::new()).await.unwrap();
        let target = crate::Target::new(bench.object(), "x://a".parse().unwrap());
        let identity = crate::Identity::new(Some(len), crate::Validator::ContentAddressed);
        let binding = crate::Binding::new(Arc::new(Idle), target, crate::Caps::RANGES, identity);
        let work = bench.add(binding).unwrap();
        (bench, work)
    }

    #[derive(Debug)]
    struct Idle;

    #[async_trait::async_trait]
    impl crate::Source for Idle {
        fn info(&self) -> crate::SourceInfo {
            crate::SourceInfo::new("x", "a", "a")
        }
        async fn run(self: Arc<Self>, _: super::super::Work) -> crate::Result<crate::Exit> {
            Ok(crate::Exit::Done)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_is_forgotten_but_not_before_its_bytes_were_judged() {
        const BLOCK: u64 = 16 << 10;
        const MANY: u64 = 100;
        let (_bench, work) = work(MANY * BLOCK).await;
        let ledger = work.ledger.clone();
        let known = || ledger.with(|s, _| s.parties.all.len());
        // Bytes of each are there, and nobody has judged them.
        for i in 0..MANY {
            let peer = work.party(&format!("peer {i}"));
            let claim = peer.try_claim(crate::ObjectId(0), i * BLOCK..(i + 1) * BLOCK);
            let super::super::Claim::Lease(mut lease) = claim else { panic!("{claim:?}") };
            lease.ready().await.unwrap();
            lease.put(i * BLOCK, bytes::Bytes::from(vec![0; BLOCK as usize])).unwrap();
        }
        for i in 0..20_000 {
            let peer = work.party("passing by");
            assert!(known() <= 2 * (GONE + MANY as usize), "{} are known after {i}", known());
            drop(peer.clone());
            assert!(!ledger.with(|s, _| s.parties.is_banned(peer.party_id())), "a clone is still there");
        }
        let labels: BTreeSet<Arc<str>> =
            ledger.with(|s, _| s.parties.all.values().map(|p| p.label.clone()).collect());
        for i in 0..MANY {
            assert!(labels.contains(format!("peer {i}").as_str()), "peer {i} still answers for its bytes");
        }
        assert!(labels.contains("a"), "the source itself");
    }
}
