//! Writing the marks of journal files, and judging a file by them.
//!
//! Owns: when a mark is written, and what one contradicts. Refuses: deciding what a lost frame means (`recovery`).
//!
//! Invariant: a mark is written after the sync of the frames that it speaks of returned, and before the next frame is. So it costs no
//! sync of its own, and a stop leaves one of the last two frames' marks at least.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::resync::overwrite;
use super::{Predecessor, file_path};
use crate::error::{Corruption, Error, Result};
use crate::format::journal::JournalHeader;
use crate::format::mark::{MARKS, Mark};
use crate::format::scan::Scanned;
use crate::in_flight::InFlight;
use crate::io::{Class, FileRef, Io, IoResult, exact};

/// The marks of the file that is written.
#[derive(Debug, Default)]
pub(super) struct Marks {
    begun: usize,
    writing: Option<InFlight<IoResult<()>>>,
}

impl Marks {
    /// Begins to write `mark`. It becomes durable with the next frame.
    pub(super) fn begin(&mut self, file: &FileRef, mark: &Mark) {
        let (file, place) = (Arc::clone(file), Mark::place(self.begun));
        let block = vec![Bytes::from(mark.encode())];
        self.begun += 1;
        self.writing = Some(InFlight::start(async move {
            exact::write_all(&*file, Class::Journal.call(), place, block).await
        }));
    }

    /// Waits until no mark is being written. One that was not attempted is left out: the next one says more.
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

/// Writes into a finished file that it is, durable on return: its successor is from now on known to have been begun.
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

/// Checks a file against its marks: frames that were durable are there, and so is the file that was begun after it. `successor` says
/// whether one is.
pub(super) fn check(
    store: &Path,
    header: &JournalHeader,
    bytes: &[u8],
    scanned: &Scanned,
    successor: bool,
) -> Result<()> {
    let path = file_path(store, header.number);
    if let Some(mark) = Mark::farthest(bytes, header.nonce) {
        check_mark(mark, store, &path, header, scanned, successor)?;
    }
    let length = bytes.len() as u64;
    if !successor && length < header.file_bytes {
        let what = format!(
            "it was cut: it was made with {} bytes, and transactions may be missing; restore it before opening the store",
            header.file_bytes
        );
        return Err(Error::corrupt(&path, length, what));
    }
    Ok(())
}

/// A place of a mark where no finished or closed file has what is there, given where a successor says that the file ends.
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
        what: "a mark does not hold; the frames that it should speak of are there".to_owned(),
    })
}

fn check_mark(
    mark: Mark,
    store: &Path,
    path: &Path,
    header: &JournalHeader,
    scanned: &Scanned,
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
