//! Carries out a recovery plan.
//!
//! Owns: removing files that nothing names. Refuses: deciding anything (`plan`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::names;
use super::plan::Plan;
use super::superblock::sync_dir;
use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::io::{Class, Io};
use crate::journal;
use crate::segment::{parse_segment_name, segment_name};

/// Removes the files that the plan names. After a stop at any point, the next open plans the rest.
pub(crate) async fn apply(io: &dyn Io, store: &Path, plan: &Plan) -> Result<()> {
    if let Some(number) = plan.unfinished_journal {
        remove(io, &journal::file_path(store, number)).await?;
        sync_dir(io, &journal::directory(store)).await?;
    }
    remove_segments(io, store, &plan.orphans).await
}

/// Removes segment files, durably: after a clean stop the next open does not look for orphans.
pub(crate) async fn remove_segments(io: &dyn Io, store: &Path, ids: &[SegmentId]) -> Result<()> {
    for id in ids {
        remove(io, &segment_path(store, *id)).await?;
    }
    sync_dir(io, &segments_directory(store)).await
}

/// Returns the message for a missing directory that `named` segments belong in.
pub(crate) fn missing_segments_message(named: usize) -> String {
    format!(
        "the directory is missing, with the {named} segments that blobs are stored in; mount or restore it before opening the store. \
         If they are lost: create the directory empty; then the store opens, and a push of a blob stores it again"
    )
}

/// Returns the directory of the segments of a store.
pub(crate) fn segments_directory(store: &Path) -> PathBuf {
    store.join("segments")
}

/// Returns the segments of a store by the names in their directory, whatever type of file has these names.
pub(crate) async fn list_segments(io: &dyn Io, store: &Path) -> Result<BTreeSet<SegmentId>> {
    let names = names::list(io, &segments_directory(store)).await?;
    let ids = names.iter().filter_map(|name| parse_segment_name(name));
    Ok(ids.collect())
}

/// Returns the segment files of a store with their sizes in bytes; only regular files. Empty if the directory does not
/// exist.
pub(crate) async fn segment_sizes(io: &dyn Io, store: &Path) -> Result<BTreeMap<SegmentId, u64>> {
    let directory = segments_directory(store);
    let found = match io.list_files(Class::Directory.call(), &directory).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        found => found.map_err(|source| Error::io("list", &directory, source))?,
    };
    let segment = |(name, bytes): (String, u64)| Some((parse_segment_name(&name)?, bytes));
    Ok(found.into_iter().filter_map(segment).collect())
}

/// Returns the path of a segment.
pub(crate) fn segment_path(store: &Path, id: SegmentId) -> PathBuf {
    segments_directory(store).join(segment_name(id))
}

async fn remove(io: &dyn Io, path: &Path) -> Result<()> {
    match io.unlink(Class::Directory.call(), path).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::io("remove", path, source)),
    }
}
