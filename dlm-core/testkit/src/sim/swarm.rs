//! A swarm: peers that each have some pieces, choose them by themselves, and may lie.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    AbortCost, Caps, Exit, Identity, NewsItem, Next, ObjectId, Result, Source, SourceInfo, Validator, Work,
    WorkClaim,
};
use futures::future::join_all;

use super::{Object, Rng};

const BLOCK: u64 = 16 << 10;

/// One peer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its label: whom its bytes are blamed on.
    pub label: String,
    /// Bytes a second.
    pub rate: f64,
    /// The share of the pieces that it has.
    pub share: f64,
    /// Flips a bit in this share of the pieces that it delivers.
    pub corrupt: f64,
}

/// A swarm of such peers.
#[derive(Debug, Clone)]
pub struct SimSwarm {
    /// Its peers.
    pub peers: Vec<Peer>,
}

impl SimSwarm {
    /// As a source of the plan's object.
    pub fn make(self) -> impl Fn(&Object) -> (Arc<dyn Source>, Caps, Identity) + Send + Sync + 'static {
        move |object| {
            let piece = object.piece.unwrap_or(256 << 10);
            let swarm =
                Swarm { peers: self.peers.clone(), data: object.data.clone(), piece, seed: object.seed };
            let identity = Identity::new(Some(object.data.len() as u64), Validator::ContentAddressed);
            (Arc::new(swarm) as Arc<dyn Source>, Caps::RANGES.abort(AbortCost::Stream), identity)
        }
    }
}

#[derive(Debug)]
struct Swarm {
    peers: Vec<Peer>,
    data: Bytes,
    piece: u64,
    seed: u64,
}

#[async_trait]
impl Source for Swarm {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("sim", "swarm", "swarm")
    }

    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let all = self.peers.iter().enumerate().map(|(i, p)| self.peer(i as u64, p, work.party(&p.label)));
        let stopped = work.stopped();
        tokio::select! {
            biased;
            () = stopped => {}
            _ = join_all(all) => {}
        }
        Ok(Exit::Done)
    }
}

impl Swarm {
    async fn peer(&self, index: u64, peer: &Peer, work: Work) {
        let mut rng = Rng::new(self.seed.wrapping_mul(31).wrapping_add(index));
        let len = self.data.len() as u64;
        let mut pieces: Vec<u64> = (0..len.div_ceil(self.piece)).filter(|_| rng.chance(peer.share)).collect();
        rng.shuffle(&mut pieces);
        let object = ObjectId(0);
        let mut news = work.news();
        loop {
            let mut busy = true;
            for i in &pieces {
                let range = i * self.piece..((i + 1) * self.piece).min(len);
                match work.try_claim(object, range.clone()) {
                    WorkClaim::Lease(mut lease) => {
                        busy = false;
                        let bad = rng.chance(peer.corrupt);
                        self.fetch(&mut lease, &range, peer.rate, bad).await;
                    }
                    WorkClaim::Retire => return,
                    _ => {}
                }
            }
            if busy {
                // Nothing of what it has is wanted: until something is lost again, or a while has passed.
                loop {
                    match tokio::time::timeout(Duration::from_millis(100), news.next()).await {
                        Err(_) | Ok(Some(NewsItem::Lost { .. } | NewsItem::Resync)) => break,
                        Ok(None) => return,
                        Ok(Some(NewsItem::Banned(p))) if p == work.party_id() => return,
                        Ok(Some(_)) => {}
                    }
                }
            }
        }
    }

    async fn fetch(&self, lease: &mut dlm_core::Lease, range: &Range<u64>, rate: f64, bad: bool) {
        let began = tokio::time::Instant::now();
        let mut at = range.start;
        while at < range.end {
            if lease.ready().await.is_err() {
                return;
            }
            let end = (at + BLOCK).min(range.end);
            let due = began + Duration::from_secs_f64((end - range.start) as f64 / rate);
            tokio::select! {
                biased;
                () = lease.revoked() => return,
                () = tokio::time::sleep_until(due) => {}
            }
            let mut block = self.data.slice(at as usize..end as usize);
            if bad && at == range.start {
                let mut wrong = block.to_vec();
                wrong[7] ^= 0x10;
                block = wrong.into();
            }
            match lease.put(at, block) {
                Ok(p) if p.next != Next::Stop => {}
                _ => return,
            }
            at = end;
        }
    }
}
