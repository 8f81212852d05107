//! Decodes runs and checkpoints, which are caches. Owns: their headers. Refuses: rows.

use std::io;

use serde_json::json;
use tonnage_engine::format::checkpoint::{CheckpointRecord, RECORD_BYTES_MAX};
use tonnage_engine::format::codec::checksum;
use tonnage_engine::format::run::{FILE_HEADER_BYTES, FileHeader, decode_directory};

use super::{Findings, Inspected, hex};

/// Reads the header and the directory of a run.
pub(super) fn run(file: &Inspected<'_>) -> io::Result<Findings> {
    let mut findings = Findings::new("run");
    findings.fact("bytes", file.length);
    let header = match FileHeader::decode(&file.read(0, FILE_HEADER_BYTES as u64)?) {
        Ok(header) => header,
        Err(what) => {
            findings.problem(format!("the header does not hold: {what}"));
            return Ok(findings);
        }
    };
    findings.fact("store id", hex(&header.store_id));
    findings.fact("file", format!("{:016x}", header.file_id));
    findings.fact("rows", header.rows);
    findings.fact("pages", header.pages);
    if header.file_bytes != file.length {
        findings.problem(format!("the header says {} bytes", header.file_bytes));
    }
    let directory = file.read(header.directory_offset, file.length)?;
    if checksum(&directory) != header.directory_crc {
        findings.problem("the directory of pages contradicts its checksum");
        return Ok(findings);
    }
    match decode_directory(&directory, header.pages) {
        Ok(pages) => {
            for page in pages {
                findings.part(json!({
                    "first key": hex(&page.first_key),
                    "offset": page.offset,
                    "bytes": page.bytes,
                }));
            }
        }
        Err(what) => findings.problem(format!("the directory of pages does not hold: {what}")),
    }
    Ok(findings)
}

/// Reads a checkpoint record.
pub(super) fn checkpoint(file: &Inspected<'_>) -> io::Result<Findings> {
    let mut findings = Findings::new("checkpoint");
    findings.fact("bytes", file.length);
    let record = match CheckpointRecord::decode(&file.read(0, RECORD_BYTES_MAX)?) {
        Ok(record) => record,
        Err(what) => {
            findings.problem(format!("the record does not hold: {what}"));
            return Ok(findings);
        }
    };
    findings.fact("store id", hex(&record.store_id));
    findings.fact("sequence", record.sequence);
    findings.fact("LSN", record.lsn.0);
    let replay = format!(
        "file {}, byte {}",
        record.journal_number, record.journal_offset
    );
    findings.fact("replay begins in", replay);
    findings.fact("next repository", record.next_repository);
    findings.fact("next segment", record.next_segment);
    for run in record.runs {
        findings.part(json!({
            "run": format!("{:016x}", run.id),
            "rows": run.rows,
            "bytes": run.bytes,
        }));
    }
    Ok(findings)
}
