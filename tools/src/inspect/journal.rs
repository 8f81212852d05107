//! Decodes journal files: the header and every transaction as text.
//! Owns: the text.
//! Refuses: the nonce, which protects against frames forged by clients.

use std::fs::File;
use std::io::{self, Read as _};

use serde_json::{Value, json};
use tonnage_engine::format::journal::{HEADER_BYTES, JournalHeader};
use tonnage_engine::format::mark::{FRAMES_START, Mark};
use tonnage_engine::format::scan::{Tail, frames};
use tonnage_engine::format::transaction::{Operation, Transaction};

use super::{Findings, Inspected, hex, number_in, store_id_in, time};

/// Reads the header and all frames.
pub(super) fn decode(file: &Inspected<'_>) -> io::Result<Findings> {
    let mut findings = Findings::new("journal");
    findings.fact("bytes", file.length);
    let bytes = file.read(0, file.length)?;
    let number = file
        .number_in_name()
        .unwrap_or_else(|| number_in(&bytes, 32));
    let header = match JournalHeader::decode(&bytes, &store_id_in(&bytes), number) {
        Ok(header) => header,
        Err(what) => {
            findings.problem(format!("the header does not hold: {what}"));
            return Ok(findings);
        }
    };
    findings.fact("store id", hex(&header.store_id));
    findings.fact("number", header.number);
    findings.fact("epoch", header.epoch);
    findings.fact("first LSN", header.first_lsn.0);
    findings.fact("created", time(header.created_unix_ms));
    findings.fact("the file before it ends at", header.previous_end);
    let end = end_by_successor(file, &header);
    if let Some(mark) = Mark::farthest(&bytes, header.nonce) {
        findings.fact("durable up to byte", mark.offset);
        findings.fact("a later file was begun", mark.sealed);
    }
    let mut parts = Vec::new();
    let scanned = frames(&bytes, &header, FRAMES_START, end, &mut |transaction| {
        parts.push(part_of(&transaction));
        Ok(())
    });
    findings.parts = parts;
    match scanned {
        Ok(scanned) => {
            findings.fact("frames", scanned.frames);
            findings.fact("frames end at", scanned.end);
            findings.fact(
                "tail",
                match scanned.tail {
                    Tail::Clean => "clean",
                    Tail::Unclosed => "not closed (in use, or the process was killed)",
                    Tail::Torn => "torn (a write was in progress, or the power failed)",
                },
            );
        }
        Err(bad) => findings.problem(format!("corrupt at byte {}: {}", bad.offset, bad.what)),
    }
    Ok(findings)
}

/// Returns where the frames end, if a later file records it.
fn end_by_successor(file: &Inspected<'_>, header: &JournalHeader) -> Option<u64> {
    let number = header.number.checked_add(1)?;
    let path = file.path.with_file_name(format!("{number:016x}.journal"));
    let mut bytes = vec![0; HEADER_BYTES];
    File::open(path).ok()?.read_exact(&mut bytes).ok()?;
    let successor = JournalHeader::decode(&bytes, &header.store_id, number).ok()?;
    Some(successor.previous_end)
}

fn part_of(transaction: &Transaction) -> Value {
    json!({
        "lsn": transaction.lsn.0,
        "time": time(transaction.unix_ms),
        "actor": transaction.origin.actor,
        "request": transaction.origin.request,
        "operations": transaction.operations.iter().map(words_of).collect::<Vec<_>>(),
    })
}

fn words_of(operation: &Operation) -> String {
    match operation {
        Operation::CreateRepository { id, name } => format!("create repository {} as {name}", id.0),
        Operation::Link { repository, digest } => format!("link {digest} in {}", repository.0),
        Operation::Unlink { repository, digest } => format!("unlink {digest} in {}", repository.0),
        Operation::PutManifest { repository, entry } => format!(
            "put manifest {} in {} ({} children{})",
            entry.digest,
            repository.0,
            entry.children.len(),
            entry
                .subject
                .map_or_else(String::new, |subject| format!(", subject {subject}")),
        ),
        Operation::DeleteManifest { repository, digest } => {
            format!("delete manifest {digest} in {}", repository.0)
        }
        Operation::SetTag {
            repository,
            tag,
            digest,
            old,
        } => format!(
            "set tag {tag} in {} to {digest}{}",
            repository.0,
            old.map_or_else(String::new, |old| format!(" (was {old})")),
        ),
        Operation::DeleteTag {
            repository,
            tag,
            old,
        } => {
            format!("delete tag {tag} in {} (was {old})", repository.0)
        }
        Operation::DeleteRepository { id, name } => format!("delete repository {} ({name})", id.0),
        Operation::ForgetRepository { id } => format!("forget repository {}", id.0),
        Operation::RetireManifest { repository, digest } => {
            format!("retire manifest {} {digest}", repository.0)
        }
        Operation::DropEdges {
            repository,
            digest,
            children,
        } => format!("drop {} edges of {} {digest}", children.len(), repository.0),
        Operation::ForgetManifest { repository, digest } => {
            format!("forget manifest {} {digest}", repository.0)
        }
        Operation::PlaceBlob { digest, extent } => format!("place {digest} in {extent}"),
        Operation::ReserveSegmentIds { limit } => format!("reserve segment ids below {limit}"),
        Operation::MarkDamaged {
            digest,
            extent,
            proof,
        } => format!("mark {digest} damaged at {extent}, found by {proof}"),
        Operation::MarkWhole { digest, extent } => format!("mark {digest} whole at {extent}"),
        Operation::RemoveBlob { digest, extent } => format!("remove {digest} from {extent}"),
        Operation::ClearSuspect { digest } => format!("clear suspect {digest}"),
    }
}
