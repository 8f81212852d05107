//! SIGTERM and SIGINT: the first asks the server to drain, the second ends the process at once.
//!
//! Owns: both signals' handlers. Refuses: cleaning up on the second; a store survives any stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals, taken from the moment this exists.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals from their default, which would end the process.
    pub(crate) fn take() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self {
            terminate,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves to the name of the next signal.
    pub(crate) async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate().as_raw_value()),
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt().as_raw_value()),
        }
    }
}
