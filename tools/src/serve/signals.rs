//! SIGTERM and SIGINT: the first asks the server to drain, the second ends the process at once.
//!
//! Owns: the handlers of both signals. Refuses: cleaning up on the second, because a store survives any stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals, handled from its creation on.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers in place of the default, which ends the process.
    pub(crate) fn take() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self {
            terminate,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal. Returns its name and number.
    pub(crate) async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
        }
    }
}
