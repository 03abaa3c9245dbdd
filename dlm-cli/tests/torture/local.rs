//! The local side: what is there already, what cannot be written, what the command line says.

use std::path::Path;
use std::process::Command;

use dlm_testkit::fixtures;

use crate::harness::*;

/// A small file system in memory in place of the download folder; unmounted when dropped.
struct Mount(std::path::PathBuf);

impl Mount {
    /// `None` where mounting is not allowed; says so.
    fn new(dir: &Path, options: &str) -> Option<Self> {
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir).output();
        let done = done.is_ok_and(|o| o.status.success());
        if !done {
            eprintln!("SKIPPED: mounting a tmpfs is not allowed here");
        }
        done.then(|| Self(dir.to_owned()))
    }
    fn again(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs on a small file system, and then this; on a machine that does not let us mount, it is an ordinary download.
fn mounted(options: &'static str, code: i32, then: fn(&mut Bench, &Mount, Run) -> Run) -> Scenario {
    either(honest).size(6 * MIB).drive(move |b| {
        let Some(mount) = Mount::new(&b.dir, options) else { return b.run() };
        let run = b.run();
        assert_eq!(run.code, Some(code), "{run:?}");
        then(b, &mount, run)
    })
}

fn occupied(scenario: Scenario) -> Scenario {
    scenario.before(|b| b.occupy(&fixtures::bytes(77, 100_000)))
}

/// Calls the binary with just these words.
fn words(code: i32, words: &'static [&'static str]) -> Scenario {
    refused(code, honest).drive(move |b| {
        let mut command = b.bare();
        command.args(words);
        b.run_command(command)
    })
}

/// Two of them on one name: the second one refuses, the first one does not notice.
fn second_of_two(b: &mut Bench) -> Run {
    let goal = b.files.len() / 5;
    let Err(first) = b.spawn().until(|| b.server.served() >= goal) else { panic!("too fast") };
    let second = b.run();
    assert_eq!(second.code, Some(7), "{second:?}");
    let first = first.finish();
    judge::standing(b, &first);
    first
}

scenarios! {
    name_is_a_folder = refused_as(&[6, 7], honest).before(|b| {
        std::fs::create_dir(&b.out).unwrap();
        std::fs::write(b.out.join("keep.txt"), "keep").unwrap();
    }).and(|b, _| assert_eq!(std::fs::read(b.out.join("keep.txt")).unwrap(), b"keep"));
    name_is_taken = occupied(refused(7, honest));
    name_is_taken_and_fail = occupied(refused(7, honest).flags(&["--if-exists", "fail"]));
    name_is_taken_and_overwrite = occupied(ok(honest).flags(&["--if-exists", "overwrite"]));
    name_is_taken_and_rename = either(honest).flags(&["--if-exists", "rename"]).drive(|b| {
        b.occupy(&fixtures::bytes(77, 100_000));
        let run = b.spawn().finish();
        assert_eq!(run.code, Some(0), "{run:?}");
        assert_eq!(std::fs::read(&b.out).ok(), b.before);
        let others: Vec<_> = std::fs::read_dir(&b.dir).unwrap().map(|e| e.unwrap().path()).filter(|p| *p != b.out).collect();
        assert_eq!(others.len(), 1, "{others:?}");
        assert_eq!(std::fs::read(&others[0]).unwrap(), b.files.data()[..]);
        run
    });
    name_is_taken_and_skip = occupied(either(honest).flags(&["--if-exists", "skip"])).accept(|f| vec![f.data().clone(), fixtures::bytes(77, 100_000)])
        .and(|b, run| assert_eq!((run.code, std::fs::read(&b.out).ok()), (Some(0), b.before.clone())));
    name_is_a_link = either(honest).drive(|b| {
        let canary = b.root().join("canary.txt");
        std::fs::write(&canary, "precious").unwrap();
        std::os::unix::fs::symlink(&canary, &b.out).unwrap();
        b.before = Some(b"precious".to_vec());
        let run = b.run();
        assert_eq!(run.code, Some(7), "{run:?}");
        assert_eq!(std::fs::read(&canary).unwrap(), b"precious");
        run
    });
    name_is_a_dangling_link = either(honest).drive(|b| {
        let target = b.root().join("not-there");
        std::os::unix::fs::symlink(&target, &b.out).unwrap();
        let run = b.spawn().finish();
        assert!(!target.exists(), "it wrote through the link");
        assert_ne!(run.code, Some(0), "{run:?}");
        run
    });
    partial_is_a_link = either(honest).before(|b| {
        std::fs::write(b.root().join("canary.txt"), "precious").unwrap();
        std::os::unix::fs::symlink(b.root().join("canary.txt"), b.part()).unwrap();
    }).and(|b, _| assert_eq!(std::fs::read(b.root().join("canary.txt")).unwrap(), b"precious"));
    journal_is_a_link = either(honest).before(|b| {
        std::fs::write(b.root().join("canary.txt"), "precious").unwrap();
        std::os::unix::fs::symlink(b.root().join("canary.txt"), b.journal()).unwrap();
    }).and(|b, _| assert_eq!(std::fs::read(b.root().join("canary.txt")).unwrap(), b"precious"));
    partial_is_a_folder = refused_as(&[6, 7], honest).before(|b| std::fs::create_dir(b.part()).unwrap());
    journal_is_a_folder = refused(6, honest).before(|b| std::fs::create_dir(b.journal()).unwrap()).says("move it away");
    folder_is_a_file = refused(6, honest).drive(|b| {
        let file = b.root().join("file");
        std::fs::write(&file, "x").unwrap();
        b.flags.extend(["-d".to_owned(), file.display().to_string()]);
        b.out = "x.bin".into();
        b.run()
    }).says("choose another folder");
    folder_is_a_link_to_nowhere = refused(6, honest).drive(|b| {
        std::os::unix::fs::symlink("nowhere", b.root().join("link")).unwrap();
        b.out = b.root().join("link/x.bin");
        b.run()
    }).says("link to nowhere");
    /// Names in it can be made, and none can be changed.
    folder_is_append_only = refused(6, honest).drive(|b| {
        let attribute = |what: &str, b: &Bench| Command::new("chattr").arg(what).arg(&b.dir).status().is_ok_and(|s| s.success());
        if !attribute("+a", b) {
            eprintln!("SKIPPED: attributes of files cannot be set here");
            std::fs::create_dir(b.journal()).unwrap();
            return b.run();
        }
        let run = b.spawn().finish();
        assert!(attribute("-a", b));
        assert!(run.stderr.contains("append-only"), "{run:?}");
        run
    });
    /// The second run finds everything there, and reads no more than the head of an answer: what the kernel had taken of
    /// its body by then is lost.
    done_already = ok(honest).drive(|b| {
        let first = b.run();
        assert_eq!(first.code, Some(0), "{first:?}");
        let served = b.server.served();
        let second = b.run();
        assert!(b.server.served() <= served + b.files.len() / 4, "{} bytes more", b.server.served() - served);
        second
    });
    done_already_with_checksum = ok(honest).flags(&["--no-mtime"]).drive(|b| {
        let first = b.run();
        assert_eq!(first.code, Some(0), "{first:?}");
        b.run()
    }).checksum();
    parent_is_missing = either(honest).before(|b| {
        b.out = b.dir.join("no/such/file.bin");
        b.also.push("no".to_owned());
    });
    sets_the_time = ok(honest).and(|b, _| assert_eq!(modified(&b.out), 1_704_067_200));
    leaves_the_time = ok(honest).flags(&["--no-mtime"]).and(|b, _| assert_ne!(modified(&b.out), 1_704_067_200));
    to_standard_output = ok(honest).drive(|b| {
        b.out = "-".into();
        let run = b.spawn().finish();
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.stdout == b.files.data()[..], "{} bytes", run.stdout.len());
        assert_eq!(std::fs::read_dir(&b.dir).unwrap().count(), 0);
        run
    }).size(1_000_000);
    to_standard_output_with_cuts = ok(|q, f| f.answer(q).cut(200_000, End::Reset)).drive(|b| {
        b.out = "-".into();
        let run = b.spawn().finish();
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.stdout == b.files.data()[..], "{} bytes", run.stdout.len());
        run
    }).size(1_000_000);
    #[ignore = "--max-filesize is not there yet"]
    too_large = refused_as(&[1, 2, 4, 6], honest).flags(&["--max-filesize", "1M"]);
    #[ignore = "--max-filesize is not there yet"]
    not_too_large = ok(honest).flags(&["--max-filesize", "4M"]);
    limits_its_rate = ok(honest).flags(&["--limit-rate", "1M"]).and(|_, run| assert!(run.took.as_secs_f64() > 2.0, "{run:?}"));
    #[ignore = "--json is not there yet"]
    one_event_a_line = ok(honest).flags(&["--json"]).and(|_, run| {
        let text = String::from_utf8(run.stdout.clone()).unwrap();
        assert!(!text.trim().is_empty() && text.lines().all(|l| l.starts_with('{') && l.ends_with('}')), "{text}");
    });
    quiet_is_quiet = ok(honest).flags(&["-q"]).and(|_, run| assert!(run.stderr.is_empty() && run.stdout.is_empty(), "{run:?}"));
    verbose_tells_what_happens = ok(|q, f| if q.nth == 0 { Answer::status(503).header("Retry-After", "1") } else { f.answer(q) })
        .flags(&["-v"]).says("503");
    second_process_refuses = ok(honest).rate(1_400_000).drive(second_of_two);

    disk_is_full = mounted("size=2m", 6, |_, _, run| run);
    disk_is_full_and_then_not = mounted("size=2m", 6, |b, mount, _| {
        mount.again("size=32m");
        let run = b.run();
        assert_eq!(run.code, Some(0), "{run:?}");
        run
    });
    disk_is_read_only = mounted("size=16m,ro", 6, |_, _, run| run);

    no_words = words(2, &[]);
    unknown_option = words(2, &["--no-such-option", "http://127.0.0.1:1/x"]);
    output_for_two = words(2, &["-o", "x", "http://127.0.0.1:1/x", "http://127.0.0.1:1/y"]);
    json_to_standard_output = words(2, &["--json", "-o", "-", "http://127.0.0.1:1/x"]);
    checksum_that_is_none = words(2, &["--checksum", "sha256:xyz", "http://127.0.0.1:1/x"]);
    checksum_of_an_unknown_kind = words(2, &["--checksum", "rot13:00", "http://127.0.0.1:1/x"]);
    rate_that_is_none = words(2, &["--limit-rate", "fast", "http://127.0.0.1:1/x"]);
    header_that_is_none = words(2, &["-H", "no colon", "http://127.0.0.1:1/x"]);
    header_with_a_line_feed = words(2, &["-H", "X: a\r\nHost: evil", "http://127.0.0.1:1/x"]);
    unknown_scheme = words(8, &["gopher://127.0.0.1:1/x"]);
    login_without_a_scheme = words(8, &["al:S3CRET@127.0.0.1:1/f.bin"]).and(|b, run| judge::no_leak(b, run, "S3CRET"));
    login_where_a_number_should_be = words(2, &["-x", "al:S3CRET@127.0.0.1:1/f.bin"]).and(|b, run| judge::no_leak(b, run, "S3CRET"));
    no_locator_at_all = refused_as(&[2, 8], honest).locator(|_, _| "not a locator".to_owned());
}

fn modified(path: &Path) -> i64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).unwrap().mtime()
}
