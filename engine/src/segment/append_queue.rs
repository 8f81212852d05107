//! The order in which waiting blobs are written.
//!
//! Owns: the order, which is policy. Refuses: writing.
//!
//! Invariants: one write is bounded in blobs and bytes. Small blobs go first. Every other write begins with the blob
//! that waited longest.

/// Most blobs in one write.
const BATCH_BLOBS_MAX: usize = 256;
/// Most payload bytes in one write, except for a single larger blob.
const BATCH_BYTES_MAX: u64 = 4 << 20;

/// The blobs that wait.
#[derive(Debug)]
pub(super) struct AppendQueue<T> {
    items: Vec<Item<T>>,
    came: u64,
    /// Whether the next write begins with the blob that waited longest.
    oldest_first: bool,
}

#[derive(Debug)]
struct Item<T> {
    came: u64,
    bytes: u64,
    what: T,
}

impl<T> AppendQueue<T> {
    /// Creates an empty queue.
    pub(super) fn new() -> Self {
        Self {
            items: Vec::new(),
            came: 0,
            oldest_first: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Adds an item of `bytes` bytes.
    pub(super) fn push(&mut self, bytes: u64, what: T) {
        self.came += 1;
        let came = self.came;
        self.items.push(Item { came, bytes, what });
    }

    /// Takes the items of the next write; empty only if nothing waits.
    pub(super) fn take_batch(&mut self) -> Vec<T> {
        if self.oldest_first {
            self.items.sort_unstable_by_key(|item| item.came);
        } else {
            self.items
                .sort_unstable_by_key(|item| (item.bytes, item.came));
        }
        self.oldest_first = !self.oldest_first;
        let mut total = 0;
        let fits = |(count, item): &(usize, &Item<T>)| {
            total += item.bytes;
            *count == 0 || (*count < BATCH_BLOBS_MAX && total <= BATCH_BYTES_MAX)
        };
        let count = self.items.iter().enumerate().take_while(fits).count();
        self.items.drain(..count).map(|item| item.what).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Guards: a write is bounded, small blobs pass large ones, and large ones are written however many small ones
    /// come.
    #[test]
    fn small_ones_pass_and_large_ones_get_their_turn() {
        let mut waiting = AppendQueue::new();
        for _ in 0..3 {
            waiting.push(8 * MIB, "large");
        }
        waiting.push(1 << 10, "small");
        assert_eq!(waiting.take_batch(), ["small"]);
        for _ in 0..3 {
            for _ in 0..2 * BATCH_BLOBS_MAX {
                waiting.push(1 << 10, "small");
            }
            assert_eq!(waiting.take_batch(), ["large"], "it waited longest");
            assert_eq!(waiting.take_batch(), vec!["small"; BATCH_BLOBS_MAX]);
        }
        let mut left = 0;
        while waiting.len() > 0 {
            left += waiting.take_batch().len();
        }
        assert_eq!(left, 3 * BATCH_BLOBS_MAX);
        waiting.push(3 * MIB, "first");
        waiting.push(3 * MIB, "second");
        assert_eq!(waiting.take_batch().len(), 1, "4 MiB at a time");
        assert_eq!(waiting.take_batch().len(), 1);
        assert!(waiting.take_batch().is_empty());
    }
}
