//! The queue of transactions, and the states after them.
//!
//! Owns: LSNs, the head state (durable plus queued), and the durable state that readers see. Refuses: I/O.
//!
//! Invariants: `durable.lsn` < LSNs in flight < LSNs queued <= `head.lsn`. Each queued transaction holds the state
//! after it.

use std::collections::{BTreeSet, VecDeque};
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::prevalidate::{Prevalidated, removes};
use super::resolve;
use crate::catalog::{View, apply};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Lsn, SegmentId};
use crate::finished_blob::{Committed, FinishedBlob};
use crate::format::codec::Encoder;
use crate::format::transaction::{Operation, Transaction};
use crate::io::Clock;
use crate::journal::Position;
use crate::lease::Condemned;
use crate::limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_BYTES_TARGET, FRAME_TRANSACTIONS_MAX};
use crate::poison::Poison;
use crate::segment::SegmentInUse;
use crate::state::State;
use crate::sync::{ArcSwap, AtomicU64, Mutex, MutexGuard, Notify, oneshot};
use crate::vocabulary::{Batch, Origin, Require};

/// Orders the transactions of an open store. Share by `Arc`.
#[derive(Debug)]
pub(crate) struct Sequencer {
    pub(super) inner: Mutex<Inner>,
    pub(super) durable: ArcSwap<State>,
    clock: Arc<dyn Clock>,
    poison: Arc<Poison>,
    /// Longest time for which a removal or a move held the lock of `inner`.
    longest_hold_nanos: AtomicU64,
    /// Segments that lost a live blob by a durable transaction.
    shrunk: Mutex<BTreeSet<SegmentId>>,
    /// Notified when something was queued, or the store is closing.
    queued: Notify,
    /// Notified when something was published or a checkpoint ended.
    pub(crate) published: Notify,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) head: State,
    /// How often something was removed from `head`: by a transaction, or because queued transactions failed.
    pub(super) removals: u64,
    next_lsn: u64,
    pub(super) in_flight: VecDeque<Queued>,
    pub(super) queue: VecDeque<Queued>,
    /// The end of the durable state's last frame.
    pub(super) position: Position,
    closing: bool,
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) transaction: Transaction,
    payload: Vec<u8>,
    pub(super) after: State,
    done: oneshot::Sender<Result<Committed>>,
    blobs: StagedBlobs,
    /// Held until it is durable, or has failed.
    held: Held,
    shrunk: Vec<SegmentId>,
    /// Batches that were rejected against the state after this transaction.
    rejections: Vec<PendingRejection>,
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
struct Prepared {
    transaction: Transaction,
    payload: Vec<u8>,
    after: State,
    shrunk: Vec<SegmentId>,
}

/// A rejection that is not answered yet, because the state that it rests on is not durable yet.
#[derive(Debug)]
struct PendingRejection {
    unmet: Vec<Require>,
    done: oneshot::Sender<Result<Committed>>,
}

/// The finished blobs of a batch, held until its transaction is durable.
#[derive(Debug, Default)]
struct StagedBlobs {
    /// Blobs that the transaction places: their files stay.
    placed: Vec<FinishedBlob>,
    /// Blobs that the store had already: only their pins matter, and their files are removed.
    duplicates: Vec<FinishedBlob>,
}

impl Inner {
    /// Rejects a batch that was checked against `head`: at once if all of `head` is durable, else together with its
    /// last transaction.
    fn reject(&mut self, unmet: Vec<Require>) -> Result<oneshot::Receiver<Result<Committed>>> {
        let last = self.queue.back_mut().or(self.in_flight.back_mut());
        let Some(last) = last else {
            return Err(Error::Unmet(unmet));
        };
        let (done, waiting) = oneshot::channel();
        last.rejections.push(PendingRejection { unmet, done });
        Ok(waiting)
    }

    /// Takes what the next frame carries, if anything is queued.
    fn take_group(&mut self) -> Option<Group> {
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
    fn keep(self) {
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

impl Sequencer {
    /// Creates a sequencer that continues from `state`, whose journal ends at `position`.
    pub(crate) fn new(
        state: State,
        position: Position,
        next_lsn: Lsn,
        clock: Arc<dyn Clock>,
        poison: Arc<Poison>,
    ) -> Self {
        assert!(
            next_lsn > state.lsn,
            "the next LSN is not after the state's last"
        );
        let inner = Inner {
            head: state.clone(),
            removals: 0,
            next_lsn: next_lsn.0,
            in_flight: VecDeque::new(),
            queue: VecDeque::new(),
            position,
            closing: false,
        };
        Self {
            inner: Mutex::new(inner),
            durable: ArcSwap::from_pointee(state),
            clock,
            poison,
            longest_hold_nanos: AtomicU64::new(0),
            shrunk: Mutex::default(),
            queued: Notify::new(),
            published: Notify::new(),
        }
    }

    /// Returns the durable state.
    pub(crate) fn durable(&self) -> Arc<State> {
        self.durable.load_full()
    }

    /// Returns the bytes of the live delta, queued transactions included.
    pub(crate) fn delta_bytes(&self) -> usize {
        self.inner.lock().head.layers.delta_bytes()
    }

    /// Returns the end of the last durable frame.
    pub(crate) fn position(&self) -> Position {
        self.inner.lock().position
    }

    /// Returns the state with everything queued, and the number of removals that led to it, to prevalidate by.
    pub(crate) fn head(&self) -> (View, u64) {
        let inner = self.inner.lock();
        (View::new(Arc::new(inner.head.clone())), inner.removals)
    }

    /// Checks a batch and queues its transaction. The receiver resolves when the transaction is durable and visible.
    ///
    /// A rejection that depends on queued transactions is sent when they are durable: until then no reader sees its
    /// reason, and a crash may undo it. What was prevalidated is checked again if anything was removed since.
    ///
    /// # Errors
    /// [`Error::NotResident`] if a row is not in memory: nothing was queued, and the batch still has all that
    /// is staged. Submit it again once the row is loaded. [`Error::Unmet`] if a precondition does not hold in the
    /// durable state.
    pub(crate) fn submit(
        &self,
        batch: &mut Batch<FinishedBlob>,
        prevalidated: &mut Option<Prevalidated>,
        damaged: &dyn Fn(&Digest, &Extent) -> bool,
    ) -> Result<oneshot::Receiver<Result<Committed>>> {
        let mut inner = self.open_for_writes()?;
        match prevalidated {
            Some(known) if known.removals == inner.removals => {
                if !known.unmet.is_empty() {
                    return inner.reject(std::mem::take(&mut known.unmet));
                }
            }
            Some(_) | None => {
                let known = prevalidated.take();
                let again = known.map(|known| [known.requires, known.unmet]);
                batch.requires.extend(again.into_iter().flatten().flatten());
            }
        }
        let view = View::new(Arc::new(inner.head.clone()));
        let operations = match resolve(batch, &view, inner.head.next_repository, damaged) {
            Err(Error::Unmet(unmet)) => return inner.reject(unmet),
            resolved => resolved?,
        };
        drop(view);
        let prepared = self.prepare(&inner, batch.origin.clone(), operations)?;
        let is_placed = |blob: &FinishedBlob| {
            prepared.transaction.operations.iter().any(|operation| {
                matches!(operation, Operation::PlaceBlob { extent, .. } if *extent == blob.extent())
            })
        };
        let (placed, duplicates) = batch.staged.drain(..).partition(is_placed);
        let staged = StagedBlobs { placed, duplicates };
        Ok(self.queue(&mut inner, prepared, staged, Held::default()))
    }

    pub(super) fn open_for_writes(&self) -> Result<MutexGuard<'_, Inner>> {
        let inner = self.inner.lock();
        self.poison.check()?;
        if inner.closing {
            return Err(Error::Closed);
        }
        Ok(inner)
    }

    /// Calls `work` under the lock, for removals and moves, and notes how long that took.
    pub(super) fn with_hold_measured<T>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T>,
    ) -> Result<T> {
        let mut inner = self.open_for_writes()?;
        let begun = self.clock.monotonic();
        let done = work(&mut inner);
        drop(inner);
        let held = self.clock.monotonic().saturating_sub(begun).as_nanos();
        let held = u64::try_from(held).unwrap_or(u64::MAX);
        self.longest_hold_nanos.fetch_max(held, Ordering::Relaxed);
        done
    }

    /// Returns the longest time for which a removal or a move held the lock.
    pub(crate) fn longest_hold(&self) -> Duration {
        Duration::from_nanos(self.longest_hold_nanos.load(Ordering::Relaxed))
    }

    /// Encodes a transaction of these operations and computes the state after it. Changes nothing.
    fn prepare(
        &self,
        inner: &Inner,
        origin: Origin,
        operations: Vec<Operation>,
    ) -> Result<Prepared> {
        let unix_ms = self.clock.wall_unix_ms();
        let transaction = Transaction {
            lsn: Lsn(inner.next_lsn),
            unix_ms,
            origin,
            operations,
        };
        let mut payload = Encoder::new();
        transaction.encode(&mut payload);
        let payload = payload.finish();
        if payload.len() > FRAME_PAYLOAD_BYTES_MAX {
            let (length, max) = (payload.len() as u64, FRAME_PAYLOAD_BYTES_MAX as u64);
            return Err(Error::TooLarge {
                what: "transaction",
                length,
                max,
            });
        }
        let mut after = inner.head.clone();
        let shrunk = apply::transaction(&mut after, &transaction)?;
        Ok(Prepared {
            transaction,
            payload,
            after,
            shrunk,
        })
    }

    fn queue(
        &self,
        inner: &mut Inner,
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
        inner.removals += u64::from(transaction.operations.iter().any(removes));
        inner.next_lsn += 1;
        inner.head = after.clone();
        let (done, waiting) = oneshot::channel();
        inner.queue.push_back(Queued {
            transaction,
            payload,
            after,
            done,
            blobs,
            held,
            shrunk,
            rejections: Vec::new(),
        });
        self.queued.notify_one();
        waiting
    }

    /// Queues operations of the store itself.
    pub(super) fn queue_own(
        &self,
        inner: &mut Inner,
        operations: Vec<Operation>,
    ) -> Result<oneshot::Receiver<Result<Committed>>> {
        self.queue_holding(inner, operations, &mut Held::default())
    }

    /// Queues operations of the store itself. If they are queued, it takes `held`.
    pub(super) fn queue_holding(
        &self,
        inner: &mut Inner,
        operations: Vec<Operation>,
        held: &mut Held,
    ) -> Result<oneshot::Receiver<Result<Committed>>> {
        let prepared = self.prepare(inner, Origin::default(), operations)?;
        let held = std::mem::take(held);
        Ok(self.queue(inner, prepared, StagedBlobs::default(), held))
    }

    /// Waits for transactions and returns what the next frame carries. Returns `None` if the sequencer is closing and
    /// the queue is empty.
    pub(super) async fn next_group(&self) -> Option<Group> {
        loop {
            {
                // Under one lock, so that a transaction that comes just before the close is written.
                let mut inner = self.inner.lock();
                if let Some(group) = inner.take_group() {
                    return Some(group);
                }
                if inner.closing {
                    return None;
                }
            }
            self.queued.notified().await;
        }
    }

    /// Publishes the frame in flight, which is durable: readers see it, then its committers are answered.
    pub(super) fn publish(&self, position: Position) {
        let mut inner = self.inner.lock();
        inner.position = position;
        let done = std::mem::take(&mut inner.in_flight);
        if let Some(last) = done.back() {
            let lsns = done.iter().map(|queued| queued.transaction.lsn);
            let ascend = iter::once(self.durable().lsn)
                .chain(lsns)
                .is_sorted_by(|before, next| before < next);
            assert!(ascend, "published LSNs do not ascend");
            self.durable.store(Arc::new(last.after.clone()));
        }
        drop(inner);
        for queued in done {
            self.shrunk.lock().extend(queued.shrunk);
            drop(queued.held);
            queued.blobs.keep();
            // The committer may have gone; the transaction stands.
            drop(queued.done.send(Ok(Committed {
                lsn: queued.transaction.lsn,
            })));
            for PendingRejection { unmet, done } in queued.rejections {
                drop(done.send(Err(Error::Unmet(unmet))));
            }
        }
        self.published.notify_waiters();
    }

    /// Fails everything in flight and queued with `error` and returns to the durable state.
    ///
    /// `maybe_written` says that a frame may have reached the disk, so the next open may find its transactions.
    pub(super) fn fail_queued(&self, error: &Error, maybe_written: bool) {
        let mut inner = self.inner.lock();
        let failed: Vec<_> = {
            let Inner {
                in_flight, queue, ..
            } = &mut *inner;
            in_flight.drain(..).chain(queue.drain(..)).collect()
        };
        inner.head = (*self.durable.load_full()).clone();
        inner.removals += 1;
        // `next_lsn` stays: the next open may find a frame that failed, so its LSNs are never used again.
        drop(inner);
        for queued in failed {
            if maybe_written {
                queued.blobs.keep();
            }
            drop(queued.done.send(Err(error.clone())));
            // The reason for the rejection did not become durable; whether another one holds is not known.
            for rejection in queued.rejections {
                drop(rejection.done.send(Err(error.clone())));
            }
        }
        self.published.notify_waiters();
    }

    /// Takes the segments that lost a live blob since the last call.
    pub(crate) fn take_shrunk(&self) -> BTreeSet<SegmentId> {
        std::mem::take(&mut *self.shrunk.lock())
    }

    /// Returns segments that could not be examined.
    pub(crate) fn put_back_shrunk(&self, ids: BTreeSet<SegmentId>) {
        self.shrunk.lock().extend(ids);
    }

    /// Rejects further transactions. The journal task ends when the queue is empty.
    pub(crate) fn close(&self) {
        self.inner.lock().closing = true;
        self.queued.notify_one();
    }
}
