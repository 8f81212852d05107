//! Why there is no access control.

use std::io;

use super::users::{InvalidUserName, UserName};
use crate::kept_files::FileError;

/// Why access control cannot start, or its files cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read, used or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A password is too short or too long.
    #[error("a password has 8 to 72 bytes and no NUL")]
    Password,
    /// There is a user of that name.
    #[error("there is a user {0} already")]
    UserExists(UserName),
    /// A name is not allowed.
    #[error(transparent)]
    Name(#[from] InvalidUserName),
    /// There are too many API keys.
    #[error("there are {0} API keys already; revoke those that are not used")]
    TooManyKeys(usize),
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
