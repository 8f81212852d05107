//! Blobs that were found damaged since the store opened.
//!
//! Owns: the set, in memory only; a read or scrub finds it again after a restart. Refuses: healing; an upload of
//! the same digest consults it and writes the bytes anew.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::extent::Extent;
use crate::sync::Mutex;

/// Which bytes must not be taken for a blob's content. Share by `Arc`.
#[derive(Debug, Default)]
pub struct Damaged {
    places: Mutex<HashMap<Digest, Vec<Extent>>>,
}

impl Damaged {
    /// Remembers that `digest` is damaged at `extent`; true if that is news.
    pub fn mark(&self, digest: Digest, extent: Extent) -> bool {
        let mut places = self.places.lock();
        let extents = places.entry(digest).or_default();
        let news = !extents.contains(&extent);
        if news {
            extents.push(extent);
        }
        news
    }

    /// Whether `digest` was found damaged at `extent`.
    pub fn contains(&self, digest: &Digest, extent: &Extent) -> bool {
        self.places
            .lock()
            .get(digest)
            .is_some_and(|extents| extents.contains(extent))
    }

    /// Whether `digest` was found damaged at any place.
    pub fn anywhere(&self, digest: &Digest) -> bool {
        self.places.lock().contains_key(digest)
    }

    /// The bytes of `digest` are at `extent` now: forgets what was found elsewhere.
    pub fn keep_only(&self, digest: &Digest, extent: &Extent) {
        let mut places = self.places.lock();
        if let Some(extents) = places.get_mut(digest) {
            extents.retain(|damaged| damaged == extent);
            if extents.is_empty() {
                places.remove(digest);
            }
        }
    }

    /// All that is known to be damaged.
    pub fn list(&self) -> Vec<(Digest, Extent)> {
        let places = self.places.lock();
        let all = places
            .iter()
            .flat_map(|(digest, extents)| extents.iter().map(|extent| (*digest, *extent)));
        all.collect()
    }
}
