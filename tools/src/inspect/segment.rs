//! Decodes segments: the header and the frames.
//! Owns: walking frames from one to the next.
//! Refuses: reading payloads, and deciding which records are live, which only the index knows.

use std::io;

use serde_json::json;
use tonnage_engine::format::record::{FRAME_BYTES, FoundFrame, RecordPlaces, pad64};
use tonnage_engine::format::segment::{HEADER_BYTES, SegmentClass, SegmentHeader};

use super::{Findings, Inspected, hex};

/// Reads the header and every frame that can be found.
pub(super) fn look(file: &Inspected<'_>) -> io::Result<Findings> {
    let mut findings = Findings::new("segment");
    findings.fact("bytes", file.length);
    let header = match SegmentHeader::decode(&file.read(0, HEADER_BYTES as u64)?) {
        Ok(header) => header,
        Err(what) => {
            findings.problem(format!("the header does not hold: {what}"));
            return Ok(findings);
        }
    };
    findings.fact("store id", hex(&header.store));
    findings.fact("segment", header.segment.to_string());
    if file
        .number_in_name()
        .is_some_and(|number| number != header.segment.0)
    {
        findings.problem(format!("the header is that of segment {}", header.segment));
    }
    match header.class {
        SegmentClass::Shared => {
            findings.fact("class", "shared");
            walk(file, &header, &mut findings)?;
        }
        SegmentClass::Dedicated => {
            findings.fact("class", "dedicated");
            trailing(file, &header, &mut findings)?;
        }
    }
    Ok(findings)
}

/// Reads consecutive frames from the start until one is invalid.
fn walk(file: &Inspected<'_>, header: &SegmentHeader, findings: &mut Findings) -> io::Result<()> {
    let mut at = HEADER_BYTES as u64;
    while at < file.length {
        let frame = match frame_at(file, header, at)? {
            Ok(frame) => frame,
            Err(what) => {
                findings.fact("walk ends", format!("at byte {at}: {what}"));
                return Ok(());
            }
        };
        findings.part(part_of(&frame));
        // The checksum of the frame is valid, so the store wrote its length; the limit is for a forged file.
        let length = frame.length.min(file.length);
        at = pad64(RecordPlaces::leading(at, length).end);
    }
    findings.fact("walk ends", "at the end of the file");
    Ok(())
}

/// Reads the one frame at the end of a dedicated segment.
fn trailing(
    file: &Inspected<'_>,
    header: &SegmentHeader,
    findings: &mut Findings,
) -> io::Result<()> {
    let at = file.length.saturating_sub(FRAME_BYTES as u64);
    match frame_at(file, header, at)? {
        Ok(frame) => findings.part(part_of(&frame)),
        // An unfinished upload looks the same, so this alone is not a problem.
        Err(what) => findings.fact("unfinished", format!("no frame at its end: {what}")),
    }
    Ok(())
}

fn frame_at(
    file: &Inspected<'_>,
    header: &SegmentHeader,
    at: u64,
) -> io::Result<Result<FoundFrame, String>> {
    let frame = match FoundFrame::decode(&file.read(at, FRAME_BYTES as u64)?) {
        Ok(frame) => frame,
        Err(what) => return Ok(Err(what.to_string())),
    };
    if frame.offset != at || frame.segment != header.segment {
        let (segment, offset) = (frame.segment, frame.offset);
        return Ok(Err(format!(
            "the frame belongs to segment {segment}, byte {offset}"
        )));
    }
    if !header.store.starts_with(&frame.store_head) {
        return Ok(Err("the frame belongs to another store".to_owned()));
    }
    Ok(Ok(frame))
}

fn part_of(frame: &FoundFrame) -> serde_json::Value {
    json!({ "offset": frame.offset, "digest": frame.digest.to_string(), "length": frame.length })
}
