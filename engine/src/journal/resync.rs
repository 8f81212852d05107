//! Makes the end of the journal that an open found durable, before anything depends on it.
//!
//! Owns: [`resync_tail`]. Invariant: no byte changes; what is written is what was read.
//!
//! When the process ended, the last frame may have been written and not synced, or its sync may have failed. The next
//! open reads it from the page cache and replays it. A power cut after that would remove it, with everything
//! acknowledged since that depends on it. A sync alone is not enough: a failed sync may have left the pages clean, so
//! they are written again.

use std::path::Path;

use bytes::Bytes;

use super::{Position, file_path, reserve};
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::io::{Class, FileRef, Io, OpenMode, exact};

/// Space released from the reserve beyond the bytes themselves, for a file system that copies on write.
const ROOM_BYTES: u64 = 1 << 20;

/// Makes the bytes from `from` to `end` durable. They are the last frame: every other frame was synced before the next
/// was written.
pub(crate) async fn resync_tail(io: &dyn Io, store: &Path, from: u64, end: Position) -> Result<()> {
    let path = file_path(store, end.number);
    let failed = |source| Error::io("make the end of the journal durable in", &path, source);
    let file = io
        .open(Class::Journal.call(), &path, OpenMode::Write)
        .await
        .map_err(failed)?;
    let length = usize::try_from(end.offset.saturating_sub(from)).unwrap_or(usize::MAX);
    let found = exact::read_up_to(
        &*file,
        Class::Journal.call(),
        from,
        Buffer::unpooled(length),
    )
    .await
    .map_err(failed)?;
    if found.room() > 0 {
        let what = "the file became shorter while it was read";
        return Err(Error::corrupt(&path, from, what));
    }
    overwrite(io, store, &file, &path, from, found.freeze()).await
}

/// Writes `bytes` over the same or equivalent bytes, and makes them durable.
pub(super) async fn overwrite(
    io: &dyn Io,
    store: &Path,
    file: &FileRef,
    path: &Path,
    at: u64,
    bytes: Bytes,
) -> Result<()> {
    let failed = |source| Error::io("make the end of the journal durable in", path, source);
    let write = async || {
        exact::write_all(&**file, Class::Journal.call(), at, vec![bytes.clone()])
            .await
            .map_err(failed)
    };
    let mut written = write().await;
    if written.as_ref().is_err_and(Error::is_no_space) {
        // A file system that copies on write needs new space for the same bytes. Pulls and deletes must stay possible
        // there.
        tracing::warn!(
            "the disk is full: a part of the reserve is released to write the journal's end again"
        );
        reserve::shrink(io, store, bytes.len() as u64 + ROOM_BYTES).await?;
        written = write().await;
    }
    written?;
    file.sync_data(Class::Journal.call()).await.map_err(failed)
}
