//! The queue of transactions, and the states they lead to.
//!
//! Owns: LSNs, the head state (durable plus queued), the durable state that readers see, and the split of both when a
//! checkpoint freezes. Refuses: I/O.
//!
//! Invariants: `durable.lsn` < LSNs in flight < LSNs queued <= `head.lsn`, each queued transaction holds the
//! state after it. A checkpoint freezes exactly the durable state; what is in flight or queued is applied again on
//! top of the frozen one.

use std::collections::VecDeque;
use std::sync::Arc;

use super::prevalidate::{Prevalidated, removes};
use super::resolve;
use crate::catalog::retired::Clearing;
use crate::catalog::{View, apply};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::extent::{Extent, Lsn, SegmentId};
use crate::finished_blob::{Committed, FinishedBlob};
use crate::format::codec::Encoder;
use crate::format::keys::{self, Slot};
use crate::format::transaction::{Operation, RepositoryId, Transaction};
use crate::io::Clock;
use crate::journal::Position;
use crate::limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_BYTES_TARGET, FRAME_TRANSACTIONS_MAX};
use crate::poison::Poison;
use crate::state::State;
use crate::sync::{ArcSwap, Mutex, MutexGuard, Notify, oneshot};
use crate::table::{Layers, Runs};
use crate::vocabulary::{Batch, Origin, Require};

/// The order of transactions of an open store. Share by `Arc`.
#[derive(Debug)]
pub(crate) struct Sequencer {
    inner: Mutex<Inner>,
    durable: ArcSwap<State>,
    clock: Arc<dyn Clock>,
    poison: Arc<Poison>,
    /// Something was queued, or the store is closing.
    queued: Notify,
    /// Something was published or a checkpoint ended.
    pub(crate) published: Notify,
}

#[derive(Debug)]
struct Inner {
    head: State,
    /// How often something was removed from `head`: by a transaction, or with those that failed.
    removals: u64,
    next_lsn: u64,
    in_flight: VecDeque<Queued>,
    queue: VecDeque<Queued>,
    /// Behind the durable state's last frame.
    position: Position,
    closing: bool,
}

#[derive(Debug)]
struct Queued {
    transaction: Transaction,
    payload: Vec<u8>,
    after: State,
    done: oneshot::Sender<Result<Committed>>,
    blobs: Blobs,
    /// Batches that were judged with this transaction the last before them, and refused.
    refused: Vec<Refused>,
}

/// A transaction that may be queued.
#[derive(Debug)]
struct Prepared {
    transaction: Transaction,
    payload: Vec<u8>,
    after: State,
}

/// A refusal that is not told yet, since what it is founded on is not durable yet.
#[derive(Debug)]
struct Refused {
    unmet: Vec<Require>,
    done: oneshot::Sender<Result<Committed>>,
}

/// The finished bytes of a batch, held until its transaction is durable.
#[derive(Debug, Default)]
struct Blobs {
    /// The transaction places these: their files stay.
    named: Vec<FinishedBlob>,
    /// The store had these already: only their pins matter, and their files go.
    spare: Vec<FinishedBlob>,
}

/// A step of clearing that was queued.
#[derive(Debug)]
pub(crate) struct Cleared {
    /// Resolves when it is durable; none if there was nothing to do this time.
    pub waiting: Option<oneshot::Receiver<Result<Committed>>>,
    /// Whether it was the last.
    pub last: bool,
}

impl Inner {
    /// Refuses what was judged against `head`: at once if readers see all of that, or together with the last of it.
    fn refuse(&mut self, unmet: Vec<Require>) -> Result<oneshot::Receiver<Result<Committed>>> {
        let last = self.queue.back_mut().or(self.in_flight.back_mut());
        let Some(last) = last else {
            return Err(Error::Unmet(unmet));
        };
        let (done, waiting) = oneshot::channel();
        last.refused.push(Refused { unmet, done });
        Ok(waiting)
    }

    /// What the next frame carries, if anything is queued.
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

impl Blobs {
    /// The transaction is, or may be, in the journal: what it names must not be unlinked.
    fn keep(self) {
        for blob in self.named {
            blob.committed();
        }
        for blob in self.spare {
            blob.spared();
        }
    }
}

/// What one journal frame will carry.
#[derive(Debug)]
pub(crate) struct Group {
    /// LSN of its first transaction.
    pub first_lsn: Lsn,
    /// How many transactions.
    pub transactions: u32,
    /// Their encodings, one after the other.
    pub payload: Vec<u8>,
}

/// A durable state whose deltas are frozen, for a checkpoint to write out.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    /// The state; `state.layers.frozen()` is what the checkpoint writes.
    pub state: Arc<State>,
    /// Where replay begins on top of it.
    pub position: Position,
}

impl Sequencer {
    /// A sequencer that continues from `state`, whose journal ends at `position`.
    pub(crate) fn new(
        state: State,
        position: Position,
        next_lsn: Lsn,
        clock: Arc<dyn Clock>,
        poison: Arc<Poison>,
    ) -> Self {
        assert!(
            next_lsn > state.lsn,
            "the next LSN is behind the state's last"
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
            queued: Notify::new(),
            published: Notify::new(),
        }
    }

    /// The durable state.
    pub(crate) fn durable(&self) -> Arc<State> {
        self.durable.load_full()
    }

    /// Bytes in the live delta, queued transactions included.
    pub(crate) fn delta_bytes(&self) -> usize {
        self.inner.lock().head.layers.delta_bytes()
    }

    /// Behind the last durable frame.
    pub(crate) fn position(&self) -> Position {
        self.inner.lock().position
    }

    /// The state with everything queued, and the number of removals that led to it, to prevalidate by.
    pub(crate) fn head(&self) -> (View, u64) {
        let inner = self.inner.lock();
        (View::new(Arc::new(inner.head.clone())), inner.removals)
    }

    /// Judges a batch and queues its transaction; the receiver resolves when it is durable and visible. A refusal that depends
    /// on what is queued comes the same way: told earlier, it would speak of what no reader sees and a crash may undo. What was
    /// prevalidated is judged anew if anything was removed since.
    ///
    /// On [`Error::NotResident`] nothing was queued and the batch still has all that is staged: it is submitted again once the rows are in
    /// memory.
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
                    return inner.refuse(std::mem::take(&mut known.unmet));
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
            Err(Error::Unmet(unmet)) => return inner.refuse(unmet),
            judged => judged?,
        };
        drop(view);
        let prepared = self.prepare(&inner, batch.origin.clone(), operations)?;
        let named = |blob: &FinishedBlob| {
            prepared.transaction.operations.iter().any(|operation| {
                matches!(operation, Operation::PlaceBlob { extent, .. } if *extent == blob.extent())
            })
        };
        let (named, spare) = batch.staged.drain(..).partition(named);
        Ok(self.queue(&mut inner, prepared, Blobs { named, spare }))
    }

    /// Queues the reservation of segment ids below `limit`.
    pub(crate) fn reserve_segments(
        &self,
        limit: SegmentId,
    ) -> Result<oneshot::Receiver<Result<Committed>>> {
        let mut inner = self.open_for_writes()?;
        self.queue_own(&mut inner, vec![Operation::ReserveSegmentIds { limit }])
    }

    /// Queues that blobs were found damaged, or whole again; `None` if that is known already, or their bytes are elsewhere by now.
    pub(crate) fn record_damage(
        &self,
        found: &[(Digest, Extent, bool)],
    ) -> Result<Option<oneshot::Receiver<Result<Committed>>>> {
        let mut inner = self.open_for_writes()?;
        let mut operations = Vec::new();
        for &(digest, extent, damaged) in found {
            let stored = keys::blob(&inner.head.hash_key, &digest);
            let stored = inner.head.get(&stored)?.map(|slot| Slot::decode(&slot));
            let here = matches!(stored, Some(Ok(slot)) if slot.extent == extent);
            let recorded = inner.head.get(&keys::damaged(&digest))?.is_some();
            match (damaged, recorded) {
                (true, false) if here => {
                    operations.push(Operation::MarkDamaged { digest, extent });
                }
                (false, true) if here => operations.push(Operation::MarkWhole { digest, extent }),
                _ => {}
            }
        }
        if operations.is_empty() {
            return Ok(None);
        }
        self.queue_own(&mut inner, operations).map(Some)
    }

    /// Queues a step of clearing away what remains of a deleted repository; `None` if it is not deleted: the deletion that the step was
    /// drawn up behind failed meanwhile. Nobody can name what it removes, so it is no removal to those who prevalidate.
    pub(crate) fn purge(
        &self,
        repository: RepositoryId,
        operations: Vec<Operation>,
    ) -> Result<Option<oneshot::Receiver<Result<Committed>>>> {
        let mut inner = self.open_for_writes()?;
        if inner.head.get(&keys::deleted(repository))?.is_none() {
            return Ok(None);
        }
        let removals = inner.removals;
        let queued = self.queue_own(&mut inner, operations);
        inner.removals = removals;
        queued.map(Some)
    }

    /// Queues a step of clearing away what remains of a deleted manifest, drawn up under the lock: tags may be set to the
    /// same digest meanwhile. `None`: it was deleted again, or its repository was.
    pub(crate) fn clear(&self, clearing: &mut Clearing) -> Result<Option<Cleared>> {
        let mut inner = self.open_for_writes()?;
        let view = View::new(Arc::new(inner.head.clone()));
        if !clearing.holds(&view)? {
            return Ok(None);
        }
        let (operations, last) = clearing.step(&view)?;
        drop(view);
        let waiting = if operations.is_empty() {
            None
        } else {
            let removals = inner.removals;
            let queued = self.queue_own(&mut inner, operations);
            inner.removals = removals;
            Some(queued?)
        };
        Ok(Some(Cleared { waiting, last }))
    }

    fn open_for_writes(&self) -> Result<MutexGuard<'_, Inner>> {
        let inner = self.inner.lock();
        self.poison.check()?;
        if inner.closing {
            return Err(Error::Closed);
        }
        Ok(inner)
    }

    /// Queues operations of the store's own.
    fn queue_own(
        &self,
        inner: &mut Inner,
        operations: Vec<Operation>,
    ) -> Result<oneshot::Receiver<Result<Committed>>> {
        let prepared = self.prepare(inner, Origin::default(), operations)?;
        Ok(self.queue(inner, prepared, Blobs::default()))
    }

    /// The transaction of these operations, its bytes, and the state after it. Nothing is changed.
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
        apply::transaction(&mut after, &transaction)?;
        Ok(Prepared {
            transaction,
            payload,
            after,
        })
    }

    fn queue(
        &self,
        inner: &mut Inner,
        prepared: Prepared,
        blobs: Blobs,
    ) -> oneshot::Receiver<Result<Committed>> {
        let Prepared {
            transaction,
            payload,
            after,
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
            refused: Vec::new(),
        });
        self.queued.notify_one();
        waiting
    }

    /// What the next frame carries; waits for something. `None`: closing, and nothing is left.
    pub(super) async fn next_group(&self) -> Option<Group> {
        loop {
            {
                // Under one lock: a transaction that comes just before the close is not left behind.
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

    /// The frame in flight is durable: readers see it, then its committers are answered.
    pub(super) fn publish(&self, position: Position) {
        let mut inner = self.inner.lock();
        inner.position = position;
        let done = std::mem::take(&mut inner.in_flight);
        if let Some(last) = done.back() {
            self.durable.store(Arc::new(last.after.clone()));
        }
        drop(inner);
        for queued in done {
            queued.blobs.keep();
            // A committer that went away left its transaction behind, which is as it should be.
            drop(queued.done.send(Ok(Committed {
                lsn: queued.transaction.lsn,
            })));
            for Refused { unmet, done } in queued.refused {
                drop(done.send(Err(Error::Unmet(unmet))));
            }
        }
        self.published.notify_waiters();
    }

    /// Nothing in flight or queued will be published: back to the durable state, everybody is told `error`.
    /// `maybe_written`: a frame may have reached the disk, and the next open may find its transactions.
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
        drop(inner);
        for queued in failed {
            if maybe_written {
                queued.blobs.keep();
            }
            drop(queued.done.send(Err(error.clone())));
            // What they were refused for is not so after all; whether something else is, is not known.
            for refused in queued.refused {
                drop(refused.done.send(Err(error.clone())));
            }
        }
        self.published.notify_waiters();
    }

    /// Freezes the durable state for a checkpoint. `None` if one is frozen already.
    pub(crate) fn freeze(&self) -> Result<Option<Frozen>> {
        let mut inner = self.inner.lock();
        let durable = self.durable();
        if durable.layers.frozen().is_some() {
            return Ok(None);
        }
        let mut frozen = (*durable).clone();
        frozen.layers = durable.layers.freeze();
        let mut head = frozen.clone();
        let Inner {
            in_flight, queue, ..
        } = &mut *inner;
        // All or nothing: a row that cannot be read, or not now, leaves everything as it was.
        let mut states = Vec::with_capacity(in_flight.len() + queue.len());
        for queued in in_flight.iter().chain(queue.iter()) {
            apply::transaction(&mut head, &queued.transaction)?;
            states.push(head.clone());
        }
        for (queued, after) in in_flight.iter_mut().chain(queue).zip(states) {
            queued.after = after;
        }
        inner.head = head;
        let state = Arc::new(frozen);
        self.durable.store(Arc::clone(&state));
        Ok(Some(Frozen {
            state,
            position: inner.position,
        }))
    }

    /// What was frozen is in `runs` now.
    pub(crate) fn install(&self, runs: &Runs) {
        self.replace_layers(|layers| layers.unfreeze(runs.clone()));
    }

    /// The rows of the runs before are in `runs` now.
    pub(crate) fn install_merged(&self, runs: &Runs) {
        self.replace_layers(|layers| layers.with_runs(runs.clone()));
    }

    /// Puts other layers with the same rows into every state.
    fn replace_layers(&self, replaced: impl Fn(&Layers) -> Layers) {
        let mut inner = self.inner.lock();
        let replace = |state: &mut State| {
            let new = replaced(&state.layers);
            std::mem::replace(&mut state.layers, new)
        };
        // Dropped after the lock: the last owner of a delta takes milliseconds to drop it.
        let mut old = vec![replace(&mut inner.head)];
        let Inner {
            in_flight, queue, ..
        } = &mut *inner;
        for queued in in_flight.iter_mut().chain(queue) {
            old.push(replace(&mut queued.after));
        }
        let before = self.durable();
        let mut durable = (*before).clone();
        old.push(replace(&mut durable));
        self.durable.store(Arc::new(durable));
        drop(inner);
        self.published.notify_waiters();
        drop((before, old));
    }

    /// Takes no more transactions; the journal task ends when the queue is empty.
    pub(crate) fn close(&self) {
        self.inner.lock().closing = true;
        self.queued.notify_one();
    }
}
