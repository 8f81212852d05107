//! Which bytes must not be taken for a blob's content.
//!
//! Owns: the places that were found damaged since the store opened, and the segments that were not whole when it did. Refuses:
//! healing; an upload of the same digest consults it and writes the bytes anew.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::extent::{Extent, SegmentId};
use crate::format::record::RecordPlaces;
use crate::sync::{Mutex, OnceLock};

/// What is known to be damaged. Share by `Arc`.
#[derive(Debug, Default)]
pub struct Damaged {
    places: Mutex<HashMap<Digest, Vec<Extent>>>,
    /// Segments that were missing or too short at open, with the bytes that are there.
    cut: OnceLock<HashMap<SegmentId, u64>>,
}

impl Damaged {
    /// Open found segments of which only so many bytes are there. Said once.
    pub fn found_cut(&self, segments: HashMap<SegmentId, u64>) {
        self.cut.get_or_init(|| segments);
    }

    /// The bytes that were there at open of the segment of `extent`, if they are too few for it.
    pub fn cut_off(&self, extent: &Extent) -> Option<u64> {
        let there = *self.cut.get()?.get(&extent.segment)?;
        let whole = RecordPlaces::of(extent).is_ok_and(|places| places.end <= there);
        (!whole).then_some(there)
    }

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

    /// Whether `digest` is damaged at `extent`.
    pub fn contains(&self, digest: &Digest, extent: &Extent) -> bool {
        self.cut_off(extent).is_some()
            || self
                .places
                .lock()
                .get(digest)
                .is_some_and(|extents| extents.contains(extent))
    }

    /// Whether `digest` may be damaged, wherever it is: a quick look that spares finding out where.
    pub fn anywhere(&self, digest: &Digest) -> bool {
        self.cut.get().is_some_and(|cut| !cut.is_empty()) || self.places.lock().contains_key(digest)
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

    /// Places that were found damaged.
    pub fn list(&self) -> Vec<(Digest, Extent)> {
        let places = self.places.lock();
        let all = places
            .iter()
            .flat_map(|(digest, extents)| extents.iter().map(|extent| (*digest, *extent)));
        all.collect()
    }
}
