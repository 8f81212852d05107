//! Signing keys of tokens.
//!
//! Owns: [`SigningKeys`], their file and their rotation. The newest key signs. The one before still verifies, far
//! longer than its last token is valid.
//!
//! Invariant: only the owner of the file can read it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};

use crate::access::{AccessError, own_file};
use crate::kept_files::FileError;

/// How long a key signs.
pub(super) const SIGNS: Duration = Duration::from_hours(30 * 24);
/// Keys that are kept: the one that signs, and the one before.
const KEPT: usize = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    key: Vec<KeyTable>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    id: String,
    created_unix_s: u64,
    /// PKCS #8 in Base64.
    private: String,
}

/// A key in use.
struct Key {
    table: KeyTable,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// All keys, the newest last.
pub(super) struct SigningKeys {
    path: PathBuf,
    keys: ArcSwap<Vec<Key>>,
}

impl SigningKeys {
    /// Reads the keys in `directory`, or makes the first.
    pub(super) fn open(directory: &Path, now_unix_s: u64) -> Result<Self, AccessError> {
        let path = directory.join("token-keys.toml");
        let file: KeysFile = own_file::read(&path, own_file::parse)?;
        let keys = file.key.into_iter().map(|table| {
            Key::new(table).ok_or_else(|| FileError::unusable(&path, "it has a bad key"))
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        let this = Self {
            keys: ArcSwap::from_pointee(keys),
            path,
        };
        this.rotate(now_unix_s)?;
        Ok(this)
    }

    /// Makes a key if there is none, or if the newest is old.
    pub(super) fn rotate(&self, now_unix_s: u64) -> Result<(), AccessError> {
        let keys = self.keys.load();
        let is_new =
            |key: &Key| now_unix_s < key.table.created_unix_s.saturating_add(SIGNS.as_secs());
        if keys.last().is_some_and(is_new) {
            return Ok(());
        }
        let kept = keys
            .iter()
            .rev()
            .take(KEPT - 1)
            .rev()
            .map(|key| key.table.clone());
        let mut tables: Vec<_> = kept.collect();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_unspecified| AccessError::Randomness)?;
        tables.push(KeyTable {
            id: uuid::Uuid::new_v4().to_string(),
            created_unix_s: now_unix_s,
            private: STANDARD.encode(pkcs8.as_ref()),
        });
        let file = KeysFile {
            key: tables.clone(),
        };
        own_file::write(&self.path, &file)?;
        let keys: Option<Vec<_>> = tables.into_iter().map(Key::new).collect();
        let keys =
            keys.ok_or_else(|| FileError::unusable(&self.path, "a new key cannot be used"))?;
        self.keys.store(keys.into());
        Ok(())
    }

    /// Returns the key that signs, with its id.
    pub(super) fn newest(&self) -> (String, EncodingKey) {
        match self.keys.load().last() {
            Some(key) => (key.table.id.clone(), key.encoding.clone()),
            None => unreachable!("opening makes the first key"),
        }
    }

    /// Returns the key that verifies tokens of this id.
    pub(super) fn by_id(&self, id: &str) -> Option<DecodingKey> {
        let keys = self.keys.load();
        let found = keys.iter().find(|key| key.table.id == id);
        found.map(|key| key.decoding.clone())
    }
}

impl Key {
    fn new(table: KeyTable) -> Option<Self> {
        let pkcs8 = STANDARD.decode(&table.private).ok()?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).ok()?;
        Some(Self {
            encoding: EncodingKey::from_ec_der(&pkcs8),
            decoding: DecodingKey::from_ec_der(pair.public_key().as_ref()),
            table,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Guards: a key signs for its time; the one before still verifies, the one before that does not.
    #[test]
    fn keys_rotate_with_overlap() {
        let directory = tempfile::tempdir().unwrap();
        let keys = SigningKeys::open(directory.path(), 0).unwrap();
        let mut ids = vec![keys.newest().0];
        for turn in 1..=2 {
            keys.rotate(turn * SIGNS.as_secs() - 1).unwrap();
            assert_eq!(keys.newest().0, ids[ids.len() - 1]);
            keys.rotate(turn * SIGNS.as_secs()).unwrap();
            ids.push(keys.newest().0);
        }
        let known = |keys: &SigningKeys| {
            ids.iter()
                .map(|id| keys.by_id(id).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(known(&keys), [false, true, true]);
        let again = SigningKeys::open(directory.path(), 2 * SIGNS.as_secs()).unwrap();
        assert_eq!(known(&again), [false, true, true]);
        let found = std::fs::metadata(directory.path().join("token-keys.toml")).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }
}
