//! What the operating system asks of the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Asks to stop: SIGTERM (service managers) and SIGINT (Ctrl-C).
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// Asks to read the configuration again: SIGHUP.
pub(crate) struct ReloadSignal(Option<Signal>);

impl StopSignals {
    /// Takes the signals over from the system's default, which is to die at once. Needs a runtime.
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one; gives its name.
    ///
    /// # Cancel safety
    /// Safe: a signal that comes in between is reported by the next call.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl ReloadSignal {
    /// Takes the signal over from the system's default, which is to die. Needs a runtime.
    pub(crate) fn install() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(|signal| Self(Some(signal)))
    }

    /// One that never comes.
    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(None)
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    /// Safe: a signal that comes in between is reported by the next call.
    pub(crate) async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }
}
