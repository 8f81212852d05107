//! Generates the content of blobs from a seed, much faster than a registry can take it.
//!
//! Owns: [`Content`]. It consists of one random block, again and again, each time changed by keys of the seed and the
//! place, so that no two contents share bytes. The block fits into a processor's nearest cache, so that a client that
//! compares what it pulls takes little time from the server. Refuses: to keep large content in memory.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Content is generated in pieces of this many bytes, whole blocks.
pub const PIECE: usize = 1 << 20;
const BLOCK_BYTES: usize = 16 << 10;
const LANES: usize = 8;
/// Bytes that are changed by all keys once.
const GROUP: usize = 8 * LANES;

/// The content of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub seed: u64,
    pub length: u64,
}

impl Content {
    /// Passes the content to `see`, piece by piece, in one buffer.
    pub fn each_piece<E>(&self, mut see: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut buffer = vec![0; PIECE.min(usize::try_from(self.length).unwrap_or(PIECE))];
        let mut offset = 0;
        while offset < self.length {
            let length = (self.length - offset).min(PIECE as u64) as usize;
            let blocks = buffer[..length].chunks_mut(BLOCK_BYTES);
            blocks
                .zip(offset / BLOCK_BYTES as u64..)
                .for_each(|(out, number)| self.fill(number, out));
            see(&buffer[..length])?;
            offset += length as u64;
        }
        Ok(())
    }

    /// Returns whether the content has `bytes` at `offset`.
    pub fn is_at(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        let mut different = 0;
        while !bytes.is_empty() {
            let (words, keys) = (block(), self.keys(offset / BLOCK_BYTES as u64));
            let from = (offset % BLOCK_BYTES as u64) as usize;
            let (here, after) = bytes.split_at(bytes.len().min(BLOCK_BYTES - from));
            // Whole groups of lanes, and single bytes up to the first and from the last.
            let (first, rest) = here.split_at(here.len().min(from.next_multiple_of(GROUP) - from));
            let (groups, last) = rest.as_chunks::<GROUP>();
            let expected = words[(from + first.len()) / 8..].as_chunks::<LANES>().0;
            for (group, expected) in groups.iter().zip(expected) {
                for ((word, expected), key) in
                    group.as_chunks::<8>().0.iter().zip(expected).zip(keys)
                {
                    different |= u64::from_le_bytes(*word) ^ expected ^ key;
                }
            }
            let byte = |at: usize| (words[at / 8] ^ keys[at / 8 % LANES]).to_le_bytes()[at % 8];
            let singles = first.iter().zip(from..);
            let singles = singles.chain(last.iter().zip(from + here.len() - last.len()..));
            different |= u64::from(singles.fold(0, |all, (found, at)| all | (found ^ byte(at))));
            offset += here.len() as u64;
            bytes = after;
        }
        different == 0
    }

    /// Returns what changes the block with this number.
    fn keys(&self, number: u64) -> [u64; LANES] {
        let mut state = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number;
        std::array::from_fn(|_| next(&mut state))
    }

    fn fill(&self, number: u64, out: &mut [u8]) {
        let keys = self.keys(number);
        let words = block().iter().enumerate();
        let mut words = words.map(|(n, word)| (word ^ keys[n % LANES]).to_le_bytes());
        let (whole, rest) = out.as_chunks_mut::<8>();
        whole
            .iter_mut()
            .zip(&mut words)
            .for_each(|(out, word)| *out = word);
        if let Some(word) = words.next() {
            rest.copy_from_slice(&word[..rest.len()]);
        }
    }

    /// Returns all of it; for small content.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let see = |piece: &[u8]| {
            all.extend_from_slice(piece);
            Ok::<_, std::convert::Infallible>(())
        };
        match self.each_piece(see) {
            Ok(()) => all,
        }
    }

    /// Returns its digest as registries write it.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let see = |piece: &[u8]| {
            hasher.update(piece);
            Ok::<_, std::convert::Infallible>(())
        };
        match self.each_piece(see) {
            Ok(()) => digest_text(hasher),
        }
    }
}

/// Returns what `hasher` found, as registries write it.
pub fn digest_text(hasher: Sha256) -> String {
    let hex: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn block() -> &'static [u64] {
    static BLOCK: OnceLock<Vec<u64>> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut bytes = vec![0; BLOCK_BYTES];
        blake3::Hasher::new()
            .update(b"compare")
            .finalize_xof()
            .fill(&mut bytes);
        bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_le_bytes(*word))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a pulled byte that differs is found wherever it is, however the content is cut.
    #[test]
    fn a_different_byte_is_found() {
        let content = Content {
            seed: 7,
            length: 2 * PIECE as u64 + 77,
        };
        let all = content.bytes();
        let near = BLOCK_BYTES - 150;
        for (from, to) in [
            (near, BLOCK_BYTES + 70),
            (near + 3, BLOCK_BYTES),
            (2 * PIECE, all.len()),
            (5, 12),
        ] {
            let mut piece = all[from..to].to_vec();
            assert!(content.is_at(from as u64, &piece), "{from}..{to}");
            for at in 0..piece.len() {
                piece[at] ^= 1;
                assert!(!content.is_at(from as u64, &piece), "{from}..{to} at {at}");
                piece[at] ^= 1;
            }
        }
        assert!(content.is_at(1, &all[1..]));
        assert!(!content.is_at(1, &all[2..]));
    }
}
