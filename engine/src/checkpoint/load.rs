//! Finds the checkpoint to start from, without changing anything on disk.
//!
//! Owns: reading the three slots and opening the runs they name. Refuses: failing because of damage. A damaged
//! checkpoint is reported and skipped, down to a replay from the start of the journal.

use std::cmp::Reverse;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CheckpointRecord, History, SLOTS, position_of, slot_name};
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::format::checkpoint::RECORD_BYTES_MAX;
use crate::io::{Class, IoError, IoResult, OpenMode, exact};
use crate::journal;
use crate::limits::COUNTER_USED_MAX;
use crate::table::{RunCheck, Runs, TableContext};

/// A checkpoint that can be used.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// The record.
    pub record: Arc<CheckpointRecord>,
    /// The runs that it names.
    pub runs: Runs,
}

/// A slot or a checkpoint that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// The slot's file.
    pub path: PathBuf,
    /// Why it is unusable.
    pub why: String,
}

/// The result of reading the slots.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The newest usable checkpoint. `None`: replay from the start of the journal.
    pub chosen: Option<Chosen>,
    /// Checkpoints on disk, for the next one.
    pub history: History,
    /// What was skipped, for the log and `fsck`. Slots that do not exist are not listed.
    pub rejected: Vec<Rejected>,
}

/// Reads the slots. Opens every run of the newest checkpoint for which that succeeds.
///
/// With [`RunCheck::InBackground`], the runs of a checkpoint that a clean stop left are checked by the open store.
///
/// # Errors
/// A read or a check that was not attempted: it must not cost a rebuild.
pub(crate) async fn load(context: &TableContext, when: RunCheck) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut records = Vec::new();
    for slot in 0..SLOTS {
        let path = context.root.join(slot_name(slot));
        let record = match read_slot(context, &path).await {
            Ok(None) => continue,
            Ok(Some(bytes)) => judge(context, slot, bytes.filled()),
            Err(error) if !error.was_attempted() => {
                return Err(Error::io("read checkpoint", &path, error));
            }
            Err(error) => Err(error.to_string()),
        };
        match record {
            Ok(record) => records.push(Arc::new(record)),
            Err(why) => loaded.rejected.push(Rejected { path, why }),
        }
    }
    records.sort_by_key(|record| Reverse(record.sequence));
    for record in records {
        context.raise_next_file(record.next_file);
        loaded.history.sequence = loaded.history.sequence.max(record.sequence);
        if loaded.chosen.is_some() {
            if loaded.history.older.is_none() {
                loaded.history.older = Some(record);
            }
            continue;
        }
        let in_background =
            when == RunCheck::InBackground && is_last_of_clean_stop(context, &record).await;
        let when = if in_background {
            RunCheck::InBackground
        } else {
            RunCheck::BeforeUse
        };
        match Runs::open(context, &record.runs, when).await {
            Ok(runs) => {
                loaded.history.newest = Some(Arc::clone(&record));
                loaded.chosen = Some(Chosen { record, runs });
            }
            Err(unusable) => {
                if let Some(error) = unusable.not_attempted() {
                    return Err(error);
                }
                loaded.rejected.push(Rejected {
                    path: context.root.join(slot_name(record.sequence)),
                    why: unusable.to_string(),
                });
            }
        }
    }
    Ok(loaded)
}

/// Whether a clean stop wrote this checkpoint, and nothing was opened since.
async fn is_last_of_clean_stop(context: &TableContext, record: &CheckpointRecord) -> bool {
    let end = position_of(record);
    let io = &*context.env.io;
    journal::read::is_closed_at(io, &context.root, &context.store_id, end).await
}

/// Returns what is wrong with the checkpoint that an open falls back to when the newest is unusable, for `fsck`.
///
/// If the newest was unusable, the fallback is the chosen one, and the files of the one before it may be gone.
///
/// # Errors
/// A read or a check that was not attempted.
pub(crate) async fn check_fallback(
    context: &TableContext,
    loaded: &Loaded,
) -> Result<Option<Rejected>> {
    let Some(older) = loaded.history.older.as_ref() else {
        return Ok(None);
    };
    if !loaded.rejected.is_empty() {
        return Ok(None);
    }
    let Err(unusable) = Runs::open(context, &older.runs, RunCheck::BeforeUse).await else {
        return Ok(None);
    };
    if let Some(error) = unusable.not_attempted() {
        return Err(error);
    }
    // After a rebuild the slots still name checkpoints whose files are gone.
    let there = context
        .env
        .io
        .open(Class::Background.call(), &unusable.path, OpenMode::Read)
        .await;
    if there.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(None);
    }
    Ok(Some(Rejected {
        path: context.root.join(slot_name(older.sequence)),
        why: unusable.to_string(),
    }))
}

/// Reads the bytes of a slot; `None` if the slot was never written. A file that is too long for a record is not read.
async fn read_slot(context: &TableContext, path: &Path) -> IoResult<Option<Buffer>> {
    let io = &context.env.io;
    let file = match io
        .open(Class::Background.call(), path, OpenMode::Read)
        .await
    {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let length = file.len(Class::Background.call()).await?;
    if length > RECORD_BYTES_MAX {
        let why = format!("{length} bytes are too many for a checkpoint record");
        return Err(IoError::Failed(io::Error::new(ErrorKind::InvalidData, why)));
    }
    let room = usize::try_from(length).unwrap_or(usize::MAX);
    let buffer = Buffer::unpooled(room);
    let read = exact::read_exact(&*file, Class::Background.call(), 0, buffer).await?;
    Ok(Some(read))
}

/// Decodes the record of a slot and checks it, or returns what is wrong.
fn judge(
    context: &TableContext,
    slot: u64,
    bytes: &[u8],
) -> std::result::Result<CheckpointRecord, String> {
    let record = CheckpointRecord::decode(bytes).map_err(|malformed| malformed.0)?;
    if record.store_id != context.store_id {
        return Err("it belongs to another store".to_owned());
    }
    if record.sequence.max(record.next_file) > COUNTER_USED_MAX {
        return Err("its numbers are above the largest that a store can reach".to_owned());
    }
    if record.sequence % SLOTS != slot {
        return Err(format!(
            "checkpoint {} does not belong in this slot",
            record.sequence
        ));
    }
    Ok(record)
}
