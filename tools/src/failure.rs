//! Why a command could not do what it was asked, told to the person who must act.
//!
//! Owns: [`Failure`]: what is wrong, what to type next, and the exit code.
//! Refuses: being built twice for one event; it is printed once, by `main`.

use std::fmt;
use std::io;

use crate::exit::Exit;

/// What every command returns when it cannot go on.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) exit: Exit,
    /// What is wrong; empty where nobody is left to read it.
    what: String,
    /// What to do or type next.
    next: Vec<String>,
}

impl Failure {
    /// A failure that says what is wrong.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            next: Vec::new(),
        }
    }

    /// Adds a line about what to do next.
    #[must_use]
    pub(crate) fn next(mut self, line: impl Into<String>) -> Self {
        self.next.push(line.into());
        self
    }

    /// Whether there is anything to print.
    pub(crate) fn is_silent(&self) -> bool {
        self.what.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tonnage: {}", self.what)?;
        self.next
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Writing the result failed. A reader that went away (`| head`) is no news to anybody.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Disk, "");
        }
        Self::new(
            Exit::Disk,
            format!("the result could not be written to standard output: {error}"),
        )
    }
}
