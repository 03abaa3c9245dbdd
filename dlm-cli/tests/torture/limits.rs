//! Limits of the machine: few open files, small files. A clean word and the code of a local fault, never a panic.

use std::process::Command;

use crate::harness::*;

/// The command under a shell that sets these limits first.
fn under(b: &Bench, limits: &str) -> Command {
    let inner = b.command();
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{limits}; exec \"$@\""), "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    command.current_dir(&b.dir);
    command
}

scenarios! {
    /// With fewer than four the system cannot even load a program.
    few_open_files = either(honest).size(100_000).drive(|b| {
        let mut enough = 0;
        for n in 4..=24 {
            let command = under(b, &format!("ulimit -n {n}"));
            let run = b.run_command(command);
            match run.code {
                Some(0) => enough += 1,
                code => assert!(
                    code == Some(6) && run.stderr.contains("ulimit -n"),
                    "with {n} open files: {run:?}"
                ),
            }
            for path in [b.out.clone(), b.part(), b.journal()] {
                let _ = std::fs::remove_file(path);
            }
        }
        assert!(enough > 0, "24 open files should be enough");
        b.run()
    });
    /// What fits is kept, and the same command without the limit goes on.
    small_files = ok(honest).drive(|b| {
        let command = under(b, "ulimit -f 1024");
        let run = b.run_command(command);
        assert!(run.code == Some(6) && run.stderr.contains("ulimit -f"), "{run:?}");
        b.run()
    });
}
