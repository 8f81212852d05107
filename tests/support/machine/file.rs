//! One open file of the simulated disk.

use std::io;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use tonnage_engine::io::Buffer;
use tonnage_engine::io::{
    Call, File, IoError, IoFuture, IoResult, OpenMode, Residency, UNCACHED_ALIGN_BYTES,
};

use super::disk::{DiskState, SimDisk};
use super::fault::{ENOSPC, OpKind};
use super::op::Op;
use super::state::{Data, Inode};

const EBADF: i32 = 9;
const EINVAL: i32 = 22;
/// The number of slices that Linux takes in one call.
const SLICES_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: Inode,
    mode: OpenMode,
}

impl SimFile {
    /// Creates a handle that the machine has counted already.
    pub(super) fn new(disk: SimDisk, path: PathBuf, inode: Inode, mode: OpenMode) -> Self {
        Self {
            disk,
            path,
            inode,
            mode,
        }
    }

    fn op(&self, call: Call, kind: OpKind) -> Op {
        Op::new(call, kind, &self.path)
    }

    /// Starts an operation that a file opened for reading rejects.
    fn change<T: Send + 'static>(
        &self,
        op: Op,
        effect: impl FnOnce(&mut DiskState) -> IoResult<(T, u64)> + Send + 'static,
    ) -> IoFuture<T> {
        let writable = matches!(self.mode, OpenMode::Write | OpenMode::CreateNew);
        self.disk.submit(op, move |state| {
            if !writable {
                return Err(io::Error::from_raw_os_error(EBADF).into());
            }
            effect(state)
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.close(self.inode);
    }
}

impl File for SimFile {
    fn read_at(&self, call: Call, offset: u64, mut buffer: Buffer) -> IoFuture<(Buffer, usize)> {
        let op = self.op(call, OpKind::Read).at(offset, buffer.room() as u64);
        let (inode, path) = (self.inode, self.path.clone());
        let uncached = self.mode == OpenMode::ReadUncached;
        let is_block = |bytes: u64| bytes.is_multiple_of(UNCACHED_ALIGN_BYTES);
        assert!(
            !uncached || (is_block(offset) && is_block(buffer.room() as u64)),
            "direct I/O of {} bytes at {offset}",
            buffer.room()
        );
        self.disk.submit(op, move |state| {
            let there = state.machine.files[inode]
                .live
                .read(offset, buffer.free_mut());
            let mut count = state.maybe_short(there);
            if uncached && count < there {
                let block = UNCACHED_ALIGN_BYTES as usize;
                count = (count / block * block).max(block).min(there);
            }
            state.maybe_flip(OpKind::Read, &path, &mut buffer.free_mut()[..count]);
            buffer.advance(count);
            Ok(((buffer, count), count as u64))
        })
    }

    fn read_cached(&self, _: Call, offset: u64, buffer: &mut Buffer) -> IoResult<usize> {
        self.disk.with_state(|state| {
            if state.is_stopped() || state.prng.percent(state.noise.would_block) {
                return Err(IoError::NotAttempted(io::ErrorKind::WouldBlock.into()));
            }
            let there = state.machine.files[self.inode]
                .live
                .read(offset, buffer.free_mut());
            let count = state.maybe_short(there);
            state.maybe_flip(OpKind::Read, &self.path, &mut buffer.free_mut()[..count]);
            buffer.advance(count);
            Ok(count)
        })
    }

    fn write_at(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        let mut bytes = BytesMut::new();
        let taken = slices.iter().take(SLICES_MAX);
        taken.for_each(|slice| bytes.extend_from_slice(slice));
        let op = self.op(call, OpKind::Write).at(offset, bytes.len() as u64);
        let (inode, bytes) = (self.inode, bytes.freeze());
        self.change(op, move |state| {
            let len = state.machine.files[inode].live.len();
            let end = offset + bytes.len() as u64;
            // A write across the end of the disk writes the part that fits.
            let missing = end.saturating_sub(len);
            let cut = missing - state.room(missing);
            let fits = (bytes.len() as u64).saturating_sub(cut) as usize;
            if fits == 0 && !bytes.is_empty() {
                return Err(io::Error::from_raw_os_error(ENOSPC).into());
            }
            let count = state.maybe_short(fits);
            if count > 0 {
                let bytes = bytes.slice(..count);
                state
                    .machine
                    .change_data(inode, Data::Write { offset, bytes });
            }
            Ok((count, count as u64))
        })
    }

    fn write_and_sync(&self, call: Call, offset: u64, slices: Vec<Bytes>) -> IoFuture<usize> {
        let whole: usize = slices.iter().map(Bytes::len).sum();
        // Two operations of the disk, between which it may stop.
        let write = self.write_at(call, offset, slices);
        let (disk, op, inode) = (
            self.disk.clone(),
            self.op(call, OpKind::SyncData).linked(),
            self.inode,
        );
        self.disk.chain(async move {
            let count = write.await?;
            if count == whole {
                sync(&disk, op, inode).await?;
            }
            Ok(count)
        })
    }

    fn sync_data(&self, call: Call) -> IoFuture<()> {
        sync(&self.disk, self.op(call, OpKind::SyncData), self.inode)
    }

    fn advise(&self, call: Call, offset: u64, length: u64, _: Residency) -> IoFuture<()> {
        let op = self.op(call, OpKind::Ask).at(offset, length);
        self.disk.submit(op, |_| Ok(((), 0)))
    }

    fn write_back(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        self.disk
            .submit(self.op(call, OpKind::Ask).at(offset, length), |_| {
                Ok(((), 0))
            })
    }

    fn allocate(&self, call: Call, offset: u64, length: u64) -> IoFuture<()> {
        let op = self.op(call, OpKind::Allocate).at(offset, length);
        let inode = self.inode;
        self.change(op, move |state| {
            if length == 0 {
                return Err(io::Error::from_raw_os_error(EINVAL).into());
            }
            let (len, end) = (state.machine.files[inode].live.len(), offset + length);
            state.check_room(end.saturating_sub(len))?;
            state.machine.change_data(inode, Data::Grow(end));
            Ok(((), length))
        })
    }

    fn set_len(&self, call: Call, length: u64) -> IoFuture<()> {
        let inode = self.inode;
        self.change(self.op(call, OpKind::SetLen).at(0, length), move |state| {
            let len = state.machine.files[inode].live.len();
            state.check_room(length.saturating_sub(len))?;
            state.machine.change_data(inode, Data::SetLen(length));
            Ok(((), length))
        })
    }

    fn len(&self, call: Call) -> IoFuture<u64> {
        let inode = self.inode;
        self.disk.submit(self.op(call, OpKind::Ask), move |state| {
            let len = state.machine.files[inode].live.len();
            Ok((len, len))
        })
    }
}

/// Starts a sync, which covers effects before this call.
fn sync(disk: &SimDisk, op: Op, inode: Inode) -> IoFuture<()> {
    let covers = disk.with_state(|state| state.machine.newest());
    disk.submit_or(
        op,
        move |state| {
            state.machine.sync_file(inode, covers, true);
            Ok(((), 0))
        },
        move |state| state.machine.sync_file(inode, covers, false),
    )
}
