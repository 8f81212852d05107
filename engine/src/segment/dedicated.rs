//! The writer of a segment that holds one large blob.
//!
//! Owns: the file from its creation until it is finished or abandoned. Refuses: hashing and pacing (`upload`).
//!
//! Invariants: the payload starts at 4096 and overwrites only earlier bytes of the same upload. A writer that is
//! dropped unfinished removes its file. Space is reserved ahead by at most as many bytes as were written
//! ([`reserved_to`]), because announcing a length costs a client nothing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::files::{AbandonGuard, SegmentFile, SegmentFiles, WrittenFile};
use super::ids::SegmentIds;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Layout, SegmentId, VolumeId};
use crate::format::checksum::encode_table;
use crate::format::record::{DEDICATED_PAYLOAD, RecordFrame, RecordPlaces};
use crate::io::exact::write_all;
use crate::io::{Class, IoError};
use crate::sync::AtomicBool;
use crate::vocabulary::ClientId;

/// Space reserved before the first byte, up to the announced length.
const AHEAD_BYTES_MIN: u64 = 16 << 20;
/// Most space reserved ahead of the written bytes.
const AHEAD_BYTES_MAX: u64 = 1 << 30;
/// Largest announced length that is used; larger ones are ignored, because no such blob can be written.
const ANNOUNCED_BYTES_MAX: u64 = 1 << 50;

/// One dedicated segment that is being written.
#[derive(Debug)]
pub(crate) struct DedicatedWriter {
    files: Arc<SegmentFiles>,
    id: SegmentId,
    /// `None` while nothing is written: a quiet upload keeps no descriptor.
    file: Option<WrittenFile>,
    abandon: Option<AbandonGuard>,
    /// Upper bound of the file's end, including reserved space, failed writes and bytes that were rolled back.
    end: u64,
    named: Arc<AtomicBool>,
    /// Whether a sync failed.
    sync_failed: Arc<AtomicBool>,
    /// The end of the file by the announced length, while space is reserved ahead.
    announced_end: Option<u64>,
    /// The end of the reserved space.
    reserved: u64,
    /// The client whose request it serves.
    client: ClientId,
}

impl DedicatedWriter {
    /// Creates the file. Space for an announced length is reserved in steps, a little ahead of the writes. If the disk
    /// has none, the writes fail.
    pub(crate) async fn create(
        files: Arc<SegmentFiles>,
        ids: &SegmentIds,
        permit: OwnedSemaphorePermit,
        length_hint: Option<u64>,
    ) -> Result<Self> {
        let id = ids.take().await?;
        // Before the file: the caller may be dropped.
        let guard = AbandonGuard::new(Arc::clone(&files), id);
        let file = match files.create_to_write(id, permit).await {
            Ok(file) => file,
            Err(error) => {
                guard.keep();
                return Err(error);
            }
        };
        let mut writer = Self {
            files,
            id,
            file: Some(file),
            abandon: Some(guard),
            end: DEDICATED_PAYLOAD,
            named: Arc::default(),
            sync_failed: Arc::default(),
            announced_end: None,
            reserved: 0,
            client: ClientId::ENGINE,
        };
        if let Some(length) = length_hint {
            writer.announce(length);
        }
        if let Some(range) = writer.next_reserve(0)
            && !reserve(writer.file(), range, ClientId::ENGINE).await
        {
            writer.cut_to(0).await;
            writer.announced_end = None;
        }
        Ok(writer)
    }

    /// Reserves space ahead of later writes, up to `length` bytes of payload; a shorter length than before changes
    /// nothing.
    pub(crate) fn announce(&mut self, length: u64) {
        if length <= ANNOUNCED_BYTES_MAX {
            let end = RecordPlaces::trailing(length).end;
            self.announced_end = self.announced_end.max(Some(end));
        }
    }

    /// Returns what has to be reserved before the file is written up to `end`, if anything.
    fn next_reserve(&mut self, end: u64) -> Option<Range<u64>> {
        let announced = self.announced_end?;
        if end < self.reserved || self.reserved >= announced {
            return None;
        }
        let from = std::mem::replace(&mut self.reserved, reserved_to(end, announced));
        self.end = self.end.max(self.reserved);
        Some(from..self.reserved)
    }

    /// Returns the upper bound of the file's end: the space that it has on disk.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Frees the space after `length` payload bytes, if the file is open and can be cut.
    pub(crate) async fn cut_to(&mut self, length: u64) {
        let end = DEDICATED_PAYLOAD + length;
        if self.end <= end {
            return;
        }
        if let Some(written) = &self.file {
            let file = written.file();
            let cut = file
                .file()
                .set_len(Class::UploadWrite.call().for_client(self.client), end)
                .await;
            if let Err(error) = cut {
                tracing::debug!(path = %file.path().display(), %error, "unused space of an upload could not be freed");
                return;
            }
            self.end = end;
            self.reserved = self.reserved.min(end);
        }
    }

    /// Opens the file of an upload that survived a restart and cuts it to `length` payload bytes.
    pub(crate) async fn resume(
        files: Arc<SegmentFiles>,
        id: SegmentId,
        length: u64,
    ) -> Result<Self> {
        let permit = files.writer_permit().await?;
        let written = files.open_to_write(id, permit).await?;
        let file = written.file();
        let wanted = DEDICATED_PAYLOAD + length;
        let failed = |error| Error::io("resume segment", file.path(), error);
        let found = file
            .file()
            .len(Class::UploadWrite.call())
            .await
            .map_err(failed)?;
        if found < wanted {
            return Err(Error::corrupt(
                file.path(),
                found,
                format!("it ends before byte {wanted}"),
            ));
        }
        file.file()
            .set_len(Class::UploadWrite.call(), wanted)
            .await
            .map_err(failed)?;
        let abandon = Some(AbandonGuard::new(Arc::clone(&files), id));
        Ok(Self {
            files,
            id,
            file: Some(written),
            abandon,
            end: wanted,
            named: Arc::new(AtomicBool::new(true)),
            sync_failed: Arc::default(),
            announced_end: None,
            reserved: wanted,
            client: ClientId::ENGINE,
        })
    }

    /// Returns the segment's id.
    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    /// Returns the segment, which must be open.
    ///
    /// # Panics
    /// If it is closed.
    pub(crate) fn file(&self) -> &Arc<SegmentFile> {
        match &self.file {
            Some(written) => written.file(),
            None => unreachable!("a writer is reopened before it is used"),
        }
    }

    /// Counts what follows as work of `client`, which takes turns with others.
    pub(crate) fn set_client(&mut self, client: ClientId) {
        self.client = client;
    }

    /// Returns the client whose request it serves.
    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    /// Returns whether it has a descriptor.
    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Returns whether a sync failed; then everything written counts as lost.
    pub(crate) fn is_sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Acquire)
    }

    /// Closes the descriptor. Everything written must be synced, because the kernel reports a failed write-back only to
    /// those that have the file open.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    /// Opens the file again if it was closed; waits for a descriptor.
    pub(crate) async fn reopen(&mut self) -> Result<()> {
        if self.file.is_none() {
            let permit = self.files.writer_permit().await?;
            self.open_with(permit).await?;
        }
        Ok(())
    }

    /// Opens the file again if a descriptor is free; returns whether the file is open.
    pub(crate) async fn try_reopen(&mut self) -> Result<bool> {
        if self.file.is_none() {
            let Some(permit) = self.files.try_writer_permit() else {
                return Ok(false);
            };
            self.open_with(permit).await?;
        }
        Ok(true)
    }

    async fn open_with(&mut self, permit: OwnedSemaphorePermit) -> Result<()> {
        self.file = Some(self.files.open_to_write(self.id, permit).await?);
        Ok(())
    }

    /// Writes `slices` at `offset` of the payload, up to the drive. The future owns all it needs.
    ///
    /// Waiting for the drive bounds what all uploads have queued there together, for which a sync of the journal waits.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        slices: Vec<Bytes>,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let file = Arc::clone(self.file());
        let bytes: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        let end = DEDICATED_PAYLOAD + offset + bytes;
        self.end = self.end.max(end);
        let ahead = self.next_reserve(end);
        let (sync_failed, client) = (Arc::clone(&self.sync_failed), self.client);
        async move {
            if let Some(range) = ahead {
                reserve(&file, range, client).await;
            }
            let written = write_all(
                file.file(),
                Class::UploadWrite.call().for_client(client),
                DEDICATED_PAYLOAD + offset,
                slices,
            )
            .await;
            written.map_err(|error| Error::io("write segment", file.path(), error))?;
            let at = DEDICATED_PAYLOAD + offset;
            let reached = file
                .file()
                .write_back(Class::UploadWrite.call().for_client(client), at, bytes)
                .await;
            match reached {
                Err(error) if error.was_attempted() => {
                    // The kernel reports it once, and perhaps for other bytes of the file.
                    sync_failed.store(true, Ordering::Release);
                    Err(Error::io("write segment", file.path(), error))
                }
                // Only the sync will wait longer.
                Ok(()) | Err(_) => Ok(()),
            }
        }
    }

    /// Makes all written payload and the file's name durable. The future owns all it needs.
    pub(crate) fn sync(&self) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let (file, files) = (Arc::clone(self.file()), Arc::clone(&self.files));
        let (named, sync_failed) = (Arc::clone(&self.named), Arc::clone(&self.sync_failed));
        let client = self.client;
        async move {
            let synced = file
                .file()
                .sync_data(Class::UploadWrite.call().for_client(client))
                .await;
            if synced.as_ref().is_err_and(IoError::was_attempted) {
                sync_failed.store(true, Ordering::Release);
            }
            synced.map_err(|error| Error::io("sync segment", file.path(), error))?;
            if !named.load(Ordering::Acquire) {
                files
                    .sync_dir(Class::UploadWrite.call().for_client(client))
                    .await?;
                named.store(true, Ordering::Release);
            }
            Ok(())
        }
    }

    /// Writes table and frame after the payload and makes everything durable. The future owns all it needs. Await it
    /// before anything else is written, because what it started continues.
    pub(crate) fn finish(
        &mut self,
        length: u64,
        digest: Digest,
        checksums: &[u32],
    ) -> impl Future<Output = Result<Extent>> + Send + 'static + use<> {
        let extent = Extent {
            volume: VolumeId::default(),
            segment: self.id,
            offset: DEDICATED_PAYLOAD,
            length,
            layout: Layout::Trailing,
        };
        let (file, store, sync) = (Arc::clone(self.file()), self.files.store(), self.sync());
        let (table, client) = (encode_table(checksums), self.client);
        let places = RecordPlaces::trailing(length);
        let longer = self.end > places.end;
        self.end = self.end.max(places.end);
        async move {
            let path = file.path();
            let frame = RecordFrame::new(store, digest, &extent, &table)
                .map_err(|what| Error::corrupt(path, places.frame, what.0))?;
            let end = DEDICATED_PAYLOAD + length;
            let gaps = (
                places.table - end,
                places.frame - places.table - table.len() as u64,
            );
            let slices = vec![zeros(gaps.0), table, zeros(gaps.1), frame.encode().into()];
            let written = write_all(
                file.file(),
                Class::UploadWrite.call().for_client(client),
                end,
                slices,
            )
            .await;
            written.map_err(|error| Error::io("finish segment", path, error))?;
            if longer {
                let cut = file
                    .file()
                    .set_len(Class::UploadWrite.call().for_client(client), places.end)
                    .await;
                cut.map_err(|error| Error::io("cut segment", path, error))?;
            }
            sync.await?;
            Ok(extent)
        }
    }

    /// Takes the guard of the finished file, which unlinks it unless [`AbandonGuard::keep`] is called.
    ///
    /// # Panics
    /// If it was taken already.
    pub(crate) fn take_guard(&mut self) -> AbandonGuard {
        match self.abandon.take() {
            Some(guard) => guard,
            None => unreachable!("a segment is handed over once"),
        }
    }

    /// Keeps the unfinished file, because an upload log names it.
    pub(crate) fn keep_unfinished(mut self) {
        if let Some(guard) = self.abandon.take() {
            guard.keep();
        }
    }
}

/// Returns the end of the reserved space once the file was written up to `end`, of `announced` in all.
fn reserved_to(end: u64, announced: u64) -> u64 {
    let ahead = end.clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
    end.saturating_add(ahead).min(announced).max(end)
}

/// Reserves a part of the file; returns whether that was possible. If it was not, the writes show whether there is
/// space.
async fn reserve(file: &SegmentFile, range: Range<u64>, client: ClientId) -> bool {
    let length = range.end - range.start;
    let file = file.file();
    let reserved = file.allocate(
        Class::UploadWrite.call().for_client(client),
        range.start,
        length,
    );
    reserved.await.is_ok()
}

fn zeros(count: u64) -> Bytes {
    Bytes::from(vec![0; usize::try_from(count).unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: space reserved for bytes that may never come is bounded by the bytes that did come, and by the announced
    /// end.
    #[test]
    fn space_is_reserved_a_little_ahead() {
        const TIB: u64 = 1 << 40;
        assert_eq!(reserved_to(0, TIB), AHEAD_BYTES_MIN);
        assert_eq!(reserved_to(0, 9 << 20), 9 << 20);
        assert_eq!(reserved_to(100 << 20, TIB), 200 << 20);
        assert_eq!(reserved_to(6 << 30, TIB), 7 << 30);
        assert_eq!(
            reserved_to(6 << 30, 5 << 30),
            6 << 30,
            "more came than was announced"
        );
    }
}
