//! Users with passwords.
//!
//! Owns: [`Users`], which finds a user in the registry's own list and in an htpasswd file. Refuses: comparing
//! passwords (`passwords`) and the formats of the files (`own`, `htpasswd`).
//!
//! Invariant: a name has one password; that of the registry's own list counts.

mod comparisons;
mod htpasswd;
mod name;
mod own;
pub(super) mod passwords;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use self::name::{CallerName, InvalidUserName, UserName};
pub use self::own::{OwnUsers, UserEntry};
use super::reloaded::ReloadedFile;
use crate::kept_files::FileError;

/// The users of a file, by name.
type ByName = BTreeMap<String, UserEntry>;

/// All users.
#[derive(Debug)]
pub(super) struct Users {
    own: ReloadedFile<ByName>,
    htpasswd: Option<ReloadedFile<ByName>>,
}

impl Users {
    /// Reads the lists of users.
    pub(super) fn open(own: &OwnUsers, htpasswd: Option<PathBuf>) -> Result<Self, FileError> {
        let htpasswd = htpasswd.map(|path| ReloadedFile::open(path, false, htpasswd::parse));
        Ok(Self {
            own: ReloadedFile::open(own.path().to_path_buf(), true, own::parse)?,
            htpasswd: htpasswd.transpose()?,
        })
    }

    /// Returns a user.
    pub(super) fn get(&self, name: &str) -> Option<UserEntry> {
        let lists = [Some(&self.own), self.htpasswd.as_ref()];
        let found = |list: &ReloadedFile<ByName>| list.value().get(name).cloned();
        lists.into_iter().flatten().find_map(found)
    }

    /// Returns whether there is no user at all.
    pub(super) fn is_empty(&self) -> bool {
        let lists = [Some(&self.own), self.htpasswd.as_ref()];
        lists
            .into_iter()
            .flatten()
            .all(|list| list.value().is_empty())
    }

    /// Returns the largest cost of a password: comparing with an unknown user takes as long.
    pub(super) fn cost(&self) -> u32 {
        let lists = [Some(&self.own), self.htpasswd.as_ref()];
        let lists: Vec<Arc<ByName>> = lists
            .into_iter()
            .flatten()
            .map(ReloadedFile::value)
            .collect();
        let costs = lists
            .iter()
            .flat_map(|list| list.values())
            .map(UserEntry::cost);
        costs.max().unwrap_or(own::COST)
    }

    /// Reads the files again. Waits for the disk.
    pub(super) fn reload(&self) {
        self.own.reload();
        if let Some(htpasswd) = &self.htpasswd {
            htpasswd.reload();
        }
    }
}
