//! A hash tree whose leaves are found while it runs: pieces of many lengths, known only as their parents arrive.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    AbortCost, Algorithm, Caps, Discovery, Evidence, Exit, Identity, ObjectId, Result, Source, SourceInfo,
    Span, Trust, Validator, VariablePieces, Work, WorkClaim,
};

use super::{Object, Rng};

/// A block store.
#[derive(Debug, Clone)]
pub struct SimTree {
    /// Bytes a second.
    pub rate: f64,
    /// The longest leaf in bytes.
    pub leaf: u64,
}

impl SimTree {
    /// As a source of the plan's object.
    pub fn make(self) -> impl Fn(&Object) -> (Arc<dyn Source>, Caps, Identity) + Send + Sync + 'static {
        move |object| {
            let tree = Tree { plan: self.clone(), data: object.data.clone(), seed: object.seed };
            let identity = Identity::new(None, Validator::ContentAddressed);
            (Arc::new(tree) as Arc<dyn Source>, Caps::RANGES.abort(AbortCost::Stream), identity)
        }
    }
}

#[derive(Debug)]
struct Tree {
    plan: SimTree,
    data: Bytes,
    seed: u64,
}

#[async_trait]
impl Source for Tree {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("sim", "tree", "tree")
    }

    async fn run(self: Arc<Self>, work: Work) -> Result<Exit> {
        let object = ObjectId(0);
        let mut rng = Rng::new(self.seed ^ 0x7ee);
        let open = work.discovering();
        let mut at = 0;
        let len = self.data.len() as u64;
        let mut leaves = Vec::new();
        while at < len {
            let leaf = (1 + rng.below(self.plan.leaf)).min(len - at);
            leaves.push(at..at + leaf);
            at += leaf;
        }
        // A parent names some leaves; it costs a round trip.
        for parent in leaves.chunks(8) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let digest = |r: &std::ops::Range<u64>| {
                Algorithm::Crc32c.hasher().update(&self.data[r.start as usize..r.end as usize]).finish()
            };
            let window = Span::new(parent[0].start, parent[parent.len() - 1].end);
            if let Some(p) = VariablePieces::new(parent.iter().map(|r| (r.clone(), digest(r))).collect()) {
                let what = Evidence::Pieces { window, proof: Arc::new(p) };
                work.learn(Discovery::Evidence { object, what, trust: Trust::Locator }).await?;
            }
            for leaf in parent {
                let WorkClaim::Lease(mut lease) = work.try_claim(object, leaf.clone()) else { continue };
                lease.ready().await?;
                tokio::time::sleep(Duration::from_secs_f64((leaf.end - leaf.start) as f64 / self.plan.rate))
                    .await;
                lease.put(leaf.start, self.data.slice(leaf.start as usize..leaf.end as usize))?;
            }
        }
        drop(open);
        // Whatever was lost or left by others since then.
        loop {
            let mut left = false;
            for leaf in &leaves {
                match work.try_claim(object, leaf.clone()) {
                    WorkClaim::Lease(mut lease) => {
                        left = true;
                        lease.ready().await?;
                        tokio::time::sleep(Duration::from_secs_f64(
                            (leaf.end - leaf.start) as f64 / self.plan.rate,
                        ))
                        .await;
                        lease.put(leaf.start, self.data.slice(leaf.start as usize..leaf.end as usize))?;
                    }
                    WorkClaim::Retire => return Ok(Exit::Done),
                    _ => {}
                }
            }
            if !left {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
