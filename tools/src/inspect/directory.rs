//! Lists the directory of a store: its files and their sizes.
//!
//! Owns: the listing. Refuses: opening any file but the superblock.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;

use super::Findings;

/// Lists the directory's files by kind.
pub(super) fn look(path: &Path) -> io::Result<Findings> {
    let mut findings = Findings::new("directory");
    let superblock = path.join("superblock");
    if superblock.is_file() {
        let inner = super::look(&superblock)?;
        findings.facts = inner.facts;
        findings.problems = inner.problems;
    } else {
        findings.problem(
            "there is no superblock: this is not a store, or its creation was interrupted",
        );
    }
    for folder in ["journal", "segments", "uploads", "runs"] {
        let (mut files, mut bytes) = (0u64, 0u64);
        match fs::read_dir(path.join(folder)) {
            Ok(entries) => {
                for entry in entries {
                    files += 1;
                    bytes += entry?.metadata()?.len();
                }
                findings.part(json!({ "folder": folder, "files": files, "bytes": bytes }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                findings.problem(format!("there is no folder {folder}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(findings)
}
