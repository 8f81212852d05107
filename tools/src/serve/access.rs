//! Access control of a server that starts.
//!
//! Owns: opening it, and the first admin of a registry without users.

use std::path::Path;

use tonnage_server::FileError;
use tonnage_server::access::{AccessControl, AccessError, AccessOptions};

use super::threads;
use crate::config::options::AuthConfig;
use crate::exit::Exit;
use crate::failure::Failure;

/// Name of the first admin.
const FIRST_ADMIN: &str = "admin";
/// Letters of a password that is read from a terminal and typed: none looks like another.
const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
/// Letters of the first admin's password: 120 bits.
const PASSWORD_LETTERS: usize = 24;

/// Access control, and what to print about it.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) control: AccessControl,
    /// Name and password of an admin that was made, because there was no user. The password is shown once.
    pub(super) first_admin: Option<(&'static str, Password)>,
}

/// A password that is shown once, and in no log.
pub(super) struct Password(pub(super) String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

/// Opens access control, if it is switched on.
///
/// # Panics
/// Outside of a tokio runtime.
pub(super) fn open(auth: &AuthConfig, data: &Path) -> Result<Option<Access>, Failure> {
    if !auth.enabled {
        return Ok(None);
    }
    opened(&auth.access_options(data))
        .map(Some)
        .map_err(|error| failure(&error))
}

fn opened(options: &AccessOptions) -> Result<Access, AccessError> {
    let control = AccessControl::open(options)?;
    let first_admin = if control.has_no_users() {
        let password = random_password().ok_or(AccessError::Randomness)?;
        options.own.add(&FIRST_ADMIN.parse()?, &password, true)?;
        Some((FIRST_ADMIN, Password(password)))
    } else {
        None
    };
    Ok(Access {
        control,
        first_admin,
    })
}

fn random_password() -> Option<String> {
    let mut random = [0; PASSWORD_LETTERS];
    getrandom::fill(&mut random).ok()?;
    let letter = |byte: u8| LETTERS.get(usize::from(byte) % LETTERS.len()).copied();
    random
        .into_iter()
        .map(|byte| letter(byte).map(char::from))
        .collect()
}

/// Returns the failure of access control.
pub(crate) fn failure(error: &AccessError) -> Failure {
    if let AccessError::Thread(_) = error {
        return threads::of_threads(error.to_string());
    }
    let exit = match error {
        AccessError::File(FileError::Unusable { .. })
        | AccessError::Password
        | AccessError::UserExists(_)
        | AccessError::TooManyKeys(_)
        | AccessError::Name(_) => Exit::Usage,
        AccessError::File(FileError::Io { .. })
        | AccessError::Randomness
        | AccessError::Thread(_)
        | AccessError::Token(_) => Exit::Disk,
    };
    Failure::new(exit, error.to_string())
}
