//! Opening a store: lock, superblock, replay, plan, apply, new epoch, tasks.
//!
//! Owns: the order of these steps, and the report of them. Refuses: the steps themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::background;
use super::checkpoints::Checkpoints;
use super::close::JournalTask;
use super::closed;
use super::collection::Collection;
use super::compaction::Compaction;
use super::purge::Purge;
use super::{Inner, Store};
use crate::catalog::View;
use crate::commit::{Sequencer, ShutdownSignals, run_journal};
use crate::digest::Digest;
use crate::error::{Corruption, Error, Result};
use crate::extent::{Extent, Lsn, SegmentId};
use crate::format::keys::{DamagedPlace, SegmentUse};
use crate::format::superblock::Superblock;
use crate::io::{Class, Clock, Directory, Env};
use crate::jobs::Jobs;
use crate::journal::writer::{JournalSpec, JournalWriter};
use crate::journal::{self, reserve, resync};
use crate::lease::Leases;
use crate::options::Options;
use crate::poison::Poison;
use crate::recovery::lock::{DirectoryLock, StoreLock};
use crate::recovery::plan::{self, Facts, Plan};
use crate::recovery::superblock::{self as superblocks, Kind};
use crate::recovery::{self, Opening, Recovered, apply};
use crate::segment::{SegmentIds, Segments};
use crate::sync::{Mutex, OnceLock, oneshot};
use crate::table::TableContext;
use crate::upload::{Existing, Uploads};

/// What open found and did, for the first lines of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// Whether the store was created just now.
    pub created: bool,
    /// Whether the last stop was clean.
    pub clean: bool,
    /// LSN of the checkpoint that replay began on; `None` if it began at the start of the journal.
    pub checkpoint: Option<Lsn>,
    /// Why newer checkpoints were not used, if there were any.
    pub checkpoints_unusable: Vec<String>,
    /// Parts of the journal before that checkpoint that are missing or corrupt. Without the checkpoint, their
    /// transactions are lost.
    pub journal_unsound: Vec<Corruption>,
    /// Transactions replayed.
    pub replayed: u64,
    /// Segment files that nothing named and that were removed.
    pub orphans_removed: u64,
    /// Segments with live blobs whose file is missing: these blobs count as damaged.
    pub segments_missing: Vec<SegmentId>,
    /// Segments whose file ends before their last record: blobs that reach beyond the end count as damaged.
    pub segments_truncated: Vec<SegmentId>,
    /// Blobs that reads found damaged earlier, and that were not pushed again or found intact since.
    pub blobs_damaged: u64,
    /// Uploads that can be continued.
    pub uploads_resumed: u64,
    /// Superblock copies that were damaged, or of another store, and were rewritten from the others.
    pub superblock_copies_damaged: Vec<u32>,
    /// Time for all of it.
    pub took: Duration,
}

impl Store {
    /// Opens the store in `path` as [`Store::open`] does, but creates nothing.
    ///
    /// # Errors
    /// [`Error::Foreign`] if there is no store.
    pub fn open_existing(
        env: Env,
        path: &Path,
        options: Options,
    ) -> BoxFuture<'_, Result<(Self, OpenReport)>> {
        let clock = Arc::clone(&env.clock);
        Box::pin(Self::recover(clock, options, claim_existing(env, path)))
    }

    /// Opens the store in `path`, creating it if there is none. Recovers after any stop, without a flag.
    pub fn open(
        env: Env,
        path: &Path,
        options: Options,
    ) -> BoxFuture<'_, Result<(Self, OpenReport)>> {
        let clock = Arc::clone(&env.clock);
        Box::pin(Self::recover(clock, options, claim(env, path)))
    }

    /// Claims a store, unless the options are not valid, recovers it and starts its tasks.
    async fn recover(
        clock: Arc<dyn Clock>,
        options: Options,
        claiming: impl Future<Output = Result<Claim>>,
    ) -> Result<(Self, OpenReport)> {
        options.validate().map_err(Error::BadOptions)?;
        let began = clock.monotonic();
        let claim = claiming.await?;
        let context = TableContext::new(claim.env.clone(), &claim.path, &claim.superblock);
        let bound = options.delta_budget_bytes;
        let opening = recovery::replay_for_open(&context, &claim.superblock, bound).await;
        let opening = opening.map_err(Error::unpoisoned)?;
        let recovered = &opening.recovered;
        let mut report = OpenReport {
            created: claim.created,
            clean: claim.created || plan::closed_cleanly(&recovered.walked),
            checkpoint: recovered
                .checkpoints
                .chosen
                .as_ref()
                .map(|chosen| chosen.record.lsn),
            checkpoints_unusable: recovered
                .checkpoints
                .rejected
                .iter()
                .map(|rejected| rejected.why.clone())
                .collect(),
            journal_unsound: recovered.walked.damage_before_start.clone(),
            replayed: recovered.walked.transactions,
            orphans_removed: 0,
            segments_missing: Vec::new(),
            segments_truncated: Vec::new(),
            blobs_damaged: 0,
            uploads_resumed: 0,
            superblock_copies_damaged: claim.damaged_copies.clone(),
            took: Duration::ZERO,
        };
        let inner = assemble(claim, options, opening, context, &mut report).await?;
        inner.uploads.measure_space().await;
        report.took = inner.env.clock.monotonic().saturating_sub(began);
        background::start(&inner);
        Ok((Self { inner }, report))
    }
}

/// A store's directory, locked, with its superblock.
struct Claim {
    env: Env,
    path: PathBuf,
    lock: Arc<StoreLock>,
    superblock: Superblock,
    damaged_copies: Vec<u32>,
    created: bool,
}

/// Claims a store that is there already.
async fn claim_existing(env: Env, path: &Path) -> Result<Claim> {
    let (superblock, damaged_copies, lock) = closed::lock_existing(&env, path).await?;
    Ok(Claim {
        path: path.to_path_buf(),
        lock: Arc::new(lock),
        superblock,
        damaged_copies,
        created: false,
        env,
    })
}

/// Takes the lock and reads the superblock; makes a new one if the directory is empty or absent.
async fn claim(env: Env, path: &Path) -> Result<Claim> {
    let io = &*env.io;
    let absent = superblocks::classify(io, path).await? == Kind::Absent;
    if absent {
        superblocks::create_path(io, path).await?;
    }
    let directory = DirectoryLock::take(io, path).await?;
    // Checked again under the lock, when no other process can be creating a store here.
    let mut existing = None;
    if superblocks::classify(io, path).await? == Kind::Store {
        existing = superblocks::read(io, path).await?;
    }
    let created = existing.is_none();
    let (superblock, damaged_copies) = if let Some(found) = existing {
        found
    } else {
        superblocks::sync_path(io, path, absent).await?;
        (superblocks::create(&env, path).await?, Vec::new())
    };
    let lock = directory.with_superblock(io, path).await?;
    Ok(Claim {
        path: path.to_path_buf(),
        lock: Arc::new(lock),
        superblock,
        damaged_copies,
        created,
        env,
    })
}

/// Computes and applies the plan, begins the epoch, and builds the parts.
async fn assemble(
    claim: Claim,
    options: Options,
    Opening {
        recovered,
        segments: placed,
        damaged,
    }: Opening,
    context: TableContext,
    report: &mut OpenReport,
) -> Result<Arc<Inner>> {
    let Claim {
        env,
        path,
        lock,
        superblock,
        damaged_copies,
        ..
    } = claim;
    let named = named(&placed);
    let poison = Arc::clone(&context.poison);
    let leases = leases(&env, &options, &poison);
    // Ids below the limit may have been used before the stop, so only newly reserved ones are used.
    let used = recovered.state.segment_limit;
    let ids = SegmentIds::new(used, used, Arc::clone(&poison));
    let dir = open_segments(&env, &path, &named).await?;
    let segments = segments(&env, dir, &superblock, &ids, &poison, &options);
    let stored = Arc::new(Stored::default());
    let dir = open_or_make(&env, &path, "uploads").await?;
    let uploads = uploads(&env, dir, &segments, &leases, &stored, &options);
    let mut facts = durable_facts(&env, &path, &recovered, named, report.clean).await?;
    let uploading = uploads.resume(&|id| placed.contains_key(&id)).await?;
    report.uploads_resumed = uploading.len() as u64;
    facts.uploading = uploading.into_iter().collect();

    let plan = plan::plan(&facts);
    apply::apply(&*env.io, &path, &plan).await?;
    superblocks::repair(&*env.io, &path, &superblock, &damaged_copies).await;
    mark_damage(&plan, damaged, &segments, report);

    let spec = JournalSpec {
        store: path.clone(),
        directory: open_dir(&env, &journal::directory(&path)).await?,
        poison: Arc::clone(&poison),
        store_id: superblock.store_id,
        epoch: plan.epoch,
        file_bytes: options.journal_file_bytes,
    };
    let journal = begin_journal(&env, spec, &plan, options.reserve_bytes).await?;
    let (position, clock) = (journal.position(), Arc::clone(&env.clock));
    let (first, poisoned) = (plan.first_lsn, Arc::clone(&poison));
    let sequencer = Sequencer::new(recovered.state, position, first, clock, poisoned);
    let sequencer = Arc::new(sequencer);
    stored.sequencer.get_or_init(|| Arc::clone(&sequencer));
    let journal_task = start_journal(&env, &sequencer, journal, &poison, &lock);
    let last = plan.previous.map_or(position, |previous| previous.end);
    let inner = Arc::new(Inner {
        checkpoints: Checkpoints::new(context, recovered.history, last),
        scrub: Arc::default(),
        jobs: Jobs::new(Arc::clone(&env.clock)),
        collection: Collection::new(&options, leases.now(), sequencer.durable().lsn),
        compaction: Compaction::default(),
        env,
        path,
        options,
        sequencer,
        large_batches: tokio::sync::Mutex::default(),
        poison,
        leases,
        segments,
        uploads,
        deleted: Arc::default(),
        purge: Purge::default(),
        closing: watch::Sender::new(false),
        journal: Mutex::new(Some(journal_task)),
        lock,
    });
    background::reserve(&inner).await?;
    Ok(inner)
}

/// Gathers the facts for the plan and makes the journal's end durable. That comes before anything is removed or
/// answered because of them.
async fn durable_facts(
    env: &Env,
    path: &Path,
    recovered: &Recovered,
    named: BTreeMap<SegmentId, u64>,
    clean: bool,
) -> Result<Facts> {
    let facts = facts(env, path, recovered, named, clean).await?;
    let walked = &recovered.walked;
    if walked.last.is_some() {
        resync::resync_tail(&*env.io, path, walked.last_frame, walked.end).await?;
    }
    Ok(facts)
}

fn leases(env: &Env, options: &Options, poison: &Arc<Poison>) -> Arc<Leases> {
    let (clock, poison) = (Arc::clone(&env.clock), Arc::clone(poison));
    Leases::new(clock, options.collection_grace, poison)
}

fn segments(
    env: &Env,
    dir: Directory,
    superblock: &Superblock,
    ids: &Arc<SegmentIds>,
    poison: &Arc<Poison>,
    options: &Options,
) -> Arc<Segments> {
    let (env, store, ids) = (env.clone(), superblock.store_id, Arc::clone(ids));
    Segments::new(env, dir, store, ids, poison, options)
}

/// Marks as damaged what is truncated and what earlier reads found, before anything reads it.
fn mark_damage(
    plan: &Plan,
    damaged: Vec<(Digest, DamagedPlace)>,
    segments: &Segments,
    report: &mut OpenReport,
) {
    report.orphans_removed = plan.orphans.len() as u64;
    report.segments_missing.clone_from(&plan.missing);
    report.segments_truncated = plan.truncated.iter().map(|(id, _)| *id).collect();
    let gone = plan.missing.iter().map(|id| (*id, 0));
    let truncated = gone.chain(plan.truncated.iter().copied());
    segments.damaged().set_truncated(truncated.collect());
    for (digest, place) in damaged {
        segments.damaged().set_recorded(digest, &place);
        report.blobs_damaged += 1;
    }
}

/// Opens the directory of segments. If no blob is stored, a missing directory is created: copies may leave out empty
/// ones. Otherwise a missing one is an error, because all that was in it is lost.
async fn open_segments(
    env: &Env,
    store: &Path,
    named: &BTreeMap<SegmentId, u64>,
) -> Result<Directory> {
    if named.is_empty() {
        return open_or_make(env, store, "segments").await;
    }
    let path = apply::segments_directory(store);
    let opened = open_dir(env, &path).await;
    opened.map_err(|error| {
        if error.is_not_found() {
            Error::corrupt(&path, 0, apply::missing_segments_message(named.len()))
        } else {
            error
        }
    })
}

/// Opens a directory whose loss costs nothing; creates it, durably, if it is missing.
async fn open_or_make(env: &Env, store: &Path, name: &str) -> Result<Directory> {
    let path = store.join(name);
    match open_dir(env, &path).await {
        Err(error) if error.is_not_found() => {
            superblocks::create_dir(&*env.io, &path).await?;
            superblocks::sync_dir(&*env.io, store).await?;
            open_dir(env, &path).await
        }
        opened => opened,
    }
}

async fn open_dir(env: &Env, path: &Path) -> Result<Directory> {
    let opened = Directory::open(&*env.io, Class::Directory.call(), path).await;
    opened.map_err(|error| Error::io("open directory", path, error))
}

fn uploads(
    env: &Env,
    dir: Directory,
    segments: &Arc<Segments>,
    leases: &Arc<Leases>,
    stored: &Arc<Stored>,
    options: &Options,
) -> Arc<Uploads> {
    let existing: Arc<dyn Existing> = Arc::<Stored>::clone(stored);
    let (segments, leases) = (Arc::clone(segments), Arc::clone(leases));
    Uploads::new(env.clone(), dir, segments, leases, existing, options)
}

/// The lookup of stored blobs for uploads; finds nothing until the journal runs.
#[derive(Debug, Default)]
struct Stored {
    sequencer: OnceLock<Arc<Sequencer>>,
}

impl Existing for Stored {
    fn stored(&self, digest: Digest) -> Pin<Box<dyn Future<Output = Option<Extent>> + Send + '_>> {
        Box::pin(async move {
            let view = View::new(self.sequencer.get()?.durable());
            // A row that cannot be read counts as absent: the bytes are written again.
            let stored = view.read(|view| view.blob(&digest)).await.ok().flatten();
            stored.map(|blob| blob.extent)
        })
    }
}

/// Gathers the facts for the plan; the uploads are added later. Nothing was cut or removed before this, so that a
/// journal which lost its end is noticed in time.
async fn facts(
    env: &Env,
    path: &Path,
    recovered: &Recovered,
    named: BTreeMap<SegmentId, u64>,
    clean: bool,
) -> Result<Facts> {
    // A clean stop leaves a checkpoint of everything. If there is less, files were changed since.
    let whole = recovered.checkpoints.chosen.is_some() && recovered.walked.transactions == 0;
    let facts = Facts {
        walked: recovered.walked.clone(),
        segment_limit: recovered.state.segment_limit,
        state_lsn: recovered.state.lsn,
        named,
        uploading: BTreeSet::new(),
        found: apply::segment_sizes(&*env.io, path).await?,
        tidy: clean && whole,
    };
    plan::check(&facts).map_err(|newer| {
        let what = "newer than the journal, whose end is missing: restore the journal files before opening the store";
        Error::corrupt(&apply::segment_path(path, newer), 0, what)
    })?;
    if !plan::has_numbers_left(&facts, recovered.state.next_repository) {
        let what =
            "a number in it is higher than a store can have counted: restore the journal files";
        return Err(Error::corrupt(&journal::directory(path), 0, what));
    }
    Ok(facts)
}

/// Returns the segments that hold live blobs, with the bytes that each must have.
fn named(placed: &BTreeMap<SegmentId, SegmentUse>) -> BTreeMap<SegmentId, u64> {
    let live = placed.iter().filter(|(_, used)| used.live_blobs > 0);
    live.map(|(id, used)| (*id, used.end)).collect()
}

/// Begins the epoch's journal, and makes the reserve again.
async fn begin_journal(
    env: &Env,
    spec: JournalSpec,
    plan: &Plan,
    reserve_bytes: u64,
) -> Result<JournalWriter> {
    let path = spec.store.clone();
    let begun = JournalWriter::begin(env.clone(), spec, plan.previous, plan.first_lsn).await;
    let journal = begun.map_err(Error::unpoisoned)?;
    // After the first journal file is durable, because a reserve implies that there was one.
    reserve::ensure(&*env.io, &path, reserve_bytes).await?;
    Ok(journal)
}

/// Starts the journal task; it holds the store's lock until it ends.
fn start_journal(
    env: &Env,
    sequencer: &Arc<Sequencer>,
    journal: JournalWriter,
    poison: &Arc<Poison>,
    lock: &Arc<StoreLock>,
) -> JournalTask {
    let (drained, when_drained) = oneshot::channel();
    let (seal, when_sealed) = oneshot::channel();
    let (ended, when_ended) = oneshot::channel();
    let (sequencer, poison, lock) = (Arc::clone(sequencer), Arc::clone(poison), Arc::clone(lock));
    let shutdown = ShutdownSignals {
        drained,
        seal: when_sealed,
    };
    let task = async move {
        let closed = run_journal(sequencer, journal, poison, shutdown).await;
        drop(lock);
        // The receiver is gone if the store was dropped without a close.
        drop(ended.send(closed));
    };
    env.spawn.spawn("journal", Box::pin(task));
    JournalTask {
        drained: when_drained,
        seal,
        ended: when_ended,
    }
}
