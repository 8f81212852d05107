//! Finds the checkpoint to start from.
//!
//! Owns: reading the three slots and opening the base files they name. Changes nothing on disk. Refuses: failing:
//! whatever does not hold is reported and passed over, down to a replay from the start of the journal.

use std::cmp::Reverse;
use std::path::PathBuf;
use std::sync::Arc;

use super::{CheckpointRecord, History, SLOTS, slot_name};
use crate::buffer::Buffer;
use crate::format::checkpoint::RECORD_BYTES_MAX;
use crate::io::{Class, OpenMode, exact};
use crate::limits::COUNTER_USED_MAX;
use crate::table::{Base, Site};

/// A checkpoint whose files are all intact.
#[derive(Debug)]
pub struct Chosen {
    /// What it says.
    pub record: Arc<CheckpointRecord>,
    /// Its rows.
    pub base: Arc<Base>,
}

/// A slot or a checkpoint that was passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The slot's file.
    pub path: PathBuf,
    /// What does not hold.
    pub why: String,
}

/// What the slots held.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The newest usable checkpoint; `None`: replay from the start of the journal.
    pub chosen: Option<Chosen>,
    /// For the next [`super::run()`].
    pub history: History,
    /// What was passed over, for the log and `fsck`. Slots that do not exist are not listed.
    pub rejected: Vec<Rejected>,
}

/// Reads the slots, and opens and checks every base file of the newest checkpoint for which that succeeds.
pub async fn load(site: &Site) -> Loaded {
    let mut loaded = Loaded::default();
    let mut records = Vec::new();
    for slot in 0..SLOTS {
        match read_slot(site, slot).await {
            Ok(Some(record)) => records.push(Arc::new(record)),
            Ok(None) => {}
            Err(why) => {
                loaded.rejected.push(Rejected {
                    path: site.root.join(slot_name(slot)),
                    why,
                });
            }
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
        match Base::open(
            &site.env,
            &site.base_dir(),
            site.store_id,
            &record.partitions,
        )
        .await
        {
            Ok(base) => {
                loaded.history.newest = Some(Arc::clone(&record));
                loaded.chosen = Some(Chosen { record, base });
            }
            Err(unusable) => loaded.rejected.push(Rejected {
                path: site.root.join(slot_name(record.sequence)),
                why: unusable.to_string(),
            }),
        }
    }
    loaded
}

/// What is wrong with the checkpoint that an open falls back to when the newest is unusable, for `fsck`. Once it is, that one was
/// chosen, and the one before it has lost its files rightly.
pub async fn check_fallback(site: &Site, loaded: &Loaded) -> Option<Rejected> {
    let older = loaded.history.older.as_ref()?;
    if !loaded.rejected.is_empty() {
        return None;
    }
    let (base, partitions) = (site.base_dir(), &older.partitions);
    let opened = Base::open(&site.env, &base, site.store_id, partitions).await;
    let unusable = opened.err()?;
    // After a rebuild the slots still tell of checkpoints whose files are gone.
    let there = site
        .env
        .io
        .open(Class::Background.call(), &unusable.path, OpenMode::Read)
        .await;
    if there.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return None;
    }
    Some(Rejected {
        path: site.root.join(slot_name(older.sequence)),
        why: unusable.to_string(),
    })
}

/// The record in a slot; `None` if the slot was never written.
async fn read_slot(site: &Site, slot: u64) -> Result<Option<CheckpointRecord>, String> {
    let path = site.root.join(slot_name(slot));
    let file = match site
        .env
        .io
        .open(Class::Background.call(), &path, OpenMode::Read)
        .await
    {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| error.to_string())?,
    };
    let length = file
        .len(Class::Background.call())
        .await
        .map_err(|error| error.to_string())?;
    if length > RECORD_BYTES_MAX {
        return Err(format!(
            "{length} bytes are too many for a checkpoint record"
        ));
    }
    let room = usize::try_from(length).map_err(|error| error.to_string())?;
    let read = exact::read_exact(
        file.as_ref(),
        Class::Background.call(),
        0,
        Buffer::unpooled(room),
    )
    .await;
    let bytes = read.map_err(|error| error.to_string())?;
    let record = CheckpointRecord::decode(bytes.filled()).map_err(|malformed| malformed.0)?;
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
    Ok(Some(record))
}
