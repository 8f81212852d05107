//! Recovery: what an open does after any stop.
//!
//! Owns: [`plan`] (pure: computes what to do from what is on disk) and [`apply`] (does it). Runs only from open.
//! Refuses: repairing corruption. A torn tail is expected after a crash. Acknowledged bytes that contradict their
//! checksum stop the open.
//!
//! Invariants: recovery is idempotent and may be cut off anywhere. It removes only files that no transaction and no
//! upload names, and begins a new epoch last.

pub(crate) mod apply;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod plan;
pub(crate) mod superblock;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::catalog::apply as rows;
use crate::catalog::{View, retired};
use crate::checkpoint::{self, History};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::SegmentId;
use crate::format::keys::{DamagedPlace, SegmentUse};
use crate::format::superblock::Superblock;
use crate::format::transaction::Transaction;
use crate::journal::read::{JournalWalk, Visitor};
use crate::journal::{self, Position};
use crate::state::State;
use crate::table::{self, Layers, RunCheck, TableContext, resident};

/// The result of a replay.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The state of the store.
    pub state: State,
    /// Result of the walk through the journal.
    pub walked: JournalWalk,
    /// Checkpoints found on disk, and the one that replay began with.
    pub checkpoints: checkpoint::Loaded,
    /// Checkpoints now on disk: those found, or those that a bounded replay wrote.
    pub history: History,
}

/// What an open reads of a store before it begins a new epoch.
#[derive(Debug)]
pub(crate) struct Opening {
    /// The replay.
    pub recovered: Recovered,
    /// Segments in which a transaction placed something, even if nothing in them is live.
    pub segments: BTreeMap<SegmentId, SegmentUse>,
    /// Blobs that reads found damaged earlier, and where.
    pub damaged: Vec<(Digest, DamagedPlace)>,
}

/// Replays as [`replay`] does, for an open, which holds the store's lock.
///
/// The runs that a clean stop left are checked later, by the open store. If what is read here meets damage, all of them
/// are checked, and the damaged ones are rebuilt.
pub(crate) async fn replay_for_open(
    context: &TableContext,
    superblock: &Superblock,
    bound_bytes: usize,
) -> Result<Opening> {
    let first = read_for_open(context, superblock, bound_bytes, RunCheck::InBackground).await;
    let is_poisoned = context.poison.cause().is_some();
    let Some(found) = context.damage.take().filter(|_| !is_poisoned) else {
        return first;
    };
    // Before the second one takes as much memory.
    drop(first);
    tracing::warn!(%found, "a part of index and catalog is damaged; all of their files are checked");
    read_for_open(context, superblock, bound_bytes, RunCheck::BeforeUse).await
}

async fn read_for_open(
    context: &TableContext,
    superblock: &Superblock,
    bound_bytes: usize,
    when: RunCheck,
) -> Result<Opening> {
    let recovered = replay(context, superblock, Some(bound_bytes), when).await?;
    let view = View::new(Arc::new(recovered.state.clone()));
    let mut opening = Opening {
        recovered,
        segments: BTreeMap::new(),
        damaged: Vec::new(),
    };
    let mut segments = view.segments();
    while let Some((id, used)) = segments.next_resident().await? {
        opening.segments.insert(id, used);
    }
    let mut damaged = view.damaged();
    while let Some(blob) = damaged.next_resident().await? {
        opening.damaged.push(blob);
    }
    Ok(opening)
}

/// Loads the newest usable checkpoint and replays the journal after it.
///
/// With `bound_bytes`, rows beyond that many bytes go into a checkpoint between two journal files. So a rebuild of a
/// store of any size takes bounded memory; the caller holds the store's lock. Without it, nothing on disk is changed.
pub(crate) async fn replay(
    context: &TableContext,
    superblock: &Superblock,
    bound_bytes: Option<usize>,
    when: RunCheck,
) -> Result<Recovered> {
    let checkpoints = checkpoint::load(context, when).await?;
    let (state, start) = match &checkpoints.chosen {
        Some(chosen) => (
            state_of(chosen, superblock).await?,
            checkpoint::position_of(&chosen.record),
        ),
        None => (State::empty(superblock.hash_key), Position::FIRST),
    };
    let history = checkpoints.history.clone();
    let mut replay = Replay {
        context,
        state,
        bound_bytes,
        history,
        pending: VecDeque::new(),
    };
    let walked = replay.walk(start).await?;
    if checkpoints.chosen.is_some() && walked.last.is_none() {
        let path = journal::file_path(&context.root, start.number);
        let what =
            "missing or empty, but a checkpoint names it; restore it before opening the store";
        return Err(Error::corrupt(&path, 0, what));
    }
    let Replay { state, history, .. } = replay;
    Ok(Recovered {
        state,
        walked,
        checkpoints,
        history,
    })
}

/// Replays the whole journal, without any checkpoint: the state that everything else must agree with. Takes memory for
/// all rows of the store.
pub(crate) async fn replay_from_start(
    context: &TableContext,
    superblock: &Superblock,
) -> Result<(State, JournalWalk)> {
    let history = History::default();
    let mut replay = Replay {
        context,
        state: State::empty(superblock.hash_key),
        bound_bytes: None,
        history,
        pending: VecDeque::new(),
    };
    let walked = replay.walk(Position::FIRST).await?;
    Ok((replay.state, walked))
}

/// A replay under way.
struct Replay<'a> {
    context: &'a TableContext,
    state: State,
    bound_bytes: Option<usize>,
    history: History,
    /// Transactions not applied yet. The first needs rows from the disk; there are at most a journal file of them.
    pending: VecDeque<Transaction>,
}

impl Replay<'_> {
    async fn walk(&mut self, start: Position) -> Result<JournalWalk> {
        let context = self.context;
        journal::read::walk(
            &*context.env.io,
            &context.root,
            &context.store_id,
            start,
            self,
        )
        .await
    }

    /// Writes the rows so far as a checkpoint. `position` is where the journal continues.
    async fn checkpoint(&mut self, position: Position) -> Result<()> {
        // The checkpoint names this file, whose header may be in the page cache only.
        journal::resync::resync_tail(&*self.context.env.io, &self.context.root, 0, position)
            .await?;
        let facts = checkpoint::Positions {
            lsn: self.state.lsn,
            journal_number: position.number,
            journal_offset: position.offset,
            next_repository: self.state.next_repository,
            next_segment: self.state.segment_limit.0,
        };
        let frozen = self.state.layers.freeze();
        let runs = frozen.runs().clone();
        let done = checkpoint::flush(self.context, &self.history, facts, &frozen, &runs).await?;
        self.state.layers = frozen.unfreeze(done.runs);
        self.history = done.history;
        Ok(())
    }

    /// Merges the runs that are due.
    async fn merge(&mut self) -> Result<()> {
        while let Some(due) = self.state.layers.runs().due(self.context) {
            let runs = self.state.layers.runs();
            let merged = table::merge(self.context, runs, due).await?.over(runs);
            let done = checkpoint::publish(self.context, &self.history, merged).await?;
            self.state.layers = self.state.layers.with_runs(done.runs);
            self.history = done.history;
        }
        Ok(())
    }
}

impl Visitor for Replay<'_> {
    fn transaction(&mut self, transaction: Transaction) {
        if !self.pending.is_empty() || rows::transaction(&mut self.state, &transaction).is_err() {
            self.pending.push_back(transaction);
        }
    }

    async fn apply_pending(&mut self) -> Result<()> {
        while let Some(transaction) = self.pending.pop_front() {
            resident(|| rows::transaction(&mut self.state, &transaction)).await?;
        }
        Ok(())
    }

    async fn file_done(&mut self, position: Position) -> Result<()> {
        let full = self
            .bound_bytes
            .is_some_and(|bound| self.state.layers.delta_bytes() > bound);
        if full && let Err(error) = self.checkpoint(position).await {
            // After a failed sync nothing may be written any more, and the open would only fail later.
            if self.context.poison.cause().is_some() {
                return Err(error);
            }
            tracing::warn!(%error, "no checkpoint could be written; the replay continues in memory");
            self.bound_bytes = None;
        } else if full && let Err(error) = self.merge().await {
            if self.context.poison.cause().is_some() {
                return Err(error);
            }
            tracing::warn!(%error, "runs could not be merged; nothing is lost, but lookups read more files");
        }
        Ok(())
    }
}

async fn state_of(chosen: &checkpoint::Chosen, superblock: &Superblock) -> Result<State> {
    let mut state = State {
        lsn: chosen.record.lsn,
        layers: Layers::new(chosen.runs.clone()),
        next_repository: chosen.record.next_repository,
        segment_limit: SegmentId(chosen.record.next_segment),
        retired: 0,
        hash_key: superblock.hash_key,
    };
    state.retired = retired::count(&state).await?;
    Ok(state)
}
