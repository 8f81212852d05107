//! The queue of transactions, under its lock.
//!
//! Owns: [`Inner`], what is queued and in flight with the states after it, and [`Writing`], the lock held to add to it.
//! Refuses: checking preconditions and publishing (`sequencer`).
//!
//! Transactions are queued by the frame that will carry them. Only the ends of frames become states that readers see,
//! so within a frame `head` changes in place: nodes of its rows are copied once for each frame, not for each
//! transaction.
//!
//! Invariants: LSNs in flight < LSNs queued <= `head.lsn`. Each frame but the last of the queue has the state after it;
//! after the last that is `head`. At most one frame is in flight.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::prevalidate::removes;
use crate::catalog::apply;
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
    pub(super) in_flight: Option<FrameInFlight>,
    pub(super) queue: VecDeque<Frame>,
    /// The end of the durable state's last frame.
    pub(super) position: Position,
    pub(super) closing: bool,
}

/// The transactions of a journal frame that is not written yet.
#[derive(Debug)]
pub(super) struct Frame {
    first_lsn: Lsn,
    pub(super) transactions: Vec<Queued>,
    /// Their encodings, one after another.
    payload: Vec<u8>,
    /// The state after them; `None` for the last frame, after which the state is `head`.
    pub(super) after: Option<State>,
}

/// The transactions of the frame that is being written.
#[derive(Debug)]
pub(super) struct FrameInFlight {
    pub(super) transactions: Vec<Queued>,
    pub(super) after: State,
}

/// A transaction that is queued or in flight, and who waits for it.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) transaction: Transaction,
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
        let Some(last) = self.last_mut() else {
            return Err(Error::Unmet(unmet));
        };
        let (done, waiting) = oneshot::channel();
        last.rejections.push(PendingRejection { unmet, done });
        Ok(waiting)
    }

    /// Returns the last transaction that is not durable.
    fn last_mut(&mut self) -> Option<&mut Queued> {
        let queued = self.queue.back_mut().map(|frame| &mut frame.transactions);
        let in_flight = self.in_flight.as_mut();
        let last = queued.or(in_flight.map(|frame| &mut frame.transactions));
        last?.last_mut()
    }

    /// Adds a transaction with its encoding. `head` becomes the state after it.
    ///
    /// # Errors
    /// [`Error::NotResident`] if a row is not in memory; nothing was added, and `stage` was not called.
    pub(super) fn enqueue(
        &mut self,
        transaction: Transaction,
        mut payload: Vec<u8>,
        stage: impl FnOnce(&Transaction) -> (StagedBlobs, Held),
    ) -> Result<oneshot::Receiver<Result<Committed>>> {
        let has_room = |frame: &Frame| {
            frame.payload.len() + payload.len() <= FRAME_PAYLOAD_BYTES_TARGET
                && frame.transactions.len() < FRAME_TRANSACTIONS_MAX
        };
        let is_same_frame = self.queue.back().is_some_and(has_room);
        let before = (!is_same_frame && !self.queue.is_empty()).then(|| self.head.clone());
        let shrunk = apply::transaction(&mut self.head, &transaction)?;
        self.removals += u64::from(transaction.operations.iter().any(removes));
        self.next_lsn += 1;
        let (blobs, held) = stage(&transaction);
        let (done, waiting) = oneshot::channel();
        let queued = Queued {
            transaction,
            done,
            blobs,
            held,
            shrunk,
            rejections: Vec::new(),
        };
        match self.queue.back_mut() {
            Some(last) if is_same_frame => {
                last.transactions.push(queued);
                last.payload.append(&mut payload);
            }
            last => {
                if let Some(full) = last {
                    full.after = before;
                }
                self.queue.push_back(Frame {
                    first_lsn: queued.transaction.lsn,
                    transactions: vec![queued],
                    payload,
                    after: None,
                });
            }
        }
        Ok(waiting)
    }

    /// Takes what the next frame carries, if anything is queued.
    pub(super) fn take_group(&mut self) -> Option<Group> {
        assert!(
            self.in_flight.is_none(),
            "a frame is taken while another is in flight"
        );
        let Frame {
            first_lsn,
            transactions,
            payload,
            after,
        } = self.queue.pop_front()?;
        let count = u32::try_from(transactions.len()).unwrap_or(u32::MAX);
        self.in_flight = Some(FrameInFlight {
            transactions,
            after: after.unwrap_or_else(|| self.head.clone()),
        });
        Some(Group {
            first_lsn,
            transactions: count,
            payload,
        })
    }

    /// Returns the transactions that are not durable, by frame, in order.
    pub(super) fn frames(&self) -> impl Iterator<Item = &[Queued]> {
        let in_flight = self.in_flight.iter().map(|frame| &frame.transactions[..]);
        in_flight.chain(self.queue.iter().map(|frame| &frame.transactions[..]))
    }

    /// Returns the states after frames that are not durable, in order. `head` is not among them.
    pub(super) fn states_mut(&mut self) -> impl Iterator<Item = &mut State> {
        let in_flight = self.in_flight.iter_mut().map(|frame| &mut frame.after);
        in_flight.chain(
            self.queue
                .iter_mut()
                .filter_map(|frame| frame.after.as_mut()),
        )
    }

    /// Takes all transactions that are not durable.
    pub(super) fn take_all(&mut self) -> Vec<Queued> {
        let in_flight = self.in_flight.take().map(|frame| frame.transactions);
        let queued = self.queue.drain(..).map(|frame| frame.transactions);
        in_flight.into_iter().chain(queued).flatten().collect()
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
