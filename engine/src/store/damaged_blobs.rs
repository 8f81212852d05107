//! The blobs that are known to be damaged, for whoever heals them.
//!
//! Owns: [`DamagedBlobs`]. Refuses: finding damage (`scrub`, reads) and healing it, which an upload of the same content
//! does.
//!
//! Invariants: a blob is returned once, and only if it is damaged where the newest state has it. Nothing is held open
//! between two calls, so whoever takes them slowly keeps no old run.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Store;
use crate::catalog::{BlobInfo, View};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::keys;

/// Blobs that a step of the scan looks for.
const STEP: usize = 64;

/// The rows of each table of [`keys::by_digest`] that begin with a digest, in the same order.
const ROWS_OF: [fn(&Digest) -> Bytes; 4] = [
    keys::holders,
    keys::manifest_holders,
    keys::parents,
    keys::suspect,
];

/// A list of damaged blobs, read on demand.
///
/// First those that reads or scrub found; then, if segments were missing or too short at open, those in them. These are
/// found among all digests that the catalog has, because the index knows long digests only by a hash.
#[derive(Debug)]
pub struct DamagedBlobs {
    store: Store,
    marked: Vec<Digest>,
    next_marked: usize,
    scan: Option<Position>,
    found: VecDeque<(Digest, BlobInfo)>,
}

/// Where the scan of the catalog continues: a table of [`keys::by_digest`], and the last key that was read.
#[derive(Debug, Default)]
struct Position {
    table: usize,
    after: Option<Bytes>,
    last: Option<Digest>,
}

impl DamagedBlobs {
    pub(super) fn new(store: Store) -> Self {
        let damaged = store.inner.segments.damaged();
        Self {
            marked: damaged.marked(),
            next_marked: 0,
            scan: damaged.has_truncated().then(Position::default),
            found: VecDeque::new(),
            store,
        }
    }

    /// Returns the next damaged blob with its place, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(Digest, BlobInfo)>> {
        while let Some(digest) = self.marked.get(self.next_marked).copied() {
            // Marks of places that the blob has left do not count.
            let stored = self.store.view().read(|view| view.blob(&digest)).await?;
            self.next_marked += 1;
            let damaged = self.store.inner.segments.damaged();
            if let Some(stored) = stored
                && damaged.contains(&digest, &stored.extent)
            {
                return Ok(Some((digest, stored)));
            }
        }
        while self.found.is_empty()
            && let Some(position) = self.scan.take()
        {
            self.scan = self.step(position).await?;
        }
        Ok(self.found.pop_front())
    }

    /// Looks for blobs of truncated segments from `position` on. Returns where to continue, or `None` at the end.
    async fn step(&mut self, mut position: Position) -> Result<Option<Position>> {
        let tables = keys::by_digest();
        let Some(prefix) = tables.get(position.table) else {
            return Ok(None);
        };
        let view = self.store.view();
        let mut rows = view.state().scan_prefix(prefix, position.after.as_deref());
        while let Some((key, _)) = rows.next_resident().await? {
            let digest = keys::first_digest(&key);
            let digest = digest.map_err(|what| Error::bad_row(&key, &what))?;
            position.after = Some(key);
            if position.last.replace(digest) == Some(digest) {
                continue;
            }
            let Some(stored) = view.read(|view| view.blob(&digest)).await? else {
                continue;
            };
            let damaged = self.store.inner.segments.damaged();
            if damaged.truncated_at(&stored.extent).is_none()
                || self.marked.binary_search(&digest).is_ok()
                || is_in_table_before(&view, &digest, position.table).await?
            {
                continue;
            }
            self.found.push_back((digest, stored));
            if self.found.len() == STEP {
                return Ok(Some(position));
            }
        }
        Ok(Some(Position {
            table: position.table + 1,
            ..Position::default()
        }))
    }
}

/// Returns whether the scan has met a digest in a table before `table`.
async fn is_in_table_before(view: &View, digest: &Digest, table: usize) -> Result<bool> {
    let before = ROWS_OF.iter().take(table);
    view.read(|view| {
        for rows in before.clone() {
            let first = view.state().scan_prefix(&rows(digest), None).next();
            if first.transpose()?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    })
    .await
}
