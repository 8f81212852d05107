//! Closed stores: a runtime for the engine, and a store opened for changes or for reading.
//!
//! Owns: [`EngineRuntime`], [`open`], [`ClosedStore`]. Refuses: making a store where there is none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tonnage_engine::catalog::View;
use tonnage_engine::format::superblock::Superblock;
use tonnage_engine::io::{Class, Env};
use tonnage_engine::options::Options;
use tonnage_engine::recovery::lock::{DirectoryLock, StoreLock};
use tonnage_engine::recovery::superblock::{self, Kind};
use tonnage_engine::recovery::{self, Recovered};
use tonnage_engine::store::{Store, StoreStats};
use tonnage_engine::table::Site;
use tonnage_engine::{Error, Result};
use tonnage_server::admin::{AdminError, AdminStore};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::serve::threads;

/// A runtime for commands, with the engine's real environment.
#[derive(Debug)]
pub(crate) struct EngineRuntime {
    // Before the runtime: its tasks are the runtime's.
    env: Env,
    runtime: tokio::runtime::Runtime,
}

impl EngineRuntime {
    /// Starts it.
    pub(crate) fn start() -> std::result::Result<Self, Failure> {
        // One thread for tasks is enough, and this one is there.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| {
            Failure::new(Exit::Disk, format!("no runtime could be started: {error}"))
        })?;
        let entered = runtime.enter();
        let env = tonnage_server::runtime::env().map_err(|error| {
            threads::of_threads(format!("threads could not be started: {error}"))
        })?;
        drop(entered);
        Ok(Self { env, runtime })
    }

    /// What the engine is given.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// Runs `work` to its end.
    pub(crate) fn block_on<W: Future>(&self, work: W) -> W::Output {
        self.runtime.block_on(work)
    }
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

/// A closed store that is open for reading, which changes nothing. No other process opens it meanwhile.
#[derive(Debug)]
pub(crate) struct ClosedStore {
    env: Env,
    path: PathBuf,
    view: View,
    // Held for its drop.
    _lock: StoreLock,
}

impl ClosedStore {
    /// Reads the catalog and index of the store at `path`.
    pub(crate) async fn open(env: Env, path: &Path) -> Result<Self> {
        let superblock = identify(&env, path).await?;
        let directory = DirectoryLock::take(&*env.io, path).await?;
        let lock = directory.with_superblock(&*env.io, path).await?;
        let site = Site::new(env.clone(), path, &superblock);
        let Recovered { state, .. } = recovery::replay(&site, &superblock, None).await?;
        Ok(Self {
            env,
            path: path.to_path_buf(),
            view: View::new(Arc::new(state)),
            _lock: lock,
        })
    }
}

impl AdminStore for ClosedStore {
    fn view(&self) -> View {
        self.view.clone()
    }

    async fn stats(&self) -> Result<StoreStats> {
        let space = self.env.io.space(Class::Directory.call(), &self.path).await;
        let space =
            space.map_err(|source| Error::io("ask for the space on", &self.path, source))?;
        let counted = StoreStats::count(&self.view, space).await?;
        let uploads = self.path.join("uploads");
        let uploads = tonnage_engine::upload::surviving(&self.env, &uploads).await?;
        Ok(StoreStats {
            uploads: uploads.len() as u64,
            ..counted
        })
    }

    fn writable(&self) -> std::result::Result<&Store, AdminError> {
        Err(AdminError::ReadOnly)
    }
}
