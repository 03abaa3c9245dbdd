//! What the sink must do, on a real file system.

mod bytes;
mod names;
mod others;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use super::*;
use crate::journal::Journal;
use crate::object::FileKind;
use crate::path::RelPath;

const O: ObjectId = ObjectId(1);
const F: FileId = FileId(1);

fn tmp() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn spec(name: &str, len: Option<u64>) -> FileSpec {
    FileSpec::whole(F, RelPath::parse(name).unwrap(), O, len)
}

async fn prepare(s: &FileSink, spec: FileSpec) -> Result<Prepared> {
    s.prepare(&[spec]).await.remove(0).1
}

async fn write(s: &FileSink, at: u64, text: &str) -> Result<()> {
    let (a, b) = text.split_at(text.len() / 2);
    s.write(Batch::new(
        O,
        at,
        vec![Bytes::copy_from_slice(a.as_bytes()), Bytes::copy_from_slice(b.as_bytes())],
    ))
    .await
}

async fn commit(s: &FileSink) -> Result<()> {
    s.commit(&[F]).await.remove(0).1
}

/// Names in a folder, sorted.
fn ls(dir: &Path) -> Vec<String> {
    let mut v: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    v.sort();
    v
}
