//! The writer of a segment that holds one large blob.
//!
//! Owns: the file from its creation until it is finished or abandoned. Refuses: hashing and pacing
//! (`upload`).
//!
//! Invariants: the payload starts at 4096 and is written in place of nothing but this upload's own earlier
//! bytes; dropped unfinished, the file goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::files::{AbandonGuard, SegmentFile, SegmentFiles};
use super::ids::SegmentIds;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Layout, SegmentId, VolumeId};
use crate::format::checksum::encode_table;
use crate::format::record::{DEDICATED_PAYLOAD, RecordFrame, RecordPlaces};
use crate::format::segment::SegmentClass;
use crate::io::exact::write_all;
use crate::poison::Poison;

/// Most payload for which space is taken before it comes: one extent of a large file system. What a client announces costs it
/// nothing, so it must not take the disk from others.
const ALLOCATE_BYTES_MAX: u64 = 128 << 20;

/// One dedicated segment that is being written.
#[derive(Debug)]
pub struct DedicatedWriter {
    files: Arc<SegmentFiles>,
    poison: Arc<Poison>,
    file: Arc<SegmentFile>,
    abandon: Option<AbandonGuard>,
    /// Whether the file may reach beyond what was written: then it is cut at the end.
    longer: bool,
    named: Arc<AtomicBool>,
}

impl DedicatedWriter {
    /// Creates the file. Of a known length the first part of its space is reserved.
    pub async fn create(
        files: Arc<SegmentFiles>,
        ids: &SegmentIds,
        poison: Arc<Poison>,
        length_hint: Option<u64>,
    ) -> Result<Self> {
        let id = ids.take().await?;
        // Before the file: whoever waits for it may give up.
        let guard = AbandonGuard::new(Arc::clone(&files), id);
        let file = match files.create(id, SegmentClass::Dedicated).await {
            Ok(file) => file,
            Err(error) => {
                guard.keep();
                return Err(error);
            }
        };
        let abandon = Some(guard);
        let mut writer = Self {
            files,
            poison,
            file,
            abandon,
            longer: false,
            named: Arc::default(),
        };
        if let Some(length) = length_hint {
            writer.longer = true;
            let ahead = RecordPlaces::trailing(length.min(ALLOCATE_BYTES_MAX)).end;
            let allocated = writer.file.file().allocate(0, ahead).await;
            if let Err(error) = allocated {
                let error = Error::io("reserve space for segment", writer.file.path(), error);
                // Only a hint: file systems without preallocation do without.
                if error.is_no_space() {
                    return Err(error);
                }
            }
        }
        Ok(writer)
    }

    /// Takes up the file of an upload that survived a restart and cuts it to `length` payload bytes.
    pub async fn resume(
        files: Arc<SegmentFiles>,
        poison: Arc<Poison>,
        id: SegmentId,
        length: u64,
    ) -> Result<Self> {
        let file = files.open_to_write(id).await?;
        let wanted = DEDICATED_PAYLOAD + length;
        let failed = |error| Error::io("resume segment", file.path(), error);
        let found = file.file().len().await.map_err(failed)?;
        if found < wanted {
            return Err(Error::corrupt(
                file.path(),
                found,
                format!("it ends before byte {wanted}"),
            ));
        }
        file.file().set_len(wanted).await.map_err(failed)?;
        let abandon = Some(AbandonGuard::new(Arc::clone(&files), id));
        Ok(Self {
            files,
            poison,
            file,
            abandon,
            longer: false,
            named: Arc::new(AtomicBool::new(true)),
        })
    }

    /// The segment.
    pub fn file(&self) -> &Arc<SegmentFile> {
        &self.file
    }

    /// Writes `slices` at `offset` of the payload; the future owns all it needs.
    pub fn write(
        &self,
        offset: u64,
        slices: Vec<Bytes>,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let file = Arc::clone(&self.file);
        async move {
            let written = write_all(file.file(), DEDICATED_PAYLOAD + offset, slices).await;
            written.map_err(|error| Error::io("write segment", file.path(), error))
        }
    }

    /// Makes all written payload and the file's name durable; the future owns all it needs.
    pub fn sync(&self) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let (file, files) = (Arc::clone(&self.file), Arc::clone(&self.files));
        let (named, poison) = (Arc::clone(&self.named), Arc::clone(&self.poison));
        async move {
            let synced = file.file().sync_data().await;
            synced.map_err(|error| Error::io("sync segment", file.path(), error))?;
            if !named.load(Ordering::Acquire) {
                // Other segments' names share this sync, and a failed one does not tell which are lost.
                files.sync_dir().await.map_err(|error| poison.set(error))?;
                named.store(true, Ordering::Release);
            }
            Ok(())
        }
    }

    /// The payload shrank (rollback): the file may be longer than what will be written.
    pub fn went_back(&mut self) {
        self.longer = true;
    }

    /// Puts table and frame behind the payload and makes everything durable. The future owns all it needs, and must be
    /// seen to its end before anything else is written: what it started goes on.
    pub fn finish(
        &mut self,
        length: u64,
        digest: Digest,
        checksums: &[u32],
    ) -> impl Future<Output = Result<Extent>> + Send + 'static + use<> {
        let extent = Extent {
            volume: VolumeId::default(),
            segment: self.file.id(),
            offset: DEDICATED_PAYLOAD,
            length,
            layout: Layout::Trailing,
        };
        let (file, store, sync) = (Arc::clone(&self.file), self.files.store(), self.sync());
        let table = encode_table(checksums);
        // Behind a failure the file may reach further than the next attempt.
        let longer = std::mem::replace(&mut self.longer, true);
        async move {
            let (places, path) = (RecordPlaces::trailing(length), file.path());
            let frame = RecordFrame::new(store, digest, &extent, &table)
                .map_err(|what| Error::corrupt(path, places.frame, what.0))?;
            let end = DEDICATED_PAYLOAD + length;
            let gaps = (
                places.table - end,
                places.frame - places.table - table.len() as u64,
            );
            let slices = vec![zeros(gaps.0), table, zeros(gaps.1), frame.encode().into()];
            let written = write_all(file.file(), end, slices).await;
            written.map_err(|error| Error::io("finish segment", path, error))?;
            if longer {
                let cut = file.file().set_len(places.end).await;
                cut.map_err(|error| Error::io("cut segment", path, error))?;
            }
            sync.await?;
            Ok(extent)
        }
    }

    /// Hands the finished file over: it is unlinked unless the guard is told to keep it.
    pub fn take_guard(&mut self) -> AbandonGuard {
        match self.abandon.take() {
            Some(guard) => guard,
            None => unreachable!("a segment is handed over once"),
        }
    }

    /// The file stays although it is not finished: an upload log names it.
    pub fn leave(mut self) {
        if let Some(guard) = self.abandon.take() {
            guard.keep();
        }
    }
}

fn zeros(count: u64) -> Bytes {
    Bytes::from(vec![0; usize::try_from(count).unwrap_or_default()])
}
