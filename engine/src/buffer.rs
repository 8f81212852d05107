//! Owned blocks of memory to read into.
//!
//! Owns: [`Buffer`]. Refuses: where blocks come from; `memory` has a budget for them.
//!
//! Invariants: a block begins at a multiple of [`ALIGN_BYTES`]. Bytes between `len` and the limit are initialised, and
//! only `..len` is ever exposed, so no bytes of another request leak. A block returns to its pool when the last owner
//! of its bytes drops them.

use std::fmt::Debug;

use bytes::Bytes;

/// Alignment that a ring or direct I/O requires of memory to read into, in bytes.
pub(crate) const ALIGN_BYTES: usize = 4096;

/// Zeroed memory that begins at a multiple of [`ALIGN_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct Block {
    // Longer than `length`, so that the beginning can be aligned.
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Block {
    /// Allocates a block of `length` bytes.
    pub(crate) fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGN_BYTES - 1];
        let start = memory.as_ptr().align_offset(ALIGN_BYTES);
        Self {
            memory,
            start: start.min(ALIGN_BYTES - 1),
            length,
        }
    }

    /// Returns its size in bytes.
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
    owner: Option<Box<dyn BlockOwner>>,
}

/// Where a block came from.
pub(crate) trait BlockOwner: Send + Sync + Debug {
    /// The filled bytes are passed on to the reader.
    fn deliver(&mut self);
    /// The block is free again.
    fn return_block(&mut self, block: Block);
}

impl Buffer {
    /// Allocates a buffer outside any pool, for headers, tables and offline tools.
    pub fn unpooled(limit: usize) -> Self {
        Self {
            block: Block::new(limit),
            len: 0,
            limit,
            owner: None,
        }
    }

    /// Makes a buffer of a pool's `block`, of which `limit` bytes may be filled.
    pub(crate) fn pooled(block: Block, limit: usize, owner: Box<dyn BlockOwner>) -> Self {
        Self {
            block,
            len: 0,
            limit,
            owner: Some(owner),
        }
    }

    /// Sets how many bytes may be filled in all.
    ///
    /// # Panics
    /// If fewer bytes than that fit, or more are filled.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        assert!(
            (self.len..=self.block.len()).contains(&limit),
            "a limit of {limit} bytes for {} of {}",
            self.len,
            self.block.len()
        );
        self.limit = limit;
    }

    /// Returns the bytes filled so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether nothing was filled yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes that may still be added.
    pub fn room(&self) -> usize {
        self.limit - self.len
    }

    /// Returns the filled part.
    pub fn filled(&self) -> &[u8] {
        self.block.bytes().get(..self.len).unwrap_or_default()
    }

    /// Returns the free part, for a backend to read into; report with [`Buffer::advance`].
    pub fn free_mut(&mut self) -> &mut [u8] {
        let free = self.block.bytes_mut().get_mut(self.len..self.limit);
        free.unwrap_or_default()
    }

    /// Counts `count` bytes of the free part as filled.
    ///
    /// # Panics
    /// If that is more than [`Buffer::room`].
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.room(),
            "a backend filled more than it was given"
        );
        self.len += count;
    }

    /// Turns the filled part into shared bytes without a copy.
    pub fn freeze(mut self) -> Bytes {
        if let Some(owner) = &mut self.owner {
            owner.deliver();
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
        if let Some(mut owner) = self.owner.take() {
            owner.return_block(std::mem::take(&mut self.block));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: every buffer begins at a multiple of 4096 bytes, whatever its size, and all of it can be filled.
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
