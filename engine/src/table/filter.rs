//! The filter of one run: whether the run may have a row of some key.
//!
//! Owns: a split block Bloom filter (Putze, Sanders, Singler 2007; the block layout is that of Apache Parquet), and the
//! keyed hash of its keys. Clients choose digests and names, and could steer a hash without a secret key.
//!
//! With 24 bits per key, about 1 in 9,000 absent keys passes the filter. A probe reads one cache line.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::format::codec::Encoder;

/// Bits per key, in memory and in the file.
const BITS_PER_KEY: u64 = 24;
const BLOCK_BYTES: usize = 32;
const BLOCK_BITS: u64 = 256;
/// Odd constants, one per word of a block, as in Parquet.
const SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// The hash of a filter key; see [`crate::format::row::filter_key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyHash(u64);

impl KeyHash {
    /// Hashes `filter_key` with SipHash-1-3 under the store's secret key.
    pub(super) fn new(hash_key: &[u8; 16], filter_key: &[u8]) -> Self {
        let mut hasher = SipHasher13::new_with_key(hash_key);
        hasher.write(filter_key);
        Self(hasher.finish())
    }
}

/// The filter of one run.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<[u32; 8]>,
}

impl Filter {
    /// Creates an empty filter for `keys` keys.
    pub(super) fn with_room(keys: u64) -> Self {
        let blocks = (keys.max(1) * BITS_PER_KEY).div_ceil(BLOCK_BITS);
        let blocks = usize::try_from(blocks).unwrap_or(usize::MAX);
        Self {
            blocks: vec![[0; 8]; blocks],
        }
    }

    /// Creates a filter without blocks, to which those of a file are added.
    pub(super) fn unread() -> Self {
        Self { blocks: Vec::new() }
    }

    /// Adds the blocks in `bytes` of a file; false if `bytes` has a part of a block.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> bool {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        self.blocks.extend(blocks.iter().map(|block| {
            let mut words = [0; 8];
            for (to, from) in words.iter_mut().zip(block.as_chunks::<4>().0) {
                *to = u32::from_le_bytes(*from);
            }
            words
        }));
        rest.is_empty()
    }

    /// Encodes at most `count` blocks from `first` on.
    pub(super) fn encode(&self, first: usize, count: usize) -> Vec<u8> {
        let blocks = self.blocks.iter().skip(first).take(count);
        let mut out = Encoder::new();
        for word in blocks.flatten() {
            out.u32(*word);
        }
        out.finish()
    }

    /// Inserts keys. Each is at a random place of a large array; inserted together, their cache misses overlap.
    pub(super) fn insert(&mut self, hashes: &[KeyHash]) {
        for hash in hashes {
            let at = self.block_of(*hash);
            if let Some(block) = self.blocks.get_mut(at) {
                for (word, bit) in block.iter_mut().zip(bits(*hash)) {
                    *word |= bit;
                }
            }
        }
    }

    /// Whether the key may have been inserted. False is certain.
    pub(super) fn may_have(&self, hash: KeyHash) -> bool {
        let block = self.blocks.get(self.block_of(hash));
        block.is_some_and(|block| {
            let mut pairs = block.iter().zip(bits(hash));
            pairs.all(|(word, bit)| word & bit != 0)
        })
    }

    /// Whether the filter has no blocks.
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    fn block_of(&self, hash: KeyHash) -> usize {
        let scaled = (u128::from(hash.0) * self.blocks.len() as u128) >> 64;
        usize::try_from(scaled).unwrap_or_default()
    }
}

/// Returns one bit for each word of a block, from the low half of the hash. The high half chooses the block.
fn bits(hash: KeyHash) -> impl Iterator<Item = u32> {
    let [a, b, c, d, ..] = hash.0.to_le_bytes();
    let low = u32::from_le_bytes([a, b, c, d]);
    SALTS
        .into_iter()
        .map(move |salt| 1 << (low.wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u32) -> KeyHash {
        KeyHash::new(&[7; 16], &n.to_le_bytes())
    }

    /// Guards: no inserted key is denied, also after the filter was written and read; few other keys pass.
    #[test]
    fn inserted_keys_are_never_denied() {
        let mut filter = Filter::with_room(10_000);
        let hashes: Vec<KeyHash> = (0..10_000).map(hash).collect();
        filter.insert(&hashes);
        let mut read = Filter::unread();
        assert!(read.decode(&filter.encode(0, 100)));
        assert!(read.decode(&filter.encode(100, usize::MAX)));
        assert_eq!(read.blocks, filter.blocks);
        let filter = read;
        assert!((0..10_000).all(|n| filter.may_have(hash(n))));
        let wrong = (10_000..1_010_000)
            .filter(|n| filter.may_have(hash(*n)))
            .count();
        assert!((10..300).contains(&wrong), "{wrong} of 1,000,000");
    }
}
