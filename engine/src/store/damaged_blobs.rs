//! The blobs that are known to be damaged, for whoever heals them.
//!
//! Owns: [`DamagedBlobs`]. Refuses: finding damage (`scrub`, reads) and healing it, which an upload of the same content
//! does.
//!
//! Invariants: a blob is returned once, and only if it is damaged where the newest state has it. No view is held longer
//! than a step of so many rows, nor between two calls, so an old run is never kept for long. Other tasks run after
//! every step.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Store;
use super::background::yield_now;
use crate::catalog::{BlobInfo, View};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::format::keys;

/// Rows that a step of the scan looks at, with or without damage.
const STEP_ROWS: usize = 4096;

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
    found: Found,
}

/// Damaged blobs that a step found.
type Found = VecDeque<(Digest, BlobInfo)>;

/// Where the scan of the catalog continues: a table of [`keys::by_digest`], and the last key that was read.
#[derive(Debug, Clone, Default)]
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
            found: Found::new(),
            store,
        }
    }

    /// Returns the next damaged blob with its place, or `None` at the end. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// [`Error::Closed`] if the store closes.
    pub async fn next(&mut self) -> Result<Option<(Digest, BlobInfo)>> {
        while let Some(digest) = self.marked.get(self.next_marked).copied() {
            self.require_open()?;
            // Marks of places that the blob has left do not count.
            let stored = self.store.view().read(|view| view.blob(&digest)).await?;
            self.next_marked += 1;
            let damaged = self.store.inner.segments.damaged();
            if let Some(stored) = stored
                && damaged.contains(&digest, &stored.extent)
            {
                return Ok(Some((digest, stored)));
            }
            yield_now().await;
        }
        while self.found.is_empty()
            && let Some(position) = self.scan.clone()
        {
            self.require_open()?;
            let (next, found) = self.step(position).await?;
            self.scan = next;
            self.found = found;
            yield_now().await;
        }
        Ok(self.found.pop_front())
    }

    fn require_open(&self) -> Result<()> {
        if *self.store.inner.closing.borrow() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Looks for blobs of truncated segments among some rows from `position` on. Returns where to continue, or `None`
    /// at the end, and what was found.
    async fn step(&self, mut position: Position) -> Result<(Option<Position>, Found)> {
        let mut found = Found::new();
        let tables = keys::by_digest();
        let Some(prefix) = tables.get(position.table) else {
            return Ok((None, found));
        };
        let view = self.store.view();
        let mut rows = view.state().scan_prefix(prefix, position.after.as_deref());
        for _ in 0..STEP_ROWS {
            let Some((key, _)) = rows.next_resident().await? else {
                position = Position {
                    table: position.table + 1,
                    ..Position::default()
                };
                break;
            };
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
            found.push_back((digest, stored));
        }
        Ok((Some(position), found))
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
