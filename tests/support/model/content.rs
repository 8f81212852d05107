//! Numbered contents that histories push, the same in every run.
//!
//! Owns: [`SIZES`], the sizes around every boundary; [`bytes()`], [`digest()`], and the same for manifests.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use bytes::Bytes;
use parking_lot::Mutex;
use tonnage_engine::{Algorithm, Digest};

use crate::machine::Prng;

/// The length of a chunk, which has one checksum.
const CHUNK: usize = 64 << 10;
/// The length from which a blob has a dedicated segment, in stores of [`super::generate::options`].
pub const THRESHOLD: usize = 96 << 10;
/// The same in stores of [`super::generate::roomy_options`], half a shared segment.
pub const ROOMY_THRESHOLD: usize = 512 << 10;
/// Two payload lengths whose records fill a shared segment of 1 MiB to its last byte: header 4096, frame 128, table 64
/// each, and the 64 bytes of alignment that the appender reserves.
const FIRST_HALF: usize = 522_048;
const SECOND_HALF: usize = 521_984;

/// Sizes of contents: content `n` has `SIZES[n % SIZES.len()]` bytes.
pub const SIZES: [usize; 34] = [
    0,
    1,
    511,
    4096,
    CHUNK - 1,
    CHUNK,
    CHUNK + 1,
    100_000,
    2 * CHUNK,
    200_001,
    3,
    1000,
    63,
    64,
    65,
    512,
    513,
    4095,
    4097,
    THRESHOLD - 1,
    THRESHOLD,
    THRESHOLD + 1,
    2 * CHUNK - 1,
    2 * CHUNK + 1,
    330_000,
    FIRST_HALF - 1,
    FIRST_HALF,
    FIRST_HALF + 1,
    SECOND_HALF - 1,
    SECOND_HALF,
    SECOND_HALF + 1,
    ROOMY_THRESHOLD - 1,
    ROOMY_THRESHOLD,
    ROOMY_THRESHOLD + 1,
];
/// How many of [`SIZES`] are small enough for every history.
pub const COMMON_SIZES: usize = 25;

/// The repositories of all histories.
pub const REPOSITORIES: [&str; 3] = ["library/a", "b", "team/with/a/long/path"];
/// A content of one byte that no history pushes.
pub const WITNESS: u32 = 9 * SIZES.len() as u32 + 1;

/// Contents by their digests.
pub type Contents = BTreeMap<Digest, Bytes>;

/// Returns the bytes of content `number`.
pub fn bytes(number: u32) -> Bytes {
    known(number).0
}

/// Returns the digest of content `number`.
pub fn digest(number: u32) -> Digest {
    known(number).1
}

/// Returns the algorithm of content `number`: SHA-256 for the first two of each size, then one of the others.
pub fn algorithm(number: u32) -> Algorithm {
    match (number as usize / SIZES.len(), number % 2) {
        (0 | 1, _) => Algorithm::Sha256,
        (_, 0) => Algorithm::Blake3,
        _ => Algorithm::Sha512,
    }
}

fn known(number: u32) -> (Bytes, Digest) {
    static KNOWN: OnceLock<Mutex<HashMap<u32, (Bytes, Digest)>>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock();
    let (bytes, digest) = known.entry(number).or_insert_with(|| {
        let mut bytes = vec![0; SIZES[number as usize % SIZES.len()]];
        Prng::new(u64::from(number) ^ 0x636f_6e74_656e_7400).fill(&mut bytes);
        let digest = Digest::of(algorithm(number), &bytes);
        (Bytes::from(bytes), digest)
    });
    (bytes.clone(), *digest)
}

/// Returns the bytes of manifest `number`.
pub fn manifest(number: u32) -> Bytes {
    Bytes::from(format!("{{\"manifest\":{number}}}"))
}

/// Returns the digest of manifest `number`.
pub fn manifest_digest(number: u32) -> Digest {
    Digest::of(Algorithm::Sha256, &manifest(number))
}
