//! Final names: taken, numbered, replaced, the user's own.

use super::*;
use crate::event::VerifiedBy;

const BY_DIGEST: Prepared = Prepared::Complete(VerifiedBy::Digest(crate::Algorithm::Crc32c));
const BY_NO_DIGEST: Prepared = Prepared::Complete(VerifiedBy::Transport);

#[tokio::test]
async fn names_that_are_taken() {
    let dir = tmp();
    let p = |n: &str| dir.path().join(n);
    std::fs::write(p("f.bin"), "old").unwrap();
    std::fs::set_permissions(p("f.bin"), std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::create_dir(p("folder")).unwrap();
    symlink("f.bin", p("link")).unwrap();
    let sink = |what| FileSink::builder(dir.path()).if_exists(what).build().unwrap();
    for what in [IfExists::Fail, IfExists::Skip, IfExists::Overwrite, IfExists::Rename] {
        assert_eq!(prepare(&sink(what), spec("folder", None)).await.unwrap_err().kind(), Kind::Exists);
    }
    for n in ["f.bin", "link"] {
        assert_eq!(prepare(&sink(IfExists::Fail), spec(n, None)).await.unwrap_err().kind(), Kind::Exists);
        assert_eq!(prepare(&sink(IfExists::Skip), spec(n, None)).await.unwrap(), BY_NO_DIGEST);
    }
    assert_eq!(ls(dir.path()), ["f.bin", "folder", "link"]);

    let s = sink(IfExists::Rename);
    prepare(&s, spec("f.bin", None)).await.unwrap();
    assert_eq!(ls(dir.path()), ["f.1.bin.part", "f.bin", "folder", "link"]);
    std::fs::write(p("f.1.bin"), "quicker").unwrap();
    write(&s, 0, "new").await.unwrap();
    commit(&s).await.unwrap();
    assert_eq!(s.path(F).unwrap(), p("f.1.1.bin"));
    assert_eq!(std::fs::read(p("f.1.1.bin")).unwrap(), b"new");
    assert_eq!(std::fs::read(p("f.1.bin")).unwrap(), b"quicker");

    for n in ["f.bin", "link"] {
        let s = sink(IfExists::Overwrite);
        prepare(&s, spec(n, None)).await.unwrap();
        write(&s, 0, "new").await.unwrap();
        assert_eq!(std::fs::read(p("f.bin")).unwrap(), if n == "link" { b"new" } else { b"old" });
        commit(&s).await.unwrap();
    }
    assert_eq!(p("f.bin").metadata().unwrap().mode() & 0o777, 0o640, "rights stay");
    assert!(p("link").symlink_metadata().unwrap().is_file(), "the link is replaced, not what it points to");
}

#[tokio::test]
async fn a_finished_file_needs_no_transfer() {
    let dir = tmp();
    let p = |n: &str| dir.path().join(n);
    std::fs::write(p("f"), "123456789").unwrap();
    let right: crate::Digest = "crc32c:e3069283".parse().unwrap();
    let wrong: crate::Digest = "crc32c:e3069284".parse().unwrap();
    let with = |d: Vec<crate::Digest>| FileSink::builder(dir.path()).digests(d).build().unwrap();
    let mtime = p("f").metadata().unwrap().modified().ok();

    // What a kill right after the commit leaves.
    std::fs::write(p("f.part.dlm"), "dlm-journal 1\n").unwrap();
    std::fs::hard_link(p("f"), p("f.part")).unwrap();
    let s = with(vec![right.clone()]);
    assert_eq!(prepare(&s, spec("f", None)).await.unwrap(), BY_DIGEST);
    assert_eq!(ls(dir.path()), ["f"]);
    assert_eq!(s.read(O, 0..3).await.unwrap(), "123");
    commit(&s).await.unwrap();

    for (digests, spec, complete) in [
        (vec![right.clone()], spec("f", Some(9)), Some(BY_DIGEST)),
        (vec![right.clone()], spec("f", Some(8)), None),
        (vec![right, wrong.clone()], spec("f", Some(9)), None),
        (vec![wrong], spec("f", Some(9)).modified(mtime), None),
        (vec![], spec("f", Some(9)).modified(mtime), Some(BY_NO_DIGEST)),
        (vec![], spec("f", Some(9)).modified(mtime.map(|t| t + Duration::from_secs(1))), None),
        (vec![], spec("f", None).modified(mtime), None),
        (vec![], spec("f", Some(9)), None),
    ] {
        let done = prepare(&with(digests), spec).await;
        assert_eq!(done.as_ref().ok(), complete.as_ref(), "{done:?}");
        assert!(done.is_ok() || done.unwrap_err().kind() == Kind::Exists);
    }
    assert_eq!(ls(dir.path()), ["f"]);
}

#[tokio::test]
async fn names_of_one_job_do_not_collide() {
    let dir = tmp();
    let file =
        |n: u32, path: &str| FileSpec::whole(FileId(n), RelPath::parse(path).unwrap(), ObjectId(n), None);
    let s = FileSink::builder(dir.path()).build().unwrap();
    let done =
        s.prepare(&[file(1, "x"), file(2, "x"), file(3, "x.part"), file(4, "y.part"), file(5, "y")]).await;
    let kinds: Vec<_> = done.iter().map(|(_, r)| r.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(Kind::Exists), Some(Kind::Exists), None, None]);
    s.write(Batch::new(ObjectId(4), 0, vec!["4".into()])).await.unwrap();
    assert_eq!(s.commit(&[FileId(4)]).await.remove(0).1.unwrap_err().kind(), Kind::Exists);

    let s = FileSink::builder(dir.path()).name("one").build().unwrap();
    let done = s.prepare(&[file(1, "a"), file(2, "b")]).await;
    assert!(done[0].1.is_ok());
    assert_eq!(done[1].1.as_ref().unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn the_users_own_name() {
    let dir = tmp();
    for bad in ["", "..", "a/b", &"x".repeat(247)] {
        assert_eq!(FileSink::builder(dir.path()).name(bad).build().unwrap_err().kind(), Kind::Invalid);
    }
    let long = "x".repeat(246);
    for name in [".hidden", "-", &long] {
        let s = FileSink::builder(dir.path().join("new/er")).name(name).build().unwrap();
        prepare(&s, spec("theirs", None)).await.unwrap();
        write(&s, 0, "x").await.unwrap();
        s.journal()
            .record(&crate::Checkpoint::new(vec![crate::Record::Restart { key: "".into(), generation: 1 }]))
            .await
            .unwrap();
        commit(&s).await.unwrap();
        assert_eq!(s.path(F).unwrap(), dir.path().join("new/er").join(name));
    }
    let s = FileSink::builder(dir.path()).path(RelPath::parse("p/q").unwrap()).build().unwrap();
    prepare(&s, spec("theirs", None)).await.unwrap();
    write(&s, 0, "x").await.unwrap();
    commit(&s).await.unwrap();
    assert_eq!(s.read(O, 0..1).await.unwrap(), "x");
    assert_eq!(ls(&dir.path().join("p")), ["q"]);
}

#[tokio::test]
async fn a_failed_prepare_leaves_nothing() {
    let dir = tmp();
    let new = dir.path().join("x/y");
    let s = FileSink::builder(&new).build().unwrap();
    let e = prepare(&s, spec("a/b/f", Some(u64::MAX >> 1))).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NoSpace);
    assert!(e.to_string().contains("are missing"), "{e}");
    assert!(ls(dir.path()).is_empty());
    prepare(&s, spec("a/b/f", Some(1))).await.unwrap();
    assert_eq!(ls(&new.join("a/b")), ["f.part"]);
    s.abort(Keep::Partial).await.unwrap();
    assert!(ls(dir.path()).is_empty(), "an empty partial, and folders for nothing, are litter");
}
