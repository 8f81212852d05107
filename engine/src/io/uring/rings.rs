//! All rings of a backend.
//!
//! Owns: [`Rings`]: how many there are, and which one does an operation. Refuses: what an operation is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::operation::Operation;
use super::policy::{self, Action, Table};
use super::probe::Unavailable;
use super::reactor::{self, Shard, Shared};
use crate::io::threads::pool::Pool;
use crate::io::{Class, ClassCount};
use crate::options::RINGS_MAX;

/// The rings. Dropping them closes them; operations already submitted still run.
#[derive(Debug)]
pub(super) struct Rings {
    shards: Vec<Arc<Shard>>,
    next: AtomicUsize,
    table: Table,
    shared: Arc<Shared>,
}

impl Rings {
    /// Starts a ring for each processor, up to a bound.
    pub(super) fn start(pool: Arc<Pool>, table: Table) -> Result<Self, Unavailable> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut rings = Self {
            shards: Vec::new(),
            next: AtomicUsize::new(0),
            table,
            shared: Arc::new(Shared::new(pool)),
        };
        for number in 0..processors.min(RINGS_MAX) {
            let shard = reactor::start(&rings.shared, number)?;
            rings.shards.push(shard);
        }
        Ok(rings)
    }

    /// Returns whether the rings do an operation on `length` bytes.
    pub(super) fn serve(&self, class: Class, action: Action, length: usize) -> bool {
        policy::serves(self.table, class, action, length) && !self.shared.is_off()
    }

    /// Does an operation: by the rings, which take turns, or by the threads if that ring has failed.
    pub(super) fn submit(&self, operation: Operation) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let shard = self.shards.get(turn % self.shards.len().max(1));
        let rejected = match shard {
            Some(shard) => shard.submit(operation),
            None => Some(operation),
        };
        if let Some(operation) = rejected {
            operation.hand_over(&self.shared.pool);
        }
    }

    /// Returns the number of operations so far, by class.
    pub(super) fn counts(&self) -> Vec<ClassCount> {
        self.shared.counts.read()
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.close();
        }
    }
}
