//! Public keys of other issuers of tokens, as JSON Web Key Sets (RFC 7517).
//!
//! Owns: [`KeySets`]: when a set is fetched, and how long it is used. Refuses: where it is (`fetch`), verification
//! (`signature`), and what a token says.
//!
//! A set is fetched when it is needed first, again when it is an hour old or does not have a key, and never more often
//! than once a minute. If that fails, the last one serves for a day.
//!
//! Invariants: only keys of the set are used, with the algorithm that belongs to the kind of the key; keys that a token
//! names itself are ignored. One fetch of a set runs at a time.

mod fetch;
mod signature;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use self::fetch::fetch;
pub(super) use self::fetch::{KeyPlace, KeySource};
pub(super) use self::signature::Expected;
use self::signature::{decode, header_of};

/// How long a set is used without looking for another.
const FRESH: Duration = Duration::from_hours(1);
/// How long a set is used while another is fetched: who removed a key waits no longer than this.
const STALE_MAX: Duration = Duration::from_hours(2);
/// Least time between two attempts to fetch a set.
const ATTEMPTS_EVERY: Duration = Duration::from_mins(1);
/// How long a set is used while there is no other.
const USED_MAX: Duration = Duration::from_hours(24);
/// Time to fetch a set: one or two documents, or a file.
const FETCH_TIME_MAX: Duration = Duration::from_secs(15);
/// Sets that are remembered; when there are more, all are forgotten.
const SETS_MAX: usize = 256;
/// The error that the keys of an issuer are not known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeysUnknown;

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
    /// Returns a key, if its set is not older than `age_max`.
    fn known(&self, id: Option<&str>, age_max: Duration) -> Option<Jwk> {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref()?;
        let is_usable = fetched.at.elapsed() < age_max;
        is_usable.then(|| find(&fetched.keys, id).cloned())?
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
        // Also if the attempt does not end by itself.
        *last = Some(Instant::now());
        // A file system may hang, too.
        let fetched = tokio::time::timeout(FETCH_TIME_MAX, fetch(&source)).await;
        let fetched = fetched.unwrap_or_else(|_elapsed| Err("it takes too long".to_owned()));
        match fetched {
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
        if let Some(key) = set.known(id, FRESH) {
            return Ok(Some(key));
        }
        let stale = set.known(id, STALE_MAX);
        let last = match (Arc::clone(&set.last_attempt).try_lock_owned(), &stale) {
            (Ok(last), _) => last,
            // It is being fetched, and that may take as long as a request has.
            (Err(_busy), Some(_)) => return Ok(stale),
            (Err(_busy), None) => Arc::clone(&set.last_attempt).lock_owned().await,
        };
        if last.is_none_or(|last| last.elapsed() >= ATTEMPTS_EVERY) {
            // In a task, so that it does not end with the request.
            let fetching = tokio::spawn(Arc::clone(&set).replace(source.clone(), last));
            if stale.is_some() {
                return Ok(stale);
            }
            fetching.await.map_err(|_ended| KeysUnknown)?;
        }
        match set.known(id, USED_MAX) {
            Some(key) => Ok(Some(key)),
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
        // An old set answers while another is fetched, but not for long.
        write(&["c"]);
        tokio::time::advance(STALE_MAX).await;
        assert_eq!((has("b").await, has("c").await), (Ok(false), Ok(true)));
        write(&["b"]);
        tokio::time::advance(ATTEMPTS_EVERY).await;
        assert_eq!(has("b").await, Ok(true));
        std::fs::write(&path, "half").unwrap();
        tokio::time::advance(STALE_MAX).await;
        assert_eq!((has("b").await, has("c").await), (Ok(true), Ok(false)));
        tokio::time::advance(USED_MAX).await;
        assert_eq!(has("b").await, Err(KeysUnknown));
    }
}
