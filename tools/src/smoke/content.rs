//! Generated content, whose bytes can be computed at any offset, so that none are kept.
//!
//! Owns: [`Content`], its digest, and the comparison of received bytes with it.
//! Refuses: cryptography; the bytes only have to be incompressible and different at every position.

use bytes::Bytes;
use tonnage_engine::{Algorithm, Digest, Hasher};

/// Bytes that are generated at a time.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// Content that is generated or small.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Pseudo-random bytes that follow from the seed.
    Random {
        /// Determines every byte.
        seed: u64,
        /// Number of bytes.
        length: u64,
    },
    /// A few bytes in memory.
    Bytes(Bytes),
}

impl Content {
    /// Returns the number of bytes.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Random { length, .. } => *length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Fills all of `out` with the bytes from `offset` on. It must not reach past the end.
    pub(crate) fn fill(&self, offset: u64, out: &mut [u8]) {
        assert!(
            offset + out.len() as u64 <= self.length(),
            "content was read past its end"
        );
        match self {
            Self::Random { seed, .. } => fill_random(*seed, offset, out),
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let from = bytes.get(start..start + out.len()).unwrap_or_default();
                out.copy_from_slice(from);
            }
        }
    }

    /// Computes the SHA-256 digest of all bytes.
    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while offset < self.length() {
            let count = piece_at(offset, self.length());
            let piece = piece.get_mut(..count).unwrap_or_default();
            self.fill(offset, piece);
            hasher.update(piece);
            offset += count as u64;
        }
        hasher.finish()
    }

    /// Compares `found` with the bytes from `offset` on. The error describes the first byte that differs.
    pub(crate) fn compare(
        &self,
        offset: u64,
        found: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<(), (String, String)> {
        let end = offset + found.len() as u64;
        if end > self.length() {
            let expected = format!("{} bytes", self.length());
            return Err((expected, format!("at least {end} bytes")));
        }
        scratch.resize(found.len(), 0);
        self.fill(offset, scratch);
        if scratch == found {
            return Ok(());
        }
        let at = scratch
            .iter()
            .zip(found)
            .position(|(a, b)| a != b)
            .unwrap_or_default();
        let say = |bytes: &[u8]| match bytes.get(at) {
            Some(byte) => format!("{byte:#04x} at byte {}", offset + at as u64),
            None => "nothing".to_owned(),
        };
        Err((say(scratch), say(found)))
    }
}

/// Returns the size of the piece that begins at `offset`.
pub(crate) fn piece_at(offset: u64, end: u64) -> usize {
    usize::try_from(end - offset)
        .unwrap_or(usize::MAX)
        .min(PIECE_BYTES)
}

/// Fills `out` with bytes of the stream. Byte `i` is byte `i % 8` of word `i / 8`; words are independent of each other.
fn fill_random(seed: u64, offset: u64, out: &mut [u8]) {
    let into_word = usize::try_from(offset % 8).unwrap_or_default();
    let head_bytes = if into_word == 0 {
        0
    } else {
        (8 - into_word).min(out.len())
    };
    let (head, body) = out.split_at_mut(head_bytes);
    let mut index = offset / 8;
    if !head.is_empty() {
        let word = word(seed, index).to_le_bytes();
        head.copy_from_slice(
            word.get(into_word..into_word + head_bytes)
                .unwrap_or_default(),
        );
        index += 1;
    }
    let mut words = body.chunks_exact_mut(8);
    for place in &mut words {
        place.copy_from_slice(&word(seed, index).to_le_bytes());
        index += 1;
    }
    let tail = words.into_remainder();
    let word = word(seed, index).to_le_bytes();
    tail.copy_from_slice(word.get(..tail.len()).unwrap_or_default());
}

/// Returns word `index`: the finalizer of `SplitMix64` over seed and position.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: bytes generated at any offset are those of the whole stream, so a range can be compared with what was
    /// pushed.
    #[test]
    fn any_range_is_a_part_of_the_whole() {
        let content = Content::Random {
            seed: 7,
            length: 100,
        };
        let mut whole = vec![0; 100];
        content.fill(0, &mut whole);
        for start in 0..100usize {
            for end in start..=100 {
                let mut part = vec![0; end - start];
                content.fill(start as u64, &mut part);
                assert_eq!(part, whole[start..end], "{start}..{end}");
            }
        }
        assert_eq!(content.digest(), Digest::of(Algorithm::Sha256, &whole));
    }

    /// Guards: one flipped bit is found and reported by its position in the whole blob.
    #[test]
    fn a_flipped_bit_is_found_where_it_is() {
        let content = Content::Random {
            seed: 7,
            length: 1000,
        };
        let mut found = vec![0; 500];
        content.fill(300, &mut found);
        let mut scratch = Vec::new();
        assert_eq!(content.compare(300, &found, &mut scratch), Ok(()));
        found[123] ^= 4;
        let (expected, got) = content.compare(300, &found, &mut scratch).unwrap_err();
        assert!(
            expected.ends_with("at byte 423") && expected != got,
            "{expected} {got}"
        );
        assert!(
            content.compare(501, &found, &mut scratch).is_err(),
            "one byte too many"
        );
    }
}
