//! The list of API keys.
//!
//! Owns: [`OwnKeys`], its file and every change to it; [`ApiKey`]. Refuses: recognising a key (`secret`).
//!
//! Invariants: as for the list of users, the file is replaced whole, changes take turns by a lock, and only its owner
//! can read it. It has the hash of a key and never the key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::KeyScope;
use super::secret::ApiKeySecret;
use crate::access::own_file;
use crate::access::{AccessError, UserName, now_unix_s};
use crate::kept_files::FileError;

/// Most keys: a server has all of them in memory.
const KEYS_MAX: usize = 10_000;

/// The keys, by id.
pub(super) type ById = BTreeMap<String, ApiKey>;

/// An API key, without its secret.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Whose key it is.
    pub user: String,
    /// Who that is.
    pub owner: KeyOwner,
    /// For its owner.
    pub label: String,
    /// What it is limited to; nothing if there are none.
    pub scopes: Arc<[KeyScope]>,
    /// When it was made, in Unix time.
    pub created_unix_s: u64,
    /// The first second in which it is not accepted, in Unix time.
    pub expires_unix_s: Option<u64>,
    pub(super) hash: Hash,
}

/// Who has a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyOwner {
    /// A robot account: a name without a password, which only keys log in.
    Robot,
    /// A user with a password, by its id. A later user of the same name has another one.
    User(String),
}

/// The hash of a key, which is not shown.
#[derive(Clone)]
pub(super) struct Hash(pub(super) String);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hash")
    }
}

/// A key to be made.
#[derive(Debug)]
pub struct NewApiKey {
    /// Whose key it is.
    pub user: UserName,
    /// Who that is.
    pub owner: KeyOwner,
    /// For its owner.
    pub label: String,
    /// What it is limited to; nothing if there are none.
    pub scopes: Vec<KeyScope>,
    /// The first second in which it is not accepted, in Unix time.
    pub expires_unix_s: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default, rename = "key")]
    keys: Vec<KeyTable>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    id: String,
    user: String,
    owner: KeyOwner,
    #[serde(default)]
    label: String,
    secret_sha256: String,
    #[serde(default)]
    scopes: Vec<String>,
    created_unix_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_unix_s: Option<u64>,
}

/// Parses the content of the file.
pub(super) fn parse(text: &str) -> Result<ById, String> {
    let file: KeysFile = own_file::parse(text)?;
    let mut keys = ById::new();
    for table in file.keys {
        let failed = |why: String| format!("key {}: {why}", table.id);
        let user: UserName = table
            .user
            .parse()
            .map_err(|error| failed(format!("{error}")))?;
        let scopes = table.scopes.iter().map(|text| text.parse::<KeyScope>());
        let scopes: Vec<_> = scopes
            .collect::<Result<_, _>>()
            .map_err(|error| failed(error.to_string()))?;
        let key = ApiKey {
            user: user.to_string(),
            owner: table.owner,
            label: table.label,
            scopes: scopes.into(),
            created_unix_s: table.created_unix_s,
            expires_unix_s: table.expires_unix_s,
            hash: Hash(table.secret_sha256),
        };
        keys.insert(table.id, key);
    }
    Ok(keys)
}

/// The file of the registry's API keys.
#[derive(Debug, Clone)]
pub struct OwnKeys {
    path: PathBuf,
}

impl OwnKeys {
    /// Names the list in the directory of access control.
    pub(in crate::access) fn within(directory: &Path) -> Self {
        Self {
            path: directory.join("keys.toml"),
        }
    }

    /// Returns the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lists the keys by id.
    pub fn list(&self) -> Result<Vec<(String, ApiKey)>, AccessError> {
        Ok(self.read()?.into_iter().collect())
    }

    /// Returns whether there is a robot account of this name.
    pub fn has_robot(&self, name: &str) -> Result<bool, AccessError> {
        let keys = self.read()?;
        Ok(keys
            .values()
            .any(|key| key.user == name && key.owner == KeyOwner::Robot))
    }

    /// Makes a key. It is never shown again.
    ///
    /// # Errors
    /// There are too many; the file cannot be written.
    pub fn create(&self, new: NewApiKey) -> Result<ApiKeySecret, AccessError> {
        let secret = ApiKeySecret::make().ok_or(AccessError::Randomness)?;
        let key = ApiKey {
            user: new.user.to_string(),
            owner: new.owner,
            label: new.label,
            scopes: new.scopes.into(),
            created_unix_s: now_unix_s(),
            expires_unix_s: new.expires_unix_s,
            hash: Hash(secret.hash()),
        };
        self.change(|keys| {
            if keys.len() >= KEYS_MAX {
                return Err(AccessError::TooManyKeys(KEYS_MAX));
            }
            keys.insert(secret.id().to_owned(), key);
            Ok(())
        })??;
        Ok(secret)
    }

    /// Removes a key. Returns whether there was one of that id.
    pub fn revoke(&self, id: &str) -> Result<bool, AccessError> {
        Ok(self.change(|keys| keys.remove(id).is_some())?)
    }

    /// Removes all keys of a user. Returns how many there were.
    pub fn revoke_all(&self, user: &str) -> Result<usize, AccessError> {
        // Without a key, nothing is written.
        if !self.read()?.values().any(|key| key.user == user) {
            return Ok(0);
        }
        let revoked = self.change(|keys| {
            let before = keys.len();
            keys.retain(|_, key| key.user != user);
            before - keys.len()
        });
        Ok(revoked?)
    }

    fn read(&self) -> Result<ById, FileError> {
        own_file::read(&self.path, parse)
    }

    fn change<T>(&self, change: impl FnOnce(&mut ById) -> T) -> Result<T, FileError> {
        own_file::change(&self.path, parse, change, |keys| KeysFile {
            keys: keys.into_iter().map(KeyTable::from).collect(),
        })
    }
}

impl From<(String, ApiKey)> for KeyTable {
    fn from((id, key): (String, ApiKey)) -> Self {
        Self {
            id,
            user: key.user,
            owner: key.owner,
            label: key.label,
            secret_sha256: key.hash.0,
            scopes: key.scopes.iter().map(KeyScope::to_string).collect(),
            created_unix_s: key.created_unix_s,
            expires_unix_s: key.expires_unix_s,
        }
    }
}
