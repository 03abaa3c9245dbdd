//! A simulator in virtual time: real engine, real ledger, real policies; sources and a sink that cost only time.
//!
//! Run it on a current-thread runtime whose clock is paused (`tokio::test(start_paused = true)`, or
//! [`block_on`]): tokio then jumps from timer to timer, and the same [`Plan`] gives the same run, event by event.

mod ranged;
mod rng;
mod swarm;
mod tree;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dlm_core::{
    Accept, Algorithm, Backend, Binding, Cx, Discovery, DiscoveryStream, Engine, EventKind, Evidence,
    FileSpec, FixedPieces, From, Hint, Identity, JobSpec, Journal, Locator, MemoryJournal, MemorySink,
    ObjectSpec, RelPath, Result, Sink, Snapshot, Source, Target, Trust, Validator,
};

pub use ranged::SimRanged;
pub use rng::Rng;
pub use swarm::{Peer, SimSwarm};
pub use tree::SimTree;

/// Makes a source of the plan's object.
pub type MakeSource = Arc<dyn Fn(&Object) -> (Arc<dyn Source>, dlm_core::Caps, Identity) + Send + Sync>;

/// The object that all sources of a plan have.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its bytes.
    pub data: Bytes,
    /// Length of a piece in bytes, where there is a proof.
    pub piece: Option<u64>,
    /// The run's seed.
    pub seed: u64,
}

/// One run.
#[derive(Clone)]
pub struct Plan {
    /// What is fetched.
    pub object: Object,
    /// By whom: each becomes a binding.
    pub sources: Vec<MakeSource>,
    /// Whether the object's length is known before the first byte.
    pub len_known: bool,
    /// What the job asks for beyond that; its locator does not matter.
    pub spec: JobSpec,
    /// Most bytes in flight, as [`EngineBuilder::memory`](dlm_core::EngineBuilder::memory).
    pub memory: u64,
    /// Virtual time after which the run counts as hung.
    pub patience: Duration,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("seed", &self.object.seed)
            .field("sources", &self.sources.len())
            .finish_non_exhaustive()
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The job's result.
    pub result: Result<dlm_core::Outcome>,
    /// Virtual seconds it took.
    pub seconds: f64,
    /// Labels of the parties that were banned, in order.
    pub banned: Vec<String>,
    /// Labels of all suspects, in order.
    pub suspects: Vec<String>,
    /// Times the object started over.
    pub restarts: u32,
    /// Every event, as text: equal for equal runs.
    pub trace: Vec<String>,
    /// The last snapshot.
    pub snapshot: Snapshot,
}

impl Plan {
    /// An object of `len` pseudo-random bytes and no source yet.
    pub fn new(seed: u64, len: usize) -> Self {
        let data = crate::fixtures::bytes(seed, len);
        Self::of(Object { data, piece: None, seed })
    }

    /// This object and no source yet.
    pub fn of(object: Object) -> Self {
        let locator: Locator = nowhere();
        Self {
            object,
            sources: Vec::new(),
            len_known: true,
            spec: JobSpec::new(locator),
            memory: 8 << 20,
            patience: Duration::from_hours(1),
        }
    }

    /// Gives the object a table of piece digests.
    pub fn pieces(mut self, len: u64) -> Self {
        self.object.piece = Some(len);
        self
    }

    /// Adds a source.
    pub fn source<F>(mut self, make: F) -> Self
    where
        F: Fn(&Object) -> (Arc<dyn Source>, dlm_core::Caps, Identity) + Send + Sync + 'static,
    {
        self.sources.push(Arc::new(make));
        self
    }

    /// The run, into memory. Dropped, it stops the job.
    pub async fn run(&self) -> (Report, MemorySink) {
        let sink = MemorySink::new();
        let report = self.run_into(Arc::new(sink.clone()), Arc::new(MemoryJournal::new())).await;
        (report, sink)
    }

    /// The run, with a sink and a journal of the caller's. Dropped, it stops the job, which then closes both.
    pub async fn run_into(&self, sink: Arc<dyn Sink>, journal: Arc<dyn Journal>) -> Report {
        let engine =
            Engine::builder().backend(SimBackend(self.clone())).memory(self.memory).deterministic().build();
        let began = tokio::time::Instant::now();
        let mut handle = engine.start(self.spec.clone(), sink, journal);
        let mut events = handle.events();
        let collect = async {
            let mut all = Vec::new();
            while let Some(e) = events.next().await {
                all.push((tokio::time::Instant::now() - began, e.kind));
            }
            all
        };
        let run = async { tokio::join!(handle.outcome(), collect) };
        let (result, seen) = match tokio::time::timeout(self.patience, run).await {
            Ok(r) => r,
            Err(_) => (
                Err(dlm_core::Error::new(dlm_core::Kind::Timeout, "run the plan").because("it hung")),
                Vec::new(),
            ),
        };
        let seconds = began.elapsed().as_secs_f64();
        let snapshot = handle.snapshot().borrow().clone();
        let mut report = Report {
            result,
            seconds,
            banned: Vec::new(),
            suspects: Vec::new(),
            restarts: 0,
            trace: Vec::new(),
            snapshot,
        };
        for (at, kind) in seen {
            match &kind {
                EventKind::Banned { party } => report.banned.push(party.to_string()),
                EventKind::Blamed { suspects, .. } => {
                    report.suspects.extend(suspects.iter().map(ToString::to_string));
                }
                EventKind::Restarted { .. } => report.restarts += 1,
                _ => {}
            }
            report.trace.push(format!("{at:?} {kind:?}"));
        }
        report
    }
}

/// Runs a future in virtual time: when everything waits, the clock is at the next timer at once. Time does not pass
/// while anything can run, and a future that waits for what never comes without a timer blocks for ever.
///
/// # Panics
/// When no runtime can be made.
#[expect(clippy::expect_used, reason = "a test cannot go on without a runtime")]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

fn nowhere() -> Locator {
    let url = "sim://object/";
    url.parse().unwrap_or_else(|_| unreachable!("{url} is a locator"))
}

#[derive(Debug)]
struct SimBackend(Plan);

#[async_trait]
impl Backend for SimBackend {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn accepts(&self, _hint: &Hint<'_>) -> Accept {
        Accept::Yes
    }

    async fn resolve(&self, _from: From, cx: &Cx) -> Result<DiscoveryStream> {
        let Plan { object, sources, len_known, .. } = &self.0;
        let id = cx.new_object();
        let len = object.data.len() as u64;
        let known = len_known.then_some(len);
        let mut all = vec![
            Ok(Discovery::Object(ObjectSpec::new(id, "", known))),
            Ok(Discovery::File(FileSpec::whole(cx.new_file(), RelPath::name("object")?, id, known))),
        ];
        if let Some(piece) = object.piece {
            let digests = object
                .data
                .chunks(piece as usize)
                .map(|c| Algorithm::Crc32c.hasher().update(c).finish())
                .collect();
            if let Some(proof) = FixedPieces::new(piece, len, digests) {
                let what = Evidence::Pieces { window: dlm_core::Span::ALL, proof: Arc::new(proof) };
                all.push(Ok(Discovery::Evidence { object: id, what, trust: Trust::Locator }));
            }
        }
        for make in sources {
            let (source, caps, identity) = make(object);
            all.push(Ok(Discovery::Bind(Binding::new(source, Target::new(id, nowhere()), caps, identity))));
        }
        Ok(Box::pin(futures::stream::iter(all)))
    }
}

/// The identity of an object in the simulator, with a strong validator.
pub fn strong(len: Option<u64>) -> Identity {
    Identity::new(len, Validator::Strong("\"sim\"".into()))
}
