//! The text of an API key.
//!
//! Owns: [`ApiKeySecret`]: making one, and recognising one where a password is expected. Refuses: whose key it is.
//!
//! A key has an id, by which it is found, listed and revoked, and 256 random bits. It begins like no other secret, so
//! that programs that search for leaked secrets recognise it.
//!
//! Invariant: only the hash of the random part is kept. It needs no slow hash, because it cannot be guessed.

use std::fmt;

use tonnage_engine::{Algorithm, Digest};

const PREFIX: &str = "tonnage_";
const ID_BYTES: usize = 8;
const RANDOM_BYTES: usize = 32;

/// A key as its owner has it.
pub struct ApiKeySecret {
    id: String,
    random: String,
}

impl ApiKeySecret {
    /// Makes a new key. Returns `None` if the system has no randomness.
    pub(super) fn make() -> Option<Self> {
        Some(Self {
            id: hex(&random::<ID_BYTES>()?),
            random: hex(&random::<RANDOM_BYTES>()?),
        })
    }

    /// Returns the key that a text is; `None` if it is something else, such as a password.
    pub(in crate::access) fn read(text: &str) -> Option<Self> {
        let (id, random) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_hex = |text: &str, bytes: usize| {
            text.len() == 2 * bytes && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        (is_hex(id, ID_BYTES) && is_hex(random, RANDOM_BYTES)).then(|| Self {
            id: id.to_owned(),
            random: random.to_owned(),
        })
    }

    /// Returns its id, which is not secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the text, which is shown once.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.random)
    }

    /// Returns the hash that is kept.
    pub(super) fn hash(&self) -> String {
        hex(Digest::of(Algorithm::Sha256, self.random.as_bytes()).as_bytes())
    }

    /// Returns whether this is the hash of the key. Takes the same time for every hash.
    pub(super) fn has_hash(&self, hash: &str) -> bool {
        let own = self.hash();
        aws_lc_rs::constant_time::verify_slices_are_equal(own.as_bytes(), hash.as_bytes()).is_ok()
    }
}

/// A key is secret.
impl fmt::Debug for ApiKeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.id;
        f.debug_struct("ApiKeySecret")
            .field("id", id)
            .finish_non_exhaustive()
    }
}

fn random<const BYTES: usize>() -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: a key is recognised by its whole form, so that a password which begins like one stays a password. Its
    /// secret part is in neither its hash nor its debug output.
    #[test]
    fn keys_are_recognised() {
        let key = ApiKeySecret::make().unwrap();
        let text = key.reveal();
        let read = ApiKeySecret::read(&text).unwrap();
        assert_eq!(read.id(), key.id());
        assert!(read.has_hash(&key.hash()));
        assert!(!ApiKeySecret::make().unwrap().has_hash(&key.hash()));
        for other in [
            "",
            "tonnage_",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}0"),
            &text.replace('_', "-"),
        ] {
            assert!(ApiKeySecret::read(other).is_none(), "{other}");
        }
        for shown in [key.hash(), format!("{key:?}")] {
            assert!(!shown.contains(&key.random), "{shown}");
        }
    }
}
