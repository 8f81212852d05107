//! Why a command could not do what it was asked, told to the person who must act.
//!
//! Owns: [`Failure`]: what is wrong, what to type next, and the exit code.
//! Refuses: being built twice for one event; it is printed once, by `main`.

use std::fmt;
use std::io;
use std::path::Path;

use tonnage_engine::Error;
use tonnage_server::admin::NotFound;

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

impl Failure {
    /// The failure for names that do not exist. `place` are the options that lead to the same store again.
    pub(crate) fn not_found(missing: &NotFound, place: &str) -> Self {
        let failure = Self::new(Exit::NotFound, format!("{missing}; nothing was done"));
        if missing.tags.is_empty() {
            return failure.next(format!("to list all: tonnage repo list {place}"));
        }
        let repository = &missing.repository;
        failure.next(format!(
            "to list all of them: tonnage tag list {repository} {place}"
        ))
    }

    /// What the engine refused to do with the store at `data`.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the lists of the engine and of std grow; what is not named here says itself what to do"
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
                    .next("one process at a time may open a store; nothing was touched")
                    .next(format!(
                        "to ask the server that has it open: tonnage stats --data {at}"
                    ));
                let stop = pid.map(|pid| format!("to stop it: kill {pid}"));
                stop.into_iter()
                    .fold(failure, Self::next)
                    .next("to use another store: --data DIR")
            }
            Error::Foreign { .. } => failure(Exit::NotAStore)
                .next("use an empty directory, or one that does not exist yet: --data DIR"),
            Error::Unsupported { .. } => failure(Exit::NewerStore),
            Error::Corrupt(_) => failure(Exit::Damaged)
                .next("nothing was changed; keep a copy of the directory before anything else")
                .next(format!("to see what holds: tonnage inspect --data {at}")),
            Error::NoSpace { .. } => {
                failure(Exit::Disk).next("free space, or move the store to a larger disk")
            }
            Error::NotAttempted { .. } => failure(Exit::Disk)
                .next("free what it ran out of, or raise the limit (ulimit -a), then try again"),
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => failure(Exit::Disk).next(format!(
                    "this user must be able to read and write {at} and all in it"
                )),
                io::ErrorKind::ReadOnlyFilesystem => {
                    failure(Exit::Disk).next(format!("{at} must be writable"))
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => failure(Exit::Disk)
                    .next(format!(
                        "if this is below {at}: move away what is there while the store is closed"
                    ))
                    .next("a store is a directory, and so is everything above it: --data DIR"),
                _ => failure(Exit::Disk),
            },
            _ => failure(Exit::Disk),
        }
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
