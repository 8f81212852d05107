//! Writes the marks of journal files, and checks files against them.
//!
//! Owns: when a mark is written, and what contradicts one. Refuses: deciding what a lost frame means (`recovery`).
//!
//! Invariant: a mark is written after the sync of its frames returned and before the next frame is. It needs no sync of
//! its own, and after any stop the mark of one of the last two frames is on disk.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::resync::overwrite;
use super::{Predecessor, file_path};
use crate::error::{Corruption, Error, Result};
use crate::format::journal::JournalHeader;
use crate::format::mark::{MARKS, Mark};
use crate::format::scan::FrameScan;
use crate::in_flight::InFlight;
use crate::io::{Class, FileRef, Io, IoResult, exact};

/// The marks of the active file.
#[derive(Debug, Default)]
pub(super) struct Marks {
    begun: usize,
    writing: Option<InFlight<IoResult<()>>>,
}

impl Marks {
    /// Starts to write `mark`. It becomes durable with the next frame.
    pub(super) fn begin(&mut self, file: &FileRef, mark: &Mark) {
        let (file, place) = (Arc::clone(file), Mark::place(self.begun));
        let block = vec![Bytes::from(mark.encode())];
        self.begun += 1;
        self.writing = Some(InFlight::start(async move {
            exact::write_all(&*file, Class::Journal.call(), place, block).await
        }));
    }

    /// Waits until no mark is being written. A write that was not attempted is no error, because the next mark replaces
    /// it.
    pub(super) async fn settle(&mut self) -> IoResult<()> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        match writing.done().await.take() {
            Some(Err(error)) if error.was_attempted() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Seals a finished file: its marks then say that its successor exists. Durable on return.
pub(super) async fn seal(
    io: &dyn Io,
    store: &Path,
    file: &FileRef,
    finished: Predecessor,
) -> Result<()> {
    let path = file_path(store, finished.end.number);
    let mark = Mark {
        sealed: true,
        nonce: finished.nonce,
        offset: finished.end.offset,
        lsn: finished.lsn,
    };
    let blocks = Bytes::from(mark.encode().repeat(MARKS));
    overwrite(io, store, file, &path, Mark::place(0), blocks).await
}

/// Checks a file against its marks. `successor` says whether a later file exists.
///
/// # Errors
/// Frames that were durable, or a file that was begun after this one, are missing.
pub(super) fn check(
    store: &Path,
    header: &JournalHeader,
    bytes: &[u8],
    scanned: &FrameScan,
    successor: bool,
) -> Result<()> {
    let path = file_path(store, header.number);
    if let Some(mark) = Mark::farthest(bytes, header.nonce) {
        check_mark(mark, store, &path, header, scanned, successor)?;
    }
    let length = bytes.len() as u64;
    if !successor && length < header.file_bytes {
        let what = format!(
            "the file was cut: it was created with {} bytes, and transactions may be missing; restore it before opening the store",
            header.file_bytes
        );
        return Err(Error::corrupt(&path, length, what));
    }
    Ok(())
}

/// Returns the first damaged mark of a finished or closed file. `end` is the end of the frames as the successor's
/// header says.
pub(super) fn bad_mark(
    store: &Path,
    header: &JournalHeader,
    bytes: &[u8],
    end: Option<u64>,
) -> Option<Corruption> {
    let offset = Mark::first_bad(bytes, header.nonce, end.is_some())?;
    Some(Corruption {
        path: file_path(store, header.number),
        offset,
        what: "a mark is damaged; the frames that it covers are intact".to_owned(),
    })
}

fn check_mark(
    mark: Mark,
    store: &Path,
    path: &Path,
    header: &JournalHeader,
    scanned: &FrameScan,
    successor: bool,
) -> Result<()> {
    if mark.offset > scanned.end {
        let what = format!(
            "transactions up to LSN {} at least are missing: its frames reached to byte {}; restore it before opening the store",
            mark.lsn, mark.offset
        );
        return Err(Error::corrupt(path, scanned.end, what));
    }
    if mark.sealed && !successor {
        let what = format!(
            "missing or empty, but {} says that it was begun; restore it before opening the store",
            path.display()
        );
        let path = file_path(store, header.number + 1);
        return Err(Error::corrupt(&path, 0, what));
    }
    Ok(())
}
