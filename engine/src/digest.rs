//! The cryptographic identity of content.
//!
//! Owns: [`Algorithm`], [`Digest`], [`Hasher`] with its resumable mid-state, [`DigestKey`]. Refuses: non-cryptographic
//! checksums (`format::checksum`).
//!
//! Invariants: a digest's bytes always have its algorithm's length. The same bytes under two algorithms are two blobs.

use std::fmt;
use std::str::FromStr;

use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};

/// Hexadecimal digits of the longest digest.
const HEX_BYTES_MAX: usize = 128;

/// Registered digest algorithms (image-spec, descriptor.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 32 bytes; the canonical one.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
    /// BLAKE3 with 256-bit output, 32 bytes.
    Blake3,
}

impl Algorithm {
    /// All algorithms, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha512, Self::Blake3];

    /// Returns the length of a digest in bytes.
    pub(crate) const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha512 => 64,
        }
    }

    /// Returns the name as written before the colon.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
        }
    }

    /// Returns the code on disk (FORMAT.md, "Digests").
    pub const fn code(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
            Self::Blake3 => 3,
        }
    }

    /// Returns the algorithm of a code on disk.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.code() == code)
    }

    /// Returns the algorithm of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }
}

/// The identity of content: algorithm and bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    // Bytes after the algorithm's length are zero, so derived equality and order are right.
    bytes: [u8; 64],
}

impl Digest {
    /// Creates a digest from its raw bytes; `None` if the length is not the algorithm's.
    pub fn new(algorithm: Algorithm, raw: &[u8]) -> Option<Self> {
        if raw.len() != algorithm.digest_bytes() {
            return None;
        }
        let mut bytes = [0; 64];
        bytes.get_mut(..raw.len())?.copy_from_slice(raw);
        Some(Self { algorithm, bytes })
    }

    /// Computes the digest of `content` under `algorithm`.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(content);
        hasher.finish()
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the raw bytes, 32 or 64 of them.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes
            .get(..self.algorithm.digest_bytes())
            .unwrap_or_default()
    }

    /// Writes the part after the colon, in lowercase hexadecimal, into a buffer of the caller. Every response has it
    /// more than once, so it allocates nothing.
    fn write_hex<'a>(&self, text: &'a mut [u8; HEX_BYTES_MAX]) -> &'a str {
        let digit = |value: u8| match value {
            0..=9 => b'0' + value,
            _ => b'a' - 10 + value,
        };
        let (pairs, _) = text.as_chunks_mut();
        for ([high, low], byte) in pairs.iter_mut().zip(self.as_bytes()) {
            (*high, *low) = (digit(byte >> 4), digit(byte & 15));
        }
        let written = text.get(..2 * self.as_bytes().len());
        str::from_utf8(written.unwrap_or_default()).unwrap_or_default()
    }

    /// Returns the fixed-size key of the index: the digest itself at 32 bytes, otherwise SHA-256 over algorithm code
    /// and digest (DESIGN D5).
    pub fn key(&self) -> DigestKey {
        let mut key = [0; 32];
        if let Ok(bytes) = <[u8; 32]>::try_from(self.as_bytes()) {
            key = bytes;
        } else {
            let mut hasher = Sha256::new();
            hasher.update([self.algorithm.code()]);
            hasher.update(self.as_bytes());
            key.copy_from_slice(&hasher.finalize());
        }
        DigestKey {
            algorithm: self.algorithm,
            bytes: key,
        }
    }
}

impl Digest {
    /// Appends `algorithm:hex` to `text`, as `Display` writes it but without the cost of formatting.
    pub fn push_to(&self, text: &mut String) {
        text.push_str(self.algorithm.name());
        text.push(':');
        text.push_str(self.write_hex(&mut [0; HEX_BYTES_MAX]));
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.name())?;
        f.write_str(":")?;
        f.write_str(self.write_hex(&mut [0; HEX_BYTES_MAX]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a string is not a supported digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// The text is not `algorithm:hex`.
    #[error("a digest is written algorithm:hex, for example sha256: and 64 hexadecimal digits")]
    Malformed,
    /// The store does not support the algorithm.
    #[error("digest algorithm {0:?} is not supported; use sha256, sha512 or blake3")]
    UnknownAlgorithm(String),
    /// The part after the colon has a wrong length or wrong characters.
    #[error("a {algorithm} digest has {expected} lowercase hexadecimal digits", algorithm = .0.name(), expected = .0.digest_bytes() * 2)]
    Encoding(Algorithm),
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, encoded) = text.split_once(':').ok_or(ParseDigestError::Malformed)?;
        let legal = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+._-".contains(&byte)
        };
        if name.is_empty() || encoded.is_empty() || !name.bytes().all(legal) {
            return Err(ParseDigestError::Malformed);
        }
        let algorithm = Algorithm::from_name(name)
            .ok_or_else(|| ParseDigestError::UnknownAlgorithm(name.chars().take(32).collect()))?;
        let bad = || ParseDigestError::Encoding(algorithm);
        if encoded.len() != algorithm.digest_bytes() * 2 {
            return Err(bad());
        }
        let mut raw = Vec::with_capacity(algorithm.digest_bytes());
        for pair in encoded.as_bytes().chunks_exact(2) {
            let [high, low] = pair else { return Err(bad()) };
            raw.push(hex_value(*high).ok_or_else(bad)? << 4 | hex_value(*low).ok_or_else(bad)?);
        }
        Self::new(algorithm, &raw).ok_or_else(bad)
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The fixed-size form of a digest in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DigestKey {
    /// The digest's algorithm.
    pub algorithm: Algorithm,
    /// 32 bytes, see [`Digest::key`].
    pub bytes: [u8; 32],
}

/// A running hash of one of the registered algorithms. Cloning forks the state.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
    /// BLAKE3.
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Starts a hash.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
            Algorithm::Blake3 => Self::Blake3(Box::default()),
        }
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
            Self::Blake3(_) => Algorithm::Blake3,
        }
    }

    /// Adds more content.
    pub fn update(&mut self, content: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(content),
            Self::Sha512(state) => state.update(content),
            Self::Blake3(state) => {
                state.update(content);
            }
        }
    }

    /// Returns the digest of all content so far.
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let mut bytes = [0; 64];
        let (head, _) = bytes.split_at_mut(algorithm.digest_bytes());
        match self {
            Self::Sha256(state) => head.copy_from_slice(&state.finalize()),
            Self::Sha512(state) => head.copy_from_slice(&state.finalize()),
            Self::Blake3(state) => head.copy_from_slice(state.finalize().as_bytes()),
        }
        Digest { algorithm, bytes }
    }

    /// Returns the state in a form that survives a restart (upload checkpoints). `None` where the algorithm's library
    /// offers none (BLAKE3); then a resumed upload is hashed again from its start.
    pub fn mid_state(&self) -> Option<Vec<u8>> {
        match self {
            Self::Sha256(state) => Some(state.serialize().to_vec()),
            Self::Sha512(state) => Some(state.serialize().to_vec()),
            Self::Blake3(_) => None,
        }
    }

    /// Continues from the [`Hasher::mid_state`] of `length` bytes of content. Returns `None` if the bytes are not one,
    /// or of another length.
    pub fn from_mid_state(algorithm: Algorithm, state: &[u8], length: u64) -> Option<Self> {
        if counted(algorithm, state)? != u128::from(length) {
            return None;
        }
        match algorithm {
            Algorithm::Sha256 => {
                let state = state.try_into().ok()?;
                Sha256::deserialize(&state).ok().map(Self::Sha256)
            }
            Algorithm::Sha512 => {
                let state = state.try_into().ok()?;
                Sha512::deserialize(&state).ok().map(Self::Sha512)
            }
            Algorithm::Blake3 => None,
        }
    }
}

/// Returns the number of content bytes that a mid-state counts. After the chaining value come the number of whole
/// blocks and the number of bytes in the unfinished one. Checked here because the library accepts any count and
/// overflows on some.
fn counted(algorithm: Algorithm, state: &[u8]) -> Option<u128> {
    let (chaining, count, block) = match algorithm {
        Algorithm::Sha256 => (32, 8, 64),
        Algorithm::Sha512 => (64, 16, 128),
        Algorithm::Blake3 => return None,
    };
    let (count, unfinished) = state.get(chaining..)?.split_at_checked(count)?;
    let bytes = unfinished.first()?;
    let blocks = count
        .iter()
        .rev()
        .fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
    blocks.checked_mul(block)?.checked_add(u128::from(*bytes))
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: published test vectors (FIPS 180-4 "abc"; BLAKE3 of the empty input) and the text form.
    #[test]
    fn known_answers() {
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(Algorithm::Sha256, b"abc").to_string(), abc);
        assert_eq!(
            abc.parse::<Digest>().unwrap(),
            Digest::of(Algorithm::Sha256, b"abc")
        );
        let begins = |algorithm, content: &[u8], text| {
            let digest = Digest::of(algorithm, content).to_string();
            assert!(digest.starts_with(text), "{digest}");
        };
        begins(Algorithm::Sha512, b"abc", "sha512:ddaf35a193617aba");
        begins(Algorithm::Blake3, b"", "blake3:af1349b9f5f9a1a6");
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3] {
            let digest = Digest::of(algorithm, b"abc");
            assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        }
    }

    /// Guards: anything but lowercase hexadecimal of the right length is rejected, with the reason.
    #[test]
    fn bad_digests_are_rejected() {
        use ParseDigestError::{Encoding, Malformed, UnknownAlgorithm};
        let cases = [
            ("", Malformed),
            ("sha256", Malformed),
            ("sha256:", Malformed),
            (":00", Malformed),
            ("sha256:baddigeststring", Encoding(Algorithm::Sha256)),
            (
                &format!("sha256:{}", "A".repeat(64)),
                Encoding(Algorithm::Sha256),
            ),
            (
                &format!("sha512:{}", "a".repeat(64)),
                Encoding(Algorithm::Sha512),
            ),
            (
                "md5:d41d8cd98f00b204e9800998ecf8427e",
                UnknownAlgorithm("md5".to_owned()),
            ),
        ];
        for (text, why) in cases {
            assert_eq!(text.parse::<Digest>(), Err(why), "{text}");
        }
    }

    /// Guards: a hash continued from a mid-state equals an uninterrupted one, at odd offsets; a mid-state continues
    /// only at its own offset.
    #[test]
    fn mid_state_resumes() {
        let content: Vec<u8> = (0..100_000_u32)
            .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1])
            .collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for cut in [0, 1, 63, 64, 65, 127, 128, 99_999] {
                let mut first = Hasher::new(algorithm);
                first.update(&content[..cut]);
                let state = first.mid_state().unwrap();
                let length = cut as u64;
                let mut second = Hasher::from_mid_state(algorithm, &state, length).unwrap();
                for other in [length + 1, length ^ 64, u64::MAX] {
                    assert!(Hasher::from_mid_state(algorithm, &state, other).is_none());
                }
                second.update(&content[cut..]);
                assert_eq!(second.finish(), Digest::of(algorithm, &content));
            }
        }
        assert!(Hasher::from_mid_state(Algorithm::Sha256, b"short", 0).is_none());
    }
}
