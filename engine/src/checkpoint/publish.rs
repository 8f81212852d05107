//! Makes a list of runs durable.
//!
//! Owns: the order of writes. First a new run and its directory become durable (`table`), then the record. Then files
//! that neither of the two newest checkpoints names are unlinked.
//!
//! Invariant: a failure leaves the previous checkpoints as they were, and the attempt can be repeated. Only a failed
//! sync of a directory stops all writes.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{CheckpointRecord, History, SLOTS, slot_name};
use crate::error::{Error, Result};
use crate::extent::Lsn;
use crate::io::{Class, FileRef, Io, IoResult, OpenMode, exact};
use crate::table::{self, Layers, NewRuns, Runs, TableContext, file_id};

/// Positions and counters of a checkpoint, all as of the moment the delta was frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Positions {
    /// Last transaction in the frozen rows.
    pub lsn: Lsn,
    /// Journal file in which replay continues.
    pub journal_number: u64,
    /// Offset of the next frame in it.
    pub journal_offset: u64,
    /// First repository id that was never given out.
    pub next_repository: u64,
    /// First segment id that is not reserved.
    pub next_segment: u64,
}

/// A checkpoint that is durable.
#[derive(Debug)]
pub(crate) struct Published {
    /// The runs of the new state.
    pub runs: Runs,
    /// Checkpoints on disk, for the next one.
    pub history: History,
    /// Size of the new run in bytes; 0 if none was needed.
    pub bytes_written: u64,
}

/// Writes the frozen delta of `layers` as a run newer than `runs` and publishes it.
///
/// Only one may run at a time. The writes of a dropped call still run to their end; wait for them before the next call.
pub(crate) async fn flush(
    context: &TableContext,
    history: &History,
    positions: Positions,
    layers: &Layers,
    runs: &Runs,
) -> Result<Published> {
    let Some(frozen) = layers.frozen() else {
        unreachable!("a checkpoint was requested before the delta was frozen");
    };
    let present = list_runs(context).await?;
    context.raise_next_file(present.iter().max().map_or(0, |id| id + 1));
    let new = table::flush(context, runs, frozen).await?;
    publish_over(context, history, positions, new, &present).await
}

/// Publishes runs that hold the same rows as those of the newest checkpoint, whose positions and counters stay.
pub(crate) async fn publish(
    context: &TableContext,
    history: &History,
    new: NewRuns,
) -> Result<Published> {
    let Some(newest) = history.newest() else {
        unreachable!("runs were merged that no checkpoint names");
    };
    let positions = Positions {
        lsn: newest.lsn,
        journal_number: newest.journal_number,
        journal_offset: newest.journal_offset,
        next_repository: newest.next_repository,
        next_segment: newest.next_segment,
    };
    let present = list_runs(context).await?;
    publish_over(context, history, positions, new, &present).await
}

async fn publish_over(
    context: &TableContext,
    history: &History,
    positions: Positions,
    new: NewRuns,
    present: &[u64],
) -> Result<Published> {
    let (sequence, path, file) = open_slot(context, history).await?;
    let record = Arc::new(CheckpointRecord {
        store_id: context.store_id,
        sequence,
        lsn: positions.lsn,
        journal_number: positions.journal_number,
        journal_offset: positions.journal_offset,
        next_repository: positions.next_repository,
        next_segment: positions.next_segment,
        next_file: context.next_file(),
        runs: new.references(),
    });
    write_record(context, &record, &path, file).await?;
    let bytes_written = new.bytes_written();
    let runs = new.keep(context);
    let history = history.with(record);
    unlink_unnamed(context, &history, present).await;
    Ok(Published {
        runs,
        history,
        bytes_written,
    })
}

/// Returns the numbers of the existing run files. Creates their directory if it is missing.
async fn list_runs(context: &TableContext) -> Result<Vec<u64>> {
    let dir = context.runs_dir();
    match context
        .env
        .io
        .create_dir(Class::Directory.call(), &dir)
        .await
    {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(Error::io("create directory", &dir, error));
        }
        Ok(()) | Err(_) => {}
    }
    let names = context.env.io.list_dir(Class::Directory.call(), &dir).await;
    let names = names.map_err(|error| Error::io("list", &dir, error))?;
    Ok(names.iter().filter_map(|name| file_id(name)).collect())
}

/// Opens the slot for the next record, and returns the record's sequence number, too. An unusable slot is skipped,
/// unless the next one holds the newest checkpoint.
async fn open_slot(context: &TableContext, history: &History) -> Result<(u64, PathBuf, FileRef)> {
    let first = history.next_sequence();
    let newest = history.newest().map(|record| slot_name(record.sequence));
    let mut sequence = first;
    loop {
        let path = context.root.join(slot_name(sequence));
        let error = match open_or_replace(&*context.env.io, &path).await {
            Ok(file) => return Ok((sequence, path, file)),
            Err(error) => error,
        };
        sequence += 1;
        if !error.was_attempted()
            || sequence == first + SLOTS
            || newest.as_ref() == Some(&slot_name(sequence))
        {
            return Err(Error::io("open", &path, error));
        }
        tracing::warn!(path = %path.display(), %error, "this checkpoint file cannot be written; another one is used");
    }
}

/// Opens a slot for writing. A file that cannot be opened is replaced; a directory is not.
async fn open_or_replace(io: &dyn Io, path: &Path) -> IoResult<FileRef> {
    let class = Class::Background;
    let opened = match io.open(class.call(), path, OpenMode::Write).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            io.open(class.call(), path, OpenMode::CreateNew).await
        }
        opened => opened,
    };
    match opened {
        Err(error) if error.was_attempted() && !is_full(error.kind()) => {
            io.unlink(class.call(), path).await?;
            io.open(class.call(), path, OpenMode::CreateNew).await
        }
        opened => opened,
    }
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

async fn write_record(
    context: &TableContext,
    record: &CheckpointRecord,
    path: &Path,
    file: FileRef,
) -> Result<()> {
    let failed = |op: &'static str| {
        let path = path.to_path_buf();
        move |error| Error::io(op, &path, error)
    };
    let bytes = Bytes::from(record.encode());
    let length = bytes.len() as u64;
    let written = exact::write_all(file.as_ref(), Class::Background.call(), 0, vec![bytes]).await;
    written.map_err(failed("write"))?;
    file.set_len(Class::Background.call(), length)
        .await
        .map_err(failed("set the size of"))?;
    file.sync_data(Class::Background.call())
        .await
        .map_err(failed("sync"))?;
    // Always, not only for a new name: an earlier attempt without a descriptor for this may have left the name
    // undurable.
    let synced = exact::sync_dir(&*context.env.io, Class::Directory.call(), &context.root).await;
    synced.map_err(|error| context.poison.of_directory_sync(&context.root, error))
}

/// Unlinks run files that neither of the two newest checkpoints names and that are not being written. The next
/// checkpoint tries again where that fails.
async fn unlink_unnamed(context: &TableContext, history: &History, present: &[u64]) {
    let named: HashSet<u64> = [history.newest(), history.older()]
        .into_iter()
        .flatten()
        .flat_map(|record| record.runs.iter().map(|run| run.id))
        .collect();
    let dir = context.runs_dir();
    let unused = |id: &&u64| !named.contains(id) && !context.is_claimed(**id);
    for id in present.iter().filter(unused) {
        let path = dir.join(table::file_name(*id));
        match context.env.io.unlink(Class::Directory.call(), &path).await {
            Ok(()) => {}
            // The failed attempt removed it itself.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot unlink an unused run file; the next checkpoint tries again");
            }
        }
    }
}
