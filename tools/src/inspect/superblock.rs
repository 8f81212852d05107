//! Decodes the superblock. Owns: its facts without the secret key. Refuses: repairing a damaged copy.

use std::io;

use tonnage_engine::format::superblock::{Decoded, FORMAT_VERSION, SUPERBLOCK_BYTES, Superblock};

use super::{Findings, Inspected, hex, time};

/// Reads the four copies.
pub(super) fn look(file: &Inspected<'_>) -> io::Result<Findings> {
    let mut findings = Findings::new("superblock");
    match Superblock::decode(&file.read(0, SUPERBLOCK_BYTES as u64)?) {
        Decoded::Usable {
            superblock,
            damaged_copies,
            read_only,
        } => {
            findings.fact("format version", FORMAT_VERSION);
            findings.fact("store id", hex(&superblock.store_id));
            findings.fact("created", time(superblock.created_unix_ms));
            findings.fact(
                "compatible features",
                format!("{:#x}", superblock.compatible),
            );
            let features = format!("{:#x}", superblock.read_only_compatible);
            findings.fact("read-only-compatible features", features);
            findings.fact(
                "incompatible features",
                format!("{:#x}", superblock.incompatible),
            );
            findings.fact("this program may only read it", read_only);
            for copy in damaged_copies {
                findings.problem(format!(
                    "copy {copy} of the superblock is invalid, or differs from the others"
                ));
            }
        }
        Decoded::Unsupported { needs } => {
            findings.problem(format!(
                "it needs {needs}, which this program does not have"
            ));
        }
        Decoded::Damaged(what) => findings.problem(format!("no copy is valid: {what}")),
    }
    Ok(findings)
}
