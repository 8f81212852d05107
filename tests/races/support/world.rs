//! An environment for the engine in which the scheduler decides every switch between threads.
//!
//! Owns: [`World`], and calls that several tests make. Refuses: time that advances by itself. Only [`World::pass`]
//! advances it, so no test waits for it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use shuttle::future::block_on;
use tonnage_engine::io::{Clock, Env, Rng, Spawn, TaskFuture};
use tonnage_engine::{
    Algorithm, Batch, Change, Committed, Digest, FinishedBlob, ManifestEntry, Options, Origin,
    Require, Result, Store, View,
};
use tonnage_machine::Host;

use crate::disk::Disk;

/// The path of the store.
pub const ROOT: &str = "/store";

/// One machine. All clones are the same one.
#[derive(Debug, Clone)]
pub struct World {
    /// Its disk.
    pub disk: Disk,
    rest: Arc<Rest>,
}

impl Default for World {
    fn default() -> Self {
        let rest = Arc::new(Rest::default());
        Self {
            disk: Disk::new(Arc::clone(&rest) as _),
            rest,
        }
    }
}

#[derive(Debug, Default)]
struct Rest {
    now: Arc<Now>,
    random: AtomicU64,
}

/// The time, and the tasks that wait for it to advance.
#[derive(Debug, Default)]
struct Now {
    seconds: AtomicU64,
    asleep: Mutex<Vec<Waker>>,
}

impl Now {
    fn get(&self) -> Duration {
        Duration::from_secs(1000 + self.seconds.load(Ordering::Relaxed))
    }

    async fn sleep(&self, until: Duration) {
        std::future::poll_fn(|context| {
            if self.get() >= until {
                return Poll::Ready(());
            }
            let mut asleep = self.asleep.lock().expect("the lock is not poisoned");
            asleep.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn pass(&self, time: Duration) {
        self.seconds.fetch_add(time.as_secs(), Ordering::Relaxed);
        let asleep = std::mem::take(&mut *self.asleep.lock().expect("the lock is not poisoned"));
        asleep.into_iter().for_each(Waker::wake);
    }
}

impl Clock for Rest {
    fn monotonic(&self) -> Duration {
        self.now.get()
    }

    fn wall_unix_ms(&self) -> u64 {
        1_800_000_000_000
    }

    fn sleep(&self, duration: Duration) -> TaskFuture {
        let (now, until) = (Arc::clone(&self.now), self.now.get() + duration);
        Box::pin(async move { now.sleep(until).await })
    }
}

impl Spawn for Rest {
    fn spawn(&self, _: &'static str, task: TaskFuture) {
        drop(shuttle::future::spawn(task));
    }

    fn compute(&self, job: Box<dyn FnOnce() + Send>) {
        drop(shuttle::future::spawn(async move { job() }));
    }
}

impl Host for Rest {
    /// Answers a query at once. A change is a task, which runs when the scheduler chooses it.
    fn submit(&self, changes: bool, operation: Box<dyn FnOnce() + Send>) {
        if changes {
            drop(shuttle::future::spawn(async move { operation() }));
        } else {
            operation();
        }
    }

    fn stop(&self) {
        unreachable!("nothing stops this machine");
    }
}

impl Rng for Rest {
    fn fill(&self, bytes: &mut [u8]) {
        let drawn = self.random.fetch_add(1, Ordering::Relaxed) + 1;
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[at % 8] ^ at as u8;
        }
    }
}

/// Returns options so small that a schedule is short.
pub fn options() -> Options {
    Options {
        journal_file_bytes: 32 << 10,
        free_space_min_bytes: Some(0),
        reserve_bytes: 4096,
        shared_segment_bytes: 1 << 20,
        spill_threshold_bytes: 64 << 10,
        scrub_bytes_per_second: 0,
        ..Options::default()
    }
}

impl World {
    /// Returns the environment for an engine.
    pub fn env(&self) -> Env {
        Env {
            io: Arc::new(self.disk.0.clone()),
            clock: Arc::clone(&self.rest) as _,
            spawn: Arc::clone(&self.rest) as _,
            rng: Arc::clone(&self.rest) as _,
        }
    }

    /// Advances the time.
    pub fn pass(&self, time: Duration) {
        self.rest.now.pass(time);
    }

    /// Opens the store.
    pub fn open(&self, options: Options) -> Store {
        let opened = block_on(Store::open(self.env(), Path::new(ROOT), options));
        opened.expect("the store opens").0
    }
}

/// Runs a future to its end on its own thread.
pub fn thread<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> shuttle::thread::JoinHandle<T> {
    shuttle::thread::spawn(move || block_on(work))
}

/// Returns a batch in `repository` that stages nothing.
pub fn batch(
    repository: &str,
    requires: Vec<Require>,
    changes: Vec<Change>,
) -> Batch<FinishedBlob> {
    Batch {
        repository: repository.to_owned(),
        create_repository: true,
        origin: Origin::default(),
        requires,
        staged: Vec::new(),
        changes,
    }
}

/// Returns a batch in `repository` that stores `blob` and links it.
pub fn push_batch(repository: &str, blob: FinishedBlob) -> Batch<FinishedBlob> {
    let mut batch = batch(repository, vec![], vec![Change::Link(blob.digest())]);
    batch.staged.push(blob);
    batch
}

/// Returns the digest of this text.
pub fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

/// Pushes `text` as a blob of `repository`.
pub async fn push(store: &Store, repository: &str, text: &str) -> Result<Committed> {
    let content = Bytes::copy_from_slice(text.as_bytes());
    let blob = store.put_small(content, Algorithm::Sha256).await?;
    store.commit(push_batch(repository, blob)).await
}

/// Links `text`, a blob of the store, in `repository`.
pub async fn link(store: &Store, repository: &str, text: &str) -> Result<Committed> {
    let changes = vec![Change::Link(digest(text))];
    store.commit(batch(repository, vec![], changes)).await
}

/// Returns a manifest of `repository` without children, whose bytes are the blob `text`.
pub fn manifest(text: &str) -> Change {
    Change::PutManifest(ManifestEntry {
        digest: digest(text),
        size: text.len() as u64,
        children: Vec::new(),
        subject: None,
        attributes: Bytes::new(),
    })
}

/// A list to which the threads of a schedule add without a scheduling point.
#[derive(Debug, Clone)]
pub struct Notes<T>(Arc<Mutex<Vec<T>>>);

impl<T> Default for Notes<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Notes<T> {
    /// Adds one.
    pub fn add(&self, note: T) {
        self.0.lock().expect("the lock is not poisoned").push(note);
    }

    /// Returns all so far.
    pub fn all(&self) -> Vec<T> {
        self.0.lock().expect("the lock is not poisoned").clone()
    }
}

/// Returns whether a blob is linked in the repository of that name; rows are in memory.
pub fn is_linked(view: &View, name: &str, digest: &Digest) -> bool {
    let repository = view.repository(name).expect("rows are readable");
    repository.is_some_and(|repository| repository.is_linked(digest).expect("rows are readable"))
}
