//! What one client's reads hold, and one answer's reads in order.
//!
//! Owns: [`ReadAccount`], [`Reading`]. Refuses: connections; their owner is told and closes them.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;

use super::budget::{Id, Lane};
use super::pool::{Permit, ReadPool};
use crate::buffer::Home as _;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Notify, oneshot};

/// The reads of one client, a connection for example. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReadAccount {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    pool: ReadPool,
    id: Id,
    signals: Arc<Signals>,
}

/// What the account's owner and the budget tell each other.
pub(super) struct Signals {
    /// When the client last took bytes, in microseconds of the clock.
    progress_us: AtomicU64,
    revoked: AtomicBool,
    wake: Notify,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            progress_us: AtomicU64::new(0),
            revoked: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals")
            .field("progress", &self.progress())
            .finish_non_exhaustive()
    }
}

impl Signals {
    pub(super) fn progress(&self) -> Duration {
        Duration::from_micros(self.progress_us.load(Ordering::Relaxed))
    }

    pub(super) fn progressed(&self, now: Duration) {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.progress_us.store(now, Ordering::Relaxed);
    }

    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }
}

impl ReadAccount {
    pub(super) fn open(pool: ReadPool) -> Self {
        let signals = Arc::new(Signals::default());
        let id = pool.open(Arc::clone(&signals));
        Self {
            open: Arc::new(Open { pool, id, signals }),
        }
    }

    pub(super) fn id(&self) -> Id {
        self.open.id
    }

    /// Notes that the client took bytes of an answer.
    pub fn progressed(&self) {
        let now = self.open.pool.clock().monotonic();
        self.open.signals.progressed(now);
    }

    /// Resolves once others need what this client holds and does not take. Its owner drops all windows: the connection ends.
    pub fn revoked(&self) -> impl Future<Output = ()> + Send + 'static {
        let signals = Arc::clone(&self.open.signals);
        async move {
            loop {
                let woken = signals.wake.notified();
                if signals.revoked.load(Ordering::Acquire) {
                    return;
                }
                woken.await;
            }
        }
    }

    /// Waits for memory for an answer that is not read from a blob.
    pub async fn hold(&self, bytes: usize) -> HeldBytes {
        let reading = self.answer(Lane::Urgent);
        let mut permit = self.open.pool.acquire(bytes, &reading).await;
        permit.hand_over();
        HeldBytes { _permit: permit }
    }

    /// Begins an answer, whose windows leave one after the other: the next is read once the one before was taken.
    pub fn answer(&self, lane: Lane) -> Reading {
        Reading {
            lane,
            account: Some(self.clone()),
            gate: Arc::default(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.pool.close(self.id);
    }
}

/// A part of the budget for an answer, until it drops.
#[derive(Debug)]
pub struct HeldBytes {
    // Held for its drop.
    _permit: Permit,
}

/// Whom a read is for, and the order of its windows.
#[derive(Debug, Clone)]
pub struct Reading {
    lane: Lane,
    account: Option<ReadAccount>,
    gate: Arc<Gate>,
}

/// Resolves when the window that is out was dropped.
pub(super) type Gate = Mutex<Option<oneshot::Receiver<()>>>;

impl Reading {
    /// A read of the engine or of its owner, which drops what it gets at once. No client can hold it up.
    pub fn internal() -> Self {
        Self {
            lane: Lane::Urgent,
            account: None,
            gate: Arc::default(),
        }
    }

    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    pub(super) fn account(&self) -> Option<&ReadAccount> {
        self.account.as_ref()
    }

    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Waits until the client took the window before, so that it never holds two of one answer.
    pub(crate) async fn turn(&self) {
        poll_fn(|context| {
            let mut gate = self.gate.lock();
            if let Some(taken) = gate.as_mut() {
                // Its sender is dropped with the window, and never sends.
                let _closed = ready!(Pin::new(taken).poll(context));
                *gate = None;
            }
            Poll::Ready(())
        })
        .await;
    }
}
