//! The flags of `dlm get`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};

use super::TalkFlags;
use crate::values::{rate, seconds};

/// What to do with a finished file at the final name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IfExists {
    /// Leave it and fail, unless it is the right one already
    Fail,
    /// Leave it and call it a success
    Skip,
    /// Put the new file in its place, once it is whole and verified
    Overwrite,
    /// Use the next free name: name.1.bin, name.2.bin …
    Rename,
}

/// `dlm get`, as typed.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag that is there or not")]
pub(crate) struct GetFlags {
    /// What to download; each is a download of its own
    ///
    /// The address of a file, such as https://host/path. Up to --jobs of them are fetched at once.
    #[arg(value_name = "LOCATOR", required = true)]
    pub(crate) locators: Vec<OsString>,

    /// Final name of the file; '-' is standard output
    ///
    /// With folders if you like; missing ones are made. With --dir, a PATH that is not absolute lies below that
    /// folder. Standard output gets the bytes in order, also when several connections fetch them. Only with one
    /// LOCATOR.
    #[arg(short, long, value_name = "PATH", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,

    /// Folder to download to [default: the current one]
    ///
    /// Names come from the source, made safe: a server never chooses a folder, a hidden name, or one that the system
    /// reserves.
    #[arg(short, long, value_name = "DIR", help_heading = "Output")]
    pub(crate) dir: Option<PathBuf>,

    /// What to do with a finished file of that name
    ///
    /// A finished file whose digest, or whose size and modification time, match the source is success without a
    /// transfer, whatever this says.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = IfExists::Fail, help_heading = "Output")]
    pub(crate) if_exists: IfExists,

    /// Forget a partial download and start over
    #[arg(long, help_heading = "Output")]
    pub(crate) no_resume: bool,

    /// Sync to disk before success is reported
    ///
    /// Then a power cut loses nothing either.
    #[arg(long, help_heading = "Output")]
    pub(crate) durable: bool,

    /// Do not set the modification time from the source
    #[arg(long, help_heading = "Output")]
    pub(crate) no_mtime: bool,

    /// Another source of the same bytes; repeatable
    ///
    /// All sources are used at once, and the rest go on when one fails. Only with one LOCATOR.
    #[arg(short, long = "mirror", value_name = "LOCATOR", help_heading = "Sources")]
    pub(crate) mirrors: Vec<OsString>,

    /// Expected digest of the file; repeatable
    ///
    /// Such as sha256:9f86d0…; the algorithms are sha256, sha512, blake3, sha1, md5 and crc32c. The final name appears
    /// only when all of them match. Only with one LOCATOR.
    #[arg(long = "checksum", value_name = "ALGO:HEX", help_heading = "Sources")]
    pub(crate) checksums: Vec<String>,

    /// Most connections for one file [default: chosen by measured gain]
    #[arg(short = 'x', long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024), help_heading = "Speed")]
    pub(crate) connections: Option<u32>,

    /// Most files at once
    #[arg(short, long, value_name = "N", default_value_t = 8, value_parser = value_parser!(u32).range(1..=1024), help_heading = "Speed")]
    pub(crate) jobs: u32,

    /// Most bytes a second, all files together: 500K, 2M
    ///
    /// A number, with K, M, G or T behind it if you like (also KiB, MiB …; K is 1024). 0 is no limit.
    #[arg(long, value_name = "RATE", value_parser = rate, help_heading = "Speed")]
    pub(crate) limit_rate: Option<u64>,

    /// Sent to the origin of the LOCATOR; repeatable
    ///
    /// And to no other: not to mirrors, not after a redirect to another host. Every user of the machine can read a command
    /// line: a password is better off with --user and DLM_PASSWORD, a token
    /// in --bearer-file.
    #[arg(short = 'H', long = "header", value_name = "'NAME: VALUE'", help_heading = "HTTP")]
    pub(crate) headers: Vec<OsString>,

    /// What the program calls itself
    #[arg(long, value_name = "S", help_heading = "HTTP")]
    pub(crate) user_agent: Option<String>,

    /// Credentials for the LOCATOR's origin
    ///
    /// And for no other. Without a password it is read from the environment variable DLM_PASSWORD, or asked for on
    /// the terminal. That is safer: every user of the machine can read a command line.
    #[arg(long, value_name = "NAME[:PASSWORD]", help_heading = "Network")]
    pub(crate) user: Option<OsString>,

    /// A bearer token for the LOCATOR's origin, read from this file
    ///
    /// And for no other. The file holds the token and nothing else; a pipe serves, too.
    #[arg(long, value_name = "FILE", conflicts_with = "user", help_heading = "Network")]
    pub(crate) bearer_file: Option<PathBuf>,

    /// Trust the certificates in this file too
    ///
    /// A regular file in PEM, besides those of the system: of authorities, or of the server itself.
    #[arg(long, value_name = "FILE", help_heading = "Network")]
    pub(crate) cacert: Option<PathBuf>,

    /// Do not verify TLS: anybody can read and change what comes
    ///
    /// dlm says so each time.
    #[arg(long, help_heading = "Network")]
    pub(crate) insecure: bool,

    /// Tries without progress before a source is given up
    ///
    /// Those after the first; 0 is none. A try that brought bytes starts the count anew.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(0..=1_000_000), help_heading = "Network")]
    pub(crate) retries: u32,

    /// Time to connect, in seconds [default: 20]
    ///
    /// For name lookup, connecting and TLS together; such as 2.5.
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "Network")]
    pub(crate) connect_timeout: Option<Duration>,

    /// Longest silence of a source, in seconds [default: 30]
    ///
    /// Before its answer or within it; such as 2.5.
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "Network")]
    pub(crate) idle_timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) talk: TalkFlags,
}
