//! Where the keys of an issuer are, and reading them there.
//!
//! Owns: [`KeySource`], and the discovery of keys. Refuses: when they are read (`mod`).

use std::path::PathBuf;

use http::Uri;
use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;

use crate::documents::{self, Documents};
use crate::kept_files;

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::access) enum KeyPlace {
    /// The issuer says it, in its discovery document (`OpenID` Connect Discovery section 4).
    Discovery(Uri),
    /// A URL.
    Url(Uri),
    /// A file.
    File(PathBuf),
}

/// Where keys are, and whom to trust there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::access) struct KeySource {
    pub(in crate::access) place: KeyPlace,
    /// A file of certificates in PEM form that are trusted in addition to the system's.
    pub(in crate::access) authorities: Option<PathBuf>,
}

impl std::fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Discovery(url) | Self::Url(url) => write!(f, "{url}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The part of a discovery document that is used.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Reads the keys of an issuer.
pub(super) async fn fetch(source: &KeySource) -> Result<JwkSet, String> {
    let bytes = match &source.place {
        KeyPlace::File(path) => read(path.clone()).await?,
        KeyPlace::Url(url) => get(&documents(source).await?, url).await?,
        KeyPlace::Discovery(issuer) => discover(&documents(source).await?, issuer).await?,
    };
    serde_json::from_slice(&bytes).map_err(|error| format!("no JSON Web Key Set: {error}"))
}

async fn read(path: PathBuf) -> Result<Vec<u8>, String> {
    let read = tokio::task::spawn_blocking(move || kept_files::read(&path));
    let read = read.await.map_err(|error| error.to_string())?;
    read.map_err(|error| error.to_string())
}

async fn documents(source: &KeySource) -> Result<Documents, String> {
    let authorities = match source.authorities.clone() {
        Some(path) => {
            Some(String::from_utf8(read(path).await?).map_err(|error| error.to_string())?)
        }
        None => None,
    };
    let opened = tokio::task::spawn_blocking(move || Documents::new(authorities.as_deref()));
    let opened = opened.await.map_err(|error| error.to_string())?;
    opened.map_err(|error| error.to_string())
}

/// Fetches the keys of an issuer from where it says that they are.
async fn discover(documents: &Documents, issuer: &Uri) -> Result<Vec<u8>, String> {
    let issuer = issuer.to_string();
    let issuer = issuer.trim_end_matches('/');
    let url = format!("{issuer}/.well-known/openid-configuration");
    let url: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let bytes = get(documents, &url).await?;
    let found: Discovery = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{url} is no discovery document: {error}"))?;
    if found.issuer.trim_end_matches('/') != issuer {
        return Err(format!("{url} is the document of another issuer"));
    }
    let keys: Uri = found
        .jwks_uri
        .parse()
        .map_err(|error| format!("jwks_uri in {url}: {error}"))?;
    // One that is fetched by TLS does not send requests to this machine.
    let is_allowed = keys.scheme() == url.scheme() && documents::is_trustworthy(&keys);
    if !is_allowed {
        return Err(format!("jwks_uri in {url} is not https"));
    }
    get(documents, &keys).await
}

async fn get(documents: &Documents, url: &Uri) -> Result<Vec<u8>, String> {
    let document = documents.get(url).await;
    document.map_err(|error| format!("{url}: {error}"))
}
