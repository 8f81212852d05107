//! Checks that every unfinished upload can continue from the bytes that its client sent.
//!
//! Owns: logs, and the payload that their checkpoints cover. Refuses: uploads that the next open drops; nothing was
//! promised for them.

use std::collections::BTreeSet;
use std::path::Path;

use super::blobs::{check_chunks_of, read};
use super::{FsckReport, Severity};
use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::format::codec::checksum;
use crate::format::record::DEDICATED_PAYLOAD;
use crate::format::segment::{HEADER_BYTES, SegmentHeader};
use crate::format::upload_log::UploadLog;
use crate::io::{Class, OpenMode};
use crate::limits::CHUNK_BYTES;
use crate::recovery::apply::segment_path;
use crate::table::TableContext;
use crate::upload::{FoundLog, ReadLog, logs};

/// Checks every log with its segment, and returns the segments of uploads that can continue. A segment in `named`
/// belongs to a committed upload.
pub(super) async fn check(
    context: &TableContext,
    named: &BTreeSet<SegmentId>,
    report: &mut FsckReport,
) -> Result<BTreeSet<SegmentId>> {
    let mut segments = BTreeSet::new();
    for FoundLog { path, read } in logs(&context.env, &context.root.join("uploads")).await? {
        let ReadLog { log, length } = match read {
            Err(error) if error.is_not_attempted() => return Err(error),
            Err(error) => {
                let what = format!("the next open drops this upload: {error}");
                report.add(Severity::Leftover, &path, what);
                continue;
            }
            Ok(read) => read,
        };
        let Some(log) = log.filter(|log| log.header.store == context.store_id) else {
            let what = "it has no intact checkpoint; the next open removes it, and its client starts again";
            report.add(Severity::Leftover, &path, what);
            continue;
        };
        segments.insert(log.header.segment);
        if named.contains(&log.header.segment) {
            report.add(Severity::Leftover, &path, "its upload was committed");
            continue;
        }
        report.uploads += 1;
        if log.end < length {
            let (end, from) = (log.end, log.last.mark.length);
            let what = format!(
                "damaged or torn after byte {end}; the upload continues at its byte {from}"
            );
            report.add(Severity::Leftover, &path, what);
        }
        let segment = segment_path(&context.root, log.header.segment);
        match payload(context, &log, &segment).await {
            Ok(None) => {}
            Ok(Some((offset, what))) => {
                let log = path.display();
                let what = format!(
                    "byte {offset}, of an unfinished upload: {what}; remove {log}, and its client starts again"
                );
                report.add(Severity::Damage, &segment, what);
            }
            Err(error) if error.is_not_attempted() => return Err(error),
            Err(error) => {
                let what = format!("the next open drops this upload: {error}");
                report.add(Severity::Leftover, &path, what);
            }
        }
    }
    Ok(segments)
}

/// Checks every byte that the last checkpoint covers. Returns the first that does not match.
///
/// # Errors
/// An error with which the upload would not continue either.
async fn payload(
    context: &TableContext,
    log: &UploadLog,
    path: &Path,
) -> Result<Option<(u64, String)>> {
    let file = context
        .env
        .io
        .open(Class::Background.call(), path, OpenMode::Read)
        .await;
    let file = file.map_err(|source| Error::io("open", path, source))?;
    let header = read(&*file, path, 0, HEADER_BYTES as u64).await?;
    SegmentHeader::decode_of(header.filled(), &context.store_id, log.header.segment)
        .map_err(|what| Error::corrupt(path, 0, what.0))?;
    let length = log.last.mark.length;
    let whole = length / CHUNK_BYTES as u64 * CHUNK_BYTES as u64;
    let part = read(&*file, path, DEDICATED_PAYLOAD + whole, length - whole).await?;
    if checksum(part.filled()) != log.last.mark.partial {
        let what = "its last, unfinished chunk does not match its checksum".to_owned();
        return Ok(Some((DEDICATED_PAYLOAD + whole, what)));
    }
    let span = DEDICATED_PAYLOAD..DEDICATED_PAYLOAD + whole;
    let bad = check_chunks_of(&*file, path, span, &log.last.checksums, |_| ());
    Ok(bad.await?.map(|(offset, what)| (offset, what.0)))
}
