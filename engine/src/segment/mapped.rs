//! Windows of a blob that are mapped, not copied.
//!
//! Owns: [`map`], and what is checked of such a window. Refuses: conclusions about a window that is wrong. It is read
//! again by copying, and that read decides.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::format::checksum::check_chunks;
use crate::io::{Class, File, IoFuture, Mapping};
use crate::memory::{CheckedWindow, HeldBytes, ReadPool, Reading, is_surely_unchanged};

/// A mapped window, with the checksums of its chunks.
#[derive(Debug)]
struct MappedChunks {
    mapping: Arc<dyn Mapping>,
    checksums: Box<[u32]>,
    // Held for its drop.
    _memory: HeldBytes,
}

/// An owner of a window's bytes.
struct Owner(Arc<MappedChunks>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.mapping.bytes()
    }
}

impl CheckedWindow for MappedChunks {
    fn is_unchanged(&self) -> bool {
        check_chunks(self.mapping.bytes(), &self.checksums).is_ok()
    }

    fn is_resident(&self) -> bool {
        self.mapping.is_resident()
    }

    fn load(self: Arc<Self>) -> IoFuture<()> {
        Arc::clone(&self.mapping).load(Class::ForegroundRead.call())
    }
}

/// Maps `length` bytes of whole chunks at `offset` of a file, and checks them. `None` if they are not in memory, cannot
/// be mapped, or are wrong.
pub(super) async fn map(
    file: &dyn File,
    (offset, length): (u64, usize),
    checksums: &[u32],
    (pool, reading): (&ReadPool, &Reading),
) -> Option<Bytes> {
    let memory = pool.hold_mapped(length, reading).await;
    let window = Arc::new(MappedChunks {
        mapping: file.map_cached(Class::ForegroundRead.call(), offset, length)?,
        checksums: checksums.into(),
        _memory: memory,
    });
    if !is_surely_unchanged(&*window) {
        return None;
    }
    let noted: Weak<MappedChunks> = Arc::downgrade(&window);
    reading.note_mapped(noted);
    Some(Bytes::from_owner(Owner(window)))
}
