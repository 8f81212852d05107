//! Which bytes must not be taken for a blob's content.
//!
//! Owns: the places that are known to be damaged, which of them are still to be recorded, and the segments that were not whole at
//! open. Refuses: recording (`store::damage`) and healing; an upload of the same digest consults it and writes the bytes anew.

use std::collections::HashMap;

use crate::digest::Digest;
use crate::extent::{Extent, SegmentId};
use crate::format::record::RecordPlaces;
use crate::sync::{Mutex, Notify, OnceLock};

/// What is known to be damaged. Share by `Arc`.
#[derive(Debug, Default)]
pub struct Damaged {
    places: Mutex<Places>,
    /// Segments that were missing or too short at open, with the bytes that are there.
    cut: OnceLock<HashMap<SegmentId, u64>>,
    found: Notify,
}

#[derive(Debug, Default)]
struct Places {
    known: HashMap<Digest, Vec<Extent>>,
    unrecorded: Vec<(Digest, Extent)>,
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

    /// Remembers, until the store closes, that `digest` cannot be read at `extent`; true if that is news.
    pub fn mark(&self, digest: Digest, extent: Extent) -> bool {
        self.places.lock().add(digest, extent)
    }

    /// The same for bytes that are wrong: to be recorded, so that the next open knows of it.
    pub fn mark_lasting(&self, digest: Digest, extent: Extent) {
        let mut places = self.places.lock();
        let unrecorded = (digest, extent);
        if places.add(digest, extent) {
            places.unrecorded.push(unrecorded);
            drop(places);
            self.found.notify_one();
        }
    }

    /// Resolves when there is something to record; for the one task that does it.
    pub async fn found(&self) {
        while self.places.lock().unrecorded.is_empty() {
            self.found.notified().await;
        }
    }

    /// At most `count` places that are to be recorded.
    pub fn take_unrecorded(&self, count: usize) -> Vec<(Digest, Extent)> {
        let mut places = self.places.lock();
        let rest = places.unrecorded.len().saturating_sub(count);
        places.unrecorded.split_off(rest)
    }

    /// They could not be recorded: they are still to be.
    pub fn put_back(&self, unrecorded: Vec<(Digest, Extent)>) {
        self.places.lock().unrecorded.extend(unrecorded);
    }

    /// Whether `digest` is damaged at `extent`.
    pub fn contains(&self, digest: &Digest, extent: &Extent) -> bool {
        let marked = |places: &Places| {
            let extents = places.known.get(digest);
            extents.is_some_and(|extents| extents.contains(extent))
        };
        self.cut_off(extent).is_some() || marked(&self.places.lock())
    }

    /// Whether `digest` may be damaged, wherever it is: a quick look that spares finding out where.
    pub fn anywhere(&self, digest: &Digest) -> bool {
        let cut = self.cut.get().is_some_and(|cut| !cut.is_empty());
        cut || self.places.lock().known.contains_key(digest)
    }

    /// The bytes of `digest` are at `extent` now: forgets what was found elsewhere.
    pub fn keep_only(&self, digest: &Digest, extent: &Extent) {
        let mut places = self.places.lock();
        if let Some(extents) = places.known.get_mut(digest) {
            extents.retain(|damaged| damaged == extent);
            if extents.is_empty() {
                places.known.remove(digest);
            }
        }
    }
}

impl Places {
    fn add(&mut self, digest: Digest, extent: Extent) -> bool {
        let extents = self.known.entry(digest).or_default();
        let news = !extents.contains(&extent);
        if news {
            extents.push(extent);
        }
        news
    }
}
