//! Every flag, defined once: its name, its place in the help, and the form of its value.
//!
//! What a value *means* is not decided here: see `meant.rs`. Values that may hold a secret are plain text here, so
//! that no message about the form of a command line can repeat one.

#![expect(clippy::doc_markdown, reason = "these comments are the help text, which is plain text")]

mod get;

use clap::{Args, Parser, Subcommand};

pub(crate) use get::{GetFlags, IfExists};

const AFTER_HELP: &str = "'dlm --help' says more about each option, and lists the exit codes.";

const AFTER_LONG_HELP: &str = "\
Files:
  NAME.part holds the bytes while they come, NAME.part.dlm the journal that makes it resumable.
  NAME itself appears in one step, when every byte is there and verified. The same command again
  goes on where the last one stopped.

Signals:
  The first SIGINT (Ctrl-C) or SIGTERM stops, and keeps what is there to go on later. A second one
  ends at once.

Environment:
  DLM_PASSWORD  the password for --user. On the command line, or in an address, every user of the
                machine can read it (ps); here nobody else can.
  NO_COLOR      honoured: dlm uses no colours.
  TERM=dumb     no progress is drawn.

Exit codes:
    0  everything asked for is in place, verified
    1  several failures of different kinds, or one that fits no other line
    2  the command line is wrong
    3  network: name lookup, connect, TLS, time-out, reset, a source that stays overloaded
    4  the source refused: not found, denied, login failed, or it says to come back much later
    5  integrity: a digest is wrong, or the file changed while it was read
    6  local: disk full, permission, I/O error
    7  the final name is taken, or another process is at it
    8  the locator or its protocol is not supported by this build
    9  a protocol error: the server's answer makes no sense
  130  stopped by SIGINT, and 143 by SIGTERM: the partial is kept";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "dlm",
    bin_name = "dlm",
    version,
    long_version = crate::backends::VERSION,
    about = "Downloads files: resumable, verified, from several sources at once",
    override_usage = "dlm [get] [OPTIONS] LOCATOR...",
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) get: GetFlags,
}

/// The sub-commands. Without one it is `get`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Download; the same as without a sub-command
    #[command(override_usage = "dlm get [OPTIONS] LOCATOR...", after_help = AFTER_HELP, after_long_help = AFTER_LONG_HELP)]
    Get(GetFlags),
}

/// How much is said; every sub-command has these.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct TalkFlags {
    /// Say nothing but errors
    #[arg(short, long, help_heading = "Talk", conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say more: causes and retries; given twice: every event
    #[arg(short, long, help_heading = "Talk", action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}
