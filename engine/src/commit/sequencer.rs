//! The order of transactions: queued, written, published.
//!
//! Owns: LSNs, the lock of the [`queue`](super::queue), and the durable state that readers see. Refuses: I/O.
//!
//! Invariant: `durable.lsn` < LSNs in flight.

use std::collections::{BTreeSet, VecDeque};
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::prevalidate::Prevalidated;
use super::queue::{FrameInFlight, Group, Held, Inner, PendingRejection, StagedBlobs, Writing};
use super::resolve;
use crate::catalog::View;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Lsn, SegmentId};
use crate::finished_blob::{Committed, FinishedBlob};
use crate::format::codec::Encoder;
use crate::format::transaction::{Operation, Transaction};
use crate::io::Clock;
use crate::journal::Position;
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::poison::Poison;
use crate::state::State;
use crate::sync::{ArcSwap, AtomicU64, Mutex, Notify, oneshot};
use crate::vocabulary::{Batch, Origin};

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
            in_flight: None,
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

    /// Returns the LSN of the durable state.
    pub(crate) fn durable_lsn(&self) -> Lsn {
        self.durable.load().lsn
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
        let (transaction, payload) = self.encode(&inner, batch.origin.clone(), operations)?;
        inner.enqueue(transaction, payload, |transaction| {
            let is_placed = |blob: &FinishedBlob| {
                transaction.operations.iter().any(|operation| {
                    matches!(operation, Operation::PlaceBlob { extent, .. } if *extent == blob.extent())
                })
            };
            let (placed, duplicates) = batch.staged.drain(..).partition(is_placed);
            (StagedBlobs { placed, duplicates }, Held::default())
        })
    }

    /// Locks the queue, to add to it.
    pub(super) fn open_for_writes(&self) -> Result<Writing<'_>> {
        let inner = self.inner.lock();
        self.poison.check()?;
        if inner.closing {
            return Err(Error::Closed);
        }
        Ok(Writing::new(inner, &self.queued))
    }

    /// Calls `work` under the lock, for removals and moves, and notes how long that took.
    pub(super) fn with_hold_measured<T>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T>,
    ) -> Result<T> {
        let mut inner = self.open_for_writes()?;
        let begun = self.clock.monotonic();
        let done = work(&mut inner);
        let held = self.clock.monotonic().saturating_sub(begun).as_nanos();
        drop(inner);
        let held = u64::try_from(held).unwrap_or(u64::MAX);
        self.longest_hold_nanos.fetch_max(held, Ordering::Relaxed);
        done
    }

    /// Returns the longest time for which a removal or a move held the lock.
    pub(crate) fn longest_hold(&self) -> Duration {
        Duration::from_nanos(self.longest_hold_nanos.load(Ordering::Relaxed))
    }

    /// Returns a transaction of these operations, and its encoding.
    fn encode(
        &self,
        inner: &Inner,
        origin: Origin,
        operations: Vec<Operation>,
    ) -> Result<(Transaction, Vec<u8>)> {
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
        Ok((transaction, payload))
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
        let (transaction, payload) = self.encode(inner, Origin::default(), operations)?;
        inner.enqueue(transaction, payload, |_| {
            (StagedBlobs::default(), std::mem::take(held))
        })
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
        let Some(FrameInFlight {
            transactions,
            after,
        }) = inner.in_flight.take()
        else {
            return;
        };
        let lsns = transactions.iter().map(|queued| queued.transaction.lsn);
        let ascend = iter::once(self.durable().lsn)
            .chain(lsns)
            .is_sorted_by(|before, next| before < next);
        assert!(ascend, "published LSNs do not ascend");
        // Dropped after the lock: it may be the last owner of many rows.
        let before = self.durable.swap(Arc::new(after));
        drop(inner);
        drop(before);
        for queued in transactions {
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
        let failed = inner.take_all();
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
