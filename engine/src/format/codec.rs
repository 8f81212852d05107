//! Little-endian reading and writing, which every structure uses.
//!
//! Owns: [`Decoder`], [`Encoder`], [`Malformed`], [`RunningChecksum`], and structures that end with their own checksum.
//! Refuses: knowledge of any single structure.

use crate::digest::{Algorithm, Digest};
use crate::limits::COUNTER_MAX;

/// Why a structure does not decode, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    /// Creates the error from its message.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// Returns the CRC-32 (IEEE) of `bytes`.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// A CRC-32 (IEEE) of bytes that arrive in pieces.
#[derive(Debug, Clone, Default)]
pub struct RunningChecksum(crc32fast::Hasher);

impl RunningChecksum {
    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the checksum of all pieces.
    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// Reads a structure from front to back. Every method fails instead of reading past the end.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns the number of bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Reads the next `count` bytes.
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

    /// Reads the next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.bytes(N)?;
        <[u8; N]>::try_from(bytes).map_err(|error| Malformed(error.to_string()))
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(u8::from_le_bytes)
    }

    /// Reads two bytes.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Reads four bytes.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Reads eight bytes.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads a counter of eight bytes: an LSN, an epoch, a number or id, an offset or a length.
    ///
    /// # Errors
    /// A value above [`COUNTER_MAX`], so that adding to one never overflows.
    pub fn counter(&mut self) -> Result<u64, Malformed> {
        match self.u64()? {
            counter if counter <= COUNTER_MAX => Ok(counter),
            beyond => Err(Malformed(format!(
                "counter {beyond} is above the largest of a store, {COUNTER_MAX}"
            ))),
        }
    }

    /// Reads a count of four bytes as a `usize`.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.u32()?).map_err(|error| Malformed(error.to_string()))
    }

    /// Reads `count` bytes, all of which must be zero.
    pub fn zeros(&mut self, count: usize) -> Result<(), Malformed> {
        if self.bytes(count)?.iter().fold(0, |all, byte| all | byte) != 0 {
            return Err(Malformed::new("reserved bytes are not zero"));
        }
        Ok(())
    }

    /// Reads a digest: algorithm code, then as many bytes as the algorithm has.
    pub fn digest(&mut self) -> Result<Digest, Malformed> {
        let code = self.u8()?;
        let algorithm = Algorithm::from_code(code)
            .ok_or_else(|| Malformed(format!("unknown digest algorithm code {code}")))?;
        let raw = self.bytes(algorithm.digest_bytes())?;
        Digest::new(algorithm, raw).ok_or_else(|| Malformed::new("digest of a wrong length"))
    }

    /// Reads a digest after a flag byte: 0 absent, 1 present.
    pub fn optional_digest(&mut self) -> Result<Option<Digest>, Malformed> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.digest().map(Some),
            other => Err(Malformed(format!("flag {other}, expected 0 or 1"))),
        }
    }

    /// Reads UTF-8 text after its 16-bit length.
    pub fn text(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.u16()?);
        let bytes = self.bytes(length)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|error| Malformed(error.to_string()))
    }

    /// Fails unless all bytes were read.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Malformed(format!(
            "{} bytes after the end of the structure",
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
    /// Creates an empty encoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes raw bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Writes one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Writes two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Writes four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Writes eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// Writes a count as four bytes.
    ///
    /// # Panics
    /// If the count does not fit, which is a defect of the caller.
    pub fn count(&mut self, value: usize) -> &mut Self {
        match u32::try_from(value) {
            Ok(value) => self.u32(value),
            Err(error) => unreachable!("a count of {value} does not fit the format: {error}"),
        }
    }

    /// Writes a digest: algorithm code and bytes.
    pub fn digest(&mut self, digest: &Digest) -> &mut Self {
        self.u8(digest.algorithm().code()).bytes(digest.as_bytes())
    }

    /// Writes a digest after a flag byte.
    pub fn optional_digest(&mut self, digest: Option<&Digest>) -> &mut Self {
        match digest {
            None => self.u8(0),
            Some(digest) => self.u8(1).digest(digest),
        }
    }

    /// Writes text after its 16-bit length.
    ///
    /// # Panics
    /// If the text is longer than that. Limits are checked where text enters the engine.
    pub fn text(&mut self, text: &str) -> &mut Self {
        match u16::try_from(text.len()) {
            Ok(length) => self.u16(length).bytes(text.as_bytes()),
            Err(error) => unreachable!(
                "{} bytes of text do not fit the format: {error}",
                text.len()
            ),
        }
    }

    /// Writes zeros up to a total of `length` bytes.
    ///
    /// # Panics
    /// If more than that was written already.
    pub fn pad_to(&mut self, length: usize) -> &mut Self {
        assert!(
            self.bytes.len() <= length,
            "a structure is larger than its {length} bytes"
        );
        self.bytes.resize(length, 0);
        self
    }

    /// Writes zeros up to `length - 4`, then the checksum of all bytes so far, and returns the bytes.
    pub fn finish_with_checksum(&mut self, length: usize) -> Vec<u8> {
        self.pad_to(length - 4);
        let sum = checksum(&self.bytes);
        self.u32(sum);
        std::mem::take(&mut self.bytes)
    }

    /// Returns the bytes written, and leaves the encoder empty.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// Checks a structure of `length` bytes that ends with its own checksum, and returns the bytes before the checksum.
pub fn verify_checksum(bytes: &[u8], length: usize) -> Result<&[u8], Malformed> {
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

    /// Guards: numbers that could overflow in arithmetic are rejected by the decoder.
    #[test]
    fn counters_that_could_overflow_are_rejected() {
        let read = |number: u64| Decoder::new(&number.to_le_bytes()).counter();
        assert_eq!(read(COUNTER_MAX), Ok(COUNTER_MAX));
        for beyond in [COUNTER_MAX + 1, u64::MAX] {
            assert!(read(beyond).unwrap_err().0.contains("above the largest"));
        }
    }
}
