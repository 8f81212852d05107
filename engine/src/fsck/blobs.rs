//! Checks that every record that the index names is intact.
//!
//! Owns: reading every blob once, in the order of segments and offsets; bytes after the record of a dedicated segment.
//! Refuses: records that nothing names.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{FsckOptions, FsckReport, Severity};
use crate::buffer::Buffer;
use crate::catalog::View;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::extent::{Layout, SegmentId};
use crate::format::checksum::{check_chunks, chunk_count, decode_table};
use crate::format::codec::{Malformed, checksum};
use crate::format::keys::{self, Slot};
use crate::format::record::{FRAME_BYTES, FoundFrame, RecordPlaces, pad64, table_bytes};
use crate::format::segment::{HEADER_BYTES, SegmentHeader};
use crate::io::{Class, File, FileRef, OpenMode, Residency, exact};
use crate::recovery::apply::segment_path;
use crate::table::TableContext;

/// Payload read at a time, in bytes; a multiple of the chunk.
const WINDOW_BYTES: u64 = 2 << 20;
/// Blobs that are named for a segment that cannot be read.
const BLOBS_NAMED: usize = 3;
/// Index rows that are sorted by place at a time; bounds memory to a few tens of MiB.
const SORT_ROWS: usize = 200_000;

/// Checks the record of every index row.
pub(super) async fn check(
    context: &TableContext,
    view: &View,
    options: FsckOptions,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
    report: &mut FsckReport,
) -> Result<()> {
    let (mut total, mut segments) = (0_u64, view.segments());
    while let Some((_, used)) = segments.next_resident().await? {
        total = total.saturating_add(used.live_bytes);
    }
    let mut slots = view.slots();
    let mut open: Option<OpenSegment> = None;
    let mut unreadable: Option<UnreadableSegment> = None;
    loop {
        let mut batch: Vec<(Bytes, Slot)> = Vec::new();
        while batch.len() < SORT_ROWS
            && let Some(slot) = slots.next_resident().await?
        {
            batch.push(slot);
        }
        if batch.is_empty() {
            return unreadable.map_or(Ok(()), |unreadable| unreadable.report(report));
        }
        batch.sort_unstable_by_key(|(_, slot)| (slot.extent.segment, slot.extent.offset));
        for (key, slot) in batch {
            report.blobs += 1;
            report.blob_bytes = report.blob_bytes.saturating_add(slot.extent.length);
            let path = segment_path(&context.root, slot.extent.segment);
            let segment = slot.extent.segment;
            if let Some(other) = unreadable.take_if(|unreadable| unreadable.segment != segment) {
                other.report(report)?;
            }
            if let Some(unreadable) = &mut unreadable {
                unreadable.add(&key);
                continue;
            }
            let segment = match OpenSegment::get(context, &mut open, &path, &slot).await {
                Ok(segment) => segment,
                Err(error) => {
                    let unreadable =
                        unreadable.insert(UnreadableSegment::new(segment, path, error));
                    unreadable.add(&key);
                    continue;
                }
            };
            let checked = async {
                check_record(context, segment, view, &key, &slot, options.deep).await?;
                describe_excess(segment, &slot).await
            };
            match checked.await {
                Ok(None) => {}
                Ok(Some(what)) => report.add(Severity::Leftover, &path, what),
                Err(error) => report.add_error(&path, error)?,
            }
            progress(report.blob_bytes, total);
        }
    }
}

/// A segment that cannot be read, and its blobs.
struct UnreadableSegment {
    segment: SegmentId,
    path: PathBuf,
    error: Error,
    blobs: u64,
    first: Vec<String>,
}

impl UnreadableSegment {
    fn new(segment: SegmentId, path: PathBuf, error: Error) -> Self {
        let first = Vec::new();
        Self {
            segment,
            path,
            error,
            blobs: 0,
            first,
        }
    }

    fn add(&mut self, key: &[u8]) {
        self.blobs += 1;
        if self.first.len() < BLOBS_NAMED {
            self.first.push(keys::name_of_blob(key));
        }
    }

    /// Reports one finding for all of its blobs.
    fn report(self, report: &mut FsckReport) -> Result<()> {
        report.add_error(&self.path, self.error)?;
        if let Some(finding) = report.findings.last_mut() {
            let more = if self.blobs > self.first.len() as u64 {
                ", ..."
            } else {
                ""
            };
            let lost = format!(
                "; live blobs in it: {} ({}{more})",
                self.blobs,
                self.first.join(", ")
            );
            finding.what.push_str(&lost);
        }
        Ok(())
    }
}

/// The segment that was read last. Neighbours in the batch mostly share it.
struct OpenSegment {
    segment: SegmentId,
    path: PathBuf,
    file: FileRef,
}

impl OpenSegment {
    async fn get<'a>(
        context: &TableContext,
        open: &'a mut Option<Self>,
        path: &Path,
        slot: &Slot,
    ) -> Result<&'a Self> {
        let segment = slot.extent.segment;
        if open.as_ref().is_none_or(|open| open.segment != segment) {
            let io = &context.env.io;
            let file = io
                .open(Class::Background.call(), path, OpenMode::Read)
                .await
                .map_err(|source| Error::io("open", path, source))?;
            let header = read(&*file, path, 0, HEADER_BYTES as u64).await?;
            SegmentHeader::decode_of(header.filled(), &context.store_id, segment)
                .map_err(|what| Error::corrupt(path, 0, format!("header: {what}")))?;
            *open = Some(Self {
                segment,
                path: path.to_path_buf(),
                file,
            });
        }
        match open {
            Some(open) => Ok(open),
            None => unreachable!("it was opened just above"),
        }
    }
}

/// Checks the frame, the table and every chunk of one record; with `deep` the digest, too.
async fn check_record(
    context: &TableContext,
    segment: &OpenSegment,
    view: &View,
    key: &[u8],
    slot: &Slot,
    deep: bool,
) -> Result<()> {
    let OpenSegment { path, file, .. } = segment;
    let extent = slot.extent;
    let bad = |offset: u64, what: String| Error::corrupt(path, offset, what);
    let places = RecordPlaces::of(&extent).map_err(|what| bad(extent.offset, what.0))?;
    let frame = read(&**file, path, places.frame, FRAME_BYTES as u64).await?;
    let frame = FoundFrame::decode(frame.filled())
        .map_err(|what| bad(places.frame, format!("frame: {what}")))?;
    let table_length = table_bytes(extent.length);
    let table = read(&**file, path, places.table, pad64(table_length)).await?;
    let (table, padding) = table
        .filled()
        .split_at(usize::try_from(table_length).unwrap_or_default());
    if padding.iter().any(|byte| *byte != 0) {
        return Err(bad(
            places.table,
            "padding after the checksum table is not zero".to_owned(),
        ));
    }
    let store_head = context.store_id.split_at(8).0;
    let agrees = frame.segment == extent.segment
        && frame.offset == places.frame
        && frame.length == extent.length
        && frame.layout == extent.layout
        && frame.store_head == store_head
        && view.is_slot_of(key, &frame.digest);
    if !agrees {
        return Err(bad(
            places.frame,
            format!("the frame is of another record: {frame:?}"),
        ));
    }
    let payload_end = places.payload + extent.length;
    let next = match extent.layout {
        Layout::Leading => pad64(places.end),
        Layout::Trailing => places.table,
    };
    let padding = read(&**file, path, payload_end, next - payload_end).await?;
    if padding.filled().iter().any(|byte| *byte != 0) {
        let what = "padding after the payload is not zero".to_owned();
        return Err(bad(payload_end, what));
    }
    if checksum(table) != frame.table_checksum {
        return Err(bad(
            places.table,
            format!(
                "the checksum table of {} does not match its checksum",
                frame.digest
            ),
        ));
    }
    check_payload(segment, slot, &decode_table(table), &frame, deep).await
}

/// Describes excess bytes after the record of a dedicated segment, which should end the file. Nothing reads them, so no
/// content is lost.
async fn describe_excess(segment: &OpenSegment, slot: &Slot) -> Result<Option<String>> {
    let OpenSegment { path, file, .. } = segment;
    // Bytes after the records of a shared segment belong to no transaction.
    if slot.extent.layout != Layout::Trailing {
        return Ok(None);
    }
    let there = file.len(Class::Background.call()).await;
    let there = there.map_err(|source| Error::io("read", path, source))?;
    let end = RecordPlaces::of(&slot.extent)
        .map_err(|what| Error::corrupt(path, slot.extent.offset, what.0))?
        .end;
    Ok((there > end).then(|| {
        let more = there - end;
        format!(
            "{more} bytes follow its blob, which is intact and ends at byte {end}; nothing reads them, and they are removed with \
             the blob. `truncate -s {end}` on the file removes them now"
        )
    }))
}

async fn check_payload(
    segment: &OpenSegment,
    slot: &Slot,
    table: &[u32],
    frame: &FoundFrame,
    deep: bool,
) -> Result<()> {
    let OpenSegment { path, file, .. } = segment;
    let extent = slot.extent;
    let mut hasher = deep.then(|| Hasher::new(frame.digest.algorithm()));
    let span = extent.offset..extent.offset + extent.length;
    let bad = check_chunks_of(&**file, path, span, table, |window| {
        if let Some(hasher) = &mut hasher {
            hasher.update(window);
        }
    });
    if let Some((offset, what)) = bad.await? {
        let what = format!("blob {}: {what}", frame.digest);
        return Err(Error::corrupt(path, offset, what));
    }
    // It is not read again soon. A failed hint does no harm.
    let (start, length) = (extent.offset, extent.length);
    let hint = file.advise(Class::Background.call(), start, length, Residency::Done);
    drop(hint.await);
    match hasher.map(Hasher::finish) {
        Some(found) if found != frame.digest => Err(Error::DigestMismatch {
            expected: frame.digest,
            found,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Reads the chunks in `span` of the file and checks each against its checksum in `sums`. Passes intact windows to
/// `each`. Returns the offset of the first bad chunk, and what is wrong with it.
pub(super) async fn check_chunks_of(
    file: &dyn File,
    path: &Path,
    span: Range<u64>,
    mut sums: &[u32],
    mut each: impl FnMut(&[u8]),
) -> Result<Option<(u64, Malformed)>> {
    let mut at = span.start;
    while at < span.end {
        let length = WINDOW_BYTES.min(span.end - at);
        let window = read(file, path, at, length).await?;
        let chunks = usize::try_from(chunk_count(length)).unwrap_or_default();
        let (these, rest) = sums.split_at(chunks.min(sums.len()));
        if let Err((chunk, what)) = check_chunks(window.filled(), these) {
            return Ok(Some((at + chunk as u64, what)));
        }
        each(window.filled());
        sums = rest;
        at += length;
    }
    Ok(None)
}

/// Reads exactly `length` bytes.
///
/// # Errors
/// [`Error::Corrupt`] if the file ends before.
pub(super) async fn read(file: &dyn File, path: &Path, offset: u64, length: u64) -> Result<Buffer> {
    // Checked before memory is allocated: the length comes from a row or a frame.
    let there = file.len(Class::Background.call()).await;
    let there = there.map_err(|source| Error::io("read", path, source))?;
    let missing = offset.saturating_add(length).saturating_sub(there);
    if missing > 0 {
        let what = format!("the file ends {missing} bytes early");
        return Err(Error::corrupt(path, offset, what));
    }
    let limit = usize::try_from(length).unwrap_or(usize::MAX);
    let buffer = exact::read_up_to(
        file,
        Class::Background.call(),
        offset,
        Buffer::unpooled(limit),
    )
    .await;
    let buffer = buffer.map_err(|source| Error::io("read", path, source))?;
    if buffer.room() > 0 {
        let what = format!("the file ends {} bytes early", buffer.room());
        return Err(Error::corrupt(path, offset, what));
    }
    Ok(buffer)
}
