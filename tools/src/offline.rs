//! Commands on a closed store: a small runtime, the engine's environment, the lock.
//!
//! Owns: what commands on a closed store share: reading it, which changes nothing, and opening it for one change.
//! Refuses: making a store where there is none.

use std::path::Path;
use std::sync::Arc;

use tonnage_engine::catalog::View;
use tonnage_engine::format::superblock::Superblock;
use tonnage_engine::io::Env;
use tonnage_engine::options::Options;
use tonnage_engine::recovery::lock::{DirectoryLock, StoreLock};
use tonnage_engine::recovery::superblock::{self, Kind};
use tonnage_engine::recovery::{self, Recovered};
use tonnage_engine::store::Store;
use tonnage_engine::table::Site;
use tonnage_engine::{Error, Result};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::serve::threads;

/// Runs `work` on a runtime of its own, with the real environment.
pub(crate) fn run<T, W: Future<Output = T>>(
    work: impl FnOnce(Env) -> W,
) -> std::result::Result<T, Failure> {
    // One thread for tasks is enough, and this one is there.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Exit::Disk, format!("no runtime could be started: {error}"))
    })?;
    runtime.block_on(async {
        let env = tonnage_server::runtime::env().map_err(|error| {
            threads::of_threads(format!("threads could not be started: {error}"))
        })?;
        Ok(work(env).await)
    })
}

/// A closed store as its checkpoint and journal tell it; nobody opens it while this lives.
#[derive(Debug)]
pub(crate) struct Closed {
    /// What it holds.
    pub(crate) view: View,
    // Held for its drop.
    _lock: StoreLock,
}

/// Opens the store at `path` for a change, as `serve` would. To be closed again.
pub(crate) async fn open(env: Env, path: &Path, options: Options) -> Result<Store> {
    identify(&env, path).await?;
    let (store, _) = Store::open(env, path, options).await?;
    Ok(store)
}

/// The superblock of the store at `path`, which must be one.
async fn identify(env: &Env, path: &Path) -> Result<Superblock> {
    let foreign = |why: &str| Error::Foreign {
        path: path.to_path_buf(),
        why: why.to_owned(),
    };
    match superblock::classify(&*env.io, path).await? {
        Kind::Store => {}
        Kind::Absent => return Err(foreign("there is no such directory")),
        Kind::Fresh => return Err(foreign("it has no superblock")),
    }
    let Some((superblock, _)) = superblock::read(&*env.io, path).await? else {
        return Err(foreign(
            "its creation was cut short; `tonnage serve` starts it again",
        ));
    };
    Ok(superblock)
}

/// Reads the catalog and index of the store at `path`, changing nothing.
pub(crate) async fn read(env: &Env, path: &Path) -> Result<Closed> {
    let superblock = identify(env, path).await?;
    let directory = DirectoryLock::take(&*env.io, path).await?;
    let lock = directory.with_superblock(&*env.io, path).await?;
    let site = Site::new(env.clone(), path, &superblock);
    let Recovered { state, .. } = recovery::replay(&site, &superblock, None).await?;
    Ok(Closed {
        view: View::new(Arc::new(state)),
        _lock: lock,
    })
}
