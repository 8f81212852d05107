//! Owned blocks of memory that are read into.
//!
//! Owns: [`Buffer`]. Refuses: where blocks come from; `reads` has a budget for them.
//!
//! Invariants: bytes between `len` and the limit are initialised memory (never secrets of another
//! request: only `..len` is ever exposed). A block returns to its home when the last owner of its bytes drops them.

use std::fmt::Debug;

use bytes::Bytes;

/// An owned block of memory that is filled from the front.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    limit: usize,
    home: Option<Box<dyn Home>>,
}

/// Where a block came from.
pub(crate) trait Home: Send + Sync + Debug {
    /// The bytes leave for whoever asked for them.
    fn hand_over(&mut self);
    /// The block is free again.
    fn take_back(&mut self, block: Vec<u8>);
}

impl Buffer {
    /// A buffer of its own, outside any pool: for headers, tables and offline tools.
    pub fn unpooled(limit: usize) -> Self {
        Self {
            bytes: vec![0; limit],
            len: 0,
            limit,
            home: None,
        }
    }

    /// `block` of a pool, of which `limit` bytes may be filled.
    pub(crate) fn at_home(block: Vec<u8>, limit: usize, home: Box<dyn Home>) -> Self {
        Self {
            bytes: block,
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
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The free part, for a backend to read into; report with [`Buffer::advance`].
    pub fn free_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.len..self.limit).unwrap_or_default()
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
            home.take_back(std::mem::take(&mut self.bytes));
        }
    }
}
