//! The appenders of shared segments.
//!
//! Owns: the tasks that write small blobs, many in one write and one sync; the change to the next segment. Refuses:
//! appending to a segment from before the last open, because recovery seals what it finds; the order of waiting blobs
//! (`append_queue`).
//!
//! There are three appenders, each with a segment of its own. So the smallest blobs never wait for writes of megabytes,
//! and neither waits for blobs that compaction moves.
//!
//! Invariants: records follow each other without gaps. An extent is returned only after the sync that covers it. Bytes
//! at or after the good offset belong to no extent, and may be written again.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::append_queue::AppendQueue;
use super::files::{SegmentFile, SegmentFiles};
use super::ids::SegmentIds;
use super::in_use::{SegmentInUse, SegmentsInUse};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Layout, VolumeId};
use crate::format::checksum::encode_table;
use crate::format::record::{RECORD_ALIGN, RecordFrame, RecordPlaces, pad64};
use crate::format::segment::{HEADER_BYTES, SegmentClass};
use crate::io::exact::write_all_and_sync;
use crate::io::{Class, IoError};
use crate::options::Options;
use crate::poison::Poison;
use crate::sync::oneshot;

/// Largest blob of the segments for small blobs, in bytes.
const SMALL_BYTES: u64 = 64 << 10;
/// Blobs that an appender orders among each other.
const ORDERED_BLOBS_MAX: usize = 1024;
/// Blobs that may wait in the channel beyond these; further senders wait for room.
const QUEUE_BLOBS: usize = 1024;

/// A small blob, hashed.
#[derive(Debug, Clone)]
pub(crate) struct SmallBlob {
    /// Its bytes, in pieces.
    pub payload: Vec<Bytes>,
    /// Number of bytes of all pieces.
    pub length: u64,
    /// Their digest.
    pub digest: Digest,
    /// Their chunk checksums.
    pub checksums: Vec<u32>,
}

/// The channels to the appending tasks. Cheap to clone; the tasks end when the last clone drops.
#[derive(Debug, Clone)]
pub(crate) struct Appender {
    small: mpsc::Sender<Request>,
    large: mpsc::Sender<Request>,
    moved: mpsc::Sender<Request>,
}

/// A blob that was written.
#[derive(Debug)]
pub(crate) struct Appended {
    /// Where its bytes are.
    pub extent: Extent,
    /// Keeps its segment from being removed before the blob is committed.
    pub in_use: Arc<SegmentInUse>,
}

#[derive(Debug)]
enum Request {
    Append(AppendRequest),
    /// Writes what follows into another segment, and answers.
    Seal(oneshot::Sender<()>),
}

#[derive(Debug)]
struct AppendRequest {
    blob: SmallBlob,
    done: oneshot::Sender<Result<Appended>>,
}

/// Who waits for the writes of an appender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    Commit,
    Background,
}

impl Appender {
    /// Starts the tasks. Each creates its first segment when its first blob comes.
    pub(crate) fn start(
        files: &Arc<SegmentFiles>,
        ids: &Arc<SegmentIds>,
        in_use: &Arc<SegmentsInUse>,
        poison: &Arc<Poison>,
        options: &Options,
    ) -> Self {
        let spawn = &files.env().spawn;
        let start = |name, urgency| {
            let (queue, jobs) = mpsc::channel(QUEUE_BLOBS);
            let task = Task {
                files: Arc::clone(files),
                ids: Arc::clone(ids),
                in_use: Arc::clone(in_use),
                poison: Arc::clone(poison),
                shared_segment_bytes: options.shared_segment_bytes,
                urgency,
                active: None,
            };
            spawn.spawn(name, Box::pin(task.run(jobs)));
            queue
        };
        Self {
            small: start("append small blobs", Urgency::Commit),
            large: start("append larger blobs", Urgency::Commit),
            moved: start("append moved blobs", Urgency::Background),
        }
    }

    /// Writes a blob into a shared segment; returns once it is durable.
    pub(crate) async fn append(&self, blob: SmallBlob) -> Result<Appended> {
        let queue = if blob.length <= SMALL_BYTES {
            &self.small
        } else {
            &self.large
        };
        append_to(queue, blob).await
    }

    /// Writes a blob of another segment into one for moved blobs; returns once it is durable.
    pub(crate) async fn append_moved(&self, blob: SmallBlob) -> Result<Appended> {
        append_to(&self.moved, blob).await
    }

    /// Makes every appender continue in another segment. The present ones are released once all that was written to
    /// them is committed or dropped.
    pub(crate) async fn seal(&self) -> Result<()> {
        for queue in [&self.small, &self.large, &self.moved] {
            let (done, sealed) = oneshot::channel();
            let sent = queue.send(Request::Seal(done)).await;
            sent.map_err(|_closed| Error::Closed)?;
            sealed.await.map_err(|_gone| Error::Closed)?;
        }
        Ok(())
    }
}

async fn append_to(queue: &mpsc::Sender<Request>, blob: SmallBlob) -> Result<Appended> {
    let (done, result) = oneshot::channel();
    if queue
        .send(Request::Append(AppendRequest { blob, done }))
        .await
        .is_err()
    {
        return Err(Error::Closed);
    }
    result.await.unwrap_or(Err(Error::Closed))
}

struct Task {
    files: Arc<SegmentFiles>,
    ids: Arc<SegmentIds>,
    in_use: Arc<SegmentsInUse>,
    poison: Arc<Poison>,
    shared_segment_bytes: u64,
    urgency: Urgency,
    active: Option<Active>,
}

/// The segment that a task appends to.
struct Active {
    file: Arc<SegmentFile>,
    in_use: Arc<SegmentInUse>,
    /// The end of the last record that was synced, padding included.
    good: u64,
}

/// The content of one write.
struct BatchLayout {
    slices: Vec<Bytes>,
    extents: Vec<Extent>,
    end: u64,
}

impl Task {
    async fn run(mut self, mut jobs: mpsc::Receiver<Request>) {
        let mut waiting = AppendQueue::new();
        loop {
            if waiting.len() == 0 {
                let Some(first) = jobs.recv().await else {
                    return;
                };
                self.accept(first, &mut waiting);
            }
            while waiting.len() < ORDERED_BLOBS_MAX
                && let Ok(job) = jobs.try_recv()
            {
                self.accept(job, &mut waiting);
            }
            let batch = waiting.take_batch();
            if batch.is_empty() {
                continue;
            }
            let mut blobs = Vec::with_capacity(batch.len());
            let mut waiters = Vec::with_capacity(batch.len());
            for job in batch {
                blobs.push(job.blob);
                waiters.push(job.done);
            }
            answer(waiters, self.write(blobs).await);
        }
    }

    fn accept(&mut self, request: Request, waiting: &mut AppendQueue<AppendRequest>) {
        match request {
            Request::Append(job) => waiting.push(job.blob.length, job),
            Request::Seal(done) => {
                // Between two writes, so no bytes are being written to it.
                self.active = None;
                done.send(()).unwrap_or_default();
            }
        }
    }

    /// Writes and syncs one batch.
    async fn write(&mut self, blobs: Vec<SmallBlob>) -> Result<Vec<Appended>> {
        self.poison.check()?;
        let size: u64 = blobs
            .iter()
            .map(|blob| RecordPlaces::leading(0, blob.length).end + RECORD_ALIGN)
            .sum();
        let active = match self.active.take() {
            Some(active) if active.good + size <= self.shared_segment_bytes => active,
            _ => self.create().await?,
        };
        let layout = lay_out(blobs, &active.file, active.good, self.files.store())?;
        let file = Arc::clone(&active.file);
        let (to, at, slices) = (file.file(), active.good, layout.slices);
        let written = match self.urgency {
            Urgency::Commit => write_all_and_sync(to, Class::CommitData.call(), at, slices).await,
            Urgency::Background => {
                write_all_and_sync(to, Class::Background.call(), at, slices).await
            }
        };
        if let Err(error) = written {
            let sync_failed = matches!(error, IoError::SyncFailed(_));
            let too_large = error.kind() == ErrorKind::FileTooLarge;
            let error = Error::io("append to segment", file.path(), error);
            if sync_failed {
                return Err(self.poison.set(error));
            }
            // A full disk, or a write that was not attempted, says nothing about the segment. Any other error seals it.
            // So does a limit on the size of a file, because a new file has room.
            if error.is_no_space() || (error.is_not_attempted() && !too_large) {
                self.active = Some(active);
            } else if active.good == HEADER_BYTES as u64 {
                self.files.retire(active.file.id());
            }
            return Err(error);
        }
        let extents = layout.extents.into_iter();
        let appended = extents.map(|extent| Appended {
            extent,
            in_use: Arc::clone(&active.in_use),
        });
        let appended = appended.collect();
        self.active = Some(Active {
            good: layout.end,
            ..active
        });
        Ok(appended)
    }

    /// Creates the next segment: header and name are durable before the first record.
    async fn create(&self) -> Result<Active> {
        let id = self.ids.take().await?;
        let file = self.files.create(id, SegmentClass::Shared).await?;
        if let Err(error) = self.files.sync_dir(Class::Directory.call()).await {
            self.files.retire(id);
            return Err(error);
        }
        Ok(Active {
            file,
            in_use: self.in_use.enter(id),
            good: HEADER_BYTES as u64,
        })
    }
}

/// Places records one after the other from `start`.
fn lay_out(
    blobs: Vec<SmallBlob>,
    file: &SegmentFile,
    start: u64,
    store: [u8; 16],
) -> Result<BatchLayout> {
    static ZEROS: [u8; 64] = [0; 64];
    let zeros = |from: u64, to: u64| {
        Bytes::from_static(
            ZEROS
                .get(..usize::try_from(to - from).unwrap_or_default())
                .unwrap_or_default(),
        )
    };
    let mut layout = BatchLayout {
        slices: Vec::new(),
        extents: Vec::with_capacity(blobs.len()),
        end: start,
    };
    for blob in blobs {
        let places = RecordPlaces::leading(layout.end, blob.length);
        let extent = Extent {
            volume: VolumeId::default(),
            segment: file.id(),
            offset: places.payload,
            length: blob.length,
            layout: Layout::Leading,
        };
        let table = encode_table(&blob.checksums);
        let frame = RecordFrame::new(store, blob.digest, &extent, &table)
            .map_err(|what| Error::corrupt(file.path(), places.frame, what.0))?;
        let table_end = places.table + table.len() as u64;
        layout.slices.push(Bytes::from(frame.encode()));
        layout.slices.push(table);
        layout.slices.push(zeros(table_end, places.payload));
        layout.slices.extend(blob.payload);
        layout.end = pad64(places.end);
        layout.slices.push(zeros(places.end, layout.end));
        layout.extents.push(extent);
    }
    Ok(layout)
}

/// Sends every waiter its result. The record of a waiter that was dropped is garbage, which compaction finds.
fn answer(waiters: Vec<oneshot::Sender<Result<Appended>>>, written: Result<Vec<Appended>>) {
    match written {
        Ok(all) => {
            for (waiter, appended) in waiters.into_iter().zip(all) {
                drop(waiter.send(Ok(appended)));
            }
        }
        Err(error) => {
            for waiter in waiters {
                drop(waiter.send(Err(error.clone())));
            }
        }
    }
}
