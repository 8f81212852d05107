//! Generated content of any length: bytes that are a pure function of a seed and are not stored.
//!
//! Owns: [`Content`], [`Seeded`], digests of bytes and files as strings. Refuses: randomness that cannot be replayed.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// `length` pseudo-random bytes that depend only on `seed`. The value is small and cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The seed of every byte.
    pub seed: u64,
    /// The length in bytes.
    pub length: u64,
}

impl Content {
    /// Creates content of `length` bytes.
    pub fn new(seed: u64, length: u64) -> Self {
        Self { seed, length }
    }

    /// Reads bytes from `offset` on into `buffer`, up to its length or the content's end. Returns their number.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = self.length.saturating_sub(offset);
        let take = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        self.stream(offset).fill(&mut buffer[..take]);
        take
    }

    /// Returns all bytes, for content that fits in memory.
    pub fn bytes(&self) -> Vec<u8> {
        let mut all = vec![0; usize::try_from(self.length).expect("small content")];
        self.read_at(0, &mut all);
        all
    }

    /// Returns a reader of the content from `offset` on.
    pub fn reader(&self, offset: u64) -> Reader {
        Reader {
            stream: self.stream(offset),
            left: self.length.saturating_sub(offset),
        }
    }

    /// Returns `sha256:...` of all bytes.
    pub fn digest(&self) -> String {
        digest_of(self.reader(0))
            .expect("generated content is always readable")
            .0
    }

    fn stream(&self, offset: u64) -> blake3::OutputReader {
        let mut stream = blake3::Hasher::new()
            .update(&self.seed.to_le_bytes())
            .finalize_xof();
        stream.set_position(offset);
        stream
    }
}

/// [`Content`] as a stream of bytes.
#[derive(Debug)]
pub struct Reader {
    stream: blake3::OutputReader,
    left: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let take = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        self.stream.fill(&mut buffer[..take]);
        self.left -= take as u64;
        Ok(take)
    }
}

/// A source of choices that depend only on a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// Creates a source that repeats itself for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from `low` up to, but not including, `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low < high, "the range is empty");
        low + self.bits() % (high - low)
    }
}

/// Returns `sha256:...` of bytes in memory.
pub fn digest_of_bytes(bytes: &[u8]) -> String {
    name_of(Sha256::digest(bytes).as_slice())
}

/// Returns `sha256:...` and the length of everything that a reader yields.
pub fn digest_of(mut from: impl Read) -> io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok((name_of(hasher.finalize().as_slice()), length));
        }
        hasher.update(&buffer[..read]);
        length += read as u64;
    }
}

fn name_of(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest
        .iter()
        .fold(String::from("sha256:"), |mut name, byte| {
            write!(name, "{byte:02x}").expect("writing to a string");
            name
        })
}

/// Reads both to their ends. Returns their length, or where they first differ.
pub fn same_bytes(mut left: impl Read, mut right: impl Read) -> Result<u64, String> {
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    loop {
        let read = left
            .read(&mut a)
            .map_err(|e| format!("read at {at}: {e}"))?;
        if read == 0 {
            return match right.read(&mut b) {
                Ok(0) => Ok(at),
                Ok(_) => Err(format!(
                    "the second is longer than the first, which ends at {at}"
                )),
                Err(e) => Err(format!("read at {at}: {e}")),
            };
        }
        right
            .read_exact(&mut b[..read])
            .map_err(|e| format!("the second ends or fails after byte {at}: {e}"))?;
        if a[..read] != b[..read] {
            let first = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
            return Err(format!("bytes differ from {}", at + first as u64));
        }
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: content from an offset equals the whole content from there on, so that a resumed push sends the right
    /// bytes.
    #[test]
    fn content_is_the_same_from_any_offset() {
        let content = Content::new(7, 200_001);
        let all = content.bytes();
        for offset in [0, 1, 63, 64, 65, 131_072, 200_000] {
            let mut part = vec![0; 4096];
            let read = content.read_at(offset, &mut part);
            let from = usize::try_from(offset).unwrap();
            assert_eq!(
                part[..read],
                all[from..(from + 4096).min(all.len())],
                "offset {offset}"
            );
        }
        assert_eq!(digest_of_bytes(&all), content.digest());
    }

    /// Guards: a shorter, longer or changed copy counts as different.
    #[test]
    fn a_difference_is_found() {
        let content = Content::new(1, 3 << 20);
        assert_eq!(
            same_bytes(content.reader(0), content.reader(0)),
            Ok(3 << 20)
        );
        let mut changed = content.bytes();
        changed[2_500_000] ^= 1;
        assert!(
            same_bytes(content.reader(0), &changed[..])
                .unwrap_err()
                .contains("2500000")
        );
        assert!(same_bytes(content.reader(0), content.reader(1)).is_err());
        assert!(same_bytes(Content::new(1, 9).reader(0), Content::new(1, 10).reader(0)).is_err());
        assert!(same_bytes(Content::new(1, 10).reader(0), Content::new(1, 9).reader(0)).is_err());
    }
}
