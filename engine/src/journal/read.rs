//! Reads the journal of a store that is not being written.
//!
//! Owns: finding the chain of files, determining from their headers where each ends, passing transactions on in order.
//! Refuses: changing anything, and deciding what to do about findings (`recovery`).

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::{Position, directory, file_path, marks, parse_name};
use crate::buffer::Buffer;
use crate::error::{Corruption, Error, Result};
use crate::extent::Lsn;
use crate::format::codec::Malformed;
use crate::format::journal::{HEADER_BYTES, JournalHeader};
use crate::format::mark::FRAMES_START;
use crate::format::scan::{self, FrameScan, Tail};
use crate::format::transaction::Transaction;
use crate::io::{Class, Io, OpenMode, exact};
use crate::limits::JOURNAL_FILE_BYTES_MAX;

/// The result of a walk through the whole journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalWalk {
    /// Header of the last intact file; `None` if the store has no journal file yet.
    pub last: Option<JournalHeader>,
    /// End of the last intact frame.
    pub end: Position,
    /// Offset of that frame in its file. Every frame before it was synced.
    pub last_frame: u64,
    /// How the last file ends.
    pub tail: Tail,
    /// LSN of the last transaction seen.
    pub last_lsn: Lsn,
    /// Number of a file whose creation was cut short; it is to be removed.
    pub unfinished: Option<u64>,
    /// Files walked.
    pub files: u64,
    /// Frames walked.
    pub frames: u64,
    /// Transactions passed to the visitor.
    pub transactions: u64,
    /// Faults that no stop explains and that lose nothing: damaged marks; bytes that are not zero after a close frame;
    /// such bytes after the end of a file whose successor has the same epoch.
    pub harmless: Vec<Corruption>,
    /// Damaged marks of the closed last file. A kill before the last sync, and a power cut, can explain them.
    pub uncertain_marks: Vec<Corruption>,
    /// What is missing or damaged before the start of the walk. It does no harm as long as the checkpoint is usable.
    pub damage_before_start: Vec<Corruption>,
}

/// Receives the transactions of a walk.
pub(crate) trait Visitor: Send {
    /// Receives the next transaction.
    fn transaction(&mut self, transaction: Transaction);

    /// Applies the transactions that had to wait. An error ends the walk.
    fn apply_pending(&mut self) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(Ok(()))
    }

    /// Called when all transactions before `position`, the start of the next file, were passed on.
    fn file_done(&mut self, position: Position) -> impl Future<Output = Result<()>> + Send {
        let _ = position;
        std::future::ready(Ok(()))
    }
}

/// Walks the journal from `start`, the start of a frame, to its end, and passes every transaction to `visitor`.
pub(crate) async fn walk(
    io: &dyn Io,
    store: &Path,
    store_id: &[u8; 16],
    start: Position,
    visitor: &mut impl Visitor,
) -> Result<JournalWalk> {
    let mut walked = JournalWalk::none(start);
    // The damaged mark of the file before. It counts once the next file has a frame, which is written only after the
    // seal.
    let mut unsealed: Option<Corruption> = None;
    let mut next = load(io, store, store_id, start.number).await?;
    while let LoadedFile::Intact { header, bytes } = next {
        let number = header.number;
        next = load(io, store, store_id, number + 1).await?;
        let end = match &next {
            LoadedFile::Intact {
                header: successor, ..
            } => Some(successor.previous_end),
            LoadedFile::Absent | LoadedFile::Unfinished => None,
        };
        let from = if number == start.number {
            start.offset
        } else {
            FRAMES_START
        };
        let mut count = 0;
        let scanned = scan::frames(bytes.filled(), &header, from, end, &mut |transaction| {
            count += 1;
            visitor.transaction(transaction);
            Ok(())
        });
        visitor.apply_pending().await?;
        let scanned = scanned
            .map_err(|bad| Error::corrupt(&file_path(store, number), bad.offset, bad.what.0))?;
        marks::check(store, &header, bytes.filled(), &scanned, end.is_some())?;
        if number == start.number {
            walked.check_before_start(store, &header, bytes.filled(), start.offset);
        }
        walked.transactions += count;
        let rolled = matches!(&next, LoadedFile::Intact { header: newer, .. } if newer.epoch == header.epoch);
        if rolled || scanned.closed {
            walked.check_after_end(store, number, bytes.filled(), scanned.end);
        }
        if scanned.frames > 0 {
            walked.harmless.extend(unsealed.take());
        }
        unsealed = marks::bad_mark(store, &header, bytes.filled(), end);
        if scanned.closed && end.is_none() {
            walked.uncertain_marks.extend(unsealed.take());
        }
        walked.add_file(header, &scanned);
        if end.is_some() {
            let (number, offset) = (number + 1, FRAMES_START);
            visitor.file_done(Position { number, offset }).await?;
        }
        if matches!(next, LoadedFile::Unfinished) {
            walked.unfinished = Some(number + 1);
        }
    }
    if walked.last.is_none() && matches!(next, LoadedFile::Unfinished) {
        walked.unfinished = Some(start.number);
    }
    let absent = walked
        .last
        .as_ref()
        .map_or(start.number, |last| last.number + 1);
    let missing = check_gap(io, store, start.number, absent).await?;
    walked.damage_before_start.extend(missing);
    Ok(walked)
}

/// Returns whether the store was closed at `position` and not opened since: a close frame is there, and no later file.
/// False if a file cannot be read; [`walk`] says why.
pub(crate) async fn is_closed_at(
    io: &dyn Io,
    store: &Path,
    store_id: &[u8; 16],
    position: Position,
) -> bool {
    let next = load(io, store, store_id, position.number + 1).await;
    if !matches!(next, Ok(LoadedFile::Absent)) {
        return false;
    }
    let last = load(io, store, store_id, position.number).await;
    let Ok(LoadedFile::Intact { header, bytes }) = last else {
        return false;
    };
    let mut refuse = |_| Err(Malformed::new("a transaction"));
    let scanned = scan::frames(bytes.filled(), &header, position.offset, None, &mut refuse);
    scanned.is_ok_and(|scanned| scanned.closed)
}

/// Checks that no file exists after `absent`, where the journal seems to end. Returns the first file that is missing
/// before `start`, where the walk began.
///
/// # Errors
/// A later file exists, so `absent` itself was lost.
async fn check_gap(
    io: &dyn Io,
    store: &Path,
    start: u64,
    absent: u64,
) -> Result<Option<Corruption>> {
    let directory = directory(store);
    let names = match io.list_dir(Class::Directory.call(), &directory).await {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(Error::io("list", &directory, source)),
    };
    let found: BTreeSet<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    let Some(later) = found.range(absent + 1..).next().copied() else {
        let mut needed = Position::FIRST.number..start;
        let missing = needed.find(|number| !found.contains(number));
        return Ok(missing.map(|number| Corruption {
            path: file_path(store, number),
            offset: 0,
            what: "missing; without it the store cannot be rebuilt from its journal".to_owned(),
        }));
    };
    let what = format!(
        "missing, but {} exists; restore it",
        file_path(store, later).display()
    );
    Err(Error::corrupt(&file_path(store, absent), 0, what))
}

impl JournalWalk {
    fn none(start: Position) -> Self {
        Self {
            last: None,
            end: start,
            last_frame: start.offset,
            tail: Tail::Unclosed,
            last_lsn: Lsn(0),
            unfinished: None,
            files: 0,
            frames: 0,
            transactions: 0,
            harmless: Vec::new(),
            uncertain_marks: Vec::new(),
            damage_before_start: Vec::new(),
        }
    }

    /// Records bytes that are not zero after `end`, the end of the frames.
    fn check_after_end(&mut self, store: &Path, number: u64, bytes: &[u8], end: u64) {
        let stray = scan::first_nonzero(bytes, end);
        self.harmless.extend(stray.map(|offset| Corruption {
            path: file_path(store, number),
            offset,
            what: "not zero, after the end of the frames; it is ignored".to_owned(),
        }));
    }

    /// Checks the frames before `from`, the offset at which the walk began in a file.
    fn check_before_start(
        &mut self,
        store: &Path,
        header: &JournalHeader,
        bytes: &[u8],
        from: u64,
    ) {
        let before = scan::frames(bytes, header, FRAMES_START, Some(from), &mut |_| Ok(()));
        if let Err(bad) = before {
            self.damage_before_start.push(Corruption {
                path: file_path(store, header.number),
                offset: bad.offset,
                what: bad.what.0,
            });
        }
    }

    fn add_file(&mut self, header: JournalHeader, scanned: &FrameScan) {
        self.end = Position {
            number: header.number,
            offset: scanned.end,
        };
        self.last_frame = scanned.last_frame;
        self.tail = scanned.tail;
        // The header of a file without transactions has the lowest LSN of the next ones.
        let floor = Lsn(header.first_lsn.0.saturating_sub(1));
        self.last_lsn = self
            .last_lsn
            .max(scanned.last_lsn.unwrap_or(floor))
            .max(floor);
        self.files += 1;
        self.frames += scanned.frames;
        self.last = Some(header);
    }
}

enum LoadedFile {
    Intact {
        header: JournalHeader,
        bytes: Buffer,
    },
    /// The file exists, but its header never became durable, and nothing was written after it.
    Unfinished,
    Absent,
}

async fn load(io: &dyn Io, store: &Path, store_id: &[u8; 16], number: u64) -> Result<LoadedFile> {
    let path = file_path(store, number);
    let read = |source| Error::io("read journal file", &path, source);
    let file = match io.open(Class::Journal.call(), &path, OpenMode::Read).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LoadedFile::Absent),
        Err(error) => return Err(read(error)),
    };
    let length = file.len(Class::Journal.call()).await.map_err(read)?;
    if length > JOURNAL_FILE_BYTES_MAX {
        let what = format!("{length} bytes are more than a journal file can have");
        return Err(Error::corrupt(&path, JOURNAL_FILE_BYTES_MAX, what));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let buffer = exact::read_up_to(&*file, Class::Journal.call(), 0, Buffer::unpooled(length))
        .await
        .map_err(read)?;
    match JournalHeader::decode(buffer.filled(), store_id, number) {
        Ok(header) => Ok(LoadedFile::Intact {
            header,
            bytes: buffer,
        }),
        Err(what) => {
            // The header is synced before the first frame is written, so anything after a bad header means damage. So
            // does a byte of the header itself that is neither zero nor the header's: a misdirected frame may have
            // replaced the first frame, too.
            let rest = buffer.filled().get(HEADER_BYTES..).unwrap_or_default();
            let torn = JournalHeader::may_be_torn(buffer.filled(), store_id, number);
            if !torn || rest.iter().any(|byte| *byte != 0) {
                return Err(Error::corrupt(&path, 0, format!("header: {what}")));
            }
            Ok(LoadedFile::Unfinished)
        }
    }
}
