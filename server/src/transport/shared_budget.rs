//! A budget of bytes that all clients share, with a limit for each address.
//!
//! Owns: [`SharedBudget`] and [`BudgetShare`].
//! Refuses: waiting. A client that gets no share is rejected, or continues with less.
//!
//! Invariant: an address never gets a share after which it would hold more than is left. So a single address has at
//! most half of the budget. If n addresses take all that they can get, each has 1/(n + 1), and as much is left for the
//! next one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// A number of bytes that is shared among addresses.
#[derive(Debug)]
pub(super) struct SharedBudget {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    free: usize,
    /// Bytes by address, of those that hold some.
    held: HashMap<IpAddr, usize>,
}

/// Bytes that are reserved for one holder, until this is dropped.
#[derive(Debug)]
pub(super) struct BudgetShare {
    shared: Arc<SharedBudget>,
    peer: IpAddr,
    bytes: usize,
}

impl SharedBudget {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        let table = Table {
            free: bytes,
            held: HashMap::new(),
        };
        Arc::new(Self {
            table: Mutex::new(table),
        })
    }

    /// Reserves `bytes` for `peer`. Returns `None` if it would then hold more than is left.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr, bytes: usize) -> Option<BudgetShare> {
        let mut table = self.table.lock();
        let left = table.free.checked_sub(bytes)?;
        let held = table.held.get(&peer).copied().unwrap_or_default() + bytes;
        if held > left {
            return None;
        }
        table.free = left;
        table.held.insert(peer, held);
        Some(BudgetShare {
            shared: Arc::clone(self),
            peer,
            bytes,
        })
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        let mut table = self.shared.table.lock();
        table.free += self.bytes;
        if let Some(held) = table.held.get_mut(&self.peer) {
            *held -= self.bytes;
            if *held == 0 {
                table.held.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Guards: one address gets at most half of the budget, and later ones get their part; a dropped share is returned
    /// whole.
    #[test]
    fn an_address_leaves_as_much_as_it_holds() {
        let shared = SharedBudget::new(1200);
        let take_all = |last: u8| {
            let shares = std::iter::from_fn(|| shared.take(peer(last), 1));
            shares.collect::<Vec<_>>()
        };
        let first = take_all(1);
        assert_eq!(first.len(), 600);
        let second = take_all(2);
        assert_eq!(second.len(), 300);
        assert_eq!(take_all(1).len(), 0);
        let third = take_all(3);
        assert_eq!(third.len(), 150);
        drop((first, second));
        assert_eq!(take_all(2).len(), 525);
        drop(third);
        let table = shared.table.lock();
        assert!(table.free == 1200 && table.held.is_empty());
    }
}
