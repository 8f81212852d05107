//! Answers to the challenges of a registry.
//!
//! Owns: the token flow of the distribution specification, the rule which servers may see the credentials, and the
//! answers that are kept for the next request. Refuses: reading a challenge (`challenge`).
//!
//! Invariant: credentials are sent to the registry, and to the server of its tokens only if that is reached by TLS, or
//! is the same host as a registry without TLS.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use http::{HeaderValue, Uri};
use parking_lot::Mutex;
use serde::Deserialize;

use super::challenge::Challenge;
use super::connection::{Connections, Fields};
use super::credentials::{RegistryCredentials, bearer};
use super::redirect::{is_https, is_same_host};
use crate::reason::shorten;
use crate::registry::peer::PeerError;

/// Largest answer of a server of tokens.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// Repositories for which an answer is kept.
const KEPT_MAX: usize = 256;

/// Credentials, and what was made of them.
#[derive(Debug)]
pub(super) struct Authorization {
    credentials: Option<RegistryCredentials>,
    /// Values of `Authorization`, by repository.
    kept: Mutex<HashMap<String, HeaderValue>>,
}

/// The answer of a server of tokens.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Authorization {
    pub(super) fn new(credentials: Option<RegistryCredentials>) -> Self {
        Self {
            credentials,
            kept: Mutex::default(),
        }
    }

    /// Returns what the last challenge for a repository was answered with.
    pub(super) fn kept(&self, repository: &str) -> Option<HeaderValue> {
        self.kept.lock().get(repository).cloned()
    }

    /// Answers a challenge of the registry at `url`.
    pub(super) async fn answer(
        &self,
        connections: &Connections,
        challenge: Option<Challenge>,
        url: &Uri,
        repository: &str,
    ) -> Result<HeaderValue, PeerError> {
        let answer = match challenge {
            None => return Err(denied("401 without a challenge that can be answered")),
            Some(Challenge::Basic) => {
                let basic = self.basic()?;
                basic.ok_or_else(|| denied("it requires a user name and a password (401)"))?
            }
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let scope = scope.unwrap_or_else(|| format!("repository:{repository}:pull"));
                let realm = token_url(url, &realm, service.as_deref(), &scope)?;
                self.fetch_token(connections, &realm).await?
            }
        };
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(repository.to_owned(), answer.clone());
        Ok(answer)
    }

    fn basic(&self) -> Result<Option<HeaderValue>, PeerError> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let basic = credentials.basic();
        basic
            .map(Some)
            .ok_or_else(|| denied("the credentials cannot be sent"))
    }

    /// Fetches a token, with the credentials if there are some.
    async fn fetch_token(
        &self,
        connections: &Connections,
        realm: &Uri,
    ) -> Result<HeaderValue, PeerError> {
        let fields = Fields {
            accept: HeaderValue::from_static("application/json"),
            authorization: self.basic()?,
        };
        // Redirects are not followed: they could lead the credentials elsewhere.
        let answer = connections.get(realm, fields).await?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(denied(&format!(
                "the server of its tokens answered {status}"
            )));
        }
        let mut bytes = connections.content(answer.into_body());
        let mut text = Vec::new();
        while let Some(piece) = bytes.try_next().await? {
            text.extend_from_slice(&piece);
            if text.len() > TOKEN_BYTES_MAX {
                return Err(denied(
                    "the answer of the server of its tokens is too large",
                ));
            }
        }
        let unusable = || denied("the server of its tokens sent no usable token");
        let answer: TokenAnswer = serde_json::from_slice(&text).map_err(|_invalid| unusable())?;
        let token = answer.token.or(answer.access_token).unwrap_or_default();
        if token.is_empty() {
            return Err(unusable());
        }
        bearer(&token).ok_or_else(unusable)
    }
}

/// Returns the URL of a token, if credentials may be sent there.
fn token_url(
    registry: &Uri,
    realm: &str,
    service: Option<&str>,
    scope: &str,
) -> Result<Uri, PeerError> {
    let invalid = || denied("the server of its tokens has no valid address");
    let url: Uri = realm.parse().map_err(|_invalid| invalid())?;
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(invalid());
    };
    if authority.as_str().contains('@') || !matches!(scheme, "http" | "https") {
        return Err(invalid());
    }
    let is_allowed = is_https(&url) || !is_https(registry) && is_same_host(registry, &url);
    if !is_allowed {
        let authority = shorten(authority);
        let what = format!("the server of its tokens, {authority}, is another host without TLS");
        return Err(denied(&what));
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    query.append_pair("scope", scope);
    let query = query.finish();
    let path = url.path();
    let query = match url.query() {
        Some(own) => format!("{own}&{query}"),
        None => query,
    };
    let built = Uri::builder()
        .scheme(scheme)
        .authority(authority.clone())
        .path_and_query(format!("{path}?{query}"))
        .build();
    built.map_err(|_invalid| invalid())
}

fn denied(why: &str) -> PeerError {
    PeerError::Denied(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards: credentials go to servers of tokens by TLS, or to the same host as a registry without it; never from a
    /// registry with TLS to one without. Service and scope are escaped.
    #[test]
    fn tokens_come_from_allowed_places() {
        let url = |registry: &str, realm: &str| {
            token_url(
                &registry.parse().unwrap(),
                realm,
                Some("a b"),
                "repository:x:pull",
            )
        };
        assert_eq!(
            url("https://r", "https://auth/token?c=d").unwrap(),
            "https://auth/token?c=d&service=a+b&scope=repository%3Ax%3Apull"
        );
        url("http://r:5000", "http://r:5001/token").unwrap();
        url("http://r:5000", "https://auth/token").unwrap();
        for (registry, realm) in [
            ("https://r", "http://r/token"),
            ("http://r", "http://auth/token"),
            ("https://r", "file:///token"),
            ("https://r", "https://u@auth/token"),
            ("https://r", "/token"),
        ] {
            url(registry, realm).unwrap_err();
        }
    }
}
