//! A ledger on a bench: one object, one source, no driver. What a test of a [`Source`] needs to make a [`Work`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::{Binding, Cx};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::object::{Evidence, FileId, FileSpec, ObjectId, ObjectSpec, PartyId, Span, Trust};
use crate::origin::Origin;
use crate::path::RelPath;
use crate::sched::{Adaptive, Ordered, Scheduler};
use crate::select::Want;
use crate::sink::{Order, Sink};
use crate::source::Source;
use crate::throttle::Bucket;
use crate::verify::Proof;

use super::{Compute, Learnt, Ledger, Limits, ObjectView, Parts, RangeSet, Work};

/// One object's ledger by itself, for tests of a [`Source`]: it makes a [`Work`], and shows what became of it.
///
/// Nothing is journaled; ranges that turned out wrong are missing again after [`settle`](Self::settle).
/// Must be made and used inside a tokio runtime.
#[derive(Debug)]
pub struct WorkBench {
    ledger: Arc<Ledger>,
    object: ObjectId,
    found: mpsc::Receiver<Learnt>,
    cx: Cx,
}

impl WorkBench {
    /// A bench with one object of `len` bytes (`None`: not known yet), which goes to `sink`; `memory` bytes may be in flight.
    ///
    /// **Cancellation.** Dropped, it may have prepared the object's file.
    ///
    /// # Errors
    /// The sink's, from preparing the object's file.
    pub async fn new(sink: Arc<dyn Sink>, len: Option<u64>, memory: u64, cx: Cx) -> Result<Self> {
        Self::with_limits(sink, len, memory, cx, Limits::default()).await
    }

    /// The same, with limits.
    ///
    /// **Cancellation.** As [`new`](Self::new).
    ///
    /// # Errors
    /// The sink's, from preparing the object's file.
    pub async fn with_limits(
        sink: Arc<dyn Sink>,
        len: Option<u64>,
        memory: u64,
        cx: Cx,
        limits: Limits,
    ) -> Result<Self> {
        let caps = sink.caps();
        let ordered = caps.order == Order::Next;
        let policy: Box<dyn Scheduler> =
            if ordered { Box::new(Ordered::new()) } else { Box::new(Adaptive::new()) };
        let object = cx.new_object();
        let file = FileSpec::whole(cx.new_file(), RelPath::name("object")?, object, len);
        for (_, r) in sink.prepare(&[file]).await {
            r?;
        }
        let (tx, found) = mpsc::channel(64);
        let ledger = Ledger::new(Parts {
            sink,
            policy,
            budget: Budget::job(&Budget::engine(memory)),
            buckets: [Arc::new(Bucket::new(None)), Arc::new(Bucket::new(limits.rate))],
            limits,
            retries: 5,
            max_pause: Duration::from_secs(30),
            stop: CancellationToken::new(),
            compute: Compute::Inline,
            found: tx,
        });
        let window = ordered.then_some(memory / 2);
        ledger.with(|s, after| {
            s.add_object(&ObjectSpec::new(object, "", len), window, caps.readable)?;
            s.open_object(object, Instant::now(), after);
            Ok::<_, Error>(())
        })?;
        Ok(Self { ledger, object, found, cx })
    }

    /// The object.
    pub fn object(&self) -> ObjectId {
        self.object
    }

    /// Judges its pieces by `proof`.
    pub fn proof(&self, proof: Arc<dyn Proof>, trust: Trust) {
        let what = Evidence::Pieces { window: Span::ALL, proof };
        self.ledger.with(|s, after| s.add_evidence(self.object, what, trust, None, after));
    }

    /// From now on only these ranges are wanted, each with its priority, higher first: as if they were files of a job.
    pub fn want(&self, ranges: impl IntoIterator<Item = (std::ops::Range<u64>, i32)>) {
        let wants: Vec<(Span, Want)> = ranges.into_iter().map(|(r, p)| (r.into(), Want::Fetch(p))).collect();
        let nothing = (Span::new(0, 0), Want::Skip);
        let now = Instant::now();
        self.ledger.with(|s, after| {
            if let Some(o) = s.objects.get_mut(&self.object) {
                o.files.clear();
            }
            for (n, (range, want)) in std::iter::once(nothing).chain(wants).enumerate() {
                s.file_is(self.object, FileId(n as u32), range, want);
            }
            s.mask(self.object, now, after);
        });
    }

    /// Adds a source with one binding, and makes its [`Work`].
    ///
    /// The source is not run: that is for [`run`](Self::run), or for the test itself.
    ///
    /// # Errors
    /// [`Changed`](crate::Kind::Changed) where the binding has another length than the object; [`Bug`](crate::Kind::Bug)
    /// where it is of another object.
    pub fn add(&self, binding: Binding) -> Result<Work> {
        let info = binding.source.info();
        let (id, party) = self.ledger.with(|s, _| {
            let id = s.add_source(info, Arc::new(Origin::new(None)));
            (id, s.parties.main(id).unwrap_or(PartyId(0)))
        });
        self.ledger.with(|s, after| s.add_binding(id, binding, 5, Duration::from_secs(30), after))?;
        let now = Instant::now();
        self.ledger.with(|s, after| s.pump(now, after));
        Ok(Work::new(self.ledger.clone(), id, party, self.cx.clone()))
    }

    /// Runs a source on a work until the object is whole, its run has ended, or `patience` is over. Returns whether it is
    /// whole. What the source learns ([`Work::learn`]) is dropped.
    ///
    /// **Cancellation.** Dropped, it leaves the source running on its task; [`end`](Self::end) stops it.
    pub async fn run(&mut self, source: Arc<dyn Source>, work: Work, patience: Duration) -> bool {
        let mut run = tokio::spawn(source.run(work));
        let deadline = Instant::now() + patience;
        let mut ended = false;
        while Instant::now() < deadline && !self.whole() {
            self.settle().await;
            if ended && self.ledger.with(|s, _| s.running == 0) {
                break;
            }
            let now = Instant::now();
            self.ledger.with(|s, after| s.tick(now, after));
            self.ledger.flush_all();
            // A finished run is not polled again.
            tokio::select! {
                biased;
                _ = &mut run, if !ended => ended = true,
                _ = self.found.recv() => {}
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
        self.settle().await;
        let whole = self.whole();
        run.abort();
        whole
    }

    /// Writes what is gathered, waits for writes and verdicts, lets objects start over and wrong ranges go missing.
    ///
    /// **Cancellation.** May be dropped at any await, and called again. **Bounds.** Waits for a second at most, of tokio's
    /// time.
    pub async fn settle(&mut self) {
        self.ledger.flush_all();
        for _ in 0..1000 {
            if self.ledger.with(|s, _| s.running == 0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let now = Instant::now();
        let (wrong, empty) = self.ledger.with(|s, _| (s.retract.clone(), s.drained(self.object)));
        self.ledger.with(|s, after| s.retracted(&wrong, now, after));
        if empty && self.ledger.sink.truncate(self.object).await.is_ok() {
            self.ledger.with(|s, after| s.restarted(self.object, now, after));
        }
    }

    /// No more claims are served; leases are revoked.
    pub fn end(&self) {
        self.ledger.end();
        self.ledger.stop.cancel();
    }

    /// Whether every byte is there, written, and not found wrong.
    pub fn whole(&self) -> bool {
        self.look(|o| o.is_whole() && o.held.is_empty())
            && self.ledger.with(|s, _| s.retract.is_empty() && s.running == 0)
    }

    /// Bytes accepted so far.
    pub fn done(&self) -> RangeSet {
        self.look(|o| o.done().clone())
    }

    /// Bytes that passed their proof.
    pub fn verified(&self) -> RangeSet {
        self.look(|o| o.verified.clone())
    }

    /// Bytes reserved by leases.
    pub fn reserved(&self) -> RangeSet {
        self.look(|o| o.reserved.clone())
    }

    /// Bytes in flight: accepted, and not yet written or hashed.
    pub fn in_flight(&self) -> u64 {
        self.ledger.budget.used()
    }

    /// What failed the object, if something did.
    pub fn error(&self) -> Option<Error> {
        self.ledger.with(|s, _| s.fatal.clone().or_else(|| s.bindings.values().find_map(|b| b.error.clone())))
    }

    /// Looks at the object.
    ///
    /// # Panics
    /// Never: the object is there as long as the bench.
    pub fn look<R>(&self, f: impl FnOnce(&ObjectView) -> R) -> R {
        self.ledger.with(|s, _| match s.board.object(self.object) {
            Some(o) => f(o),
            None => unreachable!("the bench's object"),
        })
    }

    /// Every byte is in exactly one state, and what is reserved belongs to a lease.
    ///
    /// # Errors
    /// Which rule is broken.
    pub fn check(&self) -> std::result::Result<(), String> {
        self.ledger.with(|s, _| s.check(self.object))
    }
}
