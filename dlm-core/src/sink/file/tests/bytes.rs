//! Bytes: written, read back, cut, resumed, split over files.

use super::*;

#[tokio::test]
async fn the_whole_way() {
    let dir = tmp();
    for durable in [false, true] {
        let name = format!("f{durable}");
        let s = FileSink::builder(dir.path()).durable(durable).build().unwrap();
        let mtime = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(prepare(&s, spec(&name, None).modified(Some(mtime))).await.unwrap(), Prepared::Ready);
        let part = dir.path().join(format!("{name}.part"));
        assert_eq!(s.path(F).unwrap(), dir.path().join(&name));
        s.set_len(O, 10).await.unwrap();
        assert_eq!(part.metadata().unwrap().len(), 0, "a length alone takes no room");
        write(&s, 5, "world").await.unwrap();
        write(&s, 0, "hello").await.unwrap();
        assert_eq!(s.read(O, 3..8).await.unwrap(), "lowor");
        s.sync(&[O]).await.unwrap();
        assert!(!dir.path().join(&name).exists());
        assert_eq!(write(&s, 8, "xyz").await.unwrap_err().kind(), Kind::Bug);
        commit(&s).await.unwrap();
        commit(&s).await.unwrap();
        assert_eq!(std::fs::read(dir.path().join(&name)).unwrap(), b"helloworld");
        assert_eq!(dir.path().join(&name).metadata().unwrap().modified().unwrap(), mtime);
        assert!(!part.exists());
        assert_eq!(s.read(O, 0..5).await.unwrap(), "hello", "also when it is in place");
        assert_eq!(write(&s, 0, "x").await.unwrap_err().kind(), Kind::Bug);
    }
}

#[tokio::test]
async fn an_empty_file_and_a_time_that_is_not_wanted() {
    let dir = tmp();
    let s = FileSink::builder(dir.path()).set_mtime(false).build().unwrap();
    prepare(&s, spec("empty", Some(0)).modified(Some(UNIX_EPOCH))).await.unwrap();
    s.set_len(O, 0).await.unwrap();
    commit(&s).await.unwrap();
    let meta = dir.path().join("empty").metadata().unwrap();
    assert!(meta.len() == 0 && meta.modified().unwrap() > SystemTime::now() - Duration::from_secs(100));
    assert_eq!(ls(dir.path()), ["empty"]);
}

#[tokio::test]
async fn many_small_buffers() {
    let dir = tmp();
    let s = FileSink::builder(dir.path()).build().unwrap();
    prepare(&s, spec("f", None)).await.unwrap();
    let bufs: Vec<_> = (0..3000u32).map(|i| Bytes::from(i.to_string())).collect();
    let all = bufs.concat();
    s.write(Batch::new(O, 3, bufs)).await.unwrap();
    assert_eq!(s.read(O, 3..3 + all.len() as u64).await.unwrap(), all);
    assert_eq!(s.read(O, 0..3).await.unwrap(), &[0; 3][..]);
}

#[tokio::test]
async fn a_kill_leaves_what_was_written() {
    let dir = tmp();
    let s = FileSink::builder(dir.path()).build().unwrap();
    prepare(&s, spec("f", Some(10))).await.unwrap();
    write(&s, 0, "hello").await.unwrap();
    drop(s);
    assert_eq!(ls(dir.path()), ["f.part"]);
    let s = FileSink::builder(dir.path()).build().unwrap();
    assert_eq!(prepare(&s, spec("f", Some(10))).await.unwrap(), Prepared::Ready);
    assert_eq!(s.read(O, 0..5).await.unwrap(), "hello");
    for behind in [0..6, 5..6, 1 << 40..(1 << 40) + 1] {
        s.set_len(O, u64::MAX).await.unwrap_err();
        assert_eq!(s.read(O, behind).await.unwrap_err().kind(), Kind::Corrupt);
    }
    assert_eq!(s.read(O, 0..1 << 40).await.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(s.read(O, 0..1 << 27).await.unwrap_err().kind(), Kind::Corrupt, "before any memory is taken");
    // Not whole: not committed.
    s.set_len(O, 10).await.unwrap();
    assert_eq!(commit(&s).await.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(ls(dir.path()), ["f.part"]);
    write(&s, 5, "world").await.unwrap();
    commit(&s).await.unwrap();
    assert_eq!(ls(dir.path()), ["f"]);
}

#[tokio::test]
async fn forgets_when_it_shall_not_resume() {
    let dir = tmp();
    std::fs::write(dir.path().join("f.part"), "old").unwrap();
    std::fs::write(dir.path().join("f.part.dlm"), "dlm-journal 1\n").unwrap();
    let s = FileSink::builder(dir.path()).resume(false).expect_name("f").build().unwrap();
    assert_eq!(s.journal().load().await.unwrap(), None);
    prepare(&s, spec("f", None)).await.unwrap();
    assert_eq!(ls(dir.path()), ["f.part"]);
    assert_eq!(dir.path().join("f.part").metadata().unwrap().len(), 0);
}

#[tokio::test]
async fn a_journal_without_a_partial_is_void() {
    let dir = tmp();
    std::fs::write(dir.path().join("f.part.dlm"), "dlm-journal 1\n").unwrap();
    let s = FileSink::builder(dir.path()).name("f").build().unwrap();
    assert!(s.journal().load().await.unwrap().is_some());
    prepare(&s, spec("x", None)).await.unwrap();
    assert_eq!(s.journal().load().await.unwrap(), None);
}

#[tokio::test]
async fn longer_than_it_should_be_is_cut() {
    let dir = tmp();
    std::fs::write(dir.path().join("f.part"), "0123456789").unwrap();
    let s = FileSink::builder(dir.path()).build().unwrap();
    prepare(&s, spec("f", None)).await.unwrap();
    s.set_len(O, 4).await.unwrap();
    assert_eq!(dir.path().join("f.part").metadata().unwrap().len(), 4);
    s.truncate(O).await.unwrap();
    assert_eq!(dir.path().join("f.part").metadata().unwrap().len(), 0);
    write(&s, 0, "abcdef").await.unwrap();
    commit(&s).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"abcdef");
}

#[tokio::test]
async fn one_object_over_many_files() {
    let dir = tmp();
    let file = |n: u32, path: &str, r: Range<u64>| {
        FileSpec::whole(FileId(n), RelPath::parse(path).unwrap(), O, None).part(r.into())
    };
    std::fs::create_dir(dir.path().join("t")).unwrap();
    std::fs::write(dir.path().join("t/b"), "DEF").unwrap();
    let mut b = file(2, "t/b", 3..6);
    b.mtime = dir.path().join("t/b").metadata().unwrap().modified().ok();
    let pad = FileSpec { kind: FileKind::Zeros, ..file(4, "t/pad", 7..9) };
    let s = FileSink::builder(dir.path()).build().unwrap();
    let files = [
        file(1, "t/a", 0..3),
        b,
        file(3, "t/e/mpty", 6..6),
        file(5, "t/c", 6..7),
        pad,
        file(6, "t/d", 9..12),
    ];
    let done: Vec<_> = s.prepare(&files).await.into_iter().map(|(_, r)| r.unwrap()).collect();
    assert_eq!(done.iter().position(|p| matches!(p, Prepared::Complete(_))), Some(1));
    assert_eq!(write(&s, 10, "lmnopq").await.unwrap_err().kind(), Kind::Bug, "no file has these bytes");
    s.set_len(O, 12).await.unwrap();
    write(&s, 1, "bcdefgHIj").await.unwrap();
    write(&s, 10, "kl").await.unwrap();
    write(&s, 0, "a").await.unwrap();
    assert_eq!(s.read(O, 0..12).await.unwrap(), &b"abcDEFg\0\0jkl"[..]);
    let ids: Vec<_> = files.iter().map(|f| f.id).collect();
    assert!(s.commit(&ids).await.iter().all(|(_, r)| r.is_ok()));
    for (name, text) in
        [("t/a", "abc"), ("t/b", "DEF"), ("t/e/mpty", ""), ("t/c", "g"), ("t/pad", "\0\0"), ("t/d", "jkl")]
    {
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), text.as_bytes(), "{name}");
    }
    assert_eq!(s.read(O, 2..10).await.unwrap(), &b"cDEFg\0\0j"[..]);
}
