//! Objects come to their end: lengths, starting over, last proofs, commit.

use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::event::{EventKind, JobState, VerifiedBy};
use crate::job::FileDone;
use crate::ledger::Conclusion;
use crate::object::{FileId, ObjectId};

use super::Driver;

impl Driver {
    /// The sink is told each length once it is known.
    pub(super) async fn tell_lengths(&mut self) -> Result<()> {
        let news: Vec<(ObjectId, u64)> = self.ledger.with(|s, _| {
            let mut out = Vec::new();
            for (id, o) in &mut s.objects {
                let Some(v) = s.board.objects.get(id) else { continue };
                if let Some(len) = v.len
                    && o.prepared
                    && !o.complete
                    && o.told_len != Some(len)
                    && !v.closed
                {
                    o.told_len = Some(len);
                    out.push((*id, len));
                }
            }
            out
        });
        for (id, len) in news {
            self.ledger.sink.set_len(id, len).await?;
        }
        Ok(())
    }

    /// Objects that start over and have nothing in flight any more: journal, empty, open again.
    pub(super) async fn start_over(&mut self) -> Result<()> {
        let ready: Vec<(ObjectId, u32)> = self.ledger.with(|s, _| {
            let ids: Vec<ObjectId> = s.objects.keys().copied().collect();
            let ready: Vec<ObjectId> = ids.into_iter().filter(|id| s.drained(*id)).collect();
            ready
                .into_iter()
                .map(|id| (id, s.board.object(id).map_or(0, crate::ObjectView::generation)))
                .collect()
        });
        for (id, generation) in ready {
            self.record_restart(id, generation).await?;
            if let Err(e) = self.ledger.sink.truncate(id).await {
                return Err(self.ledger.with(|s, _| s.cut_short(id, e)));
            }
            let now = Instant::now();
            self.ledger.with(|s, after| s.restarted(id, now, after));
        }
        Ok(())
    }

    /// Objects of which every byte is there are proven and their files put in place.
    pub(super) async fn conclude(&mut self) -> Result<()> {
        let full: Vec<ObjectId> = self.ledger.with(|s, _| {
            let open = s.objects.iter().filter(|(_, o)| o.prepared && !o.complete);
            open.filter(|(id, _)| s.board.object(**id).is_some_and(|v| v.remaining() == Some(0)))
                .map(|(id, _)| *id)
                .collect()
        });
        for id in full {
            // Nothing may stay gathered for company that will not come.
            self.ledger.flush_all();
            match self.ledger.conclude(id).await {
                Conclusion::Wait => self.enter_verifying(),
                Conclusion::Good(by) => self.commit(id, by).await?,
                Conclusion::Bad(e) => {
                    let readable = self.ledger.caps.readable;
                    let e = e.on(&self.spec.locator);
                    self.ledger.with(|s, after| s.mismatched(id, e, readable, after));
                }
            }
        }
        Ok(())
    }

    fn enter_verifying(&mut self) {
        let all = self.ledger.with(|s, _| s.board.objects().all(|o| o.remaining() == Some(0)));
        if all && self.stream.is_none() {
            self.enter(JobState::Verifying);
        }
    }

    async fn commit(&mut self, object: ObjectId, by: VerifiedBy) -> Result<()> {
        let ids: Vec<FileId> =
            self.files.iter().filter(|(_, f)| f.object == object).map(|(id, _)| *id).collect();
        // Nobody has work there any more, and a source that is still sending is stopped.
        let len = self.ledger.with(|s, after| {
            if let Some(o) = s.objects.get_mut(&object) {
                o.complete = true;
            }
            s.reopen_object(object);
            s.revoke_all(object, after);
            s.board.object(object).and_then(crate::ObjectView::len).unwrap_or(0)
        });
        if self.spec.durable {
            self.ledger.sink.sync(&[object]).await?;
        }
        for (id, r) in self.ledger.sink.commit(&ids).await {
            r?;
            let Some(f) = self.files.remove(&id) else { continue };
            let range = f.range.to_range();
            let len = range.end.min(len).saturating_sub(range.start);
            self.done_bytes += len;
            self.done.push(FileDone { id, path: f.path.to_string(), len, verified_by: by, existed: false });
            self.ledger.with(|s, _| s.file_placed(object, id));
            self.say(EventKind::Committed { file: id });
        }
        if let Some(f) = ids.iter().find(|id| self.files.contains_key(id)) {
            return Err(Error::new(Kind::Bug, "finish the file")
                .because(format_args!("the sink gave no answer for file {f}")));
        }
        let more = self.ledger.with(|s, after| {
            let more = s.objects.get(&object).is_some_and(|o| o.files.iter().any(|f| !f.placed));
            if more {
                s.park(object, after);
            }
            more
        });
        if !more {
            self.finish_object(object);
        }
        Ok(())
    }

    /// Every file of an object is in place.
    pub(super) fn finish_object(&mut self, object: ObjectId) {
        self.keeper.forget(object);
        self.ledger.with(|s, after| {
            s.finished.insert(u64::from(object.0)..u64::from(object.0) + 1);
            s.evict(object, after);
        });
    }
}
