//! Tests of the ordered table and its checkpoints, on a real file system.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "what lies behind the seam is looked at"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::checkpoint::{self, History, Loaded, Positions, Published};
use crate::extent::Lsn;
use crate::format::superblock::Superblock;
use crate::io::{Spawn, TaskFuture, test_env};
use crate::table::context::PageSizes;
use crate::table::page_cache::PageCache;
use crate::table::tiers::Tiers;
use crate::table::{self, Layers, RunCheck, RunPart, Runs, Scan, TableContext, resident};

const STORE: [u8; 16] = *b"a store of tests";
const FACTS: Positions = Positions {
    lsn: Lsn(7),
    journal_number: 1,
    journal_offset: 4096,
    next_repository: 3,
    next_segment: 9,
};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

/// The store of these tests.
fn superblock() -> Superblock {
    Superblock {
        store_id: STORE,
        hash_key: [3; 16],
        compatible: 0,
        read_only_compatible: 0,
        incompatible: 0,
        created_unix_ms: 0,
    }
}

/// Creates a context with small pages and tiers of few runs.
fn context(root: &Path) -> TableContext {
    let mut context = TableContext::new(test_env::env(), root, &superblock());
    context.tiers = Tiers {
        fanout: 3,
        unit_bytes: 8 << 10,
    };
    context.pages = PageSizes {
        lookup_bytes: 512,
        scan_bytes: 1024,
    };
    context
}

/// The `n`th value of a fixed sequence that looks random (splitmix64).
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An index key as the catalog spells them: prefix, hash, 33 bytes of digest.
fn index_key(n: u64) -> Bytes {
    let mut key = vec![b'b'];
    key.extend(mixed(n).to_le_bytes());
    key.extend([1; 33]);
    Bytes::from(key)
}

fn filled(rows: Range<u64>) -> Layers {
    let mut layers = Layers::new(Runs::empty());
    for n in rows {
        layers.put(index_key(n), Some(Bytes::from(vec![0x5a; 44])));
    }
    layers
}

/// Freezes, checkpoints and unfreezes.
async fn checkpoint(context: &TableContext, history: &History, layers: &mut Layers) -> Published {
    let frozen = layers.freeze();
    let done = checkpoint::flush(context, history, FACTS, &frozen, frozen.runs())
        .await
        .unwrap();
    *layers = frozen.unfreeze(done.runs.clone());
    done
}

/// Merges the runs of a range.
async fn merge(
    context: &TableContext,
    history: &History,
    layers: &mut Layers,
    range: Range<usize>,
) -> Published {
    let runs = layers.runs();
    let merged = table::merge(context, runs, range).await.unwrap();
    let done = checkpoint::publish(context, history, merged.over(runs)).await;
    let done = done.unwrap();
    *layers = layers.with_runs(done.runs.clone());
    done
}

async fn get(layers: &Layers, key: &[u8]) -> Option<Vec<u8>> {
    let found = resident(|| layers.get(key)).await.unwrap();
    found.map(|value| value.to_vec())
}

/// Checks what an open left unchecked.
async fn check_in_use(context: &TableContext, runs: &Runs) {
    for part in [RunPart::Filter, RunPart::Pages] {
        while let Some(run) = runs.unchecked(part) {
            table::check_in_use(context, &run, part).await.unwrap();
        }
    }
}

/// Rows in all runs; deletions, and rows that newer ones replace, included.
fn rows(runs: &Runs) -> u64 {
    runs.references().iter().map(|run| run.rows).sum()
}

fn run_files(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root.join("runs")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn file_of(root: &Path, id: u64) -> PathBuf {
    root.join("runs").join(format!("{id:016x}.run"))
}

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Freeze,
    Checkpoint,
    Merge,
    Reopen,
    Prefix(Vec<u8>, Option<Vec<u8>>),
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => (0..400_u64).prop_map(|n| index_key(n).to_vec()),
        3 => (prop::sample::select(b"lt".to_vec()), 0..60_u8, vec(0..3_u8, 0..3)).prop_map(|(table, n, tail)| {
            let mut key = vec![table, n];
            key.extend(tail);
            key
        }),
        1 => vec(any::<u8>(), 0..4),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (any_key(), vec(any::<u8>(), 0..60)).prop_map(|(key, value)| Step::Put(key, value)),
        1 => (any_key(), vec(any::<u8>(), 2000..5000)).prop_map(|(key, value)| Step::Put(key, value)),
        25 => any_key().prop_map(Step::Delete),
        1 => Just(Step::Freeze),
        4 => Just(Step::Checkpoint),
        2 => Just(Step::Merge),
        1 => Just(Step::Reopen),
        10 => (vec(any::<u8>(), 0..2), prop::option::of(any_key())).prop_map(|(p, a)| Step::Prefix(p, a)),
    ]
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

async fn collected(mut scan: Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    while let Some((key, value)) = scan.next_resident().await.unwrap() {
        rows.push((key.to_vec(), value.to_vec()));
    }
    rows
}

/// What a history of steps works on: the table and the model beside it.
struct World {
    context: TableContext,
    history: History,
    layers: Layers,
    model: Rows,
    // The model as of the last checkpoint, and as of the freeze that is not yet one.
    durable: Rows,
    frozen: Rows,
}

impl World {
    fn new(root: &Path) -> Self {
        Self {
            context: context(root),
            history: History::default(),
            layers: Layers::new(Runs::empty()),
            model: Rows::new(),
            durable: Rows::new(),
            frozen: Rows::new(),
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Put(key, value) => {
                self.layers
                    .put(key.clone().into(), Some(value.clone().into()));
                self.model.insert(key.clone(), value.clone());
                assert_eq!(get(&self.layers, key).await.as_ref(), Some(value));
            }
            Step::Delete(key) => {
                assert_eq!(
                    get(&self.layers, key).await,
                    self.model.remove(key),
                    "before the deletion of {key:?}"
                );
                self.layers.put(key.clone().into(), None);
                assert_eq!(get(&self.layers, key).await, None);
            }
            Step::Freeze => {
                if self.layers.frozen().is_none() {
                    self.layers = self.layers.freeze();
                    self.frozen = self.model.clone();
                }
            }
            Step::Checkpoint => {
                Box::pin(self.take(&Step::Freeze)).await;
                let (layers, runs) = (&self.layers, self.layers.runs());
                let done = checkpoint::flush(&self.context, &self.history, FACTS, layers, runs);
                let done = done.await.unwrap();
                self.layers = self.layers.unfreeze(done.runs);
                self.history = done.history;
                self.durable = self.frozen.clone();
            }
            Step::Merge => {
                if let Some(range) = self.layers.runs().due(&self.context) {
                    let done = merge(&self.context, &self.history, &mut self.layers, range).await;
                    self.history = done.history;
                }
            }
            Step::Reopen => {
                let Loaded {
                    chosen,
                    history,
                    rejected,
                } = checkpoint::load(&self.context, RunCheck::BeforeUse)
                    .await
                    .unwrap();
                assert_eq!(rejected, []);
                self.layers = Layers::new(chosen.map_or_else(Runs::empty, |chosen| chosen.runs));
                self.history = history;
                self.model = self.durable.clone();
            }
            Step::Prefix(prefix, after) => {
                let found = collected(self.layers.scan_prefix(prefix, after.as_deref())).await;
                let behind = |key: &[u8]| after.as_ref().is_none_or(|after| key > after.as_slice());
                let expected = self.model.iter();
                let expected = expected.filter(|(key, _)| key.starts_with(prefix) && behind(key));
                let expected: Vec<_> = expected.map(|(k, v)| (k.clone(), v.clone())).collect();
                assert_eq!(found, expected);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Guards: through any history of changes, checkpoints, merges and reopens the table equals a plain map; lookups
    /// and scans of any prefix, in all layers.
    #[test]
    fn a_table_is_a_sorted_map(steps in vec(any_step(), 50..400)) {
        run(async {
            let directory = TempDir::new().unwrap();
            let mut world = World::new(directory.path());
            for step in &steps {
                world.take(step).await;
            }
            for last in [Step::Checkpoint, Step::Reopen, Step::Prefix(Vec::new(), None)] {
                world.take(&last).await;
            }
        });
    }
}

/// Guards: a damaged run file is noticed, whichever byte it is, and whether it is cut or grown: at open, or by the
/// check that an open left for later.
#[test]
fn every_damaged_byte_of_a_run_file_is_noticed() {
    run(async {
        let directory = TempDir::new().unwrap();
        let root = directory.path();
        let context = context(root);
        let mut layers = filled(0..12);
        layers.put(Bytes::from_static(b"tag"), Some(Bytes::from(vec![1; 700])));
        let done = checkpoint(&context, &History::default(), &mut layers).await;
        let references = done.runs.references();
        assert_eq!(references.len(), 1);
        let open = async || {
            let later = Runs::open(&context, &references, RunCheck::InBackground).await;
            let is_bad = match &later {
                Ok(runs) => {
                    check_in_use(&context, runs).await;
                    context.damage.take().is_some()
                }
                Err(_) => true,
            };
            let first = Runs::open(&context, &references, RunCheck::BeforeUse).await;
            assert_eq!(first.is_err(), is_bad);
            first
        };
        open().await.unwrap();
        let path = file_of(root, references[0].id);
        let intact = std::fs::read(&path).unwrap();
        let mut damaged = intact.clone();
        for at in 0..intact.len() {
            let bit = 1 << (at % 8);
            damaged[at] ^= bit;
            std::fs::write(&path, &damaged).unwrap();
            damaged[at] ^= bit;
            assert!(open().await.is_err(), "byte {at} of {}", intact.len());
        }
        for length in [0, 1, 4095, 4096, intact.len() - 1] {
            std::fs::write(&path, &intact[..length]).unwrap();
            assert!(open().await.is_err(), "cut to {length}");
        }
        std::fs::write(&path, [intact.as_slice(), &[0]].concat()).unwrap();
        assert!(open().await.is_err(), "grown by a byte");
        std::fs::write(&path, &intact).unwrap();
        open().await.unwrap();
        let superblock = Superblock {
            store_id: [0; 16],
            ..superblock()
        };
        let foreign = TableContext::new(context.env.clone(), root, &superblock);
        let foreign = Runs::open(&foreign, &references, RunCheck::BeforeUse).await;
        assert!(foreign.unwrap_err().why.contains("another store"));
    });
}

/// Guards: a checkpoint writes the rows that changed and no others; of equal keys the newest run's counts, before and
/// after a merge; deletions stay as long as an older run has what they delete, and are gone with the last one.
#[test]
fn runs_hold_what_changed_until_they_are_merged() {
    run(async {
        let directory = TempDir::new().unwrap();
        let context = context(directory.path());
        let mut layers = filled(0..3000);
        let first = checkpoint(&context, &History::default(), &mut layers).await;
        layers.put(index_key(5), None);
        layers.put(index_key(6), Some(Bytes::from_static(b"new")));
        let second = checkpoint(&context, &first.history, &mut layers).await;
        let counts = |done: &Published| -> Vec<u64> {
            done.runs.references().iter().map(|run| run.rows).collect()
        };
        assert_eq!(counts(&second), [2, 3000]);
        for n in 7..10 {
            layers.put(index_key(n), None);
        }
        let third = checkpoint(&context, &second.history, &mut layers).await;
        let newer = merge(&context, &third.history, &mut layers, 0..2).await;
        assert_eq!(counts(&newer), [5, 3000]);
        for merged in [false, true] {
            if merged {
                let all = merge(&context, &newer.history, &mut layers, 0..2).await;
                assert_eq!(counts(&all), [2996]);
            }
            for n in 0..20 {
                let expected = match n {
                    5 | 7..10 => None,
                    6 => Some(b"new".to_vec()),
                    _ => Some(vec![0x5a; 44]),
                };
                assert_eq!(get(&layers, &index_key(n)).await, expected, "row {n}");
            }
        }
        for n in 0..3000 {
            layers.put(index_key(n), None);
        }
        let history = checkpoint(&context, &newer.history, &mut layers)
            .await
            .history;
        let emptied = merge(&context, &history, &mut layers, 0..2).await;
        assert_eq!(counts(&emptied), [0; 0]);
        assert_eq!(get(&layers, &index_key(1)).await, None);
    });
}

/// Guards: a checkpoint that ends while runs are merged stays newer than the merged run, and does not remove its file
/// although no checkpoint names it yet.
#[test]
fn a_merge_lets_checkpoints_pass() {
    run(async {
        let directory = TempDir::new().unwrap();
        let context = context(directory.path());
        let mut layers = Layers::new(Runs::empty());
        let mut history = History::default();
        for value in [&b"1"[..], b"2", b"3"] {
            layers.put(index_key(1), Some(Bytes::from_static(value)));
            history = checkpoint(&context, &history, &mut layers).await.history;
        }
        let merged = table::merge(&context, layers.runs(), 0..3).await.unwrap();
        layers.put(index_key(1), Some(Bytes::from_static(b"4")));
        history = checkpoint(&context, &history, &mut layers).await.history;
        let new = merged.over(layers.runs());
        let done = checkpoint::publish(&context, &history, new).await.unwrap();
        assert_eq!(done.runs.count(), 2);
        assert_eq!(
            get(&layers.with_runs(done.runs), &index_key(1)).await,
            Some(b"4".to_vec())
        );
        let loaded = checkpoint::load(&context, RunCheck::BeforeUse)
            .await
            .unwrap();
        assert_eq!(loaded.rejected, []);
        let layers = Layers::new(loaded.chosen.unwrap().runs);
        assert_eq!(layers.runs().count(), 2);
        assert_eq!(get(&layers, &index_key(1)).await, Some(b"4".to_vec()));
    });
}

/// Guards: runs that are checked later have the same rows before the check as after it, and absent keys stay absent.
#[test]
fn runs_are_used_before_they_are_checked() {
    run(async {
        let directory = TempDir::new().unwrap();
        let context = context(directory.path());
        let mut layers = filled(0..200);
        let first = checkpoint(&context, &History::default(), &mut layers).await;
        layers.put(index_key(5), None);
        let done = checkpoint(&context, &first.history, &mut layers).await;
        let references = done.runs.references();
        let runs = Runs::open(&context, &references, RunCheck::InBackground).await;
        let layers = Layers::new(runs.unwrap());
        for checked in [false, true] {
            assert_eq!(layers.runs().count_unchecked(), if checked { 0 } else { 2 });
            for n in 0..400 {
                let expected = (n < 200 && n != 5).then(|| vec![0x5a; 44]);
                assert_eq!(get(&layers, &index_key(n)).await, expected, "row {n}");
            }
            check_in_use(&context, layers.runs()).await;
        }
    });
}

/// Guards: a page that is unreadable or damaged fails the lookups that need it, and no others; no lookup waits for it.
#[test]
fn a_damaged_page_fails_its_lookups_alone() {
    run(async {
        let directory = TempDir::new().unwrap();
        let mut context = context(directory.path());
        context.cache = Arc::new(PageCache::new(0));
        let mut layers = filled(0..200);
        let done = checkpoint(&context, &History::default(), &mut layers).await;
        let path = file_of(directory.path(), done.runs.references()[0].id);
        let whole = std::fs::read(&path).unwrap();
        let failing = async || {
            let mut failed = 0;
            for n in 0..200 {
                match resident(|| layers.get(&index_key(n))).await {
                    Ok(found) => assert!(found.is_some()),
                    Err(error) => {
                        assert!(error.to_string().contains(&path.display().to_string()));
                        failed += 1;
                    }
                }
            }
            failed
        };
        assert_eq!(failing().await, 0);
        let mut damaged = whole.clone();
        damaged[4096 + 100] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let one_page = failing().await;
        assert!((1..20).contains(&one_page), "{one_page}");
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        // The last page that was read is in memory.
        assert!(failing().await > 180);
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(failing().await, 0);
    });
}

/// Guards: on disk are the files of the two newest checkpoints and no others, also after failed attempts; a failed
/// attempt leaves the existing ones usable.
#[test]
fn run_files_are_those_of_two_checkpoints() {
    run(async {
        let directory = TempDir::new().unwrap();
        let root = directory.path();
        let context = context(root);
        let mut layers = Layers::new(Runs::empty());
        let mut history = History::default();
        std::fs::create_dir(root.join("runs")).unwrap();
        std::fs::write(file_of(root, 40), b"left by a crash").unwrap();
        std::fs::write(root.join("runs/notes.txt"), b"not ours").unwrap();
        for round in 0..5 {
            layers.put(index_key(round), Some(Bytes::from_static(b"v")));
            if round == 3 {
                // All names but the newest's are taken by directories: the attempt fails after its files were written.
                let slots = ["checkpoint.1", "checkpoint.2"].map(|name| root.join(name));
                for slot in &slots {
                    std::fs::remove_file(slot).unwrap();
                    std::fs::create_dir(slot).unwrap();
                }
                let frozen = layers.freeze();
                checkpoint::flush(&context, &history, FACTS, &frozen, frozen.runs())
                    .await
                    .unwrap_err();
                let loaded = checkpoint::load(&context, RunCheck::BeforeUse)
                    .await
                    .unwrap();
                assert_eq!(loaded.chosen.unwrap().record.sequence, 3);
                assert_eq!(loaded.rejected.len(), 2);
                for slot in &slots {
                    std::fs::remove_dir(slot).unwrap();
                }
            }
            history = checkpoint(&context, &history, &mut layers).await.history;
            let (newest, older) = (history.newest().unwrap(), history.older());
            let mut named: Vec<_> = [Some(newest), older]
                .into_iter()
                .flatten()
                .flat_map(|record| record.runs.iter().map(|run| file_of(root, run.id)))
                .chain([root.join("runs/notes.txt")])
                .collect();
            named.sort();
            named.dedup();
            if round == 3 {
                // The failed attempt's file is on its way out, by a task of its own.
                assert!(named.iter().all(|path| path.exists()));
            } else {
                assert_eq!(run_files(root), named);
            }
            assert!(newest.runs.iter().all(|run| run.id > 40));
        }
        assert_eq!(rows(layers.runs()), 5);
    });
}

/// Guards: if the newest checkpoint or one of its files is torn, missing or foreign, the one before is used. Without a
/// usable one replay starts at the beginning. Sequence and file numbers continue above all that were seen.
#[test]
fn damage_falls_back_to_the_checkpoint_before() {
    run(async {
        let directory = TempDir::new().unwrap();
        let root = directory.path();
        let mut layers = Layers::new(Runs::empty());
        let mut history = History::default();
        {
            let context = context(root);
            for round in 0..4 {
                layers.put(index_key(round), Some(Bytes::from_static(b"v")));
                history = checkpoint(&context, &history, &mut layers).await.history;
            }
        }
        let newest = Arc::clone(history.newest().unwrap());
        assert_eq!(
            (newest.sequence, newest.lsn, newest.next_segment),
            (4, Lsn(7), 9)
        );
        let slot = root.join("checkpoint.1");
        let intact = std::fs::read(&slot).unwrap();
        let record = std::fs::read(file_of(root, newest.runs[0].id)).unwrap();
        let chosen = async || {
            let loaded = checkpoint::load(&context(root), RunCheck::BeforeUse)
                .await
                .unwrap();
            loaded
                .chosen
                .map(|chosen| (chosen.record.sequence, rows(&chosen.runs)))
        };
        assert_eq!(chosen().await, Some((4, 4)));
        for torn in [0, 1, 50, intact.len() - 1] {
            std::fs::write(&slot, &intact[..torn]).unwrap();
            assert_eq!(chosen().await, Some((3, 3)), "torn at {torn}");
        }
        std::fs::write(&slot, &intact).unwrap();
        std::fs::write(
            file_of(root, newest.runs[0].id),
            &record[..record.len() - 1],
        )
        .unwrap();
        let context = context(root);
        let loaded = checkpoint::load(&context, RunCheck::BeforeUse)
            .await
            .unwrap();
        assert_eq!(loaded.rejected[0].path, slot);
        assert_eq!(loaded.chosen.as_ref().unwrap().record.sequence, 3);
        assert_eq!(context.next_file(), newest.next_file);
        // The next one is numbered above the damaged one.
        let mut layers = Layers::new(loaded.chosen.unwrap().runs);
        layers.put(index_key(9), Some(Bytes::from_static(b"v")));
        let done = checkpoint(&context, &loaded.history, &mut layers).await;
        assert_eq!(done.history.newest().unwrap().sequence, 5);
        std::fs::remove_dir_all(root.join("runs")).unwrap();
        assert_eq!(chosen().await, None);
    });
}

/// Drops every task and computation instead of running it.
#[derive(Debug)]
struct NothingRuns;

impl Spawn for NothingRuns {
    fn spawn(&self, _: &'static str, task: TaskFuture) {
        drop(task);
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) {
        drop(job);
    }
}

/// Guards: if the check of a run does not finish, the load fails. Nothing is known to be damaged, so the checkpoint is
/// not rejected, which would cost a rebuild.
#[test]
fn an_unfinished_check_rejects_no_checkpoint() {
    run(async {
        let directory = TempDir::new().unwrap();
        let mut context = context(directory.path());
        let mut layers = Layers::new(Runs::empty());
        layers.put(index_key(1), Some(Bytes::from_static(b"v")));
        checkpoint(&context, &History::default(), &mut layers).await;
        context.env.spawn = Arc::new(NothingRuns);
        let failed = checkpoint::load(&context, RunCheck::BeforeUse)
            .await
            .unwrap_err();
        assert!(failed.is_not_attempted(), "{failed}");
    });
}

/// Polls a future at most so many times, then drops it.
struct Cut<F>(Option<F>, usize);

impl<F: Future + Unpin> Future for Cut<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.1 == 0 {
            self.0 = None;
            return Poll::Ready(None);
        }
        self.1 -= 1;
        let Some(inner) = &mut self.0 else {
            return Poll::Ready(None);
        };
        Pin::new(inner).poll(context).map(Some)
    }
}

/// Guards: a checkpoint that is dropped at any of its waits leaves the one before usable with all its rows, and can
/// be repeated.
#[test]
fn a_dropped_checkpoint_leaves_the_one_before() {
    run(async {
        let directory = TempDir::new().unwrap();
        let context = context(directory.path());
        let mut layers = filled(0..500);
        let mut history = checkpoint(&context, &History::default(), &mut layers)
            .await
            .history;
        layers.put(index_key(1000), Some(Bytes::from_static(b"v")));
        let frozen = layers.freeze();
        for polls in 0..1000 {
            let attempt = checkpoint::flush(&context, &history, FACTS, &frozen, frozen.runs());
            let done = Cut(Some(Box::pin(attempt)), polls).await;
            let loaded = checkpoint::load(&context, RunCheck::BeforeUse)
                .await
                .unwrap();
            let chosen = loaded.chosen.unwrap();
            if let Some(done) = done {
                let done = done.unwrap();
                // How many waits there are depends on how quick the disk is, but the first is always one.
                assert!(polls > 0, "a checkpoint that never waits was not cut off");
                assert_eq!((chosen.record.sequence, rows(&chosen.runs)), (2, 501));
                history = done.history;
                break;
            }
            // A record whose write went on may be there already; its files were then unlinked, or not yet.
            assert!([(1, 500), (2, 501)].contains(&(chosen.record.sequence, rows(&chosen.runs))));
        }
        assert_eq!(history.newest().unwrap().sequence, 2);
    });
}
