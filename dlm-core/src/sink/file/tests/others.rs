//! Somebody else is there too: another process, a planted link, a change behind our back.

use super::*;

#[tokio::test]
async fn the_second_is_refused() {
    let dir = tmp();
    let a = FileSink::builder(dir.path()).build().unwrap();
    let b = FileSink::builder(dir.path()).if_exists(IfExists::Overwrite).build().unwrap();
    prepare(&a, spec("f", None)).await.unwrap();
    write(&a, 0, "a").await.unwrap();
    let e = prepare(&b, spec("f", None)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Busy);
    drop(a);
    prepare(&b, spec("f", None)).await.unwrap();
    b.abort(Keep::Partial).await.unwrap();
    assert_eq!(ls(dir.path()), ["f.part"]);
    assert_eq!(
        prepare(&b, FileSpec { id: FileId(2), ..spec("g", None) }).await.unwrap_err().kind(),
        Kind::Shutdown
    );
    let c = FileSink::builder(dir.path()).build().unwrap();
    prepare(&c, spec("f", None)).await.unwrap();
    c.abort(Keep::Nothing).await.unwrap();
    assert!(ls(dir.path()).is_empty());
}

#[tokio::test]
async fn what_is_no_plain_file_is_refused() {
    let dir = tmp();
    let p = |n: &str| dir.path().join(n);
    std::fs::write(p("victim"), "mine").unwrap();
    symlink("victim", p("link.part")).unwrap();
    symlink("nowhere", p("loose.part")).unwrap();
    std::fs::hard_link(p("victim"), p("hard.part")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, p("fifo.part"), dir::DATA).unwrap();
    std::fs::create_dir(p("dir.part")).unwrap();
    let before = ls(dir.path());
    for name in ["link", "loose", "hard", "fifo", "dir"] {
        for resume in [true, false] {
            let s = FileSink::builder(dir.path()).resume(resume).build().unwrap();
            let e =
                tokio::time::timeout(Duration::from_secs(5), prepare(&s, spec(name, None))).await.unwrap();
            assert_eq!(e.unwrap_err().kind(), Kind::Io, "{name}");
        }
    }
    assert_eq!(ls(dir.path()), before);
    assert_eq!(std::fs::read(p("victim")).unwrap(), b"mine");
}

#[tokio::test]
async fn folders_below_are_no_links() {
    let (dir, other) = (tmp(), tmp());
    symlink(other.path(), dir.path().join("out")).unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let s = FileSink::builder(dir.path()).build().unwrap();
    for bad in ["out/f", "file/f", "new/deep/../f"] {
        let Ok(path) = RelPath::parse(bad) else { continue };
        let e = prepare(&s, FileSpec::whole(F, path, O, None)).await.unwrap_err();
        assert_eq!(e.kind(), Kind::Exists, "{bad}");
    }
    assert!(ls(other.path()).is_empty());
    prepare(&s, spec("a/b/f", None)).await.unwrap();
    write(&s, 0, "x").await.unwrap();
    commit(&s).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("a/b/f")).unwrap(), b"x");
    assert_eq!(s.read(O, 0..1).await.unwrap(), "x");
}

#[tokio::test]
async fn nothing_is_replaced_at_the_last_moment() {
    let dir = tmp();
    let s = FileSink::builder(dir.path()).build().unwrap();
    prepare(&s, spec("f", None)).await.unwrap();
    write(&s, 0, "new").await.unwrap();
    std::fs::write(dir.path().join("f"), "theirs").unwrap();
    assert_eq!(commit(&s).await.unwrap_err().kind(), Kind::Exists);
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"theirs");
    assert_eq!(ls(dir.path()), ["f", "f.part"]);
    std::fs::remove_file(dir.path().join("f")).unwrap();
    commit(&s).await.unwrap();

    // A partial that somebody swapped is not ours to put in place, and not ours to remove.
    let s = FileSink::builder(dir.path()).build().unwrap();
    prepare(&s, spec("g", None)).await.unwrap();
    write(&s, 0, "new").await.unwrap();
    std::fs::remove_file(dir.path().join("g.part")).unwrap();
    std::fs::write(dir.path().join("g.part"), "theirs").unwrap();
    assert_eq!(commit(&s).await.unwrap_err().kind(), Kind::Io);
    s.abort(Keep::Nothing).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("g.part")).unwrap(), b"theirs");
}

#[tokio::test]
async fn a_journal_of_many_files_has_its_own_lock() {
    let dir = tmp();
    let sink = || FileSink::builder(dir.path()).journal_name(".dlm-0000abcd.part.dlm").build().unwrap();
    let (a, b) = (sink(), sink());
    let one = crate::Checkpoint::new(vec![crate::Record::Restart { key: "".into(), generation: 1 }]);
    let (ja, jb) = (a.journal(), b.journal());
    prepare(&a, spec("d/a", None)).await.unwrap();
    prepare(&b, spec("d/b", None)).await.unwrap();
    ja.record(&one).await.unwrap();
    assert_eq!(jb.record(&one).await.unwrap_err().kind(), Kind::Busy);
    ja.close(Keep::Partial).await.unwrap();
    jb.record(&one).await.unwrap();
    jb.close(Keep::Nothing).await.unwrap();
    assert_eq!(ls(dir.path()), ["d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_is_no_ones_second_writer() {
    let dir = tmp();
    let s = FileSink::builder(dir.path()).build().unwrap();
    prepare(&s, spec("f", None)).await.unwrap();
    for _ in 0..50 {
        let writes: Vec<_> = (0..8)
            .map(|i| {
                let s = s.clone();
                tokio::spawn(async move { write(&s, i * 100, "old old old").await })
            })
            .collect();
        s.truncate(O).await.unwrap();
        for w in writes {
            // Before the truncation and gone with it, or refused, or begun after it.
            let _ = w.await.unwrap();
        }
        s.truncate(O).await.unwrap();
        assert_eq!(dir.path().join("f.part").metadata().unwrap().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_for_one_name_never_shows_half_a_file() {
    const LEN: usize = 64 << 10;
    let dir = tmp();
    let path = dir.path().join("f");
    let racers: Vec<_> = (1..=4u8)
        .map(|me| {
            let folder = dir.path().to_owned();
            tokio::spawn(async move {
                let mut done = 0;
                for i in 0..60u32 {
                    let how = if i % 2 == 0 { IfExists::Overwrite } else { IfExists::Fail };
                    let s = FileSink::builder(&folder).if_exists(how).build().unwrap();
                    let j = s.journal();
                    match prepare(&s, spec("f", Some(LEN as u64))).await {
                        Ok(_) => {}
                        Err(e) => {
                            assert!(matches!(e.kind(), Kind::Busy | Kind::Exists), "{e}");
                            continue;
                        }
                    }
                    j.load().await.unwrap();
                    s.truncate(O).await.unwrap();
                    for at in (0..LEN).step_by(LEN / 4) {
                        let some = Bytes::from(vec![me; LEN / 4]);
                        s.write(Batch::new(O, at as u64, vec![some])).await.unwrap();
                        let one = crate::Record::Restart { key: "".into(), generation: 1 };
                        j.record(&crate::Checkpoint::new(vec![one])).await.unwrap();
                    }
                    match commit(&s).await {
                        Ok(()) => done += 1,
                        Err(e) => assert_eq!(e.kind(), Kind::Exists),
                    }
                    j.close(Keep::Nothing).await.unwrap();
                }
                done
            })
        })
        .collect();
    let mut looks = 0;
    while !racers.iter().all(tokio::task::JoinHandle::is_finished) {
        if let Ok(seen) = std::fs::read(&path) {
            assert!(seen.len() == LEN && seen.iter().all(|b| *b == seen[0]));
            looks += 1;
        }
        tokio::task::yield_now().await;
    }
    let mut done = 0;
    for r in racers {
        done += r.await.unwrap();
    }
    assert!(done > 0 && looks > 0);
}
