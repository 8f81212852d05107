//! Public keys of other issuers of tokens, as JSON Web Key Sets (RFC 7517).
//!
//! Owns: [`KeySource`], [`KeySets`], and the verification of a signature with such a key. Refuses: what a token says.
//!
//! A set is fetched when it is needed first, again when it is old or does not have a key, and never more often than
//! once a minute. If that fails, the last one serves for a day.
//!
//! Invariants: only keys of the set are used, with the algorithm that belongs to the kind of the key; keys that a token
//! names itself are ignored. One fetch of a set runs at a time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Uri;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::documents::{self, Documents};
use crate::kept_files;

/// How long a set is used without looking for another.
const FRESH: Duration = Duration::from_hours(1);
/// Least time between two attempts to fetch a set.
const ATTEMPTS_EVERY: Duration = Duration::from_mins(1);
/// How long a set is used while there is no other.
const USED_MAX: Duration = Duration::from_hours(24);
/// How much the clocks of two servers may differ.
const LEEWAY: Duration = Duration::from_mins(1);
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Sets that are remembered; when there are more, all are forgotten.
const SETS_MAX: usize = 256;
/// Algorithms with a public key (RFC 7518 section 3.1, RFC 8037).
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum KeyPlace {
    /// The issuer says it, in its discovery document (`OpenID` Connect Discovery section 4).
    Discovery(Uri),
    /// A URL.
    Url(Uri),
    /// A file.
    File(PathBuf),
}

/// Where keys are, and whom to trust there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct KeySource {
    pub(super) place: KeyPlace,
    /// A file of certificates in PEM form that are trusted in addition to the system's.
    pub(super) authorities: Option<PathBuf>,
}

/// The error that the keys of an issuer are not known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeysUnknown;

/// The part of a discovery document that is used.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// What a token of this kind must say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audiences: &'a [String],
}

/// The keys of all issuers.
#[derive(Debug, Default)]
pub(super) struct KeySets {
    sets: Mutex<HashMap<KeySource, Arc<KeySet>>>,
}

/// The keys of an issuer.
#[derive(Debug, Default)]
struct KeySet {
    fetched: ArcSwapOption<Fetched>,
    /// When the last attempt to fetch it ended. Held while one runs.
    last_attempt: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

#[derive(Debug)]
struct Fetched {
    keys: JwkSet,
    at: Instant,
}

impl KeySet {
    /// Returns a key with the age of its set, unless that is too old to be used.
    fn known(&self, id: Option<&str>) -> Option<(Jwk, Duration)> {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref()?;
        let age = fetched.at.elapsed();
        let key = find(&fetched.keys, id)?;
        (age < USED_MAX).then(|| (key.clone(), age))
    }

    /// Returns whether there is a set that can be used.
    fn is_known(&self) -> bool {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref();
        fetched.is_some_and(|fetched| fetched.at.elapsed() < USED_MAX)
    }

    /// Fetches the set. If that fails, the last one stays.
    async fn replace(
        self: Arc<Self>,
        source: KeySource,
        mut last: OwnedMutexGuard<Option<Instant>>,
    ) {
        match fetch(&source).await {
            Ok(keys) => {
                let at = Instant::now();
                self.fetched.store(Some(Arc::new(Fetched { keys, at })));
            }
            Err(why) => tracing::error!(
                issuer = %source.place,
                why,
                "the keys of an issuer of tokens could not be read; those that were read before stay in use for a day"
            ),
        }
        *last = Some(Instant::now());
    }
}

impl KeySets {
    /// Returns what a token says; `None` if it is not valid now.
    pub(super) async fn verify(
        &self,
        source: &KeySource,
        token: &str,
        expected: Expected<'_>,
    ) -> Result<Option<Map<String, Value>>, KeysUnknown> {
        let Some(header) = header_of(token) else {
            return Ok(None);
        };
        let key = self.key(source, header.kid.as_deref()).await?;
        Ok(key.and_then(|key| decode(token, &key, header.alg, expected)))
    }

    /// Returns the key of this id, or the only one for a token without an id.
    async fn key(&self, source: &KeySource, id: Option<&str>) -> Result<Option<Jwk>, KeysUnknown> {
        let set = self.set(source);
        let known = set.known(id);
        if let Some((key, age)) = &known
            && *age < FRESH
        {
            return Ok(Some(key.clone()));
        }
        let last = match (Arc::clone(&set.last_attempt).try_lock_owned(), known) {
            (Ok(last), _) => last,
            // It is being fetched, and that may take as long as a request has.
            (Err(_busy), Some((key, _))) => return Ok(Some(key)),
            (Err(_busy), None) => Arc::clone(&set.last_attempt).lock_owned().await,
        };
        if last.is_none_or(|last| last.elapsed() >= ATTEMPTS_EVERY) {
            // In a task, so that it does not end with the request.
            let fetching = tokio::spawn(Arc::clone(&set).replace(source.clone(), last));
            if let Some((key, _)) = set.known(id) {
                return Ok(Some(key));
            }
            fetching.await.map_err(|_ended| KeysUnknown)?;
        }
        match set.known(id) {
            Some((key, _)) => Ok(Some(key)),
            None if set.is_known() => Ok(None),
            None => Err(KeysUnknown),
        }
    }

    fn set(&self, source: &KeySource) -> Arc<KeySet> {
        let mut sets = self.sets.lock();
        if sets.len() >= SETS_MAX && !sets.contains_key(source) {
            sets.clear();
        }
        Arc::clone(sets.entry(source.clone()).or_default())
    }
}

/// Reads the header of a token, if a key of a set may verify it.
fn header_of(token: &str) -> Option<Header> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let header = jsonwebtoken::decode_header(token).ok()?;
    ALGORITHMS.contains(&header.alg).then_some(header)
}

/// Returns whether a token is valid with a set of keys, for fuzzers.
#[cfg(feature = "fuzz-entry")]
pub(super) fn accepts(keys: &[u8], token: &str, expected: Expected<'_>) -> bool {
    let keys = serde_json::from_slice::<JwkSet>(keys).ok();
    let (Some(keys), Some(header)) = (keys, header_of(token)) else {
        return false;
    };
    let key = find(&keys, header.kid.as_deref());
    key.and_then(|key| decode(token, key, header.alg, expected))
        .is_some()
}

fn find<'a>(keys: &'a JwkSet, id: Option<&str>) -> Option<&'a Jwk> {
    match (id, &*keys.keys) {
        (Some(id), _) => keys.find(id),
        (None, [only]) => Some(only),
        (None, _) => None,
    }
}

fn decode(
    token: &str,
    key: &Jwk,
    algorithm: Algorithm,
    expected: Expected<'_>,
) -> Option<Map<String, Value>> {
    let named = key.common.key_algorithm.map(|named| named.to_string());
    let is_for_signatures = matches!(
        key.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    if !is_for_signatures || named.is_some_and(|named| named != format!("{algorithm:?}")) {
        return None;
    }
    // It fails if the algorithm is not one for this kind of key.
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY.as_secs();
    validation.validate_nbf = true;
    validation.set_audience(expected.audiences);
    validation.set_issuer(&[expected.issuer]);
    validation.set_required_spec_claims(&["exp", "aud", "iss"]);
    let key = DecodingKey::from_jwk(key).ok()?;
    let decoded = jsonwebtoken::decode(token, &key, &validation);
    decoded.ok().map(|decoded| decoded.claims)
}

async fn fetch(source: &KeySource) -> Result<JwkSet, String> {
    let authorities = source.authorities.clone();
    let place = source.place.clone();
    // Both read files.
    let opened = tokio::task::spawn_blocking(move || {
        if let KeyPlace::File(path) = place {
            let bytes = kept_files::read(&path).map_err(|error| error.to_string())?;
            return Ok(Err(bytes));
        }
        let authorities = authorities
            .map(|path| kept_files::read(&path).and_then(|bytes| kept_files::text(&path, bytes)))
            .transpose()
            .map_err(|error| error.to_string())?;
        let documents = Documents::new(authorities.as_deref());
        documents.map(Ok).map_err(|error| error.to_string())
    });
    let opened: Result<Result<Documents, Vec<u8>>, String> =
        opened.await.map_err(|error| error.to_string())?;
    let bytes = match (opened?, &source.place) {
        (Err(bytes), _) => bytes,
        (Ok(documents), KeyPlace::Discovery(issuer)) => discover(&documents, issuer).await?,
        (Ok(documents), KeyPlace::Url(url)) => get(&documents, url).await?,
        (Ok(_), KeyPlace::File(_)) => unreachable!("a file is read and not fetched"),
    };
    serde_json::from_slice(&bytes).map_err(|error| format!("no JSON Web Key Set: {error}"))
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
    if !documents::is_trustworthy(&keys) {
        return Err(format!("jwks_uri in {url} is not https"));
    }
    get(documents, &keys).await
}

async fn get(documents: &Documents, url: &Uri) -> Result<Vec<u8>, String> {
    let document = documents.get(url).await;
    document.map_err(|error| format!("{url}: {error}"))
}

impl std::fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Discovery(url) | Self::Url(url) => write!(f, "{url}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Guards: a set is read again once it is old, and for an unknown key, but not more often than once a minute. While
    /// that fails, the last one serves for a day, and no longer.
    #[tokio::test(start_paused = true)]
    async fn sets_are_replaced_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        let write = |ids: &[&str]| {
            let key = |id: &&str| json!({"kty": "OKP", "crv": "Ed25519", "x": "", "kid": id});
            let keys: Vec<_> = ids.iter().map(key).collect();
            std::fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
        };
        let source = KeySource {
            place: KeyPlace::File(path.clone()),
            authorities: None,
        };
        let sets = KeySets::default();
        let has = async |id: &str| {
            let key = sets.key(&source, Some(id)).await;
            key.map(|key| key.is_some())
        };
        assert_eq!(has("a").await, Err(KeysUnknown));
        write(&["a"]);
        assert_eq!(has("a").await, Err(KeysUnknown));
        tokio::time::advance(ATTEMPTS_EVERY).await;
        assert_eq!(has("a").await, Ok(true));
        write(&["b"]);
        assert_eq!((has("a").await, has("b").await), (Ok(true), Ok(false)));
        tokio::time::advance(ATTEMPTS_EVERY).await;
        assert_eq!((has("b").await, has("a").await), (Ok(true), Ok(false)));
        std::fs::write(&path, "half").unwrap();
        tokio::time::advance(FRESH).await;
        assert_eq!((has("b").await, has("c").await), (Ok(true), Ok(false)));
        tokio::time::advance(USED_MAX).await;
        assert_eq!(has("b").await, Err(KeysUnknown));
    }
}
