//! Files that are not wanted, and what somebody wants otherwise while the job runs.

use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::object::{FileId, FileSpec, ObjectId};
use crate::select::Want;
use crate::sink::Prepared;

use super::{Driver, File};

/// Objects of which nothing is wanted and that are kept all the same, at most. The oldest is let go then: of a folder with
/// a million files, nobody wants to pay for those that are left out.
const PARKED: usize = 1000;

/// A file that is not wanted.
#[derive(Debug)]
pub(super) struct Skipped {
    file: File,
    /// As it was found, where the sink has no place for it yet.
    unprepared: Option<FileSpec>,
}

impl Driver {
    /// A file that is not wanted was found.
    pub(super) async fn set_aside(&mut self, spec: FileSpec) -> Result<()> {
        let answers = self.ledger.sink.set_aside(std::slice::from_ref(&spec)).await;
        let answer = answers.into_iter().find(|(id, _)| *id == spec.id).map(|(_, r)| r);
        answer.unwrap_or_else(|| {
            Err(Error::new(Kind::Bug, "leave out the file").because("the sink gave no answer"))
        })?;
        self.left_out = true;
        let (id, object, range) = (spec.id, spec.object, spec.range);
        let file = File { object, path: spec.path.clone(), range };
        self.skipped.insert(id, Skipped { file, unprepared: Some(spec) });
        self.ledger.with(|s, _| s.file_is(object, id, range, Want::Skip));
        Ok(())
    }

    /// Acts on what is wanted otherwise now, and on files that were found since.
    pub(super) async fn reselect(&mut self) -> Result<()> {
        let asked = self.ledger.with(|s, _| std::mem::take(&mut s.asked));
        for (id, want) in asked {
            self.spec.selection.set(id, want);
            if let Some(f) = self.files.get(&id) {
                self.unwant(id, f.object, want);
            } else if want != Want::Skip && self.skipped.contains_key(&id) {
                self.rewant(id, want).await;
            }
        }
        let now = Instant::now();
        self.ledger.with(|s, after| {
            while let Some(object) = s.unmasked.first().copied() {
                s.mask(object, now, after);
            }
        });
        self.let_go();
        Ok(())
    }

    /// A file that was wanted is wanted otherwise, or not at all.
    fn unwant(&mut self, id: FileId, object: ObjectId, want: Want) {
        let order = self.ledger.caps.order;
        if want == Want::Skip && self.ledger.with(|s, _| s.must_finish(object, order)) {
            return;
        }
        let Some(range) = self.files.get(&id).map(|f| f.range) else { return };
        self.ledger.with(|s, _| s.file_is(object, id, range, want));
        if want == Want::Skip
            && let Some(file) = self.files.remove(&id)
        {
            self.left_out = true;
            self.found_files = self.found_files.saturating_sub(1);
            self.skipped.insert(id, Skipped { file, unprepared: None });
        }
    }

    /// A file that was not wanted is. One that cannot have its place does not end the others.
    async fn rewant(&mut self, id: FileId, want: Want) {
        let Some(Skipped { file, unprepared }) = self.skipped.remove(&id) else { return };
        let (object, range) = (file.object, file.range);
        if let Some(spec) = unprepared {
            match self.prepare(&spec).await {
                Err(e) => {
                    self.skipped.insert(id, Skipped { file, unprepared: Some(spec) });
                    return self.lose(e);
                }
                Ok(Prepared::Complete(by)) => {
                    self.found_files += 1;
                    self.is_there(&spec, by);
                    let over = self.ledger.with(|s, _| {
                        s.file_is(object, id, range, want);
                        s.file_placed(object, id);
                        s.objects.get(&object).is_none_or(|o| o.files.iter().all(|f| f.placed))
                    });
                    if over {
                        self.finish_object(object);
                    }
                    return;
                }
                Ok(Prepared::Ready) => {}
            }
        }
        self.found_files += 1;
        self.files.insert(id, file);
        self.ledger.with(|s, _| s.file_is(object, id, range, want));
    }

    /// Objects that are left out are let go where they are too many.
    fn let_go(&mut self) {
        while let Some(object) =
            self.ledger.with(|s, _| if s.parked.len() > PARKED { s.parked.first().copied() } else { None })
        {
            self.forget_object(object);
        }
    }

    /// Nothing more is done about an object.
    pub(super) fn forget_object(&mut self, object: ObjectId) {
        self.keeper.forget(object);
        let files = self.ledger.with(|s, after| {
            let files = s.objects.get_mut(&object).map(|o| std::mem::take(&mut o.files)).unwrap_or_default();
            s.evict(object, after);
            files
        });
        for f in files {
            self.files.remove(&f.id);
            self.skipped.remove(&f.id);
        }
    }
}
