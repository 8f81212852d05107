//! One open file of the backend.
//!
//! Owns: [`UringFile`], which lets the rings or the threads do each operation; [`suits_rings`], for which files there
//! is one. Refuses: how either does it.

use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;
use tokio::sync::oneshot;

use super::operation::{Operation, Task};
use super::policy::Action;
use super::rings::Rings;
use crate::buffer::Buffer;
use crate::io::threads::file::{ThreadFile, exceeds_file_size};
use crate::io::threads::pool::{Blocking, awaiting};
use crate::io::{Call, File, FileRef, IoFuture, IoResult, Mapping, Residency};

/// Types of the file systems whose files rings serve (`statfs(2)`): ext4, XFS, Btrfs, tmpfs.
const FILE_SYSTEMS: [u64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];

/// Returns whether rings serve a file of this file system.
pub(super) fn suits_rings(file: &ThreadFile) -> bool {
    let found = rustix::fs::fstatfs(file.handle().descriptor());
    let kind = found.map(|found| u64::try_from(found.f_type));
    matches!(kind, Ok(Ok(kind)) if FILE_SYSTEMS.contains(&kind))
}

#[derive(Debug)]
pub(super) struct UringFile {
    file: ThreadFile,
    rings: Arc<Rings>,
}

impl UringFile {
    /// Makes a file of one that was just opened. With `O_NONBLOCK`, which threads ignore for regular files, a ring
    /// would not wait for a file system that cannot tell whether it would have to.
    pub(super) fn new(file: ThreadFile, rings: Arc<Rings>) -> Self {
        let descriptor = file.handle().descriptor();
        let waiting = rustix::fs::fcntl_getfl(descriptor)
            .and_then(|flags| rustix::fs::fcntl_setfl(descriptor, flags - OFlags::NONBLOCK));
        // If it fails, such a file system's operations are done by the threads, after the ring has refused them.
        waiting.unwrap_or_default();
        Self { file, rings }
    }

    /// Returns whether the rings do an operation. An offset that is negative for the kernel would mean the position of
    /// the descriptor; the threads refuse it.
    fn by_ring(&self, call: Call, action: Action, offset: u64, length: usize) -> bool {
        i64::try_from(offset).is_ok() && self.rings.serve(call.class, action, length)
    }

    fn submit(&self, call: Call, offset: u64, task: Task) {
        self.rings.submit(Operation {
            call,
            file: self.file.handle().clone(),
            offset,
            task,
        });
    }

    fn write(&self, call: Call, offset: u64, slices: Vec<Bytes>, sync: bool) -> IoFuture<usize> {
        let (reply, result) = oneshot::channel();
        let task = Task::Write {
            slices,
            reply,
            sync,
        };
        self.submit(call, offset, task);
        let blocking = if sync {
            Blocking::Sync
        } else {
            Blocking::Transfer
        };
        awaiting(result, blocking)
    }

    /// Returns whether the rings do a write. One beyond the limit on file size is left to the threads, which refuse it.
    fn writes_by_ring(&self, call: Call, action: Action, offset: u64, slices: &[Bytes]) -> bool {
        let length = slices.iter().map(Bytes::len).sum();
        self.by_ring(call, action, offset, length) && !exceeds_file_size(offset, slices)
    }
}

impl File for UringFile {
    fn read_at(&self, call: Call, offset: u64, buffer: Buffer) -> IoFuture<(Buffer, usize)> {
        let action = Action::Read(self.file.handle().access());
        if !self.by_ring(call, action, offset, buffer.room()) {
            return self.file.read_at(call, offset, buffer);
        }
        let (reply, result) = oneshot::channel();
        self.submit(call, offset, Task::Read { buffer, reply });
        awaiting(result, Blocking::Transfer)
    }

    fn read_cached(&self, call: Call, offset: u64, buffer: &mut Buffer) -> IoResult<usize> {
        self.file.read_cached(call, offset, buffer)
    }

    fn dontcache(&self) -> Option<FileRef> {
        self.file.dontcache()
    }

    fn map_cached(&self, call: Call, offset: u64, length: usize) -> Option<Arc<dyn Mapping>> {
        self.file.map_cached(call, offset, length)
    }

    fn write_at(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        if self.writes_by_ring(call, Action::Write, offset, &slices) {
            return self.write(call, offset, slices, false);
        }
        self.file.write_at(call, offset, slices)
    }

    fn write_and_sync(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        if self.writes_by_ring(call, Action::WriteAndSync, offset, &slices) {
            return self.write(call, offset, slices, true);
        }
        self.file.write_and_sync(call, offset, slices)
    }

    fn sync_data(&self, call: Call) -> IoFuture<()> {
        if !self.by_ring(call, Action::Sync, 0, 0) {
            return self.file.sync_data(call);
        }
        let (reply, result) = oneshot::channel();
        self.submit(call, 0, Task::Sync { reply });
        awaiting(result, Blocking::Sync)
    }

    fn write_back(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.file.write_back(call, offset, length)
    }

    fn advise(&self, call: Call, offset: u64, length: u64, residency: Residency) -> IoFuture<()> {
        self.file.advise(call, offset, length, residency)
    }

    fn allocate(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.file.allocate(call, offset, length)
    }

    fn set_len(&self, call: Call, length: u64) -> IoFuture<()> {
        self.file.set_len(call, length)
    }

    fn len(&self, call: Call) -> IoFuture<u64> {
        self.file.len(call)
    }
}
