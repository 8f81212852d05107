//! Waiting for a job of a running server.
//!
//! Owns: [`Waiting`]: how often the server is asked, and the line of progress on a terminal. Refuses: what is asked.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crate::output;

/// Shortest and longest time between two questions how far a job is.
const ASK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The wait for one job.
#[derive(Debug)]
pub(crate) struct Waiting {
    is_terminal: bool,
    pause: Duration,
}

impl Waiting {
    /// Begins to wait for the job of that number.
    pub(crate) fn begin(job: u64) -> Self {
        let is_terminal = io::stderr().is_terminal();
        if is_terminal {
            output::note(&format!(
                "job {job}; it continues without this command; to end it: tonnage jobs cancel {job}"
            ));
        }
        Self {
            is_terminal,
            pause: ASK.0,
        }
    }

    /// Shows how far the job is, and waits before the next question.
    pub(crate) fn show(&mut self, line: &str) {
        self.write(line);
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(ASK.1);
    }

    /// Removes the line.
    pub(crate) fn end(&self) {
        self.write("");
    }

    fn write(&self, line: &str) {
        if self.is_terminal {
            let line = format!("\r{line}\x1b[K");
            io::stderr().write_all(line.as_bytes()).unwrap_or_default();
        }
    }
}
