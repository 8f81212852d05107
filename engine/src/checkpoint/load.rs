//! Finds the checkpoint to start from.
//!
//! Owns: reading the three slots and opening the runs they name. Changes nothing on disk. Refuses: failing because of what is
//! there: whatever does not hold is reported and passed over, down to a replay from the start of the journal.

use std::cmp::Reverse;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CheckpointRecord, History, SLOTS, slot_name};
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::format::checkpoint::RECORD_BYTES_MAX;
use crate::io::{Class, IoError, IoResult, OpenMode, exact};
use crate::limits::COUNTER_USED_MAX;
use crate::table::{Runs, Site};

/// A checkpoint whose files are all intact.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// What it says.
    pub record: Arc<CheckpointRecord>,
    /// Its rows.
    pub runs: Runs,
}

/// A slot or a checkpoint that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected {
    /// The slot's file.
    pub path: PathBuf,
    /// What does not hold.
    pub why: String,
}

/// What the slots held.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The newest usable checkpoint; `None`: replay from the start of the journal.
    pub chosen: Option<Chosen>,
    /// For the next checkpoint.
    pub history: History,
    /// What was passed over, for the log and `fsck`. Slots that do not exist are not listed.
    pub rejected: Vec<Rejected>,
}

/// Reads the slots, and opens and checks every run of the newest checkpoint for which that succeeds. An error if it was not
/// attempted: what cannot be looked at now costs no rebuild.
pub(crate) async fn load(site: &Site) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut records = Vec::new();
    for slot in 0..SLOTS {
        let path = site.root.join(slot_name(slot));
        let record = match read_slot(site, &path).await {
            Ok(None) => continue,
            Ok(Some(bytes)) => judge(site, slot, bytes.filled()),
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
        site.raise_next_file(record.next_file);
        loaded.history.sequence = loaded.history.sequence.max(record.sequence);
        if loaded.chosen.is_some() {
            if loaded.history.older.is_none() {
                loaded.history.older = Some(record);
            }
            continue;
        }
        match Runs::open(site, &record.runs).await {
            Ok(runs) => {
                loaded.history.newest = Some(Arc::clone(&record));
                loaded.chosen = Some(Chosen { record, runs });
            }
            Err(unusable) if !unusable.attempted => {
                let cause = io::Error::other(unusable.why);
                let error = IoError::NotAttempted(cause);
                return Err(Error::io("open run", &unusable.path, error));
            }
            Err(unusable) => loaded.rejected.push(Rejected {
                path: site.root.join(slot_name(record.sequence)),
                why: unusable.to_string(),
            }),
        }
    }
    Ok(loaded)
}

/// What is wrong with the checkpoint that an open falls back to when the newest is unusable, for `fsck`. Once it is, that one was
/// chosen, and the one before it has lost its files rightly.
pub(crate) async fn check_fallback(site: &Site, loaded: &Loaded) -> Option<Rejected> {
    let older = loaded.history.older.as_ref()?;
    if !loaded.rejected.is_empty() {
        return None;
    }
    let opened = Runs::open(site, &older.runs).await;
    let unusable = opened.err()?;
    // After a rebuild the slots still tell of checkpoints whose files are gone.
    let there = site
        .env
        .io
        .open(Class::Background.call(), &unusable.path, OpenMode::Read)
        .await;
    if there.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return None;
    }
    Some(Rejected {
        path: site.root.join(slot_name(older.sequence)),
        why: unusable.to_string(),
    })
}

/// The bytes of a slot; `None` if the slot was never written. What is too long for a record is not read.
async fn read_slot(site: &Site, path: &Path) -> IoResult<Option<Buffer>> {
    let io = &site.env.io;
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

/// The record that a slot's bytes are, or what does not hold.
fn judge(site: &Site, slot: u64, bytes: &[u8]) -> std::result::Result<CheckpointRecord, String> {
    let record = CheckpointRecord::decode(bytes).map_err(|malformed| malformed.0)?;
    if record.store_id != site.store_id {
        return Err("it belongs to another store".to_owned());
    }
    if record.sequence.max(record.next_file) > COUNTER_USED_MAX {
        return Err("it counts farther than a store can have counted".to_owned());
    }
    if record.sequence % SLOTS != slot {
        return Err(format!(
            "checkpoint {} does not belong into this slot",
            record.sequence
        ));
    }
    Ok(record)
}
