//! Which bytes must not be taken for a blob's content.
//!
//! Owns: the places that are known to be damaged, which of them are still to be recorded, and the segments that were truncated at
//! open. Refuses: recording (`store::damage`) and healing; an upload of the same digest consults it and writes the bytes anew.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::digest::Digest;
use crate::extent::{Extent, SegmentId};
use crate::format::record::RecordPlaces;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Notify, OnceLock};

/// Most spans that are kept of one place; more are joined.
const UNREAD_SPANS_MAX: usize = 64;

/// What is known to be damaged. Share by `Arc`.
#[derive(Debug, Default)]
pub(crate) struct Damaged {
    places: Mutex<Places>,
    /// Whether there is a damaged place. It spares readers the lock while there is none.
    has_places: AtomicBool,
    /// Segments that were missing or too short at open, with the bytes that are there.
    truncated: OnceLock<HashMap<SegmentId, u64>>,
    found: Notify,
}

#[derive(Debug, Default)]
struct Places {
    known: HashMap<Digest, HashMap<Extent, Damage>>,
    /// Places that are wrong and not recorded as such, or recorded and whole again.
    unrecorded: Vec<(Digest, Extent)>,
}

/// What is wrong with a place. Reads that are verified clear it, once they covered all that was in doubt; so does another copy of the
/// blob.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Damage {
    /// Its bytes were wrong, which is recorded. Otherwise they could not be read, which this run alone remembers.
    wrong: bool,
    /// Spans of the segment that were not verified since.
    unverified: Vec<Range<u64>>,
}

impl Damaged {
    /// Sets the segments that open found truncated, with the bytes that are there. Called once.
    pub(crate) fn set_truncated(&self, segments: HashMap<SegmentId, u64>) {
        self.truncated.get_or_init(|| segments);
    }

    /// The bytes that were there at open of the segment of `extent`, if they are too few for it.
    pub(crate) fn truncated_at(&self, extent: &Extent) -> Option<u64> {
        let there = *self.truncated.get()?.get(&extent.segment)?;
        let whole = RecordPlaces::of(extent).is_ok_and(|places| places.end <= there);
        (!whole).then_some(there)
    }

    /// Remembers that `span` of the segment, which `digest` at `extent` needs, cannot be read.
    pub(crate) fn mark_unread(&self, digest: Digest, extent: Extent, span: Range<u64>) {
        let mut places = self.lock_to_add();
        let unread = &mut places.entry(digest, extent).unverified;
        subtract(unread, &span);
        unread.push(span);
        if unread.len() > UNREAD_SPANS_MAX {
            let start = unread.iter().map(|span| span.start).min();
            let end = unread.iter().map(|span| span.end).max();
            *unread = start
                .zip(end)
                .map(|(start, end)| start..end)
                .into_iter()
                .collect();
        }
    }

    /// `span` of the segment was read for `digest` at `extent`, and its checksums hold. Where that was the last in doubt, the place is no
    /// longer damaged; if it was recorded as such, that is to be recorded too.
    pub(crate) fn verified(&self, digest: &Digest, extent: &Extent, span: &Range<u64>) {
        if !self.has_places.load(Ordering::Acquire) {
            return;
        }
        let mut healed = false;
        let mut places = self.retain(digest, |at, damage| {
            if at == extent {
                subtract(&mut damage.unverified, span);
                healed |= damage.wrong && damage.unverified.is_empty();
            }
            !damage.unverified.is_empty()
        });
        if healed {
            places.unrecorded.push((*digest, *extent));
            drop(places);
            self.found.notify_one();
        }
    }

    /// Remembers that the bytes of `digest` at `extent` are wrong: to be recorded, so that the next open knows of it.
    pub(crate) fn mark_wrong(&self, digest: Digest, extent: Extent) {
        let mut places = self.lock_to_add();
        if places.set_wrong(digest, extent) {
            places.unrecorded.push((digest, extent));
            drop(places);
            self.found.notify_one();
        }
    }

    /// Takes a place over that an earlier run recorded.
    pub(crate) fn set_recorded(&self, digest: Digest, extent: Extent) {
        self.lock_to_add().set_wrong(digest, extent);
    }

    /// Resolves when there is something to record; for the one task that does it.
    pub(crate) async fn found(&self) {
        while self.places.lock().unrecorded.is_empty() {
            self.found.notified().await;
        }
    }

    /// At most `count` places that are to be recorded: as damaged where they are that now, else as whole.
    pub(crate) fn take_unrecorded(&self, count: usize) -> Vec<(Digest, Extent, bool)> {
        let mut places = self.places.lock();
        let rest = places.unrecorded.len().saturating_sub(count);
        let taken = places.unrecorded.split_off(rest);
        let is_wrong = |digest: &Digest, extent: &Extent| {
            let damage = places.known.get(digest).and_then(|known| known.get(extent));
            damage.is_some_and(|damage| damage.wrong)
        };
        let judged = taken.into_iter().map(|(digest, extent)| {
            let wrong = is_wrong(&digest, &extent);
            (digest, extent, wrong)
        });
        judged.collect()
    }

    /// They could not be recorded: they are still to be.
    pub(crate) fn put_back(&self, unrecorded: Vec<(Digest, Extent, bool)>) {
        let places = unrecorded.into_iter();
        let places = places.map(|(digest, extent, _)| (digest, extent));
        self.places.lock().unrecorded.extend(places);
    }

    /// Whether `digest` is damaged at `extent`.
    pub(crate) fn contains(&self, digest: &Digest, extent: &Extent) -> bool {
        let marked = |places: &Places| {
            let known = places.known.get(digest);
            known.is_some_and(|known| known.contains_key(extent))
        };
        self.truncated_at(extent).is_some() || marked(&self.places.lock())
    }

    /// Whether `digest` may be damaged, wherever it is: a quick look that spares finding out where.
    pub(crate) fn anywhere(&self, digest: &Digest) -> bool {
        let truncated = self.truncated.get();
        truncated.is_some_and(|segments| !segments.is_empty())
            || self.places.lock().known.contains_key(digest)
    }

    /// The bytes of `digest` are at `extent` now: forgets what was found elsewhere.
    pub(crate) fn keep_only(&self, digest: &Digest, extent: &Extent) {
        drop(self.retain(digest, |at, _| at == extent));
    }

    fn lock_to_add(&self) -> MutexGuard<'_, Places> {
        let places = self.places.lock();
        self.has_places.store(true, Ordering::Release);
        places
    }

    /// Keeps the places of `digest` for which `keep` returns true.
    fn retain(
        &self,
        digest: &Digest,
        keep: impl FnMut(&Extent, &mut Damage) -> bool,
    ) -> MutexGuard<'_, Places> {
        let mut places = self.places.lock();
        places.retain(digest, keep);
        self.has_places
            .store(!places.known.is_empty(), Ordering::Release);
        places
    }
}

impl Places {
    /// What is known of a place, which is from now on a damaged one.
    fn entry(&mut self, digest: Digest, extent: Extent) -> &mut Damage {
        let known = self.known.entry(digest).or_default();
        known.entry(extent).or_default()
    }

    /// Returns whether that is news. All of the payload has to be verified, which takes its frame and table.
    fn set_wrong(&mut self, digest: Digest, extent: Extent) -> bool {
        let damage = self.entry(digest, extent);
        let end = extent.offset.saturating_add(extent.length.max(1));
        damage.unverified.clear();
        damage.unverified.push(extent.offset..end);
        !std::mem::replace(&mut damage.wrong, true)
    }

    /// Keeps the places of `digest` for which `keep` returns true.
    fn retain(&mut self, digest: &Digest, mut keep: impl FnMut(&Extent, &mut Damage) -> bool) {
        if let Some(known) = self.known.get_mut(digest) {
            known.retain(|extent, damage| keep(extent, damage));
            if known.is_empty() {
                self.known.remove(digest);
            }
        }
    }
}

/// Takes `span` out of all of `spans`.
fn subtract(spans: &mut Vec<Range<u64>>, span: &Range<u64>) {
    let rest = |one: &Range<u64>| {
        [
            one.start..one.end.min(span.start),
            one.start.max(span.end)..one.end,
        ]
    };
    let rest = spans.iter().flat_map(rest);
    *spans = rest.filter(|one| !one.is_empty()).collect();
}
