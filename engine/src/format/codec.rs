//! Little-endian reading and writing, the base of every structure.
//!
//! Owns: [`Decoder`], [`Encoder`], [`Malformed`], [`RunningChecksum`], zero checks and the header checksum idiom.
//! Refuses: knowing any structure.

use crate::digest::{Algorithm, Digest};
use crate::limits::COUNTER_MAX;

/// A structure that does not hold: what, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    /// A short constructor.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// CRC-32 (IEEE) of `bytes`.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// The same of bytes that come in pieces.
#[derive(Debug, Default)]
pub struct RunningChecksum(crc32fast::Hasher);

impl RunningChecksum {
    /// Takes in the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all pieces.
    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// Reads a structure from front to back; every method fails instead of reading past the end.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(Malformed(format!(
                "{count} bytes expected, {} left",
                self.rest.len()
            )));
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.bytes(N)?;
        <[u8; N]>::try_from(bytes).map_err(|error| Malformed(error.to_string()))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(u8::from_le_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Eight bytes that others are counted on from or added to: an LSN, an epoch, a number or id, an offset, a length.
    pub fn counter(&mut self) -> Result<u64, Malformed> {
        match self.u64()? {
            counter if counter <= COUNTER_MAX => Ok(counter),
            beyond => Err(Malformed(format!("no number of a store reaches {beyond}"))),
        }
    }

    /// Four bytes that count something in memory.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.u32()?).map_err(|error| Malformed(error.to_string()))
    }

    /// Bytes that must be zero.
    pub fn zeros(&mut self, count: usize) -> Result<(), Malformed> {
        if self.bytes(count)?.iter().fold(0, |all, byte| all | byte) != 0 {
            return Err(Malformed::new("reserved bytes are not zero"));
        }
        Ok(())
    }

    /// A digest: algorithm code, then as many bytes as the algorithm has.
    pub fn digest(&mut self) -> Result<Digest, Malformed> {
        let code = self.u8()?;
        let algorithm = Algorithm::from_code(code)
            .ok_or_else(|| Malformed(format!("unknown digest algorithm code {code}")))?;
        let raw = self.bytes(algorithm.digest_bytes())?;
        Digest::new(algorithm, raw).ok_or_else(|| Malformed::new("digest of a wrong length"))
    }

    /// A digest behind a flag byte: 0 absent, 1 present.
    pub fn optional_digest(&mut self) -> Result<Option<Digest>, Malformed> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.digest().map(Some),
            other => Err(Malformed(format!("flag {other}, expected 0 or 1"))),
        }
    }

    /// UTF-8 text behind a 16-bit length.
    pub fn text(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.u16()?);
        let bytes = self.bytes(length)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|error| Malformed(error.to_string()))
    }

    /// Fails unless everything was read.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Malformed(format!(
            "{} bytes behind the end of the structure",
            self.rest.len()
        )))
    }
}

/// Writes a structure from front to back.
#[derive(Debug, Default, Clone)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A count of things in memory, as four bytes. More than 2^32 is our own mistake.
    pub fn count(&mut self, value: usize) -> &mut Self {
        match u32::try_from(value) {
            Ok(value) => self.u32(value),
            Err(error) => unreachable!("a count of {value} does not fit the format: {error}"),
        }
    }

    /// A digest: algorithm code and bytes.
    pub fn digest(&mut self, digest: &Digest) -> &mut Self {
        self.u8(digest.algorithm().code()).bytes(digest.as_bytes())
    }

    /// A digest behind a flag byte.
    pub fn optional_digest(&mut self, digest: Option<&Digest>) -> &mut Self {
        match digest {
            None => self.u8(0),
            Some(digest) => self.u8(1).digest(digest),
        }
    }

    /// Text behind a 16-bit length. Longer text is our own mistake: limits are checked on the way in.
    pub fn text(&mut self, text: &str) -> &mut Self {
        match u16::try_from(text.len()) {
            Ok(length) => self.u16(length).bytes(text.as_bytes()),
            Err(error) => unreachable!(
                "{} bytes of text do not fit the format: {error}",
                text.len()
            ),
        }
    }

    /// Zeros up to `length` in all.
    pub fn pad_to(&mut self, length: usize) -> &mut Self {
        assert!(
            self.bytes.len() <= length,
            "a structure outgrew its {length} bytes"
        );
        self.bytes.resize(length, 0);
        self
    }

    /// Zeros up to `length - 4`, then the checksum of all of it.
    pub fn seal(&mut self, length: usize) -> Vec<u8> {
        self.pad_to(length - 4);
        let sum = checksum(&self.bytes);
        self.u32(sum);
        std::mem::take(&mut self.bytes)
    }

    /// What was written.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// Checks a structure that ends with its own checksum and returns what stands before it.
pub fn unseal(bytes: &[u8], length: usize) -> Result<&[u8], Malformed> {
    let body = length.saturating_sub(4);
    let mut decoder = Decoder::new(bytes);
    let covered = decoder.bytes(body)?;
    let stored = decoder.u32()?;
    let found = checksum(covered);
    if stored != found {
        return Err(Malformed(format!(
            "checksum {found:08x}, expected {stored:08x}"
        )));
    }
    Ok(covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: numbers that would overflow when they are counted on from are refused where they are read.
    #[test]
    fn numbers_that_cannot_be_counted_on_from_are_refused() {
        let read = |number: u64| Decoder::new(&number.to_le_bytes()).counter();
        assert_eq!(read(COUNTER_MAX), Ok(COUNTER_MAX));
        for beyond in [COUNTER_MAX + 1, u64::MAX] {
            assert!(read(beyond).unwrap_err().0.contains("reaches"));
        }
    }
}
