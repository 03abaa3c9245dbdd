//! What was found is taken in: objects, files, sources, evidence; and what an earlier run left is checked.

use std::sync::Arc;

use tokio::time::Instant;

use crate::backend::{Binding, Discovery};
use crate::error::{Error, Kind, Result};
use crate::event::{EventKind, JobState, VerifiedBy};
use crate::journal::{Checkpoint, Record, SavedObject};
use crate::ledger::{RangeSet, Work};
use crate::object::{FileSpec, Identity, ObjectId, SourceId, Validator};
use crate::select::Want;
use crate::sink::{Order, Prepared};
use crate::source::Source;

use super::resolve::Signed;
use super::{Driver, File};

/// A claim is read back in steps of this many bytes.
const STEP: u64 = 1 << 20;

impl Driver {
    /// Takes in what resolving found; its author is the source that the same stream bound last.
    pub(super) async fn absorb_signed(&mut self, (found, by): Signed) -> Result<()> {
        let author = by.and_then(|source| self.number_of(&source));
        self.absorb(found, author).await
    }

    fn number_of(&self, source: &Arc<dyn Source>) -> Option<SourceId> {
        self.sources.iter().find(|(s, _)| same(s, source)).map(|(_, id)| *id)
    }

    pub(super) async fn absorb(&mut self, found: Discovery, author: Option<SourceId>) -> Result<()> {
        match found {
            Discovery::Object(spec) => {
                let ordered = self.ledger.caps.order == Order::Next;
                // Half the budget, so that what is held back never stops the frontier.
                let window = ordered.then(|| self.ledger.budget.limit() / 2);
                let readable = self.ledger.caps.readable;
                self.ledger.with(|s, _| s.add_object(&spec, window, readable))?;
                if self.first_object.is_none() {
                    self.first_object = Some(spec.id);
                    self.user_digests(spec.id);
                }
            }
            Discovery::File(spec) => self.add_file(spec).await,
            Discovery::Bind(b) => self.bind(b).await?,
            Discovery::Evidence { object, what, trust } => {
                self.ledger.with(|s, after| s.add_evidence(object, what, trust, author, after));
            }
            Discovery::Follow { locator, role, rank } => self.follow(locator, role, rank),
        }
        Ok(())
    }

    /// One file that cannot have its place does not end the others.
    async fn add_file(&mut self, spec: FileSpec) {
        let object = spec.object;
        if self.ledger.with(|s, _| !s.objects.contains_key(&object)) {
            // It was given up because of another of its files.
            return;
        }
        if let Err(e) = self.place_file(spec).await {
            if e.kind() == Kind::Cancelled {
                // The job is ending, not the file.
                return;
            }
            self.forget_object(object);
            self.lose(e);
        }
    }

    async fn place_file(&mut self, spec: FileSpec) -> Result<()> {
        self.say(EventKind::Found {
            file: spec.id,
            path: crate::escape(&spec.path.to_string()),
            len: spec.len,
        });
        let want = self.spec.selection.of(&spec);
        if want == Want::Skip {
            return self.set_aside(spec).await;
        }
        let prepared = self.prepare(&spec).await?;
        self.found_files += 1;
        let (id, object, range) = (spec.id, spec.object, spec.range);
        self.ledger.with(|s, _| s.file_is(object, id, range, want));
        match prepared {
            Prepared::Ready => {
                self.files.insert(id, File { object, path: spec.path, range });
            }
            Prepared::Complete(by) => {
                self.is_there(&spec, by);
                self.ledger.with(|s, _| s.file_placed(object, id));
                // Nothing of it is fetched. (An object of several files is not finished by one of them.)
                if range == crate::Span::ALL {
                    self.finish_object(object);
                }
            }
        }
        Ok(())
    }

    /// The sink makes place for a file.
    pub(super) async fn prepare(&mut self, spec: &FileSpec) -> Result<Prepared> {
        let stop = self.ledger.stop.clone();
        // What has the name already may be long, and is compared whole.
        let answers = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(super::cancelled()),
            answers = self.ledger.sink.prepare(std::slice::from_ref(spec)) => answers,
        };
        let answer = answers.into_iter().find(|(id, _)| *id == spec.id).map(|(_, r)| r);
        answer.unwrap_or_else(|| {
            Err(Error::new(Kind::Bug, "prepare the file").because("the sink gave no answer"))
        })
    }

    /// A file was in place before.
    pub(super) fn is_there(&mut self, spec: &FileSpec, verified_by: VerifiedBy) {
        let len = spec.len.unwrap_or(0);
        self.done_bytes += len;
        let path = spec.path.to_string();
        self.done.push(crate::FileDone { id: spec.id, path, len, verified_by, existed: true });
    }

    async fn bind(&mut self, binding: Binding) -> Result<()> {
        let object = binding.target.object;
        let remote: Arc<str> = binding.target.remote.to_string().into();
        let source = binding.source.clone();
        let known = self.number_of(&source);
        let info = source.info();
        let id = known.unwrap_or_else(|| {
            let origin = self.shared.origin(&info.key);
            self.ledger.with(|s, _| s.add_source(info, origin))
        });
        // One that rests may be wanted again.
        let over = self.ledger.with(|s, _| !s.objects.contains_key(&object));
        if over {
            return Ok(());
        }
        let (retries, max_pause) = self.ledger.retries();
        let identity = binding.identity.clone();
        let bound = self.ledger.with(|s, after| s.add_binding(id, binding, retries, max_pause, after));
        if let Err(e) = bound {
            // One source of several may be no good; without another the job finds itself stuck and says why.
            self.say(EventKind::SourceFailed { source: remote, error: e.clone() });
            self.first_error.get_or_insert(e);
            return Ok(());
        }
        let prepared = self.ledger.with(|s, _| s.objects.get(&object).is_some_and(|o| o.prepared));
        if !prepared {
            self.restore(object, &identity, &remote).await?;
            let now = Instant::now();
            self.ledger.with(|s, after| s.open_object(object, now, after));
            self.enter(JobState::Running);
        }
        // What it binds after its run has ended is work for another run.
        let again = self.ledger.with(|s, _| {
            let s = s.sources.get_mut(id.0 as usize).filter(|s| s.over)?;
            (s.over, s.before_run) = (false, s.bytes);
            Some(())
        });
        if known.is_none() {
            self.sources.push((source.clone(), id));
        }
        if known.is_none() || again.is_some() {
            self.run_source(source, id);
        }
        Ok(())
    }

    fn run_source(&mut self, source: Arc<dyn Source>, id: SourceId) {
        let party = self.ledger.with(|s, _| s.parties.main(id).unwrap_or(crate::PartyId(0)));
        let work = Work::new(self.ledger.clone(), id, party, self.cx.clone());
        self.runs.spawn(async move { (id, source.run(work).await) });
    }

    /// Sources that were done, and have something to do again.
    pub(super) fn run_again(&mut self) {
        for id in self.ledger.with(|s, _| s.start_again()) {
            let source = self.sources.iter().find(|(_, i)| *i == id).map(|(s, _)| s.clone());
            if let Some(source) = source {
                self.run_source(source, id);
            }
        }
    }

    /// Checks what an earlier run left of the object; what is good need not be fetched.
    async fn restore(&mut self, object: ObjectId, identity: &Identity, remote: &Arc<str>) -> Result<()> {
        let key = self
            .ledger
            .with(|s, _| s.board.object(object).map(|o| o.key.clone()))
            .unwrap_or_else(|| "".into());
        self.keeper.name(object, key.clone(), identity.clone(), remote.clone());
        if self.ledger.caps.order == Order::Next {
            return Ok(());
        }
        // Now that names are settled and locked, the journal has the last word.
        if self.spec.resume && !self.reloaded {
            self.saved = self.journal.load().await?;
            self.reloaded = true;
        }
        let Some(saved) = self.saved.as_ref().and_then(|s| s.object(&key)).cloned() else {
            self.ledger.sink.truncate(object).await?;
            return Ok(());
        };
        let proven = self.ledger.with(|s, _| s.objects.get(&object).is_some_and(|o| o.judge.mixes()));
        // Another origin's validators say nothing of these bytes, even when they are equal: only a proof does.
        let vouched = saved.remote == *remote && saved.identity.validator != Validator::Unknown;
        let same_version = saved.identity.agrees(identity) && (proven || vouched);
        if !same_version || saved.claims.is_empty() {
            let generation = saved.generation + 1;
            let restart = Record::Restart { key, generation };
            self.journal.record(&Checkpoint::new(vec![restart]).durable(self.spec.durable)).await?;
            self.ledger.sink.truncate(object).await?;
            self.ledger.with(|s, _| s.restore(object, &RangeSet::new(), generation));
            if !saved.claims.is_empty() {
                let why = Error::new(Kind::Changed, "go on")
                    .on(remote)
                    .because("the file is not the one that was begun");
                self.say(EventKind::Restarted { object, why });
            }
            return Ok(());
        }
        self.check_claims(object, &saved).await
    }

    async fn check_claims(&mut self, object: ObjectId, saved: &SavedObject) -> Result<()> {
        self.enter(JobState::Checking);
        let len = saved.identity.len.unwrap_or(u64::MAX);
        let mut good = RangeSet::new();
        let mut bad = Vec::new();
        for claim in &saved.claims {
            if claim.range.end <= len && self.claim_holds(object, claim).await? {
                good.insert(claim.range.clone());
            } else {
                bad.push(claim.range.clone());
            }
        }
        if !bad.is_empty() {
            let retract =
                Record::Retract { key: saved.key.clone(), generation: saved.generation, ranges: bad.clone() };
            self.journal.record(&Checkpoint::new(vec![retract]).durable(self.spec.durable)).await?;
        }
        self.resumed += good.covered();
        self.say(EventKind::Resumed {
            object,
            bytes: good.covered(),
            damaged: bad.iter().map(|r| r.end - r.start).sum(),
        });
        self.ledger.with(|s, _| s.restore(object, &good, saved.generation));
        Ok(())
    }

    async fn claim_holds(&mut self, object: ObjectId, claim: &crate::Claim) -> Result<bool> {
        let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        let mut at = claim.range.start;
        while at < claim.range.end {
            if self.ledger.stop.is_cancelled() {
                return Err(super::cancelled());
            }
            let end = claim.range.end.min(at + STEP);
            match self.ledger.sink.read(object, at..end).await {
                Ok(b) => crc.update(&b),
                Err(e) if e.kind() == Kind::Corrupt => return Ok(false),
                Err(e) => return Err(e),
            }
            at = end;
        }
        Ok(crc.finalize() as u32 == claim.crc)
    }
}

fn same(a: &Arc<dyn Source>, b: &Arc<dyn Source>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}
