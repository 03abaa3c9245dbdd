//! Standard output that takes no bytes: never success, whoever hides it.

use std::process::Command;
use std::time::Duration;

use crate::harness::process::Running;
use crate::harness::*;

/// The command with `-o -`, under a shell that does this to it.
fn shell(b: &mut Bench, script: &str) -> Command {
    b.out = "-".into();
    let inner = b.command();
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    command.current_dir(&b.dir);
    command
}

/// Fails, and has not even asked the server.
fn refused_at_once(redirect: &'static str, says: &'static str) -> Scenario {
    refused(6, honest)
        .drive(move |b| {
            let command = shell(b, &format!("exec \"$@\" {redirect}"));
            b.run_command(command)
        })
        .says(says)
        .and(|b, _| assert_eq!(b.server.requests(), 0))
}

/// Bytes leave, and somebody behind refuses them.
fn refused_later(script: &'static str, says: &'static str) -> Scenario {
    refused(6, honest)
        .drive(move |b| {
            let command = shell(b, script);
            b.run_command(command)
        })
        .says(says)
}

/// Help that nobody gets is no success either.
fn help(redirect: &'static str, code: i32) -> Scenario {
    either(honest).drive(move |b| {
        let mut command = shell(b, &format!("exec \"$1\" --help {redirect}"));
        command.stdin(std::process::Stdio::null());
        let run = Running::start(command, Duration::from_secs(20)).finish();
        assert_eq!(run.code, Some(code), "{run:?}");
        run
    })
}

scenarios! {
    closed = refused_at_once(">&-", "it is closed");
    all_three_closed_but_for_errors = refused_at_once("<&- >&-", "it is closed");
    open_for_reading_only = refused_at_once("1</dev/null", "not open for writing");
    onto_a_full_device = refused_later("exec \"$@\" >/dev/full", "No space left");
    into_a_pipe_that_nobody_reads = refused_later(
        "{ \"$@\"; echo $? >&3; } 3>code | true; exit $(cat code; rm code)", "its reader has gone");
    /// Thrown away on purpose, in either way of opening it, is delivered all the same.
    thrown_away = either(honest).drive(|b| {
        for redirect in [">/dev/null", "1<>/dev/null"] {
            let command = shell(b, &format!("exec \"$@\" {redirect}"));
            let run = Running::start(command, Duration::from_secs(45)).finish();
            assert_eq!(run.code, Some(0), "{run:?}");
        }
        b.spawn().finish()
    });
    /// A write that hangs holds up the first signal, which waits a while for it, and not the second.
    second_signal_ends_at_once = refused(143, honest).drive(|b| {
        let pipe = b.aside.path().join("pipe");
        let script = format!(
            "mkfifo {p}; sleep 60 <{p} & reader=$!; \"$@\" >{p} & pid=$!; sleep 1; \
             kill -TERM $pid; sleep 0.2; kill -TERM $pid; wait $pid; code=$?; kill $reader; exit $code",
            p = pipe.display()
        );
        let command = shell(b, &script);
        Running::start(command, Duration::from_secs(30)).finish()
    }).and(|_, run| assert!(run.took < Duration::from_secs(4), "it has waited: {run:?}"));
    help_into_the_closed = help(">&-", 6);
    help_onto_a_full_device = help(">/dev/full", 6);
    help_to_a_reader_that_goes = help("| true", 0);
}
