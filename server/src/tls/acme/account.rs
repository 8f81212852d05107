//! The account at the authority.
//!
//! Owns: making it once, and its file, which has its key. Making it agrees to the terms of the authority.

use instant_acme::{Account, AccountCredentials, NewAccount};

use super::AcmeOptions;
use super::error::AcmeError;
use super::http::Http;
use crate::kept_files::{self, FileError, SECRET};

/// Returns the account. Makes one if there is none.
pub(super) async fn open(options: &AcmeOptions, http: &Http) -> Result<Account, AcmeError> {
    let path = options.account_path();
    let builder = Account::builder_with_http(Box::new(http.clone()));
    if let Some(found) = kept_files::read_if_there(&path)? {
        // Not the error, which may contain a part of the key.
        let credentials: AccountCredentials = serde_json::from_slice(&found).map_err(|_error| {
            let why = "it is no account of ACME; remove it, and another account is made";
            FileError::unusable(&path, why)
        })?;
        return Ok(builder.from_credentials(credentials).await?);
    }
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
    let made = builder.create(&new, options.url.clone(), None).await?;
    let (account, credentials) = made;
    let text = serde_json::to_string(&credentials)
        .map_err(|_error| FileError::unusable(&path, "the account cannot be written"))?;
    kept_files::replace(&path, &text, SECRET)?;
    tracing::info!(authority = options.url, path = %path.display(), "an account was made at the authority");
    Ok(account)
}
