//! Makes the end of the journal that an open found durable, before anything depends on it.
//!
//! Owns: [`resync_tail`]. Refuses: changing a byte; what is written is what was read.
//!
//! Why: a frame may have been written and never synced, or its sync failed, when the process ended. The page cache shows it to the
//! next open, which replays it; a power cut after that would remove it, though what was acknowledged since depends on it. A sync
//! alone is not enough, because a failed one may have left its pages clean: they are written again.

use std::path::Path;

use bytes::Bytes;

use super::{Position, file_path, reserve};
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::io::{Class, FileRef, Io, OpenMode, exact};

/// Room that such a file system wants beside the bytes themselves.
const ROOM_BYTES: u64 = 1 << 20;

/// Makes durable what lies from `from` up to `end`: the last frame, for every other one was synced before the next was written.
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
        let what = "its end was there a moment ago and is not any more";
        return Err(Error::corrupt(&path, from, what));
    }
    overwrite(io, store, &file, &path, from, found.freeze()).await
}

/// Writes over what is there already, or may be, and makes it durable.
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
        // A file system that copies on write has no room for the same bytes again: pulls and deletes must stay possible there.
        tracing::warn!("the disk is full: a part of the reserve is given up for the journal's end");
        reserve::shrink(io, store, bytes.len() as u64 + ROOM_BYTES).await?;
        written = write().await;
    }
    written?;
    file.sync_data(Class::Journal.call()).await.map_err(failed)
}
