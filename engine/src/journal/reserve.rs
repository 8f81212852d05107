//! The reserve: a file of allocated space that is released when the disk is full, so that deletes can still be
//! journalled.
//!
//! Owns: `reserve`: creating, shrinking and releasing it. Refuses: any other use of the file.

use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::io::{Class, Io, OpenMode};

/// Name of the reserve's file.
pub(crate) const NAME: &str = "reserve";

/// Creates the reserve if it is missing, or releases it if `bytes` is 0. On a disk that is too full it logs a warning
/// and returns `Ok`, so that the store opens.
pub(crate) async fn ensure(io: &dyn Io, store: &Path, bytes: u64) -> Result<()> {
    if bytes == 0 {
        return release(io, store).await;
    }
    let Err(error) = make(io, store, bytes).await else {
        return Ok(());
    };
    if !error.is_no_space() && !error.is_beyond_file_size() {
        return Err(error);
    }
    tracing::warn!(%error, "no space could be set aside; once the disk is full, deletes will fail too");
    Ok(())
}

async fn make(io: &dyn Io, store: &Path, bytes: u64) -> Result<()> {
    let path = store.join(NAME);
    let file = match io
        .open(Class::Journal.call(), &path, OpenMode::CreateNew)
        .await
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(source) => return Err(Error::io("create", &path, source)),
    };
    if let Err(source) = file.allocate(Class::Journal.call(), 0, bytes).await {
        drop(file);
        release(io, store).await?;
        return Err(Error::io("set space aside in", &path, source));
    }
    Ok(())
}

/// Releases the reserve. The next open that has room creates it again.
pub(crate) async fn release(io: &dyn Io, store: &Path) -> Result<()> {
    let path = store.join(NAME);
    match io.unlink(Class::Journal.call(), &path).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::io("release the reserve", &path, source)),
    }
}

/// Releases `bytes` of the reserve, or all that is left of it.
pub(crate) async fn shrink(io: &dyn Io, store: &Path, bytes: u64) -> Result<()> {
    let path = store.join(NAME);
    let failed = |source| Error::io("release a part of the reserve", &path, source);
    let file = match io.open(Class::Journal.call(), &path, OpenMode::Write).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
    };
    let left = file
        .len(Class::Journal.call())
        .await
        .map_err(failed)?
        .saturating_sub(bytes);
    if left == 0 {
        drop(file);
        return release(io, store).await;
    }
    file.set_len(Class::Journal.call(), left)
        .await
        .map_err(failed)
}
