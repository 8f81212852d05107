//! One ring of the kernel, and the operations that it has.
//!
//! Owns: [`Ring`]: entries, completions, and the memory that the kernel uses meanwhile. Everything that is unsafe is
//! here. Refuses: order and bounds (`queue`), results (`operation`), threads (`reactor`).
//!
//! Invariants:
//! - An entry names only memory and a descriptor of its slot. The slot stays until the entry's completion has arrived,
//!   or until the entry is known never to reach the kernel. If a ring is dropped before, it is leaked.
//! - A slot has at most one entry. A write that is followed by a sync has two, one after the other.
//! - Only the thread that created a ring uses it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};
use rustix::io::Errno;

use super::operation::{Operation, Task};
use super::queue::{OPERATIONS, Weight};
use crate::io::threads::file::SLICES_MAX;

/// Entries of a ring: enough for each operation and the one that waits for wake-ups. There are twice as many places for
/// completions, so these cannot overflow.
const ENTRIES: u32 = 128;
const _: () = assert!(OPERATIONS < ENTRIES as usize);
/// Most bytes of one transfer in Linux (`MAX_RW_COUNT`).
const TRANSFER_MAX: usize = 0x7fff_f000;
/// The entry that waits for wake-ups, among those of slots.
const WAKE: u64 = u64::MAX;

/// An operation that the kernel has, and the memory of its entry.
#[derive(Debug)]
struct Slot {
    operation: Operation,
    weight: Weight,
    vectors: Vec<libc::iovec>,
    /// The count of a write that is being synced.
    written: Option<usize>,
}

/// Slots by their number. Dropping it leaks those that are taken, because the kernel may still use their memory.
#[derive(Debug)]
struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
}

impl Drop for Slots {
    fn drop(&mut self) {
        let taken = self.slots.drain(..).flatten();
        for slot in taken {
            let Slot {
                operation, vectors, ..
            } = slot;
            Box::leak(Box::new((operation.abandon(), vectors)));
        }
    }
}

/// What an operation is, now that the kernel has ended an entry of it.
#[derive(Debug)]
pub(super) enum Ended {
    /// Done: the result of the transfer or of the sync.
    Done(Operation, Weight, Result<usize, Errno>),
    /// A write whose bytes are written, and whose sync failed.
    Unsynced(Operation, Weight, Errno),
    /// A write whose bytes are written, their count, and whose sync was not begun, because the ring was closed or the
    /// kernel had no worker. The threads must sync it.
    Written(Operation, Weight, usize),
}

/// A ring with its slots.
pub(super) struct Ring {
    kernel: IoUring,
    slots: Slots,
    /// Entries that the kernel has not taken yet, in their order.
    queued: VecDeque<u64>,
    wakes: Arc<OwnedFd>,
    wake_is_armed: bool,
    /// Set once no entry may be passed to the kernel any more.
    is_closed: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("under_way", &self.under_way())
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// Creates a ring that is used by this thread only; `wakes` is the eventfd by which other threads wake it.
    pub(super) fn new(wakes: Arc<OwnedFd>, workers: u32) -> io::Result<Self> {
        let kernel = create()?;
        if !kernel.params().is_feature_ext_arg() || !kernel.params().is_feature_nodrop() {
            return Err(Errno::NOSYS.into());
        }
        // Refused before Linux 5.15, where the number of operations that block is the bound.
        let bounded = kernel
            .submitter()
            .register_iowq_max_workers(&mut [workers, workers]);
        bounded.or_else(|refused| match refused.raw_os_error() {
            Some(libc::EINVAL) => Ok(()),
            _ => Err(refused),
        })?;
        Ok(Self {
            kernel,
            slots: Slots {
                slots: (0..OPERATIONS).map(|_| None).collect(),
                free: (0..OPERATIONS).rev().collect(),
            },
            queued: VecDeque::new(),
            wakes,
            wake_is_armed: false,
            is_closed: false,
        })
    }

    /// Returns the number of operations that it has.
    pub(super) fn under_way(&self) -> usize {
        self.slots.slots.len() - self.slots.free.len()
    }

    /// Queues an operation for the next [`Ring::enter`]. The caller keeps to the bound of operations.
    pub(super) fn start(&mut self, operation: Operation, weight: Weight) {
        let number = self.slots.free.pop();
        let Some(number) = number else {
            unreachable!("more operations than slots");
        };
        let slot = Slot {
            vectors: vectors(&operation),
            operation,
            weight,
            written: None,
        };
        let Some(place) = self.slots.slots.get_mut(number) else {
            unreachable!("a slot beyond the last");
        };
        let entry = place.insert(slot).entry();
        self.push(entry, number as u64);
    }

    fn push(&mut self, entry: squeue::Entry, number: u64) {
        assert!(!self.is_closed, "the ring takes no entries any more");
        let entry = entry.user_data(number);
        #[expect(unsafe_code, reason = "the kernel uses what the entry names")]
        // SAFETY: all that the entry names belongs to the slot `number` (or, for `WAKE`, is the descriptor of this
        // ring). A slot is removed only when its completion has arrived or the entry was retracted, and is leaked if
        // the ring is dropped before. Its memory does not move: it is behind the pointers of a buffer, of `Bytes` and
        // of a `Vec` that is not changed.
        let pushed = unsafe { self.kernel.submission().push(&entry) };
        assert!(pushed.is_ok(), "there is an entry for each slot");
        self.queued.push_back(number);
    }

    /// Passes all queued entries to the kernel, and waits until something ends, a wake-up comes, or `limit` is over.
    /// Returns false if the time is over.
    pub(super) fn enter(&mut self, limit: Option<Duration>) -> Result<bool, Errno> {
        if !self.wake_is_armed {
            let readable = u32::try_from(libc::POLLIN).unwrap_or_default();
            let entry = opcode::PollAdd::new(Fd(self.wakes.as_raw_fd()), readable).build();
            self.push(entry, WAKE);
            self.wake_is_armed = true;
        }
        let limit = limit.map(Timespec::from);
        let mut arguments = SubmitArgs::new();
        if let Some(limit) = &limit {
            arguments = arguments.timespec(limit);
        }
        let entered = self.kernel.submitter().submit_with_args(1, &arguments);
        let mut queue = self.kernel.submission();
        queue.sync();
        let left = queue.len();
        drop(queue);
        while self.queued.len() > left {
            self.queued.pop_front();
        }
        waited(entered)
    }

    /// Waits as [`Ring::enter`] does, and passes nothing to the kernel.
    pub(super) fn wait(&mut self, limit: Option<Duration>) -> Result<bool, Errno> {
        let limit = limit.map(Timespec::from);
        let mut arguments = SubmitArgs::new();
        if let Some(limit) = &limit {
            arguments = arguments.timespec(limit);
        }
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        let submitter = self.kernel.submitter();
        #[expect(unsafe_code, reason = "the safe call would pass queued entries on")]
        // SAFETY: the flags say that the argument is this structure, which lives until the call returns.
        let entered = unsafe { submitter.enter(0, 1, flags.bits(), Some(&arguments)) };
        waited(entered)
    }

    /// Takes the operations that the kernel has ended.
    ///
    /// # Errors
    /// The kernel refuses to wait for wake-ups. What has ended is taken all the same.
    pub(super) fn take_ended(&mut self, ended: &mut Vec<Ended>) -> Result<(), Errno> {
        let mut woken = Ok(());
        let completions: Vec<(u64, i32)> = self
            .kernel
            .completion()
            .map(|completion| (completion.user_data(), completion.result()))
            .collect();
        for (number, result) in completions {
            if number == WAKE {
                self.wake_is_armed = false;
                // Not readable if another wake-up was read with this one.
                rustix::io::read(&self.wakes, &mut [0; 8]).unwrap_or_default();
                if result < 0 && ![-libc::ECANCELED, -libc::EINTR].contains(&result) {
                    woken = Err(Errno::from_raw_os_error(-result));
                }
            } else {
                ended.extend(self.end(number, result));
            }
        }
        woken
    }

    /// Ends an entry. `None` if the operation needs another one.
    pub(super) fn end(&mut self, number: u64, result: i32) -> Option<Ended> {
        let at = usize::try_from(number).ok();
        let place = at.and_then(|at| self.slots.slots.get_mut(at));
        let (Some(at), Some(place)) = (at, place) else {
            unreachable!("a completion of no slot");
        };
        let Some(slot) = place.as_mut() else {
            unreachable!("a completion of an empty slot");
        };
        let done = usize::try_from(result).map_err(|_negative| Errno::from_raw_os_error(-result));
        let must_sync = done.is_ok_and(|count| slot.must_sync(count));
        if must_sync && !self.is_closed {
            slot.written = done.ok();
            let entry = slot.entry();
            self.push(entry, number);
            return None;
        }
        let slot = place.take()?;
        self.slots.free.push(at);
        let (operation, weight) = (slot.operation, slot.weight);
        Some(match (slot.written, done) {
            (None, Ok(count)) if must_sync => Ended::Written(operation, weight, count),
            (Some(count), Ok(_)) => Ended::Done(operation, weight, Ok(count)),
            (Some(count), Err(Errno::CANCELED)) => Ended::Written(operation, weight, count),
            (Some(_), Err(errno)) => Ended::Unsynced(operation, weight, errno),
            (None, done) => Ended::Done(operation, weight, done),
        })
    }

    /// Passes nothing more to the kernel. Returns the operations that it has not taken, each with the count of bytes if
    /// these are written and only the sync was not taken.
    pub(super) fn close(&mut self) -> Vec<(Operation, Option<usize>)> {
        self.is_closed = true;
        let mut retracted = Vec::new();
        for number in self.queued.drain(..) {
            let at = usize::try_from(number).ok();
            let place = at.and_then(|at| self.slots.slots.get_mut(at));
            if let (Some(at), Some(slot)) = (at, place.and_then(Option::take)) {
                self.slots.free.push(at);
                retracted.push((slot.operation, slot.written));
            }
        }
        retracted
    }
}

/// Creates a ring: with completions that are processed only when its thread asks for them (Linux 6.1), or else without.
fn create() -> io::Result<IoUring> {
    let mut modern = IoUring::builder();
    modern
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .dontfork();
    match modern.build(ENTRIES) {
        Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().dontfork().build(ENTRIES)
        }
        built => built,
    }
}

/// Returns whether a wait ended before its limit.
fn waited(entered: io::Result<usize>) -> Result<bool, Errno> {
    let failed = match entered {
        Ok(_) => return Ok(true),
        Err(failed) => Errno::from_io_error(&failed).unwrap_or(Errno::IO),
    };
    match failed {
        Errno::TIME => Ok(false),
        Errno::INTR => Ok(true),
        failed => Err(failed),
    }
}

/// Returns where the bytes of a write are.
fn vectors(operation: &Operation) -> Vec<libc::iovec> {
    let Task::Write { slices, .. } = &operation.task else {
        return Vec::new();
    };
    let vector = |slice: &bytes::Bytes| libc::iovec {
        iov_base: slice.as_ptr().cast_mut().cast(),
        iov_len: slice.len(),
    };
    slices.iter().take(SLICES_MAX).map(vector).collect()
}

impl Slot {
    /// Returns whether a write of `count` bytes is whole, and a sync follows.
    fn must_sync(&self, count: usize) -> bool {
        let Task::Write { sync: true, .. } = self.operation.task else {
            return false;
        };
        self.written.is_none() && count == self.weight.bytes
    }

    /// Makes the next entry.
    fn entry(&mut self) -> squeue::Entry {
        let descriptor = Fd(self.operation.file.descriptor().as_raw_fd());
        let offset = self.operation.offset;
        let sync = || {
            opcode::Fsync::new(descriptor)
                .flags(FsyncFlags::DATASYNC)
                .build()
        };
        match &mut self.operation.task {
            Task::Read { buffer, .. } => {
                let free = buffer.free_mut();
                let length = u32::try_from(free.len().min(TRANSFER_MAX)).unwrap_or_default();
                opcode::Read::new(descriptor, free.as_mut_ptr(), length)
                    .offset(offset)
                    .build()
            }
            Task::Write { .. } if self.written.is_some() => sync(),
            Task::Write { .. } => {
                let count = u32::try_from(self.vectors.len()).unwrap_or_default();
                opcode::Writev::new(descriptor, self.vectors.as_ptr(), count)
                    .offset(offset)
                    .build()
            }
            Task::Sync { .. } => sync(),
        }
    }
}
