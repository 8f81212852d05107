//! The journal: the log of metadata transactions, and the only commit point.
//!
//! Owns: `journal/`, its files and frames; the LSN. [`read`] walks the files of a closed store. [`resync`] makes the
//! end that was found durable. [`writer`] appends frames to an open journal. `marks` record how far its frames are
//! durable.
//!
//! Refuses: knowing what a transaction means (`catalog`), and deciding what to commit (`commit`).
//!
//! Invariants: a frame is written only after the sync of the one before returned, so only the last frame can be torn.
//! The header of a successor says where a file ends. From then on only the file's marks are written, once more.

mod marks;
pub(crate) mod read;
pub(crate) mod reserve;
pub(crate) mod resync;
pub(crate) mod writer;

use std::path::{Path, PathBuf};

use crate::extent::Lsn;
use crate::format::mark::FRAMES_START;

const SUFFIX: &str = ".journal";

/// A position in the journal: the start of a frame, or the end of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Number of the file.
    pub number: u64,
    /// Byte offset in it.
    pub offset: u64,
}

impl Position {
    /// Start of the journal of every store.
    pub(crate) const FIRST: Self = Self {
        number: 1,
        offset: FRAMES_START,
    };
}

/// The file before a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Predecessor {
    /// Its number, and the end of its frames.
    pub end: Position,
    /// Its nonce.
    pub nonce: u64,
    /// LSN of its last transaction, or a lower one.
    pub lsn: Lsn,
}

/// Returns the directory of a store's journal.
pub(crate) fn directory(store: &Path) -> PathBuf {
    store.join("journal")
}

/// Returns the path of journal file `number`.
pub(crate) fn file_path(store: &Path, number: u64) -> PathBuf {
    directory(store).join(file_name(number))
}

/// Returns the number in the name of a journal file. `None` if no journal file has this name.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

fn file_name(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}
