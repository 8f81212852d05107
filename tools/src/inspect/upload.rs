//! Decodes upload logs. Owns: the checkpoint from which an unfinished upload could resume. Refuses: its segment.

use std::io;

use tonnage_engine::format::upload_log::{HEADER_BYTES, UploadHeader, replay};

use super::{Findings, Inspected, hex, time};

/// Reads the header and the last intact checkpoint.
pub(super) fn look(file: &Inspected<'_>) -> io::Result<Findings> {
    let mut findings = Findings::new("upload log");
    let bytes = file.read(0, file.length)?;
    findings.fact("bytes", file.length);
    let header = bytes.get(..HEADER_BYTES).unwrap_or(&bytes);
    match UploadHeader::decode(header) {
        Ok(header) => {
            findings.fact("store id", hex(&header.store));
            findings.fact("upload id", hex(&header.upload));
            findings.fact("segment", header.segment.to_string());
            findings.fact("created", time(header.created_unix_ms));
            findings.fact("repository", header.repository);
            findings.fact("actor", header.actor);
        }
        Err(what) => {
            findings.problem(format!("the header does not hold: {what}"));
            return Ok(findings);
        }
    }
    match replay(&bytes) {
        Some(log) => {
            findings.fact("resumes at", log.last.mark.length);
            findings.fact("algorithm", log.last.algorithm.name());
            findings.fact("checkpoint made", time(log.last.unix_ms));
            findings.fact("intact bytes of the log", log.end);
        }
        None => findings.fact("resumes at", "nowhere: there is no intact checkpoint"),
    }
    Ok(findings)
}
