//! Opens run files and checks all of their content, at once or later.
//!
//! Owns: the order of checks. Each computation between two of them is short. Memory, beside directory and filter:
//! [`WINDOWS_AT_ONCE`] windows of [`WINDOW_BYTES`] for each file that is checked before it is used, one for a file that
//! is in use.

use std::path::Path;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::TableContext;
use super::filter::Filter;
use super::run::{Run, RunPart, UnusableRun, file_name, open_page};
use crate::buffer::Buffer;
use crate::format::checkpoint::RunRef;
use crate::format::codec::{Malformed, RunningChecksum, checksum};
use crate::format::run::{
    FILE_HEADER_BYTES, FileHeader, PAGE_BYTES_MAX, PageEntry, decode_directory, header_crc,
};
use crate::io::{Class, FileRef, IoError, OpenMode, exact};

/// Bytes of pages that are read and checked at a time: about a millisecond of computing.
pub(super) const WINDOW_BYTES: u64 = 1 << 20;
/// Windows of one file that are read and checked at the same time.
const WINDOWS_AT_ONCE: usize = 4;
/// Maintenance: no request waits for these reads.
const CLASS: Class = Class::Background;

/// A window of a file: consecutive pages that are read together.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// Numbers of the pages.
    pub(super) pages: std::ops::Range<usize>,
    /// Offset of the first page.
    pub(super) offset: u64,
    /// Size of all of them in bytes.
    pub(super) bytes: usize,
}

/// Returns the window that starts with page `first`; `None` after the last page.
pub(super) fn window(pages: &[PageEntry], first: usize) -> Option<Window> {
    let offset = pages.get(first)?.offset;
    let mut window = Window {
        pages: first..first,
        offset,
        bytes: 0,
    };
    for entry in pages.get(first..).unwrap_or_default() {
        let end = entry.offset + u64::from(entry.bytes) - offset;
        if end > WINDOW_BYTES && window.bytes > 0 {
            break;
        }
        window.bytes = usize::try_from(end).unwrap_or(usize::MAX);
        window.pages.end += 1;
    }
    Some(window)
}

/// When filter and pages of a run are read and checked. Header and directory always are when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunCheck {
    /// Before it is used.
    BeforeUse,
    /// While it is used.
    InBackground,
}

/// Opens the file that `expected` names.
pub(super) async fn open(
    context: &TableContext,
    expected: &RunRef,
    when: RunCheck,
) -> Result<Run, UnusableRun> {
    let path = context.runs_dir().join(file_name(expected.id));
    let opening = async {
        let run = open_at(context, &path, expected).await?;
        if when == RunCheck::BeforeUse {
            load_filter(context, &run).await?;
            check_pages(context, &run, WINDOWS_AT_ONCE).await?;
        }
        Ok(run)
    };
    opening.await.map_err(|failure: Failure| failure.of(&path))
}

/// Checks a part of a run in use that was not checked when the run was opened. Damage is recorded with the run.
///
/// # Errors
/// The check was not attempted, or did not finish.
pub(crate) async fn check_in_use(
    context: &TableContext,
    run: &Run,
    part: RunPart,
) -> Result<(), UnusableRun> {
    let checked = match part {
        RunPart::Filter => load_filter(context, run).await,
        RunPart::Pages => check_pages(context, run, 1).await,
    };
    match checked.map_err(|failure| failure.of(&run.path)) {
        Err(unusable) if unusable.attempted => {
            run.set_failed(unusable.why);
            Ok(())
        }
        checked => checked,
    }
}

#[derive(Debug)]
enum Failure {
    Malformed(Malformed),
    /// A computation did not run to its end: nothing is known of the file.
    NotChecked,
    Io(IoError),
}

impl Failure {
    /// Returns the error about the file at `path`.
    fn of(self, path: &Path) -> UnusableRun {
        let (why, attempted) = match self {
            Self::Malformed(what) => (what.0, true),
            Self::NotChecked => ("the check did not finish".to_owned(), false),
            Self::Io(error) => (error.to_string(), error.was_attempted()),
        };
        UnusableRun {
            path: path.to_path_buf(),
            why,
            attempted,
        }
    }
}

impl From<Malformed> for Failure {
    fn from(what: Malformed) -> Self {
        Self::Malformed(what)
    }
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

async fn open_at(context: &TableContext, path: &Path, expected: &RunRef) -> Result<Run, Failure> {
    let io = &context.env.io;
    let file = io.open(CLASS.call(), path, OpenMode::Read).await?;
    let length = file.len(CLASS.call()).await?;
    if length != expected.bytes {
        let what = format!("{length} bytes, expected {}", expected.bytes);
        return Err(Malformed(what).into());
    }
    let head = read(&file, 0, FILE_HEADER_BYTES).await?;
    let (header, crc) = (FileHeader::decode(&head)?, header_crc(&head));
    check_header(&header, crc, context, expected)?;
    let length = usize::try_from(header.directory_bytes()).unwrap_or(usize::MAX);
    let directory = read(&file, header.directory_offset, length).await?;
    let decode = {
        let header = header.clone();
        move || decode_pages(&header, &directory)
    };
    let pages = compute(context, decode).await??;
    Ok(Run::new(
        context,
        path.to_path_buf(),
        file,
        (header, crc),
        pages,
    ))
}

fn check_header(
    header: &FileHeader,
    crc: u32,
    context: &TableContext,
    expected: &RunRef,
) -> Result<(), Malformed> {
    if header.store_id != context.store_id {
        return Err(Malformed::new("it belongs to another store"));
    }
    let found = RunRef {
        id: header.file_id,
        rows: header.rows,
        bytes: header.file_bytes,
        crc,
    };
    if found != *expected {
        return Err(Malformed(format!(
            "its header ({found:x?}) differs from the checkpoint ({expected:x?})"
        )));
    }
    Ok(())
}

/// Reads and checks the filter, a window at a time.
async fn load_filter(context: &TableContext, run: &Run) -> Result<(), Failure> {
    let (file, header) = (&run.file, &run.header);
    let (mut filter, mut sum) = (Filter::unread(), RunningChecksum::default());
    let (mut whole, mut at) = (true, header.filter_offset);
    while at < header.directory_offset {
        let length = WINDOW_BYTES.min(header.directory_offset - at);
        let bytes = read(file, at, usize::try_from(length).unwrap_or(usize::MAX)).await?;
        let decode = move || {
            sum.update(&bytes);
            whole &= filter.decode(&bytes);
            (filter, sum, whole)
        };
        (filter, sum, whole) = compute(context, decode).await?;
        at += length;
    }
    if !whole || filter.is_empty() {
        return Err(Malformed::new("its filter is not whole blocks").into());
    }
    if sum.finish() != header.filter_crc {
        return Err(Malformed::new("its filter does not match its checksum").into());
    }
    run.set_filter(filter);
    Ok(())
}

/// Decodes the directory and checks it against the header.
fn decode_pages(header: &FileHeader, directory: &[u8]) -> Result<Vec<PageEntry>, Malformed> {
    if checksum(directory) != header.directory_crc {
        return Err(Malformed::new("its directory does not match its checksum"));
    }
    let pages = decode_directory(directory, header.pages)?;
    let mut offset = FILE_HEADER_BYTES as u64;
    for page in &pages {
        if page.offset != offset || page.bytes as usize > PAGE_BYTES_MAX {
            return Err(Malformed(format!(
                "a page of {} bytes at {}, expected at {offset}",
                page.bytes, page.offset
            )));
        }
        offset += u64::from(page.bytes);
    }
    if offset != header.filter_offset || pages.is_empty() {
        return Err(Malformed::new(
            "its pages do not end where its filter starts",
        ));
    }
    Ok(pages)
}

/// Checks every page, the order of keys across pages, and the number of rows.
async fn check_pages(
    context: &TableContext,
    run: &Run,
    windows_at_once: usize,
) -> Result<(), Failure> {
    let (file, header, pages) = (&run.file, &run.header, run.pages.as_slice());
    let mut first = 0;
    let windows = std::iter::from_fn(|| {
        let window = window(pages, first)?;
        first = window.pages.end;
        Some(window)
    });
    let checks = windows.map(|window| async move {
        let bytes = read(file, window.offset, window.bytes).await?;
        let entries = pages.get(window.pages.clone()).unwrap_or_default().to_vec();
        let next = pages
            .get(window.pages.end)
            .map(|page| page.first_key.clone());
        let header = header.clone();
        let check = move || check_window(&header, &entries, next.as_ref(), &bytes);
        compute(context, check).await?.map_err(Failure::Malformed)
    });
    let rows = stream::iter(checks)
        .buffered(windows_at_once)
        .try_fold(0, async |sum, rows| Ok(sum + rows))
        .await?;
    if rows != header.rows {
        return Err(Malformed(format!("{rows} rows, expected {}", header.rows)).into());
    }
    run.set_pages_checked();
    Ok(())
}

/// Checks the pages of a window, which are followed by one that starts with `next`. Returns their number of rows.
fn check_window(
    header: &FileHeader,
    entries: &[PageEntry],
    next: Option<&Bytes>,
    bytes: &Bytes,
) -> Result<u64, Malformed> {
    let mut rows = 0;
    let following = entries.iter().skip(1).map(|entry| &entry.first_key);
    let mut following = following.chain(next);
    for (entry, page) in entries.iter().zip(split(entries, bytes)) {
        let page = open_page(header, entry, page)?;
        let last = page.row(page.rows() - 1).map(|(key, _)| key);
        if let (Some(last), Some(next)) = (last, following.next())
            && last >= next.as_ref()
        {
            return Err(Malformed::new("keys do not ascend from page to page"));
        }
        rows += page.rows() as u64;
    }
    Ok(rows)
}

/// Returns the bytes of each page of a window.
pub(super) fn split(entries: &[PageEntry], bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut start = 0;
    entries.iter().map(move |entry| {
        let end = bytes.len().min(start + entry.bytes as usize);
        let page = bytes.slice(start..end);
        start = end;
        page
    })
}

async fn read(file: &FileRef, offset: u64, length: usize) -> Result<Bytes, IoError> {
    let buffer = Buffer::unpooled(length);
    let read = exact::read_exact(&**file, CLASS.call(), offset, buffer).await?;
    Ok(read.freeze())
}

async fn compute<T: Send + 'static>(
    context: &TableContext,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    context.env.compute(job).await.ok_or(Failure::NotChecked)
}
