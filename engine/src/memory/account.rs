//! The memory that one client holds.
//!
//! Owns: [`MemoryAccount`]. Refuses: connections; their owner is notified and closes them.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::budget::{Id, MemoryPriority};
use super::mapped::MappedWindows;
use super::shared::{MemoryBudget, Permit};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Notify, oneshot};

/// The memory account of one client, for example a connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryAccount {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    memory: MemoryBudget,
    id: Id,
    signals: Arc<Signals>,
    mapped: MappedWindows,
}

/// What the account's owner and the budget signal to each other.
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

    pub(super) fn record_progress(&self, now: Duration) {
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
                mapped: MappedWindows::default(),
            }),
        }
    }

    pub(super) fn id(&self) -> Id {
        self.open.id
    }

    pub(super) fn mapped(&self) -> &MappedWindows {
        &self.open.mapped
    }

    /// Allows or forbids that windows of the client's answers are mapped, not copied. Whoever allows it uses the bytes
    /// of answers only in [`MemoryAccount::used_unchanged`].
    pub fn set_mapping_allowed(&self, is_allowed: bool) {
        self.open.mapped.set_allowed(is_allowed);
    }

    /// Runs `use_bytes`, which may use the bytes of mapped windows. Returns false if those may not be the ones that
    /// were checked, because the kernel had evicted a page and read it again.
    pub fn used_unchanged(&self, use_bytes: &mut dyn FnMut()) -> bool {
        self.open.mapped.used_unchanged(use_bytes)
    }

    /// Returns a future that reads what is no longer in memory of the mapped windows, and resolves to whether all is as
    /// it was checked. `None` if everything is in memory.
    pub fn load_mapped(&self) -> Option<impl Future<Output = bool> + Send + 'static> {
        self.open.mapped.load()
    }

    /// Notes that bytes moved to or from the client.
    pub fn record_progress(&self) {
        let now = self.open.memory.clock().monotonic_coarse();
        self.open.signals.record_progress(now);
    }

    /// Resolves once others need what this client holds and does not take.
    ///
    /// The owner then drops all windows of the client, or one, and reports that with [`MemoryAccount::record_drop`].
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

    /// Notes that the owner drops a window. The client is revoked again if others still wait afterwards, or if nothing
    /// was returned.
    pub fn record_drop(&self) {
        self.open.signals.unrevoke();
    }

    /// Waits for memory for an answer that is not read from a blob, or for what the client sends.
    pub async fn hold(&self, priority: MemoryPriority, bytes: usize) -> HeldBytes {
        let mut permit = self.open.memory.acquire(priority, Some(self), bytes).await;
        permit.deliver(None);
        HeldBytes(permit)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.memory.with(|budget| budget.close(self.id));
    }
}

/// A part of the budget, returned when it drops.
#[derive(Debug)]
pub struct HeldBytes(Permit);

impl HeldBytes {
    pub(super) fn new(permit: Permit) -> Self {
        Self(permit)
    }

    /// Returns what is beyond `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        self.0.shrink(bytes);
    }

    /// Stops counting these bytes as waiting for the client, so it is not revoked because of them.
    pub fn settle(&self) {
        self.0.settle();
    }

    /// Counts these bytes as waiting for the client again.
    pub fn unsettle(&self) {
        self.0.note_delivered(false);
    }
}

/// Resolves when the window that the client has was dropped.
pub(super) type Gate = Mutex<Option<oneshot::Receiver<()>>>;
