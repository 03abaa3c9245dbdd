//! Standard output as a place that takes bytes, or is an error.
//!
//! The standard library's own handle will not do: it opens `/dev/null` in place of a closed standard output before
//! `main`, and takes "not open for writing" for success. Both would make a lost download a success.

use std::io::{ErrorKind, Write as _};

use dlm_core::{Error, Kind, Result};

const NAME: &str = "standard output";

fn no_place(why: &'static str) -> Error {
    let e = Error::new(Kind::Io, "write to").on(NAME).because(why);
    e.advise("give it a place to go to, or name a file with --output")
}

/// Writes a short text, all of it. A reader that has seen enough is no error (`dlm --help | head`).
///
/// # Errors
/// [`Kind::Io`] or [`Kind::NoSpace`]: not all of it arrived.
pub(crate) fn show(text: &str) -> Result<()> {
    match system::duplicate()?.write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("write to", e).on(NAME)),
        _ => Ok(()),
    }
}

/// What a sink writes to. Looked at before anything is asked of a server.
///
/// # Errors
/// [`Kind::Io`]: it is closed, or not open for writing.
pub(crate) fn sink() -> Result<tokio::fs::File> {
    system::duplicate().map(tokio::fs::File::from_std)
}

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use dlm_core::{Error, Result};
    use rustix::fs::OFlags;

    static CLOSED: AtomicBool = AtomicBool::new(false);

    // Only before `main` can this be seen: afterwards a closed standard output looks like one that was sent to
    // /dev/null on purpose. One system call, no allocation: nothing that needs the runtime.
    ctor::declarative::ctor! {
        #[ctor(unsafe)]
        fn look() {
            let flags = rustix::io::fcntl_getfd(rustix::stdio::stdout());
            CLOSED.store(flags == Err(rustix::io::Errno::BADF), Ordering::Relaxed);
        }
    }

    pub(super) fn duplicate() -> Result<File> {
        if CLOSED.load(Ordering::Relaxed) {
            return Err(super::no_place("it is closed"));
        }
        let out = std::io::stdout();
        let failed = |e: std::io::Error| Error::io("open", e).on(super::NAME);
        let flags = rustix::fs::fcntl_getfl(&out).map_err(|e| failed(e.into()))?;
        if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) || flags.contains(OFlags::PATH) {
            return Err(super::no_place("it is not open for writing"));
        }
        Ok(out.as_fd().try_clone_to_owned().map_err(failed)?.into())
    }
}

#[cfg(windows)]
mod system {
    use std::fs::File;
    use std::os::windows::io::AsHandle as _;

    use dlm_core::{Error, Result};

    pub(super) fn duplicate() -> Result<File> {
        let owned = std::io::stdout().as_handle().try_clone_to_owned();
        owned.map(File::from).map_err(|_| super::no_place("it is closed"))
    }
}
