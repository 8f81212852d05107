//! The registry's own list of users.
//!
//! Owns: [`OwnUsers`], its file and every change to it; [`UserEntry`]. Refuses: comparing passwords.
//!
//! Invariants: the file is replaced whole, and changes take turns by a lock, so commands and servers may run at the
//! same time. Only its owner can read it. It never has a password, only a hash.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tonnage_engine::{Algorithm, Digest};

use super::{ByName, UserName};
use crate::access::api_keys::OwnKeys;
use crate::access::own_file;
use crate::access::{AccessError, Caller, Credential};
use crate::kept_files::FileError;

/// Cost of bcrypt for new passwords: about 0.2 s.
pub(super) const COST: u32 = 12;
/// bcrypt has none below. Larger ones would let one login take minutes.
const COSTS: std::ops::RangeInclusive<u32> = 4..=16;
/// Shortest password, and the longest of which bcrypt uses every byte.
pub(super) const PASSWORD_BYTES: std::ops::RangeInclusive<usize> = 8..=72;

/// A user: the hash of the password, and what the list says.
#[derive(Clone, PartialEq, Eq)]
pub struct UserEntry {
    /// Identifies the user among all that have or had the name.
    id: Arc<str>,
    hash: Arc<str>,
    /// Identifies the password.
    password_id: Arc<str>,
    cost: u32,
    /// Whether the user may do everything.
    pub is_admin: bool,
}

impl UserEntry {
    /// Takes the hash of a password. Without an `id`, the user is another one with another password.
    pub(super) fn new(id: Option<&str>, hash: &str, is_admin: bool) -> Result<Self, String> {
        let prefixes = ["$2a$", "$2b$", "$2y$"];
        let parts = prefixes
            .iter()
            .any(|prefix| hash.starts_with(prefix))
            .then(|| hash.parse::<bcrypt::HashParts>().ok())
            .flatten()
            .ok_or("the hash is not bcrypt ($2b$, $2y$ or $2a$)")?;
        let cost = parts.get_cost();
        if !COSTS.contains(&cost) {
            let (least, most) = (COSTS.start(), COSTS.end());
            return Err(format!(
                "the cost {cost} of its hash is not {least} to {most}"
            ));
        }
        let password_id: Arc<str> = password_id(hash).into();
        Ok(Self {
            id: id.map_or_else(|| Arc::clone(&password_id), Into::into),
            hash: hash.into(),
            password_id,
            cost,
            is_admin,
        })
    }

    /// Returns a text that differs for every user, also for two that have the same name one after the other.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the hash of the password.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// Returns a text that differs for every password and user, and from which neither can be found.
    pub(in crate::access) fn password_id(&self) -> &str {
        &self.password_id
    }

    /// Returns the caller who logged in as this user, whose name is `name`.
    pub(in crate::access) fn caller(&self, name: &str) -> Caller {
        Caller {
            subject: name.to_owned(),
            is_admin: self.is_admin,
            credential: Some(Credential::Password((*self.password_id).into())),
            ..Caller::default()
        }
    }

    pub(super) fn cost(&self) -> u32 {
        self.cost
    }
}

fn password_id(hash: &str) -> String {
    let digest = Digest::of(Algorithm::Sha256, hash.as_bytes());
    let first = digest.as_bytes().first_chunk().copied();
    format!("{:016x}", u64::from_le_bytes(first.unwrap_or_default()))
}

/// The hash is not shown.
impl fmt::Debug for UserEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let admin = &self.is_admin;
        f.debug_struct("UserEntry")
            .field("is_admin", admin)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    #[serde(default, rename = "user")]
    users: Vec<UserTable>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserTable {
    name: String,
    id: String,
    password: String,
    #[serde(default)]
    admin: bool,
}

/// Parses the content of the file.
pub(super) fn parse(text: &str) -> Result<ByName, String> {
    let file: UsersFile = own_file::parse(text)?;
    let mut users = ByName::new();
    for table in file.users {
        let name: UserName = table.name.parse().map_err(|error| format!("{error}"))?;
        let entry = UserEntry::new(Some(&table.id), &table.password, table.admin)
            .map_err(|why| format!("user {name}: {why}"))?;
        users.insert(name.to_string(), entry);
    }
    Ok(users)
}

/// The file of the registry's own users.
#[derive(Debug, Clone)]
pub struct OwnUsers {
    path: PathBuf,
}

impl OwnUsers {
    /// Names the list of the registry whose data is in `data`.
    pub fn of(data: &Path) -> Self {
        Self {
            path: data.join("auth").join("users.toml"),
        }
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory, which other secrets of access control share.
    pub(in crate::access) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Returns the list of API keys of the same registry.
    pub fn keys(&self) -> OwnKeys {
        OwnKeys::within(self.directory())
    }

    /// Lists the users by name.
    pub fn list(&self) -> Result<Vec<(String, UserEntry)>, AccessError> {
        Ok(self.read()?.into_iter().collect())
    }

    /// Adds a user. Takes as long as one login.
    ///
    /// # Errors
    /// There is one of that name, or a robot account; the password is too short or too long; the file cannot be
    /// written.
    pub fn add(&self, name: &UserName, password: &str, is_admin: bool) -> Result<(), AccessError> {
        if self.keys().has_robot(name.as_str())? {
            return Err(AccessError::RobotExists(name.clone()));
        }
        let entry = self.entry(password, is_admin)?;
        self.change(|users| {
            if users.contains_key(name.as_str()) {
                return Err(AccessError::UserExists(name.clone()));
            }
            users.insert(name.to_string(), entry);
            Ok(())
        })?
    }

    /// Gives a user another password. Returns false if there is no such user. Takes as long as one login.
    ///
    /// # Errors
    /// The password is too short or too long; the file cannot be written.
    pub fn set_password(&self, name: &str, password: &str) -> Result<bool, AccessError> {
        let entry = self.entry(password, false)?;
        let changed = self.change(|users| {
            let known = users.get_mut(name);
            known
                .map(|known| {
                    *known = UserEntry {
                        id: Arc::clone(&known.id),
                        is_admin: known.is_admin,
                        ..entry
                    }
                })
                .is_some()
        });
        Ok(changed?)
    }

    fn entry(&self, password: &str, is_admin: bool) -> Result<UserEntry, AccessError> {
        if !PASSWORD_BYTES.contains(&password.len()) || password.contains('\0') {
            return Err(AccessError::Password);
        }
        let hash = bcrypt::hash(password, COST).map_err(|_failed| AccessError::Password)?;
        let id = uuid::Uuid::new_v4().to_string();
        Ok(UserEntry::new(Some(&id), &hash, is_admin)
            .map_err(|why| FileError::unusable(&self.path, why))?)
    }

    /// Removes a user, or a robot account, with all API keys. Returns whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool, AccessError> {
        // Before the user, so that a stop in between leaves no key of a user who is gone.
        let keys = self.keys().revoke_all(name)?;
        let had_user = self.change(|users| users.remove(name).is_some())?;
        Ok(had_user || keys > 0)
    }

    fn read(&self) -> Result<ByName, FileError> {
        own_file::read(&self.path, parse)
    }

    fn change<T>(&self, change: impl FnOnce(&mut ByName) -> T) -> Result<T, FileError> {
        own_file::change(&self.path, parse, change, |users| UsersFile {
            users: users.into_iter().map(UserTable::from).collect(),
        })
    }
}

impl From<(String, UserEntry)> for UserTable {
    fn from((name, entry): (String, UserEntry)) -> Self {
        Self {
            name,
            id: entry.id.to_string(),
            password: entry.hash.to_string(),
            admin: entry.is_admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Guards: users are added, changed, listed and removed; the file is its owner's only, and has no password.
    #[test]
    fn users_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let users = OwnUsers::of(directory.path());
        let [alice, bob] = ["alice", "bob"].map(|name| name.parse::<UserName>().unwrap());
        users.add(&alice, "correct horse", true).unwrap();
        users.add(&bob, "battery staple", false).unwrap();
        let twice = users.add(&alice, "correct horse", false);
        assert!(matches!(twice, Err(AccessError::UserExists(_))));
        let before = fs::read_to_string(users.path()).unwrap();
        assert!(users.set_password("alice", "correct horses").unwrap());
        assert_ne!(fs::read_to_string(users.path()).unwrap(), before);
        assert!(!users.set_password("carol", "correct horses").unwrap());
        let listed = users.list().unwrap();
        let listed: Vec<_> = listed
            .iter()
            .map(|(name, entry)| (&**name, entry.is_admin))
            .collect();
        assert_eq!(listed, [("alice", true), ("bob", false)]);
        let text = fs::read_to_string(users.path()).unwrap();
        assert!(
            !text.contains("horse") && !text.contains("staple"),
            "{text}"
        );
        let mode = fs::metadata(users.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{:?}", users.list().unwrap()).contains("$2"));
        assert!(users.remove("bob").unwrap());
        assert!(!users.remove("bob").unwrap());
        for wrong in ["short", &"x".repeat(73)] {
            assert!(matches!(
                users.add(&bob, wrong, false),
                Err(AccessError::Password)
            ));
        }
        fs::write(
            users.path(),
            "[[user]]\nname = 'a'\nid = ''\npassword = 'hunter2'",
        )
        .unwrap();
        let error = users.list().unwrap_err().to_string();
        fs::write(users.path(), "[[user]]\nname = 'a'\npassword = 12345").unwrap();
        let typed = users.list().unwrap_err().to_string();
        assert!(
            typed.contains("line 3") && !typed.contains("12345"),
            "{typed}"
        );
        assert!(
            error.contains("user a") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
