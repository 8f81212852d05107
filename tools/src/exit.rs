//! The one table of exit codes.
//!
//! Owns: [`Exit`] and its text for `--help`.
//! Refuses: codes of single commands; every command uses this table.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It succeeded.
    Done,
    /// The check was completed and found problems.
    Problems,
    /// The command line or the configuration is wrong; nothing was done.
    Usage,
    /// The disk, the output or a limit of the system prevented it: not writable, full, an I/O error, too few threads or
    /// open files.
    Disk,
    /// Another process has the store open, or the server runs a job of that kind for another request.
    InUse,
    /// The directory is not a store.
    NotAStore,
    /// The store needs a newer program.
    NewerStore,
    /// The store is damaged and cannot be opened.
    Damaged,
    /// A server could not be reached, or an address could not be listened on.
    Network,
    /// A name does not exist in the store; nothing was done.
    NotFound,
}

impl Exit {
    /// All of them, in the order of their codes.
    const ALL: [Self; 10] = [
        Self::Done,
        Self::Problems,
        Self::Usage,
        Self::Disk,
        Self::Network,
        Self::InUse,
        Self::NotAStore,
        Self::NewerStore,
        Self::Damaged,
        Self::NotFound,
    ];

    /// For `repair`, in the manner of e2fsck: there was damage, and all of it was healed.
    pub(crate) const HEALED: Self = Self::Problems;
    /// For `repair`, in the manner of e2fsck: there is still damage. Its code is that of [`Self::Network`], too.
    pub(crate) const UNHEALED: Self = Self::Network;

    /// Returns the exit code. Codes are never reused for another meaning, except those of `repair`.
    const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Problems => 1,
            Self::Usage => 2,
            Self::Disk => 3,
            Self::Network => 4,
            Self::InUse => 5,
            Self::NotAStore => 6,
            Self::NewerStore => 7,
            Self::Damaged => 8,
            Self::NotFound => 9,
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Problems => {
                "the check was completed and found problems (check-config, fsck, inspect, scrub, smoke); repair: there was damage, all of it is healed"
            }
            Self::Usage => "the command line or the configuration is wrong; nothing was done",
            Self::Disk => {
                "the disk, the output or a limit of the system prevented it: not writable, full, an I/O error, too few threads or open files"
            }
            Self::Network => {
                "a server cannot be reached, or an address cannot be listened on; repair: that, or there is still damage"
            }
            Self::InUse => {
                "the store is in use by another process, or such a job runs already for another request"
            }
            Self::NotAStore => "the directory is not a store; nothing was changed",
            Self::NewerStore => "the store needs a newer tonnage; nothing was changed",
            Self::Damaged => "the store is damaged and cannot be opened; nothing was changed",
            Self::NotFound => "a name does not exist in the store; nothing was done",
        }
    }

    /// Returns the table for the end of `tonnage --help`.
    pub(crate) fn table() -> String {
        let rows = Self::ALL.map(|exit| format!("  {:>3}  {}\n", exit.code(), exit.meaning()));
        format!("Exit codes of every command:\n{}", rows.concat())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: no two ends share a code, and the table in `--help` names every one.
    #[test]
    fn every_end_has_its_code() {
        let table = Exit::table();
        for (place, exit) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), place);
            assert!(table.contains(exit.meaning()), "{exit:?}");
        }
    }
}
