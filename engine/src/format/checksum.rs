//! Checksums of the chunks of a payload: CRC-32 (IEEE), one per chunk.
//!
//! Owns: [`ChunkChecksums`] and the encoding of a checksum table. Refuses: identity of content (`digest`): a checksum
//! detects bit rot, not forgery.

use bytes::Bytes;

use super::codec::{Malformed, checksum};
use crate::limits::CHUNK_BYTES;

/// Returns the number of chunks of a payload of `length` bytes. The last chunk may be short.
pub const fn chunk_count(length: u64) -> u64 {
    length.div_ceil(CHUNK_BYTES as u64)
}

/// The checksums of a payload that arrives in pieces of any size.
#[derive(Debug, Clone, Default)]
pub struct ChunkChecksums {
    whole: Vec<u32>,
    partial: crc32fast::Hasher,
    partial_bytes: usize,
}

/// A position in a payload to which [`ChunkChecksums`] can rewind, or from which it can continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkMark {
    /// Payload bytes before the position.
    pub length: u64,
    /// Checksum of the bytes of the unfinished chunk before the position; 0 if there are none.
    pub partial: u32,
}

impl ChunkChecksums {
    /// Continues at `mark` after the whole chunks in `whole`. Returns `None` if the two do not fit together.
    pub fn resume(whole: Vec<u32>, mark: ChunkMark) -> Option<Self> {
        let chunk = CHUNK_BYTES as u64;
        if whole.len() as u64 != mark.length / chunk {
            return None;
        }
        let rest = mark.length % chunk;
        let partial = crc32fast::Hasher::new_with_initial_len(mark.partial, rest);
        Some(Self {
            whole,
            partial,
            partial_bytes: usize::try_from(rest).ok()?,
        })
    }

    /// Adds the next bytes of the payload.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.partial_bytes));
            self.partial.update(head);
            self.partial_bytes += head.len();
            if self.partial_bytes == CHUNK_BYTES {
                self.whole
                    .push(std::mem::take(&mut self.partial).finalize());
                self.partial_bytes = 0;
            }
            bytes = rest;
        }
    }

    /// Returns the payload bytes added so far.
    pub fn length(&self) -> u64 {
        self.whole.len() as u64 * CHUNK_BYTES as u64 + self.partial_bytes as u64
    }

    /// Returns the checksums of the whole chunks so far.
    pub fn whole(&self) -> &[u32] {
        &self.whole
    }

    /// Returns the current position.
    pub fn mark(&self) -> ChunkMark {
        ChunkMark {
            length: self.length(),
            partial: self.partial.clone().finalize(),
        }
    }

    /// Rewinds to an earlier position of the same payload.
    ///
    /// # Panics
    /// If `mark` is after the current position.
    pub fn rewind(&mut self, mark: ChunkMark) {
        assert!(
            mark.length <= self.length(),
            "a position to rewind to lies before the current one"
        );
        let mut whole = std::mem::take(&mut self.whole);
        whole.truncate(usize::try_from(mark.length / CHUNK_BYTES as u64).unwrap_or(usize::MAX));
        match Self::resume(whole, mark) {
            Some(earlier) => *self = earlier,
            None => unreachable!("a shorter payload has fewer chunks"),
        }
    }

    /// Returns the table of the payload: one checksum per chunk, the last one of what remains.
    pub fn table(&self) -> Vec<u32> {
        let mut table = self.whole.clone();
        if self.partial_bytes > 0 {
            table.push(self.partial.clone().finalize());
        }
        table
    }
}

/// Encodes a checksum table as it is stored on disk.
pub fn encode_table(table: &[u32]) -> Bytes {
    table.iter().flat_map(|crc| crc.to_le_bytes()).collect()
}

/// Decodes a checksum table. Bytes after the last whole entry are ignored.
pub fn decode_table(bytes: &[u8]) -> Vec<u32> {
    let (entries, _) = bytes.as_chunks::<4>();
    entries
        .iter()
        .map(|entry| u32::from_le_bytes(*entry))
        .collect()
}

/// Checks the consecutive chunks of `payload`, which starts at a chunk's first byte, against `table`.
///
/// # Errors
/// Returns the first mismatch and its offset within `payload`.
pub fn check_chunks(payload: &[u8], table: &[u32]) -> Result<(), (usize, Malformed)> {
    let chunks = payload.chunks(CHUNK_BYTES);
    if chunks.len() > table.len() {
        return Err((
            0,
            Malformed(format!(
                "{} chunks have {} checksums",
                chunks.len(),
                table.len()
            )),
        ));
    }
    for (number, (chunk, stored)) in chunks.zip(table).enumerate() {
        let computed = checksum(chunk);
        if computed != *stored {
            let what = format!("chunk checksum {computed:08x}, expected {stored:08x}");
            return Err((number * CHUNK_BYTES, Malformed(what)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: the polynomial (the check value of CRC-32/ISO-HDLC), on which every stored byte depends.
    #[test]
    fn known_answer() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926);
    }

    /// Guards: the table does not depend on how the payload was cut into pieces, on resuming in the middle of a chunk,
    /// or on rewinding.
    #[test]
    fn pieces_resume_and_going_back_give_the_same_table() {
        let payload: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let expected: Vec<u32> = payload.chunks(CHUNK_BYTES).map(checksum).collect();
        for cut in [
            0,
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            131_072,
            199_999,
            200_000,
        ] {
            let mut first = ChunkChecksums::default();
            first.update(&payload[..cut]);
            let mark = first.mark();
            let mut resumed = ChunkChecksums::resume(first.whole().to_vec(), mark).unwrap();
            resumed.update(&payload[cut..]);
            assert_eq!(resumed.table(), expected, "resumed at {cut}");
            first.update(&vec![7; 100_000]);
            first.rewind(mark);
            first.update(&payload[cut..]);
            assert_eq!(first.table(), expected, "went back to {cut}");
            assert_eq!(first.length(), 200_000);
        }
        assert_eq!(decode_table(&encode_table(&expected)), expected);
        check_chunks(&payload, &expected).unwrap();
    }
}
