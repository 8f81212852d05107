//! The threads of the backend: lanes, each with a queue and threads of its own.
//!
//! Owns: [`Pool`], which operation runs in which lane. Refuses: knowing what an operation does.
//!
//! An operation may block its thread for seconds on a busy drive. With one queue, a burst of uploads would put all
//! threads into fdatasync and delay everything else. With lanes, none can starve another; within a lane the class
//! decides the order, and of one class clients take turns. Each lane has one thread that is started with the backend
//! and stays.

use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::closing::{Closing, Unused};
use super::counts::OperationCounts;
use super::workers::Workers;
use crate::io::{Call, Class, ClassCount, IoError, IoFuture, IoResult};
use crate::vocabulary::ClientId;

/// Most threads for the journal, for small blobs, and for the directory syncs that both wait for.
const COMMIT_THREADS: usize = 6;
/// Most threads for reads of clients, cold opens included.
const READ_THREADS: usize = 32;
/// Most threads for bytes of large uploads.
const UPLOAD_THREADS: usize = 16;
/// Most threads that wait until bytes of large uploads are on the drive. So no more windows are queued there, unless
/// the kernel writes dirty pages by itself.
const UPLOAD_DRIVE_THREADS: usize = 4;
/// Most threads for syncs of large uploads.
const UPLOAD_SYNC_THREADS: usize = 8;
/// Most threads for names: listing, removing, examining.
const NAME_THREADS: usize = 8;
/// Most threads for checkpoints, and other work that no client waits for.
const BACKGROUND_THREADS: usize = 4;
/// Most threads for closing files.
const CLOSE_THREADS: usize = 2;

/// How long an operation may block its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::io) enum Blocking {
    /// While bytes are transferred.
    Transfer,
    /// Until written bytes are on the drive.
    Drive,
    /// Until the file system or the drive is done: a sync; space reserved or freed.
    Sync,
}

/// All lanes. Dropping it closes them; queued operations still run.
#[derive(Debug)]
pub(in crate::io) struct Pool {
    commit: Workers,
    read: Workers,
    upload: Workers,
    upload_drive: Workers,
    upload_sync: Workers,
    names: Workers,
    background: Workers,
    close: Workers,
    counts: Arc<OperationCounts>,
    mapped: OperationCounts,
    closing: Arc<Closing>,
}

impl Pool {
    /// Starts one thread for each lane.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(in crate::io) fn start() -> io::Result<Self> {
        Ok(Self {
            commit: Workers::start_prompt("tonnage-commit", 1, COMMIT_THREADS)?,
            read: Workers::start("tonnage-read", 1, READ_THREADS)?,
            upload: Workers::start("tonnage-upload", 1, UPLOAD_THREADS)?,
            upload_drive: Workers::start("tonnage-drive", 1, UPLOAD_DRIVE_THREADS)?,
            upload_sync: Workers::start("tonnage-sync", 1, UPLOAD_SYNC_THREADS)?,
            names: Workers::start("tonnage-names", 1, NAME_THREADS)?,
            background: Workers::start("tonnage-idle", 1, BACKGROUND_THREADS)?,
            close: Workers::start("tonnage-close", 1, CLOSE_THREADS)?,
            counts: Arc::new(OperationCounts::new("threads")),
            mapped: OperationCounts::new("mapped"),
            closing: Arc::default(),
        })
    }

    fn lane(&self, class: Class, blocking: Blocking) -> &Workers {
        match (class, blocking) {
            (Class::Journal | Class::CommitData, _) | (Class::Directory, Blocking::Sync) => {
                &self.commit
            }
            (Class::ForegroundRead, _) => &self.read,
            (Class::UploadWrite, Blocking::Transfer) => &self.upload,
            (Class::UploadWrite, Blocking::Drive) => &self.upload_drive,
            (Class::UploadWrite, Blocking::Sync) => &self.upload_sync,
            (Class::Directory, Blocking::Transfer | Blocking::Drive) => &self.names,
            (Class::Background, _) => &self.background,
        }
    }

    /// Queues `operation` immediately and returns a future of its result.
    pub(in crate::io) fn run<T: Send + 'static>(
        &self,
        call: Call,
        blocking: Blocking,
        operation: impl FnOnce() -> IoResult<T> + Send + 'static,
    ) -> IoFuture<T> {
        let (done, result) = oneshot::channel();
        self.run_into(call, blocking, done, operation);
        awaiting(result, blocking)
    }

    /// Queues `operation` immediately; its result goes to `done`.
    pub(in crate::io) fn run_into<T: Send + 'static>(
        &self,
        call: Call,
        blocking: Blocking,
        done: oneshot::Sender<IoResult<T>>,
        operation: impl FnOnce() -> IoResult<T> + Send + 'static,
    ) {
        self.submit(call, blocking, move |counts| {
            let result = operation();
            counts.count(call.class, &result);
            // The caller may have dropped its future; the operation and its buffers end here then.
            drop(done.send(result));
        });
    }

    /// Queues a read immediately and returns a future of its result, as [`Pool::run_read_into`] does.
    pub(in crate::io) fn run_read<T: Send + 'static>(
        &self,
        call: Call,
        read: impl FnOnce() -> IoResult<T> + Send + 'static,
    ) -> IoFuture<T> {
        let (done, result) = oneshot::channel();
        self.run_read_into(call, done, read);
        awaiting(result, Blocking::Transfer)
    }

    /// Queues a read immediately; its result goes to `done`. If the caller drops its future before the read begins, the
    /// drive reads nothing for it.
    pub(in crate::io) fn run_read_into<T: Send + 'static>(
        &self,
        call: Call,
        done: oneshot::Sender<IoResult<T>>,
        read: impl FnOnce() -> IoResult<T> + Send + 'static,
    ) {
        self.submit(call, Blocking::Transfer, move |counts| {
            if !done.is_closed() {
                let result = read();
                counts.count(call.class, &result);
                drop(done.send(result));
            }
        });
    }

    fn submit(
        &self,
        call: Call,
        blocking: Blocking,
        operation: impl FnOnce(&OperationCounts) + Send + 'static,
    ) {
        let (urgency, counts) = (call.class as u8, Arc::clone(&self.counts));
        let lane = self.lane(call.class, blocking);
        lane.submit(urgency, call.client, move || operation(&counts));
    }

    /// Counts a window that was mapped, which needs no thread of the pool.
    pub(super) fn count_mapped(&self, class: Class) {
        self.mapped.count(class, &Ok(()));
    }

    /// Returns the number of operations so far, by class.
    pub(super) fn counts(&self) -> Vec<ClassCount> {
        let mut counts = self.counts.read();
        let mapped = self.mapped.read().into_iter();
        // Only clients' reads are mapped.
        counts.extend(mapped.filter(|count| count.class == Class::ForegroundRead));
        counts
    }

    /// Closes a file that is no longer used, in a lane of its own: closing a large removed file frees its space, which
    /// may take seconds.
    pub(in crate::io) fn close(&self, unused: Unused) {
        self.closing.add(unused);
        let closing = Arc::clone(&self.closing);
        self.close.submit(0, ClientId::ENGINE, move || {
            closing.close_one();
        });
    }

    /// Returns a receiver that resolves when all files passed to [`Pool::close`] are closed. Runs in the same lane.
    pub(super) fn closed(&self) -> oneshot::Receiver<()> {
        let (done, closed) = oneshot::channel();
        let closing = Arc::clone(&self.closing);
        self.close.submit(0, ClientId::ENGINE, move || {
            closing.close_all();
            done.send(()).unwrap_or_default();
        });
        closed
    }

    /// Returns the files that wait to be closed.
    pub(super) fn closing(&self) -> &Closing {
        &self.closing
    }
}

/// Returns a future of the result that is sent to `result`.
pub(in crate::io) fn awaiting<T: Send + 'static>(
    result: oneshot::Receiver<IoResult<T>>,
    blocking: Blocking,
) -> IoFuture<T> {
    Box::pin(async move {
        match result.await {
            Ok(result) => result,
            // The operation panicked. Whether a sync succeeded is unknown.
            Err(lost) if blocking == Blocking::Sync => {
                Err(IoError::SyncFailed(io::Error::other(lost)))
            }
            Err(lost) => Err(io::Error::other(lost).into()),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;

    /// Far longer than anything here takes: a wait that would never end fails instead.
    const NEVER: Duration = Duration::from_secs(30);

    /// Guards: an operation whose future is dropped still runs, and keeps what it owns until its end.
    #[test]
    fn a_dropped_future_does_not_drop_the_operation() {
        let pool = Pool::start().unwrap();
        let (open, gate) = mpsc::channel::<()>();
        let (told, ends) = mpsc::channel();
        let owned = Arc::new(());
        let held = Arc::clone(&owned);
        drop(
            pool.run(Class::Background.call(), Blocking::Transfer, move || {
                gate.recv_timeout(2 * NEVER).unwrap();
                told.send(Arc::strong_count(&held)).unwrap();
                Ok(())
            }),
        );
        drop(pool);
        open.send(()).unwrap();
        assert_eq!(ends.recv_timeout(NEVER).unwrap(), 2);
    }

    /// Guards: a read whose future is dropped before it begins is not done, so the drive reads nothing that no request
    /// needs.
    #[test]
    fn a_read_that_nobody_waits_for_is_not_begun() {
        let pool = Pool::start().unwrap();
        let (told, ends) = mpsc::channel();
        let (done, result) = oneshot::channel();
        drop(result);
        pool.run_read_into(Class::ForegroundRead.call(), done, move || {
            told.send(()).unwrap_or_default();
            Ok(())
        });
        let end = ends.recv_timeout(NEVER);
        assert_eq!(end, Err(mpsc::RecvTimeoutError::Disconnected));
    }

    /// Guards: files are closed in a lane of their own, so closing large ones delays nothing else, and can be waited
    /// for.
    #[test]
    fn files_are_closed_in_a_lane_of_their_own() {
        let pool = Pool::start().unwrap();
        let (open, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for (class, blocking) in every_kind() {
            for _ in 0..READ_THREADS {
                let gate = Arc::clone(&gate);
                drop(pool.run(class.call(), blocking, move || {
                    // Ends when the sender is dropped.
                    gate.lock().recv().unwrap_or_default();
                    Ok(())
                }));
            }
        }
        let (closed, mut peer) = UnixStream::pair().unwrap();
        pool.close(Unused::new(Arc::new(closed.into()), None));
        pool.closed().blocking_recv().unwrap();
        peer.set_nonblocking(true).unwrap();
        // The end of the stream: its other side is closed.
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
        drop(open);
    }

    fn every_kind() -> impl Iterator<Item = (Class, Blocking)> {
        let kinds = Class::ALL.map(|class| {
            [Blocking::Transfer, Blocking::Drive, Blocking::Sync].map(|blocking| (class, blocking))
        });
        kinds.into_iter().flatten()
    }

    /// Guards: slow syncs of large uploads, more of them than there are threads, delay nothing else: no frame, small
    /// blob, read, cold open, removal, directory sync or byte of another upload.
    #[test]
    fn syncs_of_uploads_keep_nothing_else_waiting() {
        let pool = Pool::start().unwrap();
        let mut gates = Vec::new();
        for _ in 0..16 {
            let (open, gate) = mpsc::channel::<()>();
            drop(
                pool.run(Class::UploadWrite.call(), Blocking::Sync, move || {
                    gate.recv_timeout(2 * NEVER).unwrap();
                    Ok(())
                }),
            );
            gates.push(open);
        }
        let (told, ran) = mpsc::channel();
        let others = every_kind().filter(|other| *other != (Class::UploadWrite, Blocking::Sync));
        let mut waiting = 0;
        for (class, blocking) in others {
            let told = told.clone();
            drop(pool.run(class.call(), blocking, move || {
                told.send((class, blocking)).unwrap();
                Ok(())
            }));
            waiting += 1;
        }
        assert_eq!(waiting, 17);
        for _ in 0..waiting {
            ran.recv_timeout(NEVER).unwrap();
        }
        for gate in gates {
            gate.send(()).unwrap();
        }
    }

    /// Guards: where a frame of the journal, a small blob and a directory wait for the same threads, they run in this
    /// order.
    #[test]
    fn the_journal_is_the_first_of_its_lane() {
        let pool = Pool::start().unwrap();
        let (started, starts) = mpsc::channel();
        let gated = |_| {
            let (open, gate) = mpsc::channel::<()>();
            let started = started.clone();
            drop(pool.run(Class::Journal.call(), Blocking::Sync, move || {
                started.send(()).unwrap();
                gate.recv_timeout(2 * NEVER).unwrap_or_default();
                Ok(())
            }));
            open
        };
        let gates: Vec<_> = (0..COMMIT_THREADS).map(gated).collect();
        for _ in &gates {
            starts.recv_timeout(NEVER).unwrap();
        }
        let (told, ran) = mpsc::channel();
        for class in [Class::Directory, Class::CommitData, Class::Journal] {
            let told = told.clone();
            drop(pool.run(class.call(), Blocking::Sync, move || {
                told.send(class).unwrap();
                Ok(())
            }));
        }
        // One thread runs all three.
        gates[0].send(()).unwrap();
        let order = [(); 3].map(|()| ran.recv_timeout(NEVER).unwrap());
        assert_eq!(order, [Class::Journal, Class::CommitData, Class::Directory]);
    }
}
