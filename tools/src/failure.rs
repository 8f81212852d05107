//! Why a command failed, for the user who must act.
//!
//! Owns: [`Failure`]: what is wrong, what to type next, and the exit code.
//! Refuses: printing, which `main` does once.

use std::fmt;
use std::io;
use std::path::Path;

use tonnage_engine::Error;
use tonnage_server::admin::NotFound;

use crate::exit::Exit;

/// The error of every command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code of the process.
    pub(crate) exit: Exit,
    /// What failed; `None` if nobody reads it.
    what: Option<String>,
    /// What to do or type next.
    hints: Vec<String>,
}

impl Failure {
    /// Creates a failure from a description of what failed.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: Some(what.into()),
            hints: Vec::new(),
        }
    }

    /// Adds a line about what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, line: impl Into<String>) -> Self {
        self.hints.push(line.into());
        self
    }

    /// Returns whether there is nothing to print.
    pub(crate) fn is_silent(&self) -> bool {
        self.what.is_none()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(what) = &self.what else {
            return Ok(());
        };
        write!(f, "tonnage: {what}")?;
        self.hints
            .iter()
            .try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Failure {
    /// Returns the failure for names that do not exist. `place` are the options that select the same store.
    pub(crate) fn not_found(missing: &NotFound, place: &str) -> Self {
        let failure = Self::new(Exit::NotFound, format!("{missing}; nothing was done"));
        if missing.is_repository() {
            return failure.hint(format!("to list all: tonnage repo list {place}"));
        }
        let repository = &missing.repository;
        failure.hint(format!(
            "to list all of them: tonnage tag list {repository} {place}"
        ))
    }

    /// Returns the failure for an error of the engine with the store at `data`.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the kinds of the engine and of std are non-exhaustive; the message of the others says what to do"
    )]
    pub(crate) fn of_store(error: &Error, data: &Path) -> Self {
        let at = data.display();
        let failure = |exit| Self::new(exit, error.to_string());
        match error {
            Error::Locked { pid, .. } => {
                let who = pid.map_or_else(
                    || "another process".to_owned(),
                    |pid| format!("process {pid}"),
                );
                let failure = Self::new(Exit::InUse, format!("the store {at} is in use by {who}"))
                    .hint("only one process at a time may open a store; nothing was changed")
                    .hint(format!(
                        "to ask the server that has it open: tonnage stats --data {at}"
                    ));
                let stop = pid.map(|pid| format!("to stop it: kill {pid}"));
                stop.into_iter()
                    .fold(failure, Self::hint)
                    .hint("to use another store: --data DIR")
            }
            Error::Foreign { .. } => failure(Exit::NotAStore)
                .hint("use an empty directory, or one that does not exist yet: --data DIR"),
            Error::Unsupported { .. } => failure(Exit::NewerStore),
            Error::Corrupt(_) => failure(Exit::Damaged)
                .hint("nothing was changed; keep a copy of the directory before anything else")
                .hint(format!(
                    "to see what is intact: tonnage inspect --data {at}"
                )),
            Error::NoSpace { .. } => {
                failure(Exit::Disk).hint("free space, or move the store to a larger disk")
            }
            Error::NotAttempted { .. } => failure(Exit::Disk).hint(
                "free the exhausted resource, or raise the limit (ulimit -a), then try again",
            ),
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => failure(Exit::Disk).hint(format!(
                    "this user needs read and write permission on {at} and everything in it"
                )),
                io::ErrorKind::ReadOnlyFilesystem => {
                    failure(Exit::Disk).hint(format!("{at} must be writable"))
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => failure(Exit::Disk)
                    .hint(format!(
                        "if this is below {at}: move away what is there while the store is closed"
                    ))
                    .hint("the store and every parent of it must be a directory: --data DIR"),
                _ => failure(Exit::Disk),
            },
            _ => failure(Exit::Disk),
        }
    }
}

/// Converts an error of writing the result. If the reader has closed the pipe (`| head`), nothing is printed.
///
/// The exit code is not 0 even then, because `fsck` exits with 0 only if the store is sound.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                exit: Exit::Disk,
                what: None,
                hints: Vec::new(),
            };
        }
        Self::new(
            Exit::Disk,
            format!("the result could not be written to standard output: {error}"),
        )
    }
}
