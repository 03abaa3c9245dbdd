//! SIGINT and SIGTERM: the first stops and keeps, the second ends at once. A file that grows beyond a limit
//! (`ulimit -f`) is no reason to die without a word: that write fails instead.

use dlm_core::{Error, Result};
use tokio::sync::watch;

/// Who said stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// The exit code, as shells count: 128 and the signal's number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Says when to stop. A clone sees the same.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<Option<Signal>>);

impl Stop {
    /// Listens from now on; needs a tokio runtime.
    ///
    /// # Errors
    /// The system refuses signal handlers.
    pub(crate) fn listen() -> Result<Self> {
        let (tell, told) = watch::channel(None);
        let mut signals = Signals::new().map_err(|e| Error::io("listen for signals", e))?;
        tokio::spawn(async move {
            let first = signals.next().await;
            // Nobody waits any more: the program is about to end anyway.
            let _ = tell.send(Some(first));
            end_now(signals.next().await);
        });
        Ok(Self(told))
    }

    /// The signal that came, if one did.
    pub(crate) fn seen(&self) -> Option<Signal> {
        *self.0.borrow()
    }

    /// Waits for the first signal; without one, for ever. Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a second signal asks for just this, in the binary and nowhere else"
)]
fn end_now(signal: Signal) -> ! {
    std::process::exit(i32::from(signal.code()))
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        // Once taken it does not kill any more, whether somebody listens or not.
        drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Signal {
        // Losing branch: a signal that was not taken is still there at the next call.
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self(tokio::signal::windows::ctrl_c()?))
    }

    async fn next(&mut self) -> Signal {
        let _ = self.0.recv().await;
        Signal::Interrupt
    }
}
