//! Which slots are free, and which are used again.
//!
//! Owns: [`Slots`]. A slot that nobody uses keeps its pages mapped, because windows that were unmapped after
//! each use gained nothing over copying. The next use of the same window gets it back, alone. Refuses: mapping.

use lru::LruCache;

/// Slots that are kept for one window, so that several readers of a blob find one each.
const COPIES: u8 = 4;

/// Pages of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The file, by a number that no other file of the process has or had.
    pub(super) file: u64,
    /// Offset of the first page, in bytes.
    pub(super) offset: u64,
    /// Bytes of all pages.
    pub(super) bytes: usize,
}

/// What is mapped in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// The same place.
    Same,
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
}

/// The slots that nobody uses, by their indices.
#[derive(Debug)]
pub(super) struct Slots {
    free: Vec<usize>,
    idle: LruCache<(Place, u8), usize>,
}

impl Slots {
    /// Makes `count` free slots.
    pub(super) fn new(count: usize) -> Self {
        Self {
            free: (0..count).rev().collect(),
            idle: LruCache::unbounded(),
        }
    }

    /// Takes a slot for `place`: one in which it is mapped, else a free one, else the one that was not used for the
    /// longest time. `None` if all are in use.
    pub(super) fn take(&mut self, place: Place) -> Option<(usize, Content)> {
        let kept = (0..COPIES).find_map(|copy| self.idle.pop(&(place, copy)));
        if let Some(index) = kept {
            return Some((index, Content::Same));
        }
        if let Some(index) = self.free.pop() {
            return Some((index, Content::Nothing));
        }
        let (_, index) = self.idle.pop_lru()?;
        Some((index, Content::Other))
    }

    /// Keeps a slot in which `place` is mapped. Returns false if there are enough of them.
    pub(super) fn keep(&mut self, place: Place, index: usize) -> bool {
        let free = (0..COPIES).find(|copy| !self.idle.contains(&(place, *copy)));
        if let Some(copy) = free {
            self.idle.put((place, copy), index);
        }
        free.is_some()
    }

    /// Takes all slots that are kept for a file. Each is given to [`Slots::put_back`] once it is unmapped.
    pub(super) fn remove_file(&mut self, file: u64) -> Vec<usize> {
        let of_file = |((place, _), _): &(&(Place, u8), &usize)| place.file == file;
        let keys: Vec<_> = self
            .idle
            .iter()
            .filter(of_file)
            .map(|(key, _)| *key)
            .collect();
        keys.iter().filter_map(|key| self.idle.pop(key)).collect()
    }

    /// Adds a slot in which nothing is mapped.
    pub(super) fn put_back(&mut self, index: usize) {
        self.free.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: u64, offset: u64) -> Place {
        Place {
            file,
            offset,
            bytes: 4096,
        }
    }

    /// Guards: a window finds its own slot again, each reader another one. Once all slots are taken, the one that was
    /// kept for the longest time is used for another window. A file that is closed leaves none.
    #[test]
    fn slots_are_used_again() {
        let mut slots = Slots::new(3);
        let (a, b, c) = (place(1, 0), place(1, 4096), place(2, 0));
        assert_eq!(slots.take(a), Some((0, Content::Nothing)));
        assert_eq!(slots.take(a), Some((1, Content::Nothing)), "another reader");
        assert!(slots.keep(a, 0) && slots.keep(a, 1));
        assert_eq!(slots.take(b), Some((2, Content::Nothing)));
        assert_eq!(slots.take(a), Some((0, Content::Same)));
        assert!(slots.keep(b, 2) && slots.keep(a, 0));
        assert_eq!(slots.take(c), Some((1, Content::Other)), "the oldest one");
        assert!(slots.keep(c, 1));
        let mut removed = slots.remove_file(1);
        removed.sort_unstable();
        assert_eq!(removed, [0, 2]);
        assert_eq!(
            slots.take(a),
            Some((1, Content::Other)),
            "only another file's is left"
        );
        assert_eq!(slots.take(a), None);
        slots.put_back(2);
        assert_eq!(slots.take(a), Some((2, Content::Nothing)));
        for index in 0..usize::from(COPIES) {
            assert!(slots.keep(a, index));
        }
        assert!(!slots.keep(a, 9), "enough of them");
    }
}
