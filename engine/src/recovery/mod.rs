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

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::apply as rows;
use crate::checkpoint;
use crate::error::Result;
use crate::extent::{Lsn, SegmentId};
use crate::format::codec::Malformed;
use crate::format::journal::HEADER_BYTES;
use crate::format::superblock::Superblock;
use crate::io::Env;
use crate::journal::{self, Position, read::Walked};
use crate::state::State;
use crate::table::{Base, Layers};

/// A store as its journal tells it, before anything was changed.
#[derive(Debug)]
pub struct Recovered {
    /// Everything the journal says.
    pub state: State,
    /// The walk through the journal.
    pub walked: Walked,
    /// Where replay began, and the checkpoint it began on.
    pub checkpoint: Option<checkpoint::Loaded>,
    /// How long loading and replaying took.
    pub took: Duration,
}

/// Loads the newest usable checkpoint and replays the journal behind it. Changes nothing on disk.
pub async fn replay(env: &Env, store: &Path, superblock: &Superblock) -> Result<Recovered> {
    let began = env.clock.monotonic();
    let checkpoint = checkpoint::load(env, store, &superblock.store_id).await?;
    let (mut state, start) = match &checkpoint {
        Some(found) => (state_of(found, superblock), found.position()),
        None => (empty(superblock), Position { number: 1, offset: HEADER_BYTES as u64 }),
    };
    let walked = journal::read::walk(&*env.io, store, &superblock.store_id, start, &mut |transaction| {
        rows::transaction(&mut state, &transaction).map_err(|error| Malformed(error.to_string()))
    })
    .await?;
    let took = env.clock.monotonic().saturating_sub(began);
    Ok(Recovered { state, walked, checkpoint, took })
}

fn state_of(found: &checkpoint::Loaded, superblock: &Superblock) -> State {
    State {
        lsn: found.record.lsn,
        layers: Layers::new(Arc::clone(&found.base)),
        next_repository: found.record.next_repository,
        segment_limit: SegmentId(found.record.segment_limit),
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
