//! The account at the authority.
//!
//! Owns: making it, and its file, which has its key. Making it agrees to the terms of the authority.

use instant_acme::{Account, AccountBuilder, AccountCredentials, NewAccount};

use super::AcmeOptions;
use super::error::AcmeError;
use super::http::Http;
use crate::kept_files::{self, FileError, SECRET};

/// Returns the account of the file; `None` if there is none.
pub(super) async fn open(options: &AcmeOptions, http: &Http) -> Result<Option<Account>, AcmeError> {
    let path = options.account_path();
    let Some(found) = kept_files::read_if_there(&path)? else {
        return Ok(None);
    };
    // Not the error, which may contain a part of the key.
    let credentials: AccountCredentials = serde_json::from_slice(&found).map_err(|_error| {
        let why = "it is not an ACME account; remove it, and another account is made";
        FileError::unusable(&path, why)
    })?;
    Ok(Some(builder(http).from_credentials(credentials).await?))
}

/// Makes an account, which replaces the one in the file. The folder must be known to take files, so that no account is
/// made that cannot be kept.
pub(super) async fn make(options: &AcmeOptions, http: &Http) -> Result<Account, AcmeError> {
    let path = options.account_path();
    let contact = options
        .contact
        .as_ref()
        .map(|mail| format!("mailto:{mail}"));
    let contact: Vec<&str> = contact.as_deref().into_iter().collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let made = builder(http).create(&new, options.url.clone(), None);
    let (account, credentials) = made.await?;
    let text = serde_json::to_string(&credentials)
        .map_err(|_error| FileError::unusable(&path, "the account cannot be written"))?;
    kept_files::replace(&path, &text, SECRET)?;
    tracing::info!(authority = options.url, path = %path.display(), "an account was made at the authority");
    Ok(account)
}

fn builder(http: &Http) -> AccountBuilder {
    Account::builder_with_http(Box::new(http.clone()))
}
