//! Names that the server chooses.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::harness::judge::tree;
use crate::harness::*;

/// The server names the file so; the download goes into the folder, where a file and a link lie already. Whatever the
/// name: nothing outside the folder, nothing that was there is touched, no hidden file, no control character.
fn named(scenario: Scenario) -> Scenario {
    scenario.size(100_000).into_dir().drive(|b| {
        for (dir, name) in [
            (b.dir.clone(), "precious.txt"),
            (b.root().join("a/b/c"), "canary.txt"),
            (b.root().to_owned(), "canary.txt"),
        ] {
            std::fs::write(dir.join(name), "precious").unwrap();
        }
        std::os::unix::fs::symlink(b.root().join("a/b/c/canary.txt"), b.dir.join("link.bin")).unwrap();
        let before = tree(b.root());
        let run = b.run();
        let after = tree(b.root());
        for entry in &before {
            assert!(after.contains(entry), "changed or gone: {}; {run:?}", entry.0.display());
        }
        let data = judge::sha256(b.files.data());
        let mut delivered = 0;
        for (path, what) in after.iter().filter(|e| !before.contains(e)) {
            assert!(
                path.parent() == Some(&b.dir) && what != "folder",
                "outside the folder: {}",
                path.display()
            );
            let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
            assert!(name.iter().all(|c| *c >= 0x20 && *c != 0x7f), "control characters in {name:?}");
            assert!(name[0] != b'.' && name[0] != b'-' && name.len() <= 255, "{name:?}");
            if *what != data && (name.ends_with(b".part") || name.ends_with(b".part.dlm")) {
                assert_ne!(run.code, Some(0), "left behind: {name:?}");
            } else {
                assert_eq!(*what, data, "wrong bytes in {name:?}");
                delivered += 1;
            }
        }
        assert_eq!(delivered == 1, run.code == Some(0), "{delivered} files; {run:?}");
        run
    })
}

/// `Content-Disposition` says this.
fn says(value: impl Into<Vec<u8>>) -> impl Fn(&Request, &Files) -> Answer + Send + Sync + 'static {
    let value = value.into();
    move |q, f| f.answer(q).header("Content-Disposition", value.clone())
}

fn disposed(value: impl Into<Vec<u8>>) -> Scenario {
    named(either(says(value)))
}

/// It must be delivered, under this name.
fn delivered_as(scenario: Scenario, name: &'static str) -> Scenario {
    named(scenario).and(move |b, run| {
        assert!(b.dir.join(name).is_file(), "not at {name:?}: {:?}; {run:?}", tree(&b.dir));
    })
}

/// A place that anybody may write to.
fn evil() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("dlm-torture-evil-{}.bin", std::process::id()))
}

scenarios! {
    of_the_path = delivered_as(ok(honest).path("/some/where/tool-1.2.tar.gz"), "tool-1.2.tar.gz");
    of_the_path_with_a_query = delivered_as(ok(honest).path("/a/tool.bin?version=2&x=/../../y"), "tool.bin");
    of_the_path_unescaped = delivered_as(ok(honest).path("/na%C3%AFve%20file.bin"), "naïve file.bin");
    of_the_header = delivered_as(ok(says("attachment; filename=\"report.pdf\"")), "report.pdf");
    of_the_header_unquoted = delivered_as(ok(says("attachment; filename=report.pdf")), "report.pdf");
    of_the_header_extended = delivered_as(ok(says("attachment; filename=\"fallback.bin\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.bin")), "naïve €.bin");
    none_at_all = named(either(honest).path("/"));

    traversal = disposed("attachment; filename=\"../../evil.bin\"");
    traversal_extended = disposed("attachment; filename*=UTF-8''..%2F..%2Fevil.bin");
    traversal_with_backslashes = disposed("attachment; filename=\"..\\\\..\\\\evil.bin\"");
    absolute = disposed(format!("attachment; filename=\"{}\"", evil().display())).and(|_, _| assert!(!evil().exists()));
    drive_letter = disposed("attachment; filename=\"C:\\\\evil.bin\"");
    two_dots = disposed("attachment; filename=\"..\"");
    one_dot = disposed("attachment; filename=\".\"");
    empty = disposed("attachment; filename=\"\"");
    only_spaces = disposed("attachment; filename=\"   \"");
    trailing_slash = disposed("attachment; filename=\"evil/\"");
    control_characters = disposed("attachment; filename=\"a\u{1b}]0;pwned\u{7}\u{1b}[2Jb.bin\"");
    control_characters_extended = disposed("attachment; filename*=UTF-8''a%1B%5D0;pwned%07%0D%0Ab.bin");
    nul_extended = disposed("attachment; filename*=UTF-8''a%00b.bin");
    bidirectional_override = disposed("attachment; filename*=UTF-8''exe.%E2%80%AEgpj.bin")
        .and(|b, _| assert!(tree(&b.dir).iter().all(|(p, _)| !p.to_string_lossy().contains('\u{202e}'))));
    broken_utf8_extended = disposed("attachment; filename*=UTF-8''a%FF%FEb.bin");
    of_60_kilobytes = disposed(format!("attachment; filename=\"{}.bin\"", "n".repeat(60_000)));
    of_300_bytes = disposed(format!("attachment; filename=\"{}.bin\"", "n".repeat(300)));
    leading_dash = disposed("attachment; filename=\"-rf\"");
    dotfile = disposed("attachment; filename=\".bashrc\"");
    dotfile_extended = disposed("attachment; filename*=UTF-8''.bashrc");
    device = disposed("attachment; filename=\"CON\"");
    our_own_suffix = disposed("attachment; filename=\"x.part\"");
    our_own_journal = disposed("attachment; filename=\"x.part.dlm\"");
    of_a_file_that_is_there = disposed("attachment; filename=\"precious.txt\"");
    of_a_link_that_is_there = disposed("attachment; filename=\"link.bin\"");
    unfinished_quote = disposed("attachment; filename=\"abc");
    not_even_a_header = disposed("\u{ff}\u{fe};;;===\"\"");

    path_of_a_file_that_is_there = named(either(honest).path("/precious.txt"));
    path_of_a_link_that_is_there = named(either(honest).path("/link.bin"));
    path_with_control_characters = named(either(honest).path("/a%1B%5D0;pwned%07%0Ab.bin"));
    path_with_an_escaped_slash = named(either(honest).path("/a%2F..%2F..%2Fevil.bin"));
    path_with_dots = named(either(honest).path("/x/%2e%2e"));
    path_that_is_hidden = named(either(honest).path("/.bashrc"));
    path_of_300_bytes = named(either(honest).path(format!("/{}.bin", "n".repeat(300))));
    /// The name comes from what was asked for, or from where the redirect ends: safe in any case.
    after_a_redirect = named(either(|q, f| if q.path() == "/file.bin" { Answer::redirect(302, "/..%2f.evil") } else { f.answer(q) }));
}
