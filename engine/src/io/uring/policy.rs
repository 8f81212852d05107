//! Which operations a ring serves, and which the threads.
//!
//! Owns: [`serves`] and its two tables; pure. Refuses: anything that is not in the arguments.

use crate::io::Class;
use crate::io::threads::file::Access;

/// Which table decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The ring serves what it does faster, by measurement.
    Winners,
    /// The ring serves all that it can.
    All,
}

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Read(Access),
    Write,
    WriteAndSync,
    Sync,
}

/// Returns whether a ring serves an operation on `length` bytes.
pub(super) fn serves(table: Table, class: Class, action: Action, length: usize) -> bool {
    let _ = length;
    match (table, action) {
        // It takes several system calls.
        (_, Action::Read(Access::Dropping)) => false,
        (Table::All, _) => true,
        (Table::Winners, Action::Read(Access::Direct)) => class == Class::Background,
        (Table::Winners, _) => false,
    }
}
