//! What a ring owns, and what becomes of it when futures, files, the backend or the ring itself are gone.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::EventfdFlags;
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::file::UringFile;
use super::operation::{Operation, Task};
use super::policy::{Action, Table};
use super::queue::OPERATIONS;
use super::reactor::{Reactor, Shard, Shared};
use super::ring::{Ended, Ring};
use super::rings::Rings;
use crate::buffer::{Block, BlockOwner, Buffer};
use crate::io::threads::Threads;
use crate::io::threads::file::{Handle, ThreadFile};
use crate::io::{Class, ClassCount, File, Io as _, IoError, IoFuture, IoResult};
use crate::options::RINGS_MAX;

/// Far longer than anything here takes: a wait that would never end fails instead.
const NEVER: Duration = Duration::from_secs(30);

fn run<T>(future: IoFuture<T>) -> IoResult<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

fn rings() -> (Threads, Arc<Rings>) {
    let threads = Threads::start().unwrap();
    let rings = Rings::start(Arc::clone(threads.pool()), Table::All).unwrap();
    (threads, Arc::new(rings))
}

fn file(descriptor: impl Into<OwnedFd>, threads: &Threads, rings: &Arc<Rings>) -> UringFile {
    let file = ThreadFile::new(descriptor.into(), Arc::clone(threads.pool()));
    UringFile::new(file, Arc::clone(rings))
}

fn in_memory() -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    rustix::fs::memfd_create("test", flags).unwrap()
}

/// Reports when a buffer is free again.
#[derive(Debug)]
struct Owner(mpsc::Sender<()>);

impl BlockOwner for Owner {
    fn deliver(&mut self) {}

    fn return_block(&mut self, _: Block) {
        self.0.send(()).unwrap_or_default();
    }
}

/// A buffer of one byte.
fn owned_buffer(returned: &mpsc::Sender<()>) -> Buffer {
    Buffer::pooled(Block::new(1), 1, Box::new(Owner(returned.clone())))
}

/// Bytes that report when they are free.
struct Owned(mpsc::Sender<()>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        b"x"
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.send(()).unwrap_or_default();
    }
}

/// Returns a pipe that is full, and how many bytes it has.
fn full_pipe() -> (PipeReader, PipeWriter, usize) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    let count = std::iter::from_fn(|| writer.write(&[0]).ok()).sum();
    (reader, writer, count)
}

/// Guards: bytes are not free before their write has ended, also if future, file and backend are dropped. More writes
/// than a ring takes at a time all run, the last ones after the drop.
#[test]
fn dropped_writes_run_and_keep_their_bytes() {
    let (threads, rings) = rings();
    let (mut reader, writer, before) = full_pipe();
    let file = file(writer, &threads, &rings);
    let (told, returned) = mpsc::channel();
    let writes = 4 * 3 * OPERATIONS;
    for _ in 0..writes {
        let bytes = Bytes::from_owner(Owned(told.clone()));
        drop(file.write_at(Class::UploadWrite.call(), 0, vec![bytes]));
    }
    drop((file, rings, threads));
    assert!(returned.try_recv().is_err());
    let (counted, count) = mpsc::channel();
    let reading = std::thread::Builder::new().spawn(move || {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        counted.send(content.len())
    });
    reading.unwrap();
    for number in 1..=writes {
        let back = returned.recv_timeout(NEVER);
        assert!(back.is_ok(), "{number} of {writes}");
    }
    assert_eq!(count.recv_timeout(NEVER), Ok(before + writes));
}

/// Guards: the buffer of a read that the kernel has is not free before its end, also if future, file and backend are
/// dropped.
#[test]
fn a_dropped_read_keeps_its_buffer() {
    let (threads, rings) = rings();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (waiting, other) = (
        file(reader, &threads, &rings),
        file(in_memory(), &threads, &rings),
    );
    let (told, returned) = mpsc::channel();
    let call = Class::ForegroundRead.call();
    let reads: Vec<_> = (0..RINGS_MAX)
        .map(|_| waiting.read_at(call, 0, owned_buffer(&told)))
        .collect();
    // Rings take turns and begin in order, so once these have ended, those have begun.
    for _ in 0..RINGS_MAX {
        run(other.read_at(call, 0, Buffer::unpooled(1))).unwrap();
    }
    drop((reads, waiting, other, rings, threads));
    assert!(returned.try_recv().is_err());
    for _ in 0..RINGS_MAX {
        writer.write_all(b"x").unwrap();
        returned.recv_timeout(NEVER).unwrap();
    }
}

/// Guards: a read that nobody waits for any more is not begun, and its buffer is free.
#[test]
fn an_unwanted_read_is_not_begun() {
    let threads = Threads::start().unwrap();
    let shared = Arc::new(Shared::new(Arc::clone(threads.pool())));
    let shard = Arc::new(Shard::new(eventfd()));
    let reactor = Reactor::new(ring(), Arc::clone(&shard), shared);
    let (told, returned) = mpsc::channel();
    let (unwanted, result) = read_of(in_memory(), owned_buffer(&told));
    let (wanted, _waiting) = read_of(in_memory(), Buffer::unpooled(3));
    assert!(shard.submit(unwanted).is_none() && shard.submit(wanted).is_none());
    drop(result);
    let mut started = Vec::new();
    assert!(reactor.has_more(&mut Vec::new(), &mut started));
    assert_eq!(started.len(), 1);
    returned.recv_timeout(NEVER).unwrap();
}

/// Guards: a sync that the kernel did not begin is left to the threads, and one that it began is not, whether it is one
/// of its own or follows a write.
#[test]
fn only_a_sync_that_was_not_begun_may_be_repeated() {
    let (reply, _result) = oneshot::channel();
    let sync = operation_of(in_memory(), Task::Sync { reply });
    assert!(sync.may_hand_over(Errno::CANCELED));
    assert!(!sync.may_hand_over(Errno::INTR) && !sync.may_hand_over(Errno::IO));
    for (errno, is_left) in [(Errno::CANCELED, true), (Errno::IO, false)] {
        let (write, _result) = synced_write(in_memory());
        let (mut ring, weight) = (ring(), write.weight());
        ring.start(write, weight);
        assert!(ring.enter(Some(NEVER)).unwrap());
        // The write has ended, and its sync waits to be passed to the kernel.
        ring.take_ended(&mut Vec::new()).unwrap();
        let ended = ring.end(0, -errno.raw_os_error());
        assert_eq!(matches!(ended, Some(Ended::Written(.., 3))), is_left);
        assert_eq!(matches!(ended, Some(Ended::Unsynced(..))), !is_left);
    }
}

fn operation_of(descriptor: OwnedFd, task: Task) -> Operation {
    Operation {
        call: Class::Journal.call(),
        file: Handle::new(descriptor),
        offset: 0,
        task,
    }
}

/// Returns a write of `abc` that is followed by a sync.
fn synced_write(descriptor: OwnedFd) -> (Operation, oneshot::Receiver<IoResult<usize>>) {
    let (reply, result) = oneshot::channel();
    let task = Task::Write {
        slices: vec![Bytes::from_static(b"abc")],
        reply,
        sync: true,
    };
    (operation_of(descriptor, task), result)
}

fn read_of(descriptor: impl Into<OwnedFd>, buffer: Buffer) -> (Operation, Receiver) {
    let (reply, result) = oneshot::channel();
    let operation = Operation {
        call: Class::ForegroundRead.call(),
        file: Handle::new(descriptor.into()),
        offset: 0,
        task: Task::Read { buffer, reply },
    };
    (operation, result)
}

type Receiver = oneshot::Receiver<IoResult<(Buffer, usize)>>;

fn ring() -> Ring {
    Ring::new(eventfd(), 1).unwrap()
}

fn eventfd() -> Arc<OwnedFd> {
    Arc::new(rustix::event::eventfd(0, EventfdFlags::NONBLOCK).unwrap())
}

/// Guards: a ring that is dropped while the kernel has an operation answers it with an error, and frees neither its
/// buffer nor its file.
#[test]
fn what_the_kernel_has_is_never_freed() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (told, returned) = mpsc::channel();
    let (operation, result) = read_of(reader, owned_buffer(&told));
    let mut ring = ring();
    let weight = operation.weight();
    ring.start(operation, weight);
    // It waits for the pipe, so this ends with the limit.
    ring.enter(Some(Duration::from_millis(1))).unwrap();
    drop(ring);
    assert!(matches!(
        result.blocking_recv(),
        Ok(Err(IoError::Failed(_)))
    ));
    // The other end of the pipe is still open.
    writer.write_all(b"x").unwrap();
    assert!(returned.try_recv().is_err());
}

/// Guards: operations that a failed ring has not begun are done by the threads, and later ones too.
#[test]
fn a_failed_ring_leaves_its_operations_to_the_threads() {
    let threads = Threads::start().unwrap();
    let shared = Arc::new(Shared::new(Arc::clone(threads.pool())));
    let shard = Arc::new(Shard::new(eventfd()));
    let mut reactor = Reactor::new(ring(), Arc::clone(&shard), Arc::clone(&shared));
    let content = in_memory();
    rustix::io::pwrite(&content, b"abc", 0).unwrap();
    let read = || read_of(content.try_clone().unwrap(), Buffer::unpooled(3));
    let ((entered, first), (waiting, second), (late, third)) = (read(), read(), read());
    let weight = entered.weight();
    reactor.ring.start(entered, weight);
    assert!(shard.submit(waiting).is_none());
    reactor.give_up(Errno::AGAIN);
    assert!(shared.is_off());
    for result in [first, second] {
        let (buffer, count) = result.blocking_recv().unwrap().unwrap();
        assert_eq!((buffer.filled(), count), (&b"abc"[..], 3));
    }
    drop(shard.submit(late).expect("handed back"));
    third.blocking_recv().unwrap_err();
}

/// Guards: a write that was whole when its ring failed is synced by the threads, and not repeated, whether or not its
/// sync was queued already.
#[test]
fn a_failed_ring_leaves_a_sync_to_the_threads() {
    for is_queued in [false, true] {
        let threads = Threads::start().unwrap();
        let shared = Arc::new(Shared::new(Arc::clone(threads.pool())));
        let shard = Arc::new(Shard::new(eventfd()));
        let mut reactor = Reactor::new(ring(), shard, shared);
        let content = in_memory();
        let (operation, result) = synced_write(content.try_clone().unwrap());
        let weight = operation.weight();
        reactor.ring.start(operation, weight);
        assert!(reactor.ring.enter(Some(NEVER)).unwrap());
        if is_queued {
            reactor.ring.take_ended(&mut Vec::new()).unwrap();
        }
        rustix::io::pwrite(&content, b"xyz", 0).unwrap();
        reactor.give_up(Errno::AGAIN);
        assert_eq!(result.blocking_recv().unwrap().unwrap(), 3);
        let mut found = [0; 3];
        rustix::io::pread(&content, &mut found, 0).unwrap();
        assert_eq!(&found, b"xyz");
    }
}

/// Guards: if the kernel forbids an operation on one file, the threads do it, and the result is theirs. The rings
/// serve other files as before.
#[test]
fn a_forbidden_operation_is_left_to_the_threads() {
    let (threads, rings) = rings();
    let (sealed, other) = (in_memory(), in_memory());
    rustix::fs::fcntl_add_seals(&sealed, SealFlags::WRITE).unwrap();
    let call = Class::UploadWrite.call();
    let write = |file: &UringFile| run(file.write_at(call, 0, vec![Bytes::from_static(b"abc")]));
    let by_rings = || {
        rings
            .counts()
            .iter()
            .map(|count| count.operations)
            .sum::<u64>()
    };
    assert_eq!(
        write(&file(other.try_clone().unwrap(), &threads, &rings)).unwrap(),
        3
    );
    assert_eq!(by_rings(), 1);
    assert!(rings.serve(call.class, Action::Write, 3));
    let error = write(&file(sealed, &threads, &rings)).unwrap_err();
    assert!(matches!(error, IoError::Failed(_)));
    assert_eq!(
        error.cause().raw_os_error(),
        Some(Errno::PERM.raw_os_error())
    );
    assert!(rings.serve(call.class, Action::Write, 3));
    assert_eq!(write(&file(other, &threads, &rings)).unwrap(), 3);
    assert_eq!(by_rings(), 2);
}

/// Guards: a sync that fails is reported as such, also after a write that was whole, and no other sync is done.
#[test]
fn a_failed_sync_is_not_repeated() {
    let (threads, rings) = rings();
    let (_reader, writer) = std::io::pipe().unwrap();
    let file = file(writer, &threads, &rings);
    let call = Class::Journal.call();
    let error = run(file.sync_data(call)).unwrap_err();
    assert!(matches!(error, IoError::SyncFailed(_)), "{error:?}");
    let error = run(file.write_and_sync(call, 0, vec![Bytes::from_static(b"abc")])).unwrap_err();
    assert!(matches!(error, IoError::SyncFailed(_)), "{error:?}");
    let syncs = |counts: Vec<ClassCount>| {
        let journal = counts
            .into_iter()
            .find(|count| count.class == Class::Journal);
        journal.map(|count| (count.operations, count.failed))
    };
    assert_eq!(syncs(rings.counts()), Some((2, 2)));
    assert_eq!(syncs(threads.counts()), Some((0, 0)));
}
