//! Stores of the criterion benches: opened for one bench each, with a fixed content.
//!
//! Owns: [`BenchStore`], and the sizes to measure with. Refuses: measuring, what is stored ([`content`]), and the files
//! that are kept for the next run ([`kept`]).

use std::path::Path;

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonnage_engine::{Error, Options, Result, Store, View};
use tonnage_server::runtime;

pub mod content;
pub mod kept;

use self::content::IMAGE_BLOBS;

/// Returns the numbers of blobs to measure with: `TONNAGE_BENCH_BLOBS`, a list with commas, or 10 thousand and 1
/// million.
pub fn sizes() -> Vec<u64> {
    let list = std::env::var("TONNAGE_BENCH_BLOBS");
    let list = list.as_deref().unwrap_or("10000,1000000");
    let size = |text: &str| {
        let blobs = text.trim().parse().ok();
        blobs
            .filter(|blobs| *blobs >= IMAGE_BLOBS && blobs % IMAGE_BLOBS == 0)
            .unwrap_or_else(|| panic!("TONNAGE_BENCH_BLOBS: {text:?} is no multiple of 10"))
    };
    list.split(',').map(size).collect()
}

/// An open store in a directory of its own, which is removed with it.
#[derive(Debug)]
pub struct BenchStore {
    /// The runtime of its tasks.
    pub runtime: Runtime,
    /// The store.
    pub store: Store,
    directory: TempDir,
}

impl BenchStore {
    /// Opens a copy of the kept store of `blobs` blobs.
    pub fn filled(blobs: u64) -> Self {
        Self::filled_with(blobs, options())
    }

    /// Opens it with other options.
    pub fn filled_with(blobs: u64, options: Options) -> Self {
        Self::open(kept::kept(blobs), options)
    }

    /// Creates an empty store.
    pub fn empty() -> Self {
        Self::open(kept::directory(), options())
    }

    fn open(directory: TempDir, options: Options) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let store = runtime.block_on(open(directory.path(), options));
        Self {
            runtime,
            store,
            directory,
        }
    }

    /// Reads rows of a view, and waits for those that are not in memory.
    pub fn read<T>(&self, view: &View, mut rows: impl FnMut(&View) -> Result<T>) -> T {
        let read = rows(view).or_else(|error| match error {
            Error::NotResident(_) => self.runtime.block_on(view.read(rows)),
            other => Err(other),
        });
        read.expect("rows")
    }

    /// Copies the directory of the store, as `kill -9` would leave it. The caller ensures that nothing changes it.
    pub fn image(&self) -> TempDir {
        kept::copied(self.directory.path())
    }

    /// Closes the store and removes its directory.
    pub fn close(self) {
        self.runtime
            .block_on(self.store.close())
            .expect("a clean close");
    }
}

/// Returns options with which only checkpoints and merges run in the background.
pub fn options() -> Options {
    Options {
        collection_manual: true,
        compaction_rate_bytes: 0,
        scrub_bytes_per_second: 0,
        reserve_bytes: 0,
        ..Options::default()
    }
}

/// Opens a store.
pub async fn open(root: &Path, options: Options) -> Store {
    let env = runtime::env().expect("threads");
    Store::open(env, root, options).await.expect("a store").0
}
