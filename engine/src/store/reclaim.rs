//! Removal of segments without a live blob, from the disk.
//!
//! Owns: [`reclaim`]. Refuses: removing blobs (`store::collection`) and moving them (`store::compaction`).
//!
//! Invariant: a segment is unlinked only if it is not in use, writes go on, and the durable state has no live blob in
//! it, found in this order. Readers keep its file open, and their bytes.

use super::Inner;
use crate::catalog::View;
use crate::error::Result;

/// Unlinks segments that have no live blob any more; returns their number. Those that lost only some of their blobs
/// become candidates of compaction.
pub(super) async fn reclaim(inner: &Inner) -> Result<u64> {
    let mut ids = inner.sequencer.take_shrunk();
    ids.append(&mut inner.segments.take_released());
    ids.retain(|id| {
        let is_in_use = inner.segments.is_in_use(*id);
        if is_in_use {
            // It is released later; compaction sees to it if nothing else is pushed.
            inner.compaction.add_candidate(*id);
        }
        !is_in_use
    });
    inner.poison.check()?;
    let view = View::new(inner.sequencer.durable());
    let mut unlinked = 0;
    while let Some(id) = ids.first().copied() {
        match view.read(|view| view.segment(id)).await {
            Ok(Some(_)) => inner.compaction.add_candidate(id),
            Ok(None) => {
                inner.segments.files().retire(id);
                unlinked += 1;
            }
            Err(error) => {
                inner.sequencer.put_back_shrunk(ids);
                return Err(error);
            }
        }
        ids.remove(&id);
    }
    Ok(unlinked)
}
