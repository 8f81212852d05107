//! Carries one checkpoint out.
//!
//! Order: base files and their directory durable, then the record, then files that neither of the two newest checkpoints
//! names are unlinked. A failure leaves the checkpoints before it as they were, and the attempt can be repeated; but a failed sync of a
//! directory stops all writes.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{CheckpointRecord, History, slot_name};
use crate::error::{Error, Result};
use crate::extent::Lsn;
use crate::io::{Class, OpenMode, exact};
use crate::table::{Base, Layers, Site, file_id, rewrite};

/// What a checkpoint says beside its rows; all of it as of the moment the delta was frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The last transaction in the frozen rows.
    pub lsn: Lsn,
    /// Journal file in which replay continues.
    pub journal_number: u64,
    /// Offset of the next frame in it.
    pub journal_offset: u64,
    /// The first repository id never given out.
    pub next_repository: u64,
    /// The first segment id not reserved.
    pub next_segment: u64,
}

/// A checkpoint that is durable.
#[derive(Debug)]
pub struct Done {
    /// The base to publish, with [`Layers::rebase`].
    pub base: Arc<Base>,
    /// For the next [`run`].
    pub history: History,
    /// Bytes of new base files.
    pub bytes_written: u64,
    /// Number of new base files.
    pub files_written: usize,
    /// Number of base files unlinked.
    pub files_unlinked: usize,
}

/// Writes the frozen delta of `layers` into the base and publishes a record. One at a time: where one was dropped, what it had
/// begun to write still ends on its own, so let that end before the next one.
pub async fn run(site: &Site, history: &History, facts: Facts, layers: &Layers) -> Result<Done> {
    let Some(frozen) = layers.frozen() else {
        unreachable!("a checkpoint was asked for before the delta was frozen");
    };
    let present = list_base(site).await?;
    site.raise_next_file(present.iter().max().map_or(0, |id| id + 1));
    let rewritten = rewrite(site, layers.base(), frozen).await?;
    let record = Arc::new(CheckpointRecord {
        store_id: site.store_id,
        sequence: history.next_sequence(),
        lsn: facts.lsn,
        journal_number: facts.journal_number,
        journal_offset: facts.journal_offset,
        next_repository: facts.next_repository,
        next_segment: facts.next_segment,
        next_file: site.next_file(),
        partitions: rewritten.partitions(),
    });
    write_record(site, &record).await?;
    let (bytes_written, files_written) = (rewritten.bytes_written, rewritten.files_written);
    let base = rewritten.keep();
    let history = history.with(record);
    let files_unlinked = unlink_unnamed(site, &history, &present).await;
    Ok(Done {
        base,
        history,
        bytes_written,
        files_written,
        files_unlinked,
    })
}

/// Numbers of the base files that are there; creates their directory if it is missing.
async fn list_base(site: &Site) -> Result<Vec<u64>> {
    let dir = site.base_dir();
    match site.env.io.create_dir(Class::Directory.call(), &dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io("create directory", &dir, error));
        }
        Ok(()) | Err(_) => {}
    }
    let names = site.env.io.list_dir(Class::Directory.call(), &dir).await;
    let names = names.map_err(|error| Error::io("list", &dir, error))?;
    Ok(names.iter().filter_map(|name| file_id(name)).collect())
}

async fn write_record(site: &Site, record: &CheckpointRecord) -> Result<()> {
    let path = site.root.join(slot_name(record.sequence));
    let failed = |op: &'static str, path: &Path| {
        let path = path.to_path_buf();
        move |error| Error::io(op, &path, error)
    };
    let file = match site
        .env
        .io
        .open(Class::Background.call(), &path, OpenMode::Write)
        .await
    {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            site.env
                .io
                .open(Class::Background.call(), &path, OpenMode::CreateNew)
                .await
        }
        opened => opened,
    };
    let file = file.map_err(failed("open", &path))?;
    let bytes = Bytes::from(record.encode());
    let length = bytes.len() as u64;
    let written = exact::write_all(file.as_ref(), Class::Background.call(), 0, vec![bytes]).await;
    written.map_err(failed("write", &path))?;
    file.set_len(Class::Background.call(), length)
        .await
        .map_err(failed("set the size of", &path))?;
    file.sync_data(Class::Background.call())
        .await
        .map_err(failed("sync", &path))?;
    // Always, not only for a new name: an attempt that got no descriptor for this may have left the name undurable.
    let synced = exact::sync_dir(&*site.env.io, Class::Directory.call(), &site.root).await;
    synced.map_err(|error| site.poison.of_directory_sync(&site.root, error))
}

/// Unlinks what neither of the two newest checkpoints names. What cannot be unlinked is tried again by the next checkpoint.
async fn unlink_unnamed(site: &Site, history: &History, present: &[u64]) -> usize {
    let named: HashSet<u64> = [history.newest(), history.older()]
        .into_iter()
        .flatten()
        .flat_map(|record| record.partitions.iter().map(|part| part.id))
        .collect();
    let dir = site.base_dir();
    let mut unlinked = 0;
    for id in present.iter().filter(|id| !named.contains(id)) {
        let path = dir.join(crate::table::file_name(*id));
        match site.env.io.unlink(Class::Directory.call(), &path).await {
            Ok(()) => unlinked += 1,
            // A failed attempt's own clean-up came first.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot unlink an unused base file; the next checkpoint tries again");
            }
        }
    }
    unlinked
}
