//! The superblock: the identity of a store, and the features that a program needs to use it.
//!
//! Layout: FORMAT.md, "Superblock". It is written when the store is created and read at every open. Damaged copies are
//! written again.

use super::codec::{Decoder, Encoder, Malformed, verify_checksum};
use crate::limits::{CHUNK_BYTES, JOURNAL_BLOCK_BYTES};

/// Size of one copy in bytes.
pub const COPY_BYTES: usize = 4096;
/// Number of copies in the file.
pub const COPIES: u32 = 4;
/// Size of the file in bytes.
pub const SUPERBLOCK_BYTES: usize = COPY_BYTES * 4;
/// The format version this program writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"TONNAGE1";
/// Incompatible features this program knows: none yet.
const INCOMPATIBLE_KNOWN: u64 = 0;
/// Read-only-compatible features this program knows: none yet.
const READ_ONLY_COMPATIBLE_KNOWN: u64 = 0;

/// Identity and features of a store.
#[derive(Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Random id of the store, repeated in every file.
    pub store_id: [u8; 16],
    /// Secret key of the index's hash.
    pub hash_key: [u8; 16],
    /// Features that an older program may ignore.
    pub compatible: u64,
    /// Features with which an older program may read.
    pub read_only_compatible: u64,
    /// Features with which an older program must not open the store.
    pub incompatible: u64,
    /// Creation time.
    pub created_unix_ms: u64,
}

impl std::fmt::Debug for Superblock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Superblock")
            .field("store_id", &self.store_id)
            .field("created_unix_ms", &self.created_unix_ms)
            .finish_non_exhaustive()
    }
}

/// The result of decoding a superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// More of the intact copies agree on this content than on any other, and this program may use the store.
    Usable {
        /// The superblock.
        superblock: Superblock,
        /// Numbers of the copies that are damaged or differ.
        damaged_copies: Vec<u32>,
        /// Whether a feature allows this program only to read.
        read_only: bool,
    },
    /// The superblock is intact, but of a newer format or with features that this program does not have.
    Unsupported {
        /// What the store needs, in words.
        needs: String,
    },
    /// No copy is intact, or the intact copies contradict each other.
    Damaged(Malformed),
}

impl Superblock {
    /// Encodes all four copies.
    pub fn encode(&self) -> Vec<u8> {
        (0..COPIES)
            .flat_map(|number| self.encode_copy(number))
            .collect()
    }

    /// Encodes the copy with this number.
    pub fn encode_copy(&self, number: u32) -> Vec<u8> {
        Encoder::new()
            .bytes(MAGIC)
            .u32(FORMAT_VERSION)
            .u32(number)
            .bytes(&self.store_id)
            .bytes(&self.hash_key)
            .u64(self.compatible)
            .u64(self.read_only_compatible)
            .u64(self.incompatible)
            .u64(self.created_unix_ms)
            .count(CHUNK_BYTES)
            .count(JOURNAL_BLOCK_BYTES)
            .finish_with_checksum(COPY_BYTES)
    }

    /// Decodes the file by a majority vote of its intact copies. A copy that differs from the result counts as damaged.
    pub fn decode(bytes: &[u8]) -> Decoded {
        let mut why = Malformed::new("the file is empty");
        let mut places = bytes.chunks(COPY_BYTES);
        let mut copies = Vec::new();
        for number in 0..COPIES {
            let copy = decode_copy(places.next().unwrap_or_default(), number);
            copies.push(copy.map_err(|error| why = error).ok());
        }
        let agreeing = |copy: &Copy| {
            copies
                .iter()
                .flatten()
                .filter(|other| *other == copy)
                .count()
        };
        let most = copies
            .iter()
            .flatten()
            .map(agreeing)
            .max()
            .unwrap_or_default();
        let mut candidates = copies
            .iter()
            .flatten()
            .filter(|copy| agreeing(copy) == most);
        let found = candidates.next().cloned();
        if candidates.any(|copy| Some(copy) != found.as_ref()) {
            let what = format!("its copies differ, and at most {most} of them agree");
            return Decoded::Damaged(Malformed(what));
        }
        let numbered = (0..COPIES).zip(&copies);
        let damaged = numbered.filter(|(_, copy)| *copy != &found);
        let damaged_copies = damaged.map(|(number, _)| number).collect();
        match found {
            None => Decoded::Damaged(why),
            Some(Copy { version, .. }) if version > FORMAT_VERSION => Decoded::Unsupported {
                needs: format!("on-disk format {version}"),
            },
            Some(Copy { superblock, .. }) if superblock.incompatible & !INCOMPATIBLE_KNOWN != 0 => {
                let bits = superblock.incompatible & !INCOMPATIBLE_KNOWN;
                Decoded::Unsupported {
                    needs: format!("features {bits:#x}"),
                }
            }
            Some(Copy { superblock, .. }) => {
                let read_only = superblock.read_only_compatible & !READ_ONLY_COMPATIBLE_KNOWN != 0;
                Decoded::Usable {
                    superblock,
                    damaged_copies,
                    read_only,
                }
            }
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Copy {
    version: u32,
    superblock: Superblock,
}

fn decode_copy(bytes: &[u8], number: u32) -> Result<Copy, Malformed> {
    let mut decoder = Decoder::new(verify_checksum(bytes, COPY_BYTES)?);
    if decoder.array::<8>()? != *MAGIC {
        return Err(Malformed::new("not a superblock"));
    }
    let version = decoder.u32()?;
    let found = decoder.u32()?;
    if found != number {
        return Err(Malformed(format!(
            "copy {found} is in the place of copy {number}"
        )));
    }
    let superblock = Superblock {
        store_id: decoder.array()?,
        hash_key: decoder.array()?,
        compatible: decoder.u64()?,
        read_only_compatible: decoder.u64()?,
        incompatible: decoder.u64()?,
        created_unix_ms: decoder.u64()?,
    };
    if version <= FORMAT_VERSION && superblock.incompatible == 0 {
        let sizes = (decoder.count()?, decoder.count()?);
        if sizes != (CHUNK_BYTES, JOURNAL_BLOCK_BYTES) {
            return Err(Malformed(format!("chunk and block sizes {sizes:?}")));
        }
        decoder.zeros(decoder.remaining())?;
    }
    Ok(Copy {
        version,
        superblock,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: u32 = 1_999_309_651;

    fn sample() -> Superblock {
        Superblock {
            store_id: [7; 16],
            hash_key: [9; 16],
            compatible: 0,
            read_only_compatible: 0,
            incompatible: 0,
            created_unix_ms: 1_700_000_000_000,
        }
    }

    /// Guards: the layout. A change here is a change of the format: FORMAT.md, a version, a fixture.
    #[test]
    fn golden_bytes() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), SUPERBLOCK_BYTES);
        assert_eq!(&bytes[..16], b"TONNAGE1\x01\0\0\0\0\0\0\0");
        assert_eq!(&bytes[80..88], &[0, 0, 1, 0, 0, 16, 0, 0]);
        assert_eq!(checksum_of_copy(&bytes, 0), GOLDEN);
        assert_eq!(bytes[4096 + 12], 1);
    }

    fn checksum_of_copy(bytes: &[u8], copy: usize) -> u32 {
        let at = copy * COPY_BYTES + COPY_BYTES - 4;
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Guards: one intact copy of four is enough, in its own place only, and damage is reported.
    #[test]
    fn one_intact_copy_is_enough() {
        let mut bytes = sample().encode();
        for copy in [0, 1, 3] {
            bytes[copy * COPY_BYTES + 20] ^= 1;
        }
        let expected = Decoded::Usable {
            superblock: sample(),
            damaged_copies: vec![0, 1, 3],
            read_only: false,
        };
        assert_eq!(Superblock::decode(&bytes), expected);
        let moved = [
            &bytes[..COPY_BYTES],
            &bytes[2 * COPY_BYTES..3 * COPY_BYTES],
            &bytes[..2 * COPY_BYTES],
        ]
        .concat();
        assert!(
            matches!(Superblock::decode(&moved), Decoded::Damaged(_)),
            "copy 2 in place 1"
        );
        assert!(matches!(Superblock::decode(&[]), Decoded::Damaged(_)));
    }

    /// Guards: a copy of another store, in any place, is outvoted and reported. Without a majority the superblock is
    /// damaged.
    #[test]
    fn copies_are_outvoted() {
        let mut other = sample();
        other.store_id = [8; 16];
        let mixed = |foreign: &[u32]| {
            let copies = (0..COPIES).flat_map(|number| {
                let is_foreign = foreign.contains(&number);
                let superblock = if is_foreign { &other } else { &sample() };
                superblock.encode_copy(number)
            });
            copies.collect::<Vec<_>>()
        };
        for place in 0..COPIES {
            let expected = Decoded::Usable {
                superblock: sample(),
                damaged_copies: vec![place],
                read_only: false,
            };
            assert_eq!(Superblock::decode(&mixed(&[place])), expected);
        }
        for places in [[0, 1], [1, 2], [0, 3]] {
            let decoded = Superblock::decode(&mixed(&places));
            assert!(
                matches!(decoded, Decoded::Damaged(_)),
                "{places:?}: {decoded:?}"
            );
        }
        let mut one_each = mixed(&[0]);
        one_each[2 * COPY_BYTES] ^= 1;
        one_each[3 * COPY_BYTES] ^= 1;
        assert!(matches!(Superblock::decode(&one_each), Decoded::Damaged(_)));
    }

    /// Guards: every bit of a copy is covered.
    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = sample().encode_copy(0);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_copy(&flipped, 0).is_err(), "bit {bit}");
        }
    }

    /// Guards: a newer version and unknown incompatible features are rejected, not misread.
    #[test]
    fn newer_stores_are_rejected() {
        let newer: Vec<u8> = (0..COPIES)
            .flat_map(|number| {
                Encoder::new()
                    .bytes(MAGIC)
                    .u32(2)
                    .u32(number)
                    .bytes(&[1; 72])
                    .finish_with_checksum(COPY_BYTES)
            })
            .collect();
        assert!(matches!(
            Superblock::decode(&newer),
            Decoded::Unsupported { .. }
        ));
        let mut feature = sample();
        feature.incompatible = 1;
        assert!(matches!(
            Superblock::decode(&feature.encode()),
            Decoded::Unsupported { .. }
        ));
        let mut reader = sample();
        reader.read_only_compatible = 4;
        assert!(matches!(
            Superblock::decode(&reader.encode()),
            Decoded::Usable {
                read_only: true,
                ..
            }
        ));
    }
}
