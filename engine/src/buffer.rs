//! Owned blocks of memory that are read into.
//!
//! Owns: [`Buffer`]. Refuses: where blocks come from; `memory` has a budget for them.
//!
//! Invariants: a block begins at a multiple of [`ALIGN_BYTES`]. Bytes between `len` and the limit are initialised memory (never secrets of another
//! request: only `..len` is ever exposed). A block returns to its home when the last owner of its bytes drops them.

use std::fmt::Debug;

use bytes::Bytes;

/// What a ring or direct I/O asks of memory that is read into.
pub(crate) const ALIGN_BYTES: usize = 4096;

/// Zeroed memory that begins at a multiple of [`ALIGN_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Block {
    // Longer by what the beginning may have to move.
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Block {
    /// A block of `length` bytes.
    pub(crate) fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGN_BYTES - 1];
        let start = memory.as_ptr().align_offset(ALIGN_BYTES);
        Self {
            memory,
            start: start.min(ALIGN_BYTES - 1),
            length,
        }
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    fn bytes(&self) -> &[u8] {
        let end = self.start + self.length;
        self.memory.get(self.start..end).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let end = self.start + self.length;
        self.memory.get_mut(self.start..end).unwrap_or_default()
    }
}

/// An owned block of memory that is filled from the front.
#[derive(Debug)]
pub struct Buffer {
    block: Block,
    len: usize,
    limit: usize,
    home: Option<Box<dyn Home>>,
}

/// Where a block came from.
pub(crate) trait Home: Send + Sync + Debug {
    /// The bytes leave for whoever asked for them.
    fn hand_over(&mut self);
    /// The block is free again.
    fn take_back(&mut self, block: Block);
}

impl Buffer {
    /// A buffer of its own, outside any pool: for headers, tables and offline tools.
    pub fn unpooled(limit: usize) -> Self {
        Self {
            block: Block::new(limit),
            len: 0,
            limit,
            home: None,
        }
    }

    /// `block` of a pool, of which `limit` bytes may be filled.
    pub(crate) fn at_home(block: Block, limit: usize, home: Box<dyn Home>) -> Self {
        Self {
            block,
            len: 0,
            limit,
            home: Some(home),
        }
    }

    /// Bytes filled so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was filled yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that may still be added.
    pub fn room(&self) -> usize {
        self.limit - self.len
    }

    /// The filled part.
    pub fn filled(&self) -> &[u8] {
        self.block.bytes().get(..self.len).unwrap_or_default()
    }

    /// The free part, for a backend to read into; report with [`Buffer::advance`].
    pub fn free_mut(&mut self) -> &mut [u8] {
        let free = self.block.bytes_mut().get_mut(self.len..self.limit);
        free.unwrap_or_default()
    }

    /// Counts `count` bytes of the free part as filled.
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.room(),
            "a backend filled more than it was given"
        );
        self.len += count;
    }

    /// Turns the filled part into shared bytes without a copy.
    pub fn freeze(mut self) -> Bytes {
        if let Some(home) = &mut self.home {
            home.hand_over();
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(mut home) = self.home.take() {
            home.take_back(std::mem::take(&mut self.block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: what is read into begins at a multiple of 4096 bytes, whatever its size, and all of it can be filled.
    #[test]
    fn buffers_are_aligned() {
        let mut held = Vec::new();
        for limit in [1, 100, 4096, 5000, 64 << 10, 2 << 20] {
            let mut buffer = Buffer::unpooled(limit);
            let free = buffer.free_mut();
            assert_eq!(free.as_ptr().addr() % ALIGN_BYTES, 0, "{limit}");
            assert_eq!(free.len(), limit);
            held.push(buffer);
        }
    }
}
