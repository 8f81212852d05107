//! What one client holds.
//!
//! Owns: [`MemoryAccount`]. Refuses: connections; their owner is told and closes them.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::budget::{Id, Lane};
use super::shared::{MemoryBudget, Permit};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Notify, oneshot};

/// The memory of one client, a connection for example. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryAccount {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    memory: MemoryBudget,
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

    pub(super) fn unrevoke(&self) {
        self.revoked.store(false, Ordering::Release);
    }

    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }
}

impl MemoryAccount {
    pub(super) fn open(memory: MemoryBudget) -> Self {
        let signals = Arc::new(Signals::default());
        let id = memory.open(Arc::clone(&signals));
        Self {
            open: Arc::new(Open {
                memory,
                id,
                signals,
            }),
        }
    }

    pub(super) fn id(&self) -> Id {
        self.open.id
    }

    /// Notes that bytes moved to the client, or from it.
    pub fn progressed(&self) {
        let now = self.open.memory.clock().monotonic();
        self.open.signals.progressed(now);
    }

    /// Resolves once others need what this client holds and does not take. Its owner drops all windows, or one and says so
    /// ([`MemoryAccount::gave_way`]).
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

    /// Notes that its owner drops a window. The client is told again when others still wait after that, or when nothing came back.
    pub fn gave_way(&self) {
        self.open.signals.unrevoke();
    }

    /// Waits for memory for the client: of an answer that is not read from a blob, or of what it sends.
    pub async fn hold(&self, lane: Lane, bytes: usize) -> HeldBytes {
        let mut permit = self.open.memory.acquire(lane, Some(self), bytes).await;
        permit.hand_over(None);
        HeldBytes(permit)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.memory.with(|budget| budget.close(self.id));
    }
}

/// A part of the budget, until it drops.
#[derive(Debug)]
pub struct HeldBytes(Permit);

impl HeldBytes {
    /// Gives back what is beyond `bytes`: less is needed than was asked for.
    pub fn shrink(&mut self, bytes: usize) {
        self.0.shrink(bytes);
    }

    /// Nothing is waited for from the client any more, so it is not told to give way for these bytes.
    pub fn settle(&self) {
        self.0.settle();
    }

    /// Something is waited for from the client again.
    pub fn unsettle(&self) {
        self.0.note_handed(false);
    }
}

/// Resolves when the window that is out was dropped.
pub(super) type Gate = Mutex<Option<oneshot::Receiver<()>>>;
