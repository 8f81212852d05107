//! A budget of bytes that all clients share, with a limit for each address.
//!
//! Owns: [`SharedBudget`] and [`BudgetShare`].
//! Refuses: waiting. A client that gets no share is rejected, or continues with less.
//!
//! Invariant: an address never holds more than it leaves free for others. So a single address has at most a half; n of
//! them that want all they can get have 1/(n + 1) each, and as much is left for the next one.

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

/// The bytes that one holder has taken, until this drops.
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

    /// Takes `bytes` for `peer`; `None` if it would then hold more than is left.
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

    /// Guards: one address cannot take what all share: it has a half at most, and others that come after it get their
    /// part; what is dropped comes back whole.
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
