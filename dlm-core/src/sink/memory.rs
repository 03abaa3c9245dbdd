//! Files in memory: for tests and small results.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Batch, Keep, Prepared, Sink, SinkCaps};
use crate::error::{Error, Kind, Result};
use crate::object::{FileId, FileKind, FileSpec, ObjectId};

/// Keeps bytes in memory, in any order. A clone shares them.
///
/// Memory is taken by what is written, not by what a length claims. Bounds: the capacity, when one was given.
#[derive(Debug, Clone, Default)]
pub struct MemorySink(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    capacity: Option<u64>,
    objects: BTreeMap<ObjectId, Object>,
    files: BTreeMap<FileId, FileSpec>,
    committed: BTreeMap<FileId, Bytes>,
    aborted: Option<Keep>,
}

#[derive(Debug, Default)]
struct Object {
    len: Option<u64>,
    /// Runs by their start; none touches another.
    runs: BTreeMap<u64, Vec<u8>>,
}

impl Object {
    fn held(&self) -> u64 {
        self.runs.values().map(|r| r.len() as u64).sum()
    }

    fn write(&mut self, at: u64, bufs: &[Bytes]) {
        let len: usize = bufs.iter().map(Bytes::len).sum();
        let end = at + len as u64;
        // The run that the bytes begin in or go on from, so that a stream costs no copy of all before it.
        let before =
            self.runs.range(..=at).next_back().filter(|(s, r)| **s + r.len() as u64 >= at).map(|(s, _)| *s);
        let start = before.unwrap_or(at);
        let mut run = self.runs.remove(&start).unwrap_or_default();
        let from = (at - start) as usize;
        if run.len() < from + len {
            run.resize(from + len, 0);
        }
        let mut to = from;
        for b in bufs {
            run[to..to + b.len()].copy_from_slice(b);
            to += b.len();
        }
        while let Some((s, next)) = self.runs.range(start..=end).next().map(|(s, r)| (*s, r.len())) {
            let next_run = self.runs.remove(&s).unwrap_or_default();
            let have = start + run.len() as u64;
            if s + next as u64 > have {
                run.extend_from_slice(&next_run[(have - s) as usize..]);
            }
        }
        self.runs.insert(start, run);
    }

    fn read(&self, range: &Range<u64>) -> Option<Bytes> {
        if range.start >= range.end {
            return Some(Bytes::new());
        }
        let (start, run) = self.runs.range(..=range.start).next_back()?;
        let from = (range.start - start) as usize;
        run.get(from..from + (range.end - range.start) as usize).map(Bytes::copy_from_slice)
    }

    fn cut(&mut self, len: u64) {
        self.runs.split_off(&len);
        if let Some((start, run)) = self.runs.iter_mut().next_back() {
            run.truncate((len - start) as usize);
        }
    }

    /// Where its bytes end.
    fn end(&self) -> u64 {
        self.len.unwrap_or_else(|| self.runs.iter().next_back().map_or(0, |(s, r)| s + r.len() as u64))
    }
}

impl MemorySink {
    /// An empty one without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that is full when it holds this many bytes; then a write fails with [`Kind::NoSpace`].
    pub fn with_capacity(bytes: u64) -> Self {
        let sink = Self::default();
        sink.lock().capacity = Some(bytes);
        sink
    }

    /// All bytes of an object, from the first to its end; `None` while some are missing, or it is unknown.
    pub fn bytes(&self, object: ObjectId) -> Option<Vec<u8>> {
        let state = self.lock();
        let o = state.objects.get(&object)?;
        o.read(&(0..o.end())).map(Vec::from)
    }

    /// The bytes of a file that was committed, by its path.
    pub fn file(&self, path: &str) -> Option<Bytes> {
        let state = self.lock();
        let (id, _) = state.files.iter().find(|(_, f)| f.path.to_string() == path)?;
        state.committed.get(id).cloned()
    }

    /// Which files were committed.
    pub fn committed(&self) -> Vec<FileId> {
        self.lock().committed.keys().copied().collect()
    }

    /// How the job was given up, if it was.
    pub fn aborted(&self) -> Option<Keep> {
        self.lock().aborted
    }

    /// Changes a byte behind the engine's back; `false` when it is not there. For tests of verification.
    pub fn flip(&self, object: ObjectId, at: u64) -> bool {
        let mut state = self.lock();
        let run = state.objects.get_mut(&object).and_then(|o| o.runs.range_mut(..=at).next_back());
        let byte = run.and_then(|(start, run)| run.get_mut((at - *start) as usize));
        byte.map(|b| *b ^= 0xff).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn object(&mut self, id: ObjectId) -> Result<&mut Object> {
        let unknown = || Error::new(Kind::Bug, "use an object").because("no file of it was prepared");
        self.objects.get_mut(&id).ok_or_else(unknown)
    }

    fn commit(&mut self, id: FileId) -> Result<()> {
        let wrong = |kind, why: &'static str| Error::new(kind, "finish the file").because(why);
        let f = self.files.get(&id).ok_or_else(|| wrong(Kind::Bug, "it was not prepared"))?;
        let o = self.objects.get(&f.object).ok_or_else(|| wrong(Kind::Bug, "its object was not prepared"))?;
        let range = f.range.start..f.range.end.unwrap_or_else(|| o.end());
        let bytes = match f.kind {
            FileKind::Zeros => vec![0; (range.end.saturating_sub(range.start)) as usize].into(),
            FileKind::Data => {
                o.read(&range).ok_or_else(|| wrong(Kind::Corrupt, "bytes of it are missing"))?
            }
        };
        self.committed.insert(id, bytes);
        Ok(())
    }
}

#[async_trait]
impl Sink for MemorySink {
    fn caps(&self) -> SinkCaps {
        SinkCaps::RANDOM
    }

    async fn prepare(&self, added: &[FileSpec]) -> Vec<(FileId, Result<Prepared>)> {
        let mut state = self.lock();
        added
            .iter()
            .map(|f| {
                if state.files.values().any(|old| old.path == f.path && old.id != f.id) {
                    let why = "two files of this download have this name";
                    return (
                        f.id,
                        Err(Error::new(Kind::Exists, "use the file name").on(&f.path).because(why)),
                    );
                }
                state.objects.entry(f.object).or_default();
                state.files.insert(f.id, f.clone());
                (f.id, Ok(Prepared::Ready))
            })
            .collect()
    }

    /// Bytes of such files are held with those of their object, and never become a file.
    async fn set_aside(&self, files: &[FileSpec]) -> Vec<(FileId, Result<()>)> {
        let mut state = self.lock();
        for f in files {
            state.objects.entry(f.object).or_default();
        }
        files.iter().map(|f| (f.id, Ok(()))).collect()
    }

    async fn set_len(&self, object: ObjectId, len: u64) -> Result<()> {
        let mut state = self.lock();
        let capacity = state.capacity;
        let o = state.object(object)?;
        if capacity.is_some_and(|c| len > c) {
            return Err(
                Error::new(Kind::NoSpace, "make room").because(format_args!("{len} bytes do not fit"))
            );
        }
        o.len = Some(len);
        o.cut(len);
        Ok(())
    }

    async fn write(&self, batch: Batch) -> Result<()> {
        let mut state = self.lock();
        let held: u64 = state.objects.values().map(Object::held).sum();
        if state.capacity.is_some_and(|c| held + batch.len > c) {
            return Err(Error::new(Kind::NoSpace, "write").because("the memory sink is full"));
        }
        let o = state.object(batch.object)?;
        if o.len.is_some_and(|len| batch.range().end > len) {
            return Err(Error::new(Kind::Bug, "write").because("the bytes lie behind the object's end"));
        }
        if batch.len > 0 {
            o.write(batch.at, &batch.bufs);
        }
        Ok(())
    }

    async fn read(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes> {
        let mut state = self.lock();
        state.object(object)?.read(&range).ok_or_else(|| {
            Error::new(Kind::Corrupt, "read back").because("the partial is shorter than its journal says")
        })
    }

    async fn sync(&self, _: &[ObjectId]) -> Result<()> {
        Ok(())
    }

    async fn commit(&self, files: &[FileId]) -> Vec<(FileId, Result<()>)> {
        let mut state = self.lock();
        files.iter().map(|id| (*id, state.commit(*id))).collect()
    }

    async fn truncate(&self, object: ObjectId) -> Result<()> {
        let mut state = self.lock();
        *state.object(object)? = Object::default();
        Ok(())
    }

    async fn abort(&self, keep: Keep) -> Result<()> {
        let mut state = self.lock();
        state.aborted = Some(keep);
        if keep == Keep::Nothing {
            state.objects.values_mut().for_each(|o| o.runs.clear());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::path::RelPath;

    fn spec(len: Option<u64>) -> FileSpec {
        FileSpec::whole(FileId(1), RelPath::name("f").unwrap(), ObjectId(1), len)
    }

    #[tokio::test]
    async fn takes_any_order() {
        let s = MemorySink::new();
        assert!(s.prepare(&[spec(Some(6))]).await[0].1.is_ok());
        s.set_len(ObjectId(1), 6).await.unwrap();
        for (at, text) in [(4, "ef"), (0, "ab"), (2, "cd")] {
            assert_eq!(s.bytes(ObjectId(1)), None);
            s.write(Batch::new(ObjectId(1), at, vec![text.into()])).await.unwrap();
        }
        assert_eq!(s.bytes(ObjectId(1)).unwrap(), b"abcdef");
        assert_eq!(s.file("f"), None);
        s.commit(&[FileId(1)]).await.remove(0).1.unwrap();
        assert_eq!(s.file("f").unwrap(), "abcdef");
        assert!(s.flip(ObjectId(1), 2) && !s.flip(ObjectId(1), 6));
    }

    #[tokio::test]
    async fn is_full_and_refuses_holes() {
        let s = MemorySink::with_capacity(4);
        s.prepare(&[spec(None)]).await;
        assert_eq!(s.set_len(ObjectId(1), 5).await.unwrap_err().kind(), Kind::NoSpace);
        s.write(Batch::new(ObjectId(1), 2, vec!["ab".into()])).await.unwrap();
        assert_eq!(s.commit(&[FileId(1)]).await.remove(0).1.unwrap_err().kind(), Kind::Corrupt);
        let more = Batch::new(ObjectId(1), 4, vec!["abc".into()]);
        assert_eq!(s.write(more).await.unwrap_err().kind(), Kind::NoSpace);
        assert_eq!(s.read(ObjectId(1), 0..2).await.unwrap_err().kind(), Kind::Corrupt);
        assert_eq!(
            s.write(Batch::new(ObjectId(7), 0, vec!["a".into()])).await.unwrap_err().kind(),
            Kind::Bug
        );
    }

    proptest! {
        #[test]
        fn holds_what_was_written(writes in prop::collection::vec((0u64..200, 1usize..60), 1..40), cut in 0u64..300) {
            let (mut o, mut model) = (Object::default(), BTreeMap::new());
            for (i, (at, len)) in writes.into_iter().enumerate() {
                let byte = i as u8;
                o.write(at, &[Bytes::from(vec![byte; len / 2]), Bytes::from(vec![byte; len - len / 2])]);
                (at..at + len as u64).for_each(|p| { model.insert(p, byte); });
            }
            o.cut(cut);
            model.retain(|p, _| *p < cut);
            for p in 0..300 {
                prop_assert_eq!(o.read(&(p..p + 1)).map(|b| b[0]), model.get(&p).copied());
            }
            prop_assert_eq!(o.held(), model.len() as u64);
        }
    }
}
