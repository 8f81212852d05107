//! Why there is no access control.

use std::io;
use std::path::{Path, PathBuf};

use super::users::{InvalidUserName, UserName};

/// Why access control cannot start, or its files cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was being done, such as "read".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file's content cannot be used.
    #[error("{} cannot be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A password is too short or too long.
    #[error("a password has 8 to 72 bytes and no NUL")]
    Password,
    /// There is a user of that name.
    #[error("there is a user {0} already")]
    UserExists(UserName),
    /// A name is not allowed.
    #[error(transparent)]
    Name(#[from] InvalidUserName),
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    /// A token could not be signed.
    #[error("a token cannot be signed: {0}")]
    Token(String),
    /// The system has no randomness.
    #[error("the system provided no random bytes")]
    Randomness,
}

impl AccessError {
    pub(super) fn unusable(path: &Path, why: String) -> Self {
        let path = path.to_path_buf();
        Self::Unusable { path, why }
    }
}
