//! API keys: random passwords for programs.
//!
//! Owns: [`ApiKeys`], which finds the key that was sent, and whom it logs in. Refuses: making and revoking keys
//! (`file`), and what a user may do (`rules`).
//!
//! A key logs its user in, and may be limited to less than the user may do; it never adds anything. A robot account is
//! a name that has keys and no password; rules name it like any user.
//!
//! Invariants: a key of a user who was removed, one that was revoked and one that has expired are not accepted, nor are
//! tokens that were issued for them.

mod file;
mod scope;
mod secret;
mod uses;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::file::ById;
pub use self::file::{ApiKey, NewApiKey, OwnKeys};
pub(super) use self::scope::cover;
pub use self::scope::{InvalidKeyScope, KeyScope};
pub use self::secret::ApiKeySecret;
use self::uses::KeyUses;
use super::reloaded::ReloadedFile;
use super::{Caller, Credential, now_unix_s};
use crate::access::users::Users;
use crate::kept_files::FileError;

/// The keys of a running server.
#[derive(Debug)]
pub(super) struct ApiKeys {
    keys: ReloadedFile<ById>,
    uses: KeyUses,
}

impl OwnKeys {
    /// Returns the last use of each key, in Unix time, as far as a server has written it.
    pub fn last_uses(&self) -> BTreeMap<String, u64> {
        self.path().parent().map(uses::read).unwrap_or_default()
    }
}

impl ApiKeys {
    /// Reads the list.
    pub(super) fn open(own: &OwnKeys) -> Result<Self, FileError> {
        let directory = own.path().parent().unwrap_or(own.path());
        Ok(Self {
            uses: KeyUses::open(directory),
            keys: ReloadedFile::open(own.path().to_path_buf(), true, file::parse)?,
        })
    }

    /// Reads the list again. Waits for the disk.
    pub(super) fn reload(&self) {
        self.keys.reload();
    }

    /// Returns whether there is a key of this id.
    pub(super) fn has(&self, key: &ApiKeySecret) -> bool {
        self.keys.value().contains_key(key.id())
    }

    /// Returns whom a key logs in; `None` if it is not a key of the user `name`.
    pub(super) fn log_in(&self, name: &str, key: &ApiKeySecret, users: &Users) -> Option<Caller> {
        let keys = self.keys.value();
        let found = keys.get(key.id())?;
        let is_right = key.has_hash(&found.hash.0) && found.user == name;
        let caller = is_right.then(|| caller(key.id(), found, users))??;
        self.uses.note(key.id(), now_unix_s());
        Some(caller)
    }

    /// Returns whom the key of this id logs in now, for a token that was issued for it.
    pub(super) fn holder(&self, id: &str, users: &Users) -> Option<Caller> {
        caller(id, self.keys.value().get(id)?, users)
    }

    /// Writes down when keys were used, from time to time. Waits for the disk.
    pub(super) fn save_uses(&self) -> Result<(), FileError> {
        let keys = self.keys.value();
        let is_known = |id: &str| keys.contains_key(id);
        self.uses.save_if_due(now_unix_s(), is_known)
    }
}

impl Drop for ApiKeys {
    /// Writes down the last uses at the end of a server.
    fn drop(&mut self) {
        let keys = self.keys.value();
        if let Err(error) = self.uses.save(|id| keys.contains_key(id)) {
            tracing::warn!(%error, "the last uses of API keys could not be written");
        }
    }
}

fn caller(id: &str, key: &ApiKey, users: &Users) -> Option<Caller> {
    let has_ended = key.expires_unix_s.is_some_and(|end| end <= now_unix_s());
    if has_ended {
        return None;
    }
    // A user's key ends with its user. A robot account has none, and is an admin only if rules say so.
    let is_admin = !key.is_robot && users.get(&key.user)?.is_admin;
    Some(Caller {
        subject: key.user.clone(),
        is_admin,
        key_scopes: (!key.scopes.is_empty()).then(|| Arc::clone(&key.scopes)),
        credential: Some(Credential::Key(id.into())),
        ..Caller::default()
    })
}
