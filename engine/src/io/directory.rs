//! A directory that stays open.
//!
//! Owns: [`Directory`], a path and its open handle.

use std::path::{Path, PathBuf};

use super::{Call, DirRef, Io, IoResult};

/// An open directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    handle: DirRef,
}

impl Directory {
    /// Opens the directory at `path`.
    pub async fn open(io: &dyn Io, call: Call, path: &Path) -> IoResult<Self> {
        let handle = io.open_dir(call, path).await?;
        let path = path.to_path_buf();
        Ok(Self { path, handle })
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes its entries durable (creations, removals). Needs no further descriptor.
    pub async fn sync(&self, call: Call) -> IoResult<()> {
        self.handle.sync(call).await
    }
}
