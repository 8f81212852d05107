//! Memory for bytes of uploads that are not yet hashed and written, or finished.
//!
//! Owns: one budget for all uploads, and the share of each. Refuses: waiting. An upload that gets nothing spills and
//! continues with one piece at a time, so idle uploads cannot stop others.
//!
//! Invariants: the last quarter is for small uploads, so that large ones do not push them out of the shared segments. A
//! client never gets a share after which its uploads would hold more than is left. So the many uploads of one client
//! leave as much to others.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sync::Mutex;
use crate::vocabulary::ClientId;

/// Largest upload, in bytes, that may use the last quarter of the budget. It is stored in a shared segment even if it
/// had to spill.
pub(super) const SMALL_BYTES: u64 = 256 << 10;

/// The budget. Share by `Arc`.
#[derive(Debug)]
pub(super) struct StagingBudget {
    total: u64,
    accounts: Mutex<Accounts>,
}

#[derive(Debug)]
struct Accounts {
    left: u64,
    /// Bytes by client, of those that hold some.
    held: HashMap<ClientId, u64>,
}

impl StagingBudget {
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        let accounts = Accounts {
            left: bytes,
            held: HashMap::new(),
        };
        Arc::new(Self {
            total: bytes,
            accounts: Mutex::new(accounts),
        })
    }

    /// Returns whether less than half is left, or a client holds more than half of what is left, so that it soon gets
    /// no more.
    pub(super) fn is_short(&self) -> bool {
        let accounts = self.accounts.lock();
        let left = accounts.left;
        left < self.total / 2 || accounts.held.values().any(|held| *held > left / 2)
    }

    /// Creates an empty share of the engine's.
    pub(super) fn share(self: &Arc<Self>) -> Staged {
        Staged {
            budget: Arc::clone(self),
            client: ClientId::ENGINE,
            bytes: 0,
        }
    }
}

impl Accounts {
    fn give(&mut self, client: ClientId, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.left -= bytes;
        *self.held.entry(client).or_default() += bytes;
    }

    fn take_back(&mut self, client: ClientId, bytes: u64) {
        self.left += bytes;
        if let Some(held) = self.held.get_mut(&client) {
            *held -= bytes;
            if *held == 0 {
                self.held.remove(&client);
            }
        }
    }
}

/// The share of one upload; returned to the budget when it drops.
#[derive(Debug)]
pub(super) struct Staged {
    budget: Arc<StagingBudget>,
    /// The client whose request has the turn.
    client: ClientId,
    bytes: u64,
}

impl Staged {
    /// Returns whether it is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Returns its size in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts it as held by `client` from now on.
    pub(super) fn set_client(&mut self, client: ClientId) {
        let mut accounts = self.budget.accounts.lock();
        accounts.take_back(self.client, self.bytes);
        accounts.give(client, self.bytes);
        self.client = client;
    }

    /// Takes `bytes` more for an upload that then has `length`, if enough is left for one of that size and client.
    pub(super) fn try_add(&mut self, bytes: u64, length: u64) -> bool {
        let kept = if length <= SMALL_BYTES {
            0
        } else {
            self.budget.total / 4
        };
        let mut accounts = self.budget.accounts.lock();
        let held = accounts.held.get(&self.client).copied().unwrap_or_default();
        let left = accounts.left.checked_sub(bytes + kept);
        let enough = left.is_some_and(|left| held + bytes <= left);
        if enough {
            accounts.give(self.client, bytes);
            self.bytes += bytes;
        }
        enough
    }

    /// Returns what is above `bytes`.
    pub(super) fn release_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        let mut accounts = self.budget.accounts.lock();
        accounts.take_back(self.client, surplus);
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.release_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_of(budget: &Arc<StagingBudget>, client: u128) -> Staged {
        let mut share = budget.share();
        share.set_client(ClientId(client));
        share
    }

    /// Guards: the budget is never exceeded and is returned as a whole, also by a share that changed its client.
    #[test]
    fn shares_come_back() {
        let budget = StagingBudget::new(10);
        let (mut first, mut second) = (share_of(&budget, 1), share_of(&budget, 2));
        assert!(first.try_add(5, 5));
        assert!(!second.try_add(3, 3));
        first.release_to(2);
        second.set_client(ClientId(1));
        assert!(second.try_add(2, 2));
        second.set_client(ClientId(3));
        drop((first, second));
        let accounts = budget.accounts.lock();
        assert!(accounts.left == 10 && accounts.held.is_empty());
    }

    /// Guards: large uploads leave a quarter to small ones.
    #[test]
    fn large_uploads_leave_room_for_small_ones() {
        let large = SMALL_BYTES + 1;
        let budget = StagingBudget::new(4 * large);
        let mut shares: Vec<_> = (1..=3).map(|client| share_of(&budget, client)).collect();
        for share in &mut shares {
            while share.try_add(large / 64, large) {}
        }
        let held: u64 = shares.iter().map(Staged::bytes).sum();
        assert!(held > 2 * large && held <= 3 * large, "{held}");
        let mut small = share_of(&budget, 4);
        assert!(!small.try_add(large, large));
        assert!(small.try_add(SMALL_BYTES / 2, SMALL_BYTES));
        assert!(budget.is_short());
    }

    /// Guards: all uploads of one client together leave as much as they hold, so another client's upload is staged.
    #[test]
    fn the_uploads_of_one_client_leave_as_much_to_others() {
        let budget = StagingBudget::new(64);
        let mut many: Vec<_> = (0..64).map(|_| share_of(&budget, 1)).collect();
        let given = many
            .iter_mut()
            .filter_map(|share| share.try_add(1, 1).then_some(()));
        assert_eq!(given.count(), 32);
        assert!(budget.is_short());
        let mut other = share_of(&budget, 2);
        assert!(other.try_add(16, 16) && !other.try_add(1, 1));
    }
}
