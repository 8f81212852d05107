//! A store that no process has open, as its checkpoint and journal describe it.
//!
//! Owns: [`ClosedStore`], and finding out whether a directory is a store. Refuses: any change; `fsck` has the checks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::stats::StoreStats;
use crate::catalog::View;
use crate::error::{Error, Result};
use crate::format::superblock::Superblock;
use crate::io::{Class, Env};
use crate::recovery::lock::{DirectoryLock, StoreLock};
use crate::recovery::superblock::{self as superblocks, Kind};
use crate::recovery::{self, Recovered};
use crate::table::{RunCheck, TableContext};
use crate::upload;

/// A closed store, locked: no process can open it while this exists.
#[derive(Debug)]
pub struct ClosedStore {
    env: Env,
    path: PathBuf,
    view: View,
    /// Held for its drop.
    _lock: StoreLock,
}

impl ClosedStore {
    /// Locks the store in `path` and reads its catalog and index. Changes nothing. Takes memory for what the journal
    /// has beyond the newest checkpoint.
    ///
    /// # Errors
    /// [`Error::Foreign`] if there is no store.
    pub fn open(env: Env, path: &Path) -> BoxFuture<'_, Result<Self>> {
        Box::pin(async move {
            let (superblock, _, lock) = lock_existing(&env, path).await?;
            let context = TableContext::new(env.clone(), path, &superblock);
            let Recovered { state, .. } =
                recovery::replay(&context, &superblock, None, RunCheck::BeforeUse).await?;
            Ok(Self {
                env,
                path: path.to_path_buf(),
                view: View::new(Arc::new(state)),
                _lock: lock,
            })
        })
    }

    /// Returns a view of the store.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Counts what the store holds. Its uploads are those that the next open can continue.
    pub async fn stats(&self) -> Result<StoreStats> {
        let space = self.env.io.space(Class::Directory.call(), &self.path).await;
        let space =
            space.map_err(|source| Error::io("ask for the space on", &self.path, source))?;
        let uploads = upload::resumable_segments(&self.env, &self.path.join("uploads")).await?;
        Ok(StoreStats {
            uploads: uploads.len() as u64,
            ..StoreStats::count(&self.view, space).await?
        })
    }
}

/// Locks the store in `path` and reads its superblock, with the numbers of damaged copies.
///
/// # Errors
/// [`Error::Foreign`] if there is no store.
pub(super) async fn lock_existing(
    env: &Env,
    path: &Path,
) -> Result<(Superblock, Vec<u32>, StoreLock)> {
    let io = &*env.io;
    let foreign = |why: &str| Error::Foreign {
        path: path.to_path_buf(),
        why: why.to_owned(),
    };
    let absent = || foreign("there is no such directory");
    // Any other error is reported under the lock, when no other process can be creating a store here.
    if let Ok(Kind::Absent) = superblocks::classify(io, path).await {
        return Err(absent());
    }
    let directory = DirectoryLock::take(io, path).await?;
    match superblocks::classify(io, path).await? {
        Kind::Store => {}
        Kind::Absent => return Err(absent()),
        Kind::Fresh => return Err(foreign("it has no superblock")),
    }
    let read = superblocks::read(io, path).await?;
    let (superblock, damaged_copies) = read.ok_or_else(|| {
        foreign("its creation was cut short; the next start of a server creates it again")
    })?;
    let lock = directory.with_superblock(io, path).await?;
    Ok((superblock, damaged_copies, lock))
}
