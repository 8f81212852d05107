//! The queue of transactions, under its lock.
//!
//! Owns: [`Inner`], what is queued and in flight with the states after it, and [`Writing`], the lock held to add to it.
//! Refuses: checking preconditions and publishing (`sequencer`).
//!
//! Invariants: LSNs in flight < LSNs queued <= `head.lsn`. Each queued transaction holds the state after it. At most one
//! frame is in flight.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::prevalidate::removes;
use crate::error::{Error, Result};
use crate::extent::{Lsn, SegmentId};
use crate::finished_blob::{Committed, FinishedBlob};
use crate::format::transaction::Transaction;
use crate::journal::Position;
use crate::lease::Condemned;
use crate::limits::{FRAME_PAYLOAD_BYTES_TARGET, FRAME_TRANSACTIONS_MAX};
use crate::segment::SegmentInUse;
use crate::state::State;
use crate::sync::{MutexGuard, Notify, oneshot};
use crate::vocabulary::Require;

/// The transactions that are not durable yet, and what the next one builds on.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) head: State,
    /// How often something was removed from `head`: by a transaction, or because queued transactions failed.
    pub(super) removals: u64,
    pub(super) next_lsn: u64,
    pub(super) in_flight: VecDeque<Queued>,
    pub(super) queue: VecDeque<Queued>,
    /// The end of the durable state's last frame.
    pub(super) position: Position,
    pub(super) closing: bool,
}

/// A transaction that is queued or in flight, and who waits for it.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) transaction: Transaction,
    pub(super) payload: Vec<u8>,
    pub(super) after: State,
    pub(super) done: oneshot::Sender<Result<Committed>>,
    pub(super) blobs: StagedBlobs,
    /// Held until it is durable, or has failed.
    pub(super) held: Held,
    pub(super) shrunk: Vec<SegmentId>,
    /// Batches that were rejected against the state after this transaction.
    pub(super) rejections: Vec<PendingRejection>,
}

/// What a transaction of the store itself holds until it is durable, or has failed.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Digests that it removes. Nobody is promised them meanwhile.
    pub(super) condemned: Vec<Condemned>,
    /// Segments into which it moves blobs. They are not removed meanwhile.
    pub(super) in_use: Vec<Arc<SegmentInUse>>,
}

/// A transaction that may be queued.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) transaction: Transaction,
    pub(super) payload: Vec<u8>,
    pub(super) after: State,
    pub(super) shrunk: Vec<SegmentId>,
}

/// The lock of the queue, held to add to it. The journal task is woken after it is released: on a busy machine, the
/// task that is woken runs first.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    inner: MutexGuard<'a, Inner>,
    /// Declared last, so dropped last.
    wake: Wake<'a>,
}

impl<'a> Writing<'a> {
    /// Wakes `queued` after the lock is released, if anything is queued then.
    pub(super) fn new(inner: MutexGuard<'a, Inner>, queued: &'a Notify) -> Self {
        let wake = Wake { queued, due: false };
        Self { inner, wake }
    }
}

#[derive(Debug)]
struct Wake<'a> {
    queued: &'a Notify,
    due: bool,
}

impl Deref for Writing<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.wake.due = !self.inner.queue.is_empty();
    }
}

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        if self.due {
            self.queued.notify_one();
        }
    }
}

/// A rejection that is not answered yet, because the state that it rests on is not durable yet.
#[derive(Debug)]
pub(super) struct PendingRejection {
    pub(super) unmet: Vec<Require>,
    pub(super) done: oneshot::Sender<Result<Committed>>,
}

/// The finished blobs of a batch, held until its transaction is durable.
#[derive(Debug, Default)]
pub(super) struct StagedBlobs {
    /// Blobs that the transaction places: their files stay.
    pub(super) placed: Vec<FinishedBlob>,
    /// Blobs that the store had already: only their pins matter, and their files are removed.
    pub(super) duplicates: Vec<FinishedBlob>,
}

impl Inner {
    /// Rejects a batch that was checked against `head`: at once if all of `head` is durable, else together with its
    /// last transaction.
    pub(super) fn reject(
        &mut self,
        unmet: Vec<Require>,
    ) -> Result<oneshot::Receiver<Result<Committed>>> {
        let last = self.queue.back_mut().or(self.in_flight.back_mut());
        let Some(last) = last else {
            return Err(Error::Unmet(unmet));
        };
        let (done, waiting) = oneshot::channel();
        last.rejections.push(PendingRejection { unmet, done });
        Ok(waiting)
    }

    /// Adds a transaction, whose state becomes the newest.
    pub(super) fn enqueue(
        &mut self,
        prepared: Prepared,
        blobs: StagedBlobs,
        held: Held,
    ) -> oneshot::Receiver<Result<Committed>> {
        let Prepared {
            transaction,
            payload,
            after,
            shrunk,
        } = prepared;
        self.removals += u64::from(transaction.operations.iter().any(removes));
        self.next_lsn += 1;
        self.head = after.clone();
        let (done, waiting) = oneshot::channel();
        self.queue.push_back(Queued {
            transaction,
            payload,
            after,
            done,
            blobs,
            held,
            shrunk,
            rejections: Vec::new(),
        });
        waiting
    }

    /// Takes what the next frame carries, if anything is queued.
    pub(super) fn take_group(&mut self) -> Option<Group> {
        assert!(
            self.in_flight.is_empty(),
            "a frame is taken while another is in flight"
        );
        let first_lsn = self.queue.front()?.transaction.lsn;
        let mut group = Group {
            first_lsn,
            transactions: 0,
            payload: Vec::new(),
        };
        while let Some(next) = self.queue.front() {
            let full = group.payload.len() + next.payload.len() > FRAME_PAYLOAD_BYTES_TARGET
                || self.in_flight.len() >= FRAME_TRANSACTIONS_MAX;
            if full && group.transactions > 0 {
                break;
            }
            let Some(mut next) = self.queue.pop_front() else {
                break;
            };
            group.payload.append(&mut next.payload);
            group.transactions += 1;
            self.in_flight.push_back(next);
        }
        Some(group)
    }
}

impl StagedBlobs {
    /// Keeps the files that the transaction names: it is, or may be, in the journal.
    pub(super) fn keep(self) {
        for blob in self.placed {
            blob.committed();
        }
        for blob in self.duplicates {
            blob.end_commit();
        }
    }
}

/// The content of one journal frame.
#[derive(Debug)]
pub(crate) struct Group {
    /// LSN of its first transaction.
    pub first_lsn: Lsn,
    /// Number of transactions.
    pub transactions: u32,
    /// Their encodings, one after another.
    pub payload: Vec<u8>,
}
