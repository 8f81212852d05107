//! Carrying out a recovery plan.
//!
//! Owns: removing what nothing names. Refuses: deciding anything (`plan`).

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::io::Io;
use crate::journal;

/// Removes what the plan names. Cut off anywhere, the next open draws up the rest of it again.
pub async fn apply(io: &dyn Io, store: &Path, plan: &Plan) -> Result<()> {
    if let Some(number) = plan.unfinished_journal {
        remove(io, &journal::file_path(store, number)).await?;
        let directory = journal::directory(store);
        io.sync_dir(&directory)
            .await
            .map_err(|source| Error::io("sync", &directory, source))?;
    }
    for id in &plan.orphans {
        remove(io, &segment_path(store, *id)).await?;
    }
    Ok(())
}

/// The segment files of a store.
pub async fn list_segments(io: &dyn Io, store: &Path) -> Result<BTreeSet<SegmentId>> {
    let directory = store.join("segments");
    let names = io
        .list_dir(&directory)
        .await
        .map_err(|source| Error::io("list", &directory, source))?;
    Ok(names
        .iter()
        .filter_map(|name| numbered(name, ".segment"))
        .map(SegmentId)
        .collect())
}

/// The number of a file that is named by 16 hexadecimal digits and `suffix`.
pub fn numbered(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    if digits.len() != 16 {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

fn segment_path(store: &Path, id: SegmentId) -> std::path::PathBuf {
    store.join("segments").join(format!("{id}.segment"))
}

async fn remove(io: &dyn Io, path: &Path) -> Result<()> {
    match io.unlink(path).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::io("remove", path, source)),
    }
}
