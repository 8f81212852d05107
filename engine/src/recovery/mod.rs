//! Recovery: what open does after any stop.
//!
//! Owns: [`plan`] (pure: what the disk says, to what has to be done) and [`apply`] (does it). Runs only from open.
//! Refuses: repairing corruption. A torn tail is expected after a crash; bytes that contradict their checksum in what was
//! acknowledged stop the open.
//!
//! Invariants: recovery is idempotent and may itself be cut off anywhere: it removes only files that no transaction and no
//! upload names, and begins a new epoch last.

pub mod apply;
pub mod plan;
pub mod superblock;

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::apply as rows;
use crate::checkpoint;
use crate::error::{Error, Result};
use crate::extent::{Lsn, SegmentId};
use crate::format::codec::Malformed;
use crate::format::journal::HEADER_BYTES;
use crate::format::superblock::Superblock;
use crate::journal::{self, Position, read::Walked};
use crate::state::State;
use crate::table::{Base, Layers, Site};

/// A store as its journal tells it, before anything was changed.
#[derive(Debug)]
pub struct Recovered {
    /// Everything the journal says.
    pub state: State,
    /// The walk through the journal.
    pub walked: Walked,
    /// The checkpoints on disk, and which one replay began on.
    pub checkpoints: checkpoint::Loaded,
    /// How long loading and replaying took.
    pub took: Duration,
}

/// Loads the newest usable checkpoint and replays the journal behind it. Changes nothing on disk.
pub async fn replay(site: &Site, superblock: &Superblock) -> Result<Recovered> {
    let clock = &site.env.clock;
    let began = clock.monotonic();
    let checkpoints = checkpoint::load(site).await;
    let (mut state, start) = match &checkpoints.chosen {
        Some(chosen) => (state_of(chosen, superblock), chosen_position(chosen)),
        None => (
            empty(superblock),
            Position {
                number: 1,
                offset: HEADER_BYTES as u64,
            },
        ),
    };
    let walked = journal::read::walk(
        &*site.env.io,
        &site.root,
        &site.store_id,
        start,
        &mut |transaction| {
            rows::transaction(&mut state, &transaction)
                .map_err(|error| Malformed(error.to_string()))
        },
    )
    .await?;
    if checkpoints.chosen.is_some() && walked.last.is_none() {
        let path = journal::file_path(&site.root, start.number);
        let what =
            "missing or empty, but a checkpoint names it; restore it before opening the store";
        return Err(Error::corrupt(&path, 0, what));
    }
    let took = clock.monotonic().saturating_sub(began);
    Ok(Recovered {
        state,
        walked,
        checkpoints,
        took,
    })
}

/// Replays the whole journal, without any checkpoint: the state that everything else must agree with.
pub async fn replay_from_start(site: &Site, superblock: &Superblock) -> Result<(State, Walked)> {
    let mut state = empty(superblock);
    let start = Position {
        number: 1,
        offset: HEADER_BYTES as u64,
    };
    let walked = journal::read::walk(
        &*site.env.io,
        &site.root,
        &site.store_id,
        start,
        &mut |transaction| {
            rows::transaction(&mut state, &transaction)
                .map_err(|error| Malformed(error.to_string()))
        },
    )
    .await?;
    Ok((state, walked))
}

fn chosen_position(chosen: &checkpoint::Chosen) -> Position {
    Position {
        number: chosen.record.journal_number,
        offset: chosen.record.journal_offset,
    }
}

fn state_of(chosen: &checkpoint::Chosen, superblock: &Superblock) -> State {
    State {
        lsn: chosen.record.lsn,
        layers: Layers::new(Arc::clone(&chosen.base)),
        next_repository: chosen.record.next_repository,
        segment_limit: SegmentId(chosen.record.next_segment),
        hash_key: superblock.hash_key,
    }
}

fn empty(superblock: &Superblock) -> State {
    State {
        lsn: Lsn(0),
        layers: Layers::new(Base::empty()),
        next_repository: 1,
        segment_limit: SegmentId(1),
        hash_key: superblock.hash_key,
    }
}
