//! The running hash and chunk checksums of an upload.
//!
//! Owns: hashing bytes, marks to roll back to, and the form that survives a restart. Refuses: I/O.

use bytes::Bytes;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::format::checksum::{ChunkChecksums, ChunkMark};
use crate::format::upload_log::UploadCheckpoint;
use crate::limits::CHUNK_BYTES;

/// Version of the mid-states that sha2 0.11 serializes (FORMAT.md, "Upload logs").
const MID_STATE_VERSION: u8 = 1;

/// Most bytes that are hashed at once on an async worker. That is cheaper than another thread, and does not wait for
/// the windows of large uploads.
pub(super) const HASH_INLINE_BYTES: u64 = 32 << 10;

/// The state of everything that is computed over the payload.
#[derive(Debug, Clone)]
pub(super) struct PayloadHash {
    hasher: Hasher,
    checksums: ChunkChecksums,
}

/// How far an upload is, and how far its log may name it: no byte of a close without an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress<'a> {
    pub(super) payload_hash: &'a PayloadHash,
    /// Where that close began.
    pub(super) close: Option<&'a PayloadHashMark>,
}

impl Progress<'_> {
    pub(super) fn length(&self) -> u64 {
        self.payload_hash.length()
    }

    /// Returns the number of bytes that a checkpoint names.
    pub(super) fn named(&self) -> u64 {
        self.close.map_or(self.length(), |mark| mark.mark.length)
    }

    /// Makes a checkpoint with the checksums from chunk `first` on.
    pub(super) fn checkpoint(&self, first: u64, unix_ms: u64) -> UploadCheckpoint {
        let mark = self.close.cloned();
        let mark = mark.unwrap_or_else(|| self.payload_hash.mark());
        self.payload_hash.checkpoint_at(&mark, first, unix_ms)
    }
}

/// A point of a [`PayloadHash`] to roll back to.
#[derive(Debug, Clone)]
pub(super) struct PayloadHashMark {
    hasher: Hasher,
    pub(super) mark: ChunkMark,
}

impl PayloadHash {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self {
            hasher: Hasher::new(algorithm),
            checksums: ChunkChecksums::default(),
        }
    }

    /// Continues from a checkpoint that has all checksums; `None` if the hash cannot continue.
    pub(super) fn resume(checkpoint: &UploadCheckpoint) -> Option<Self> {
        if checkpoint.mid_state_version != MID_STATE_VERSION {
            return None;
        }
        let (state, length) = (&checkpoint.mid_state, checkpoint.mark.length);
        let hasher = Hasher::from_mid_state(checkpoint.algorithm, state, length)?;
        Self::with_hasher(hasher, checkpoint)
    }

    /// Continues with a hash that was computed over the payload again.
    pub(super) fn with_hasher(hasher: Hasher, checkpoint: &UploadCheckpoint) -> Option<Self> {
        let checksums = ChunkChecksums::resume(checkpoint.checksums.clone(), checkpoint.mark)?;
        Some(Self { hasher, checksums })
    }

    pub(super) fn update(&mut self, pieces: &[Bytes]) {
        for piece in pieces {
            self.hasher.update(piece);
            self.checksums.update(piece);
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.checksums.length()
    }

    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    pub(super) fn table(&self) -> Vec<u32> {
        self.checksums.table()
    }

    pub(super) fn mark(&self) -> PayloadHashMark {
        PayloadHashMark {
            hasher: self.hasher.clone(),
            mark: self.checksums.mark(),
        }
    }

    pub(super) fn roll_back_to(&mut self, mark: &PayloadHashMark) {
        self.hasher = mark.hasher.clone();
        self.checksums.rewind(mark.mark);
    }

    fn checkpoint_at(&self, at: &PayloadHashMark, first: u64, unix_ms: u64) -> UploadCheckpoint {
        let chunks = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let named = chunks(first)..chunks(at.mark.length / CHUNK_BYTES as u64);
        let mid_state = at.hasher.mid_state();
        UploadCheckpoint {
            unix_ms,
            mark: at.mark,
            algorithm: at.hasher.algorithm(),
            mid_state_version: if mid_state.is_some() {
                MID_STATE_VERSION
            } else {
                0
            },
            mid_state: mid_state.unwrap_or_default(),
            first_chunk: first,
            checksums: self
                .checksums
                .whole()
                .get(named)
                .unwrap_or_default()
                .to_vec(),
        }
    }
}
