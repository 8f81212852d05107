//! Which bytes must not be taken for a blob's content.
//!
//! Owns: the places that are known to be damaged, which of them are still to be recorded, and the segments that were
//! truncated at open. Refuses: recording (`store::damage`) and healing. An upload of the same digest asks here, and
//! writes the bytes again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use crate::digest::Digest;
use crate::extent::{Extent, SegmentId};
use crate::format::keys::DamagedPlace;
use crate::format::proof::Proof;
use crate::format::record::RecordPlaces;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Notify, OnceLock};

/// Most spans that are kept for one place; more are joined.
const UNREAD_SPANS_MAX: usize = 64;

/// The places that are known to be damaged. Share by `Arc`.
#[derive(Debug, Default)]
pub(crate) struct Damaged {
    places: Mutex<Places>,
    /// Whether there is a damaged place. While there is none, readers need no lock.
    has_places: AtomicBool,
    /// Segments that were missing or too short at open, with the bytes that were there.
    truncated: OnceLock<HashMap<SegmentId, u64>>,
    found: Notify,
}

/// A place that is to be recorded as damaged, or as intact again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DamageMark {
    /// The blob.
    pub digest: Digest,
    /// The place.
    pub extent: Extent,
    /// What a read must prove to clear the damage; `None` if the place is intact again.
    pub proof: Option<Proof>,
}

#[derive(Debug, Default)]
struct Places {
    known: HashMap<Digest, HashMap<Extent, Damage>>,
    /// Places to be recorded as damaged, or as intact again.
    unrecorded: Vec<(Digest, Extent)>,
}

/// What is wrong with a place. Verified reads clear it once they covered everything in doubt; so does another copy of
/// the blob.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Damage {
    /// Whether its bytes were wrong, which is recorded. Otherwise they could not be read, which is forgotten at the
    /// stop.
    wrong: bool,
    /// The least proof that clears it.
    proof: Proof,
    /// Spans of the segment that were not verified since.
    unverified: Vec<Range<u64>>,
}

impl Damaged {
    /// Sets the segments that open found truncated, with the bytes that are there. Called once.
    pub(crate) fn set_truncated(&self, segments: HashMap<SegmentId, u64>) {
        self.truncated.get_or_init(|| segments);
    }

    /// Returns the bytes that the segment of `extent` had at open, if they are too few for the extent.
    pub(crate) fn truncated_at(&self, extent: &Extent) -> Option<u64> {
        let there = *self.truncated.get()?.get(&extent.segment)?;
        let whole = RecordPlaces::of(extent).is_ok_and(|places| places.end <= there);
        (!whole).then_some(there)
    }

    /// Remembers that `span` of the segment, which `digest` at `extent` needs, cannot be read.
    pub(crate) fn mark_unreadable(&self, digest: Digest, extent: Extent, span: Range<u64>) {
        self.mark_unreadable_until(digest, extent, span, Proof::Read);
    }

    /// Remembers the same, until a read that proves `proof` clears it.
    pub(crate) fn mark_unreadable_until(
        &self,
        digest: Digest,
        extent: Extent,
        span: Range<u64>,
        proof: Proof,
    ) {
        let mut places = self.lock_to_add();
        let damage = places.entry(digest, extent);
        damage.proof = proof.max(damage.proof);
        let unread = &mut damage.unverified;
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

    /// Notes that `span` of the segment was read for `digest` at `extent`, and its checksums hold. If that was the last
    /// span in doubt, the place is intact; if its damage was recorded, so is that.
    pub(crate) fn verified(&self, digest: &Digest, extent: &Extent, span: &Range<u64>) {
        self.verified_by(digest, extent, span, Proof::Read);
    }

    /// Notes the same of a read that proves `proof`. Damage that only a stronger proof shows stays.
    pub(crate) fn verified_by(
        &self,
        digest: &Digest,
        extent: &Extent,
        span: &Range<u64>,
        proof: Proof,
    ) {
        if !self.has_places.load(Ordering::Acquire) {
            return;
        }
        let mut healed = false;
        let mut places = self.retain(digest, |at, damage| {
            if at == extent && damage.proof <= proof {
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

    /// Remembers that the bytes of `digest` at `extent` are wrong, and that this is to be recorded for the next open.
    pub(crate) fn mark_wrong(&self, digest: Digest, extent: Extent) {
        self.mark_wrong_until(digest, extent, Proof::Read);
    }

    /// Remembers the same, until a read that proves `proof` clears it.
    pub(crate) fn mark_wrong_until(&self, digest: Digest, extent: Extent, proof: Proof) {
        let mut places = self.lock_to_add();
        if places.set_wrong(digest, extent, proof) {
            places.unrecorded.push((digest, extent));
            drop(places);
            self.found.notify_one();
        }
    }

    /// Returns whether the bytes of `digest` at `extent` match their checksums, but are not the content of that digest.
    pub(crate) fn is_other_content(&self, digest: &Digest, extent: &Extent) -> bool {
        if !self.has_places.load(Ordering::Acquire) {
            return false;
        }
        let places = self.places.lock();
        let damage = places.known.get(digest).and_then(|known| known.get(extent));
        damage.is_some_and(|damage| damage.proof == Proof::Digest)
    }

    /// Adds a place that was recorded before this open.
    pub(crate) fn set_recorded(&self, digest: Digest, place: &DamagedPlace) {
        let DamagedPlace { extent, proof } = *place;
        self.lock_to_add().set_wrong(digest, extent, proof);
    }

    /// Resolves when there is something to record; for the one task that records.
    pub(crate) async fn found(&self) {
        while self.places.lock().unrecorded.is_empty() {
            self.found.notified().await;
        }
    }

    /// Takes at most `count` places to be recorded, each as it is now.
    pub(crate) fn take_unrecorded(&self, count: usize) -> Vec<DamageMark> {
        let mut places = self.places.lock();
        let rest = places.unrecorded.len().saturating_sub(count);
        let taken = places.unrecorded.split_off(rest);
        let proof = |digest: &Digest, extent: &Extent| {
            let damage = places.known.get(digest).and_then(|known| known.get(extent));
            let wrong = damage.filter(|damage| damage.wrong);
            wrong.map(|damage| damage.proof)
        };
        let marks = taken.into_iter().map(|(digest, extent)| DamageMark {
            digest,
            extent,
            proof: proof(&digest, &extent),
        });
        marks.collect()
    }

    /// Returns places that could not be recorded, so that they are tried again.
    pub(crate) fn put_back(&self, unrecorded: Vec<DamageMark>) {
        let places = unrecorded.into_iter();
        let places = places.map(|mark| (mark.digest, mark.extent));
        self.places.lock().unrecorded.extend(places);
    }

    /// Returns whether any segment was truncated at open.
    pub(crate) fn has_truncated(&self) -> bool {
        let truncated = self.truncated.get();
        truncated.is_some_and(|segments| !segments.is_empty())
    }

    /// Lists the blobs with a damaged place that reads or scrub found, in the order of their digests. A place may be
    /// one that the blob has left.
    pub(crate) fn marked(&self) -> Vec<Digest> {
        let mut digests: Vec<_> = self.places.lock().known.keys().copied().collect();
        digests.sort_unstable();
        digests
    }

    /// Returns whether `digest` is damaged at `extent`.
    pub(crate) fn contains(&self, digest: &Digest, extent: &Extent) -> bool {
        let marked = |places: &Places| {
            let known = places.known.get(digest);
            known.is_some_and(|known| known.contains_key(extent))
        };
        self.truncated_at(extent).is_some() || marked(&self.places.lock())
    }

    /// Returns whether `digest` may be damaged in any place. A cheap check before its place is looked up.
    pub(crate) fn may_contain(&self, digest: &Digest) -> bool {
        let has_places = self.has_places.load(Ordering::Acquire);
        self.has_truncated() || has_places && self.places.lock().known.contains_key(digest)
    }

    /// Forgets damage of `digest` elsewhere, because its bytes are at `extent` now.
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
    /// Returns what is known of a place, and adds the place if it is new.
    fn entry(&mut self, digest: Digest, extent: Extent) -> &mut Damage {
        let known = self.known.entry(digest).or_default();
        known.entry(extent).or_default()
    }

    /// Marks a place as wrong until a read proves `proof`; returns whether that is new, or was known by a weaker proof.
    /// All of the payload must be verified to clear it, which includes frame and table.
    fn set_wrong(&mut self, digest: Digest, extent: Extent, proof: Proof) -> bool {
        let damage = self.entry(digest, extent);
        let is_stronger = damage.proof < proof;
        damage.proof = damage.proof.max(proof);
        let end = extent.offset.saturating_add(extent.length.max(1));
        damage.unverified.clear();
        damage.unverified.push(extent.offset..end);
        !std::mem::replace(&mut damage.wrong, true) || is_stronger
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

/// Removes `span` from all of `spans`.
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
