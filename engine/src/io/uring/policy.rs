//! Which operations a ring serves, and which the threads.
//!
//! Owns: [`serves`] and its two tables; pure. Refuses: anything that is not in the arguments.

use crate::io::Class;
use crate::io::threads::file::Access;

/// Which table decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The ring serves what it does faster, by measurement.
    Measured,
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

/// Shortest read past the page cache for which a ring takes no more of the processors than the threads at any number
/// in flight.
const DIRECT_MIN: usize = 64 << 10;

/// Returns whether a ring serves an operation on `length` bytes.
///
/// By measurement (`cargo bench -p tonnage-benches --bench io`) the drive decides how fast cold reads, reads past the
/// page cache and writes are, and rings save processor time only. Reads past the page cache are long, and nobody waits
/// for them, so that is what counts there. A client waits for a cold read, and with 8 of 4 KiB in flight rings took 8
/// to 15 % longer (cold and direct), though 40 % less processor time. What the page cache has is not read through
/// either backend (`read_cached`).
pub(super) fn serves(table: Table, class: Class, action: Action, length: usize) -> bool {
    match (table, action) {
        // It takes several system calls.
        (_, Action::Read(Access::Dropping)) => false,
        (Table::All, _) => true,
        (Table::Measured, Action::Read(Access::Direct)) => {
            class == Class::Background && length >= DIRECT_MIN
        }
        (Table::Measured, _) => false,
    }
}
