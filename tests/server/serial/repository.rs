//! The reference model of one repository: the effect of each request, as the specification defines it.
//!
//! Owns: [`Repository`], the whole visible state of a small repository, and [`Step`], a request with its answer.
//! Refuses: vague answers. Each answer determines what the request saw, down to the missing children.
//!
//! Repositories are independent, so each is an object of its own. Within one, tags, manifests and blobs depend on each
//! other: deletion of a manifest removes its tags, and a manifest needs its blobs. So one order must explain all three.
//! A mount, which reads two repositories, is checked in the one to which it pushes.

use tonnage_tests::linear::Object;

/// The number of tags that all clients change.
pub const TAGS: u8 = 4;
/// The number of manifests.
pub const MANIFESTS: u8 = 6;
/// The number of layers, of which each manifest has two.
pub const BLOBS: u8 = 4;

/// A set of the small numbers of tags, manifests or blobs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Set(u8);

impl Set {
    /// Returns the set of these.
    pub fn of(numbers: impl IntoIterator<Item = u8>) -> Self {
        Self(numbers.into_iter().fold(0, |all, n| all | 1 << n))
    }

    /// Returns whether `number` is in it.
    pub fn has(self, number: u8) -> bool {
        self.0 & 1 << number != 0
    }

    /// Returns its numbers in ascending order.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |number| self.has(*number))
    }

    fn with(self, number: u8, inside: bool) -> Self {
        Self(if inside {
            self.0 | 1 << number
        } else {
            self.0 & !(1 << number)
        })
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.numbers()).finish()
    }
}

/// Returns the layers of a manifest.
pub fn children(manifest: u8) -> Set {
    Set::of([manifest % BLOBS, (manifest + 1) % BLOBS])
}

/// The tags, manifests and blobs of the repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Repository {
    tags: [Option<u8>; TAGS as usize],
    manifests: Set,
    blobs: Set,
}

/// The condition of If-Match or If-None-Match on a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// `If-None-Match: *`
    Absent,
    /// `If-Match: *`
    Present,
    /// `If-Match: "<digest>"`
    Is(u8),
}

/// A request and its answer; numbers stand for tags, manifests and blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Push of a blob: 201.
    PushedBlob(u8),
    /// Mount from another repository: 201 or 202.
    Mounted { blob: u8, done: bool },
    /// HEAD or GET: 200 or 404.
    SawBlob { blob: u8, there: bool },
    /// DELETE: 202 or 404.
    DeletedBlob { blob: u8, done: bool },
    /// PUT of a manifest with these tags, under this condition on a tag: 201.
    PutManifest {
        manifest: u8,
        tags: Set,
        when: Option<(u8, Condition)>,
    },
    /// PUT of a manifest: 400, and exactly these blobs were named as missing.
    LackedBlobs { manifest: u8, missing: Set },
    /// PUT or DELETE under a condition: 412.
    Refused { tag: u8, when: Condition },
    /// HEAD or GET by tag: 200 and which manifest, or 404.
    SawTag { tag: u8, manifest: Option<u8> },
    /// HEAD or GET by digest: 200 or 404.
    SawManifest { manifest: u8, there: bool },
    /// DELETE of a tag: 202 or 404; with `If-Match` if `only` is set.
    DeletedTag {
        tag: u8,
        only: Option<u8>,
        done: bool,
    },
    /// DELETE by digest: 202 or 404.
    DeletedManifest { manifest: u8, done: bool },
    /// The list of tags.
    ListedTags(Set),
    /// The list of referrers of the subject that all manifests share.
    ListedReferrers(Set),
}

impl Repository {
    fn tag(&self, tag: u8) -> Option<u8> {
        self.tags[usize::from(tag)]
    }

    fn set_tag(&mut self, tag: u8, manifest: Option<u8>) {
        self.tags[usize::from(tag)] = manifest;
    }

    fn holds(&self, tag: u8, when: Condition) -> bool {
        match when {
            Condition::Absent => self.tag(tag).is_none(),
            Condition::Present => self.tag(tag).is_some(),
            Condition::Is(manifest) => self.tag(tag) == Some(manifest),
        }
    }

    /// Returns whether this state gives this answer.
    fn allows(&self, step: Step) -> bool {
        match step {
            Step::PushedBlob(_) | Step::Mounted { done: true, .. } => true,
            // A blob that the repository has already is mounted without a check of the source.
            Step::Mounted { blob, done: false } => !self.blobs.has(blob),
            Step::SawBlob { blob, there: seen } | Step::DeletedBlob { blob, done: seen } => {
                self.blobs.has(blob) == seen
            }
            Step::PutManifest { manifest, when, .. } => {
                children(manifest).without(self.blobs) == Set::default()
                    && when.is_none_or(|(tag, when)| self.holds(tag, when))
            }
            Step::LackedBlobs { manifest, missing } => {
                missing != Set::default() && children(manifest).without(self.blobs) == missing
            }
            Step::Refused { tag, when } => !self.holds(tag, when),
            Step::SawTag { tag, manifest } => self.tag(tag) == manifest,
            Step::SawManifest {
                manifest,
                there: seen,
            }
            | Step::DeletedManifest {
                manifest,
                done: seen,
            } => self.manifests.has(manifest) == seen,
            Step::DeletedTag { tag, only, done } => match (self.tag(tag), only) {
                (current, None) => current.is_some() == done,
                (Some(current), Some(only)) => done && current == only,
                (None, Some(_)) => !done,
            },
            Step::ListedTags(tags) => {
                Set::of((0..TAGS).filter(|tag| self.tag(*tag).is_some())) == tags
            }
            Step::ListedReferrers(manifests) => self.manifests == manifests,
        }
    }
}

impl Object for Repository {
    type Step = Step;

    fn after(&self, step: &Step) -> Option<Self> {
        if !self.allows(*step) {
            return None;
        }
        let mut next = *self;
        match *step {
            Step::PushedBlob(blob) | Step::Mounted { blob, done: true } => {
                next.blobs = next.blobs.with(blob, true);
            }
            Step::DeletedBlob { blob, done: true } => next.blobs = next.blobs.with(blob, false),
            Step::PutManifest { manifest, tags, .. } => {
                next.manifests = next.manifests.with(manifest, true);
                tags.numbers()
                    .for_each(|tag| next.set_tag(tag, Some(manifest)));
            }
            Step::DeletedTag {
                tag, done: true, ..
            } => next.set_tag(tag, None),
            Step::DeletedManifest {
                manifest,
                done: true,
            } => {
                next.manifests = next.manifests.with(manifest, false);
                for tag in 0..TAGS {
                    if next.tag(tag) == Some(manifest) {
                        next.set_tag(tag, None);
                    }
                }
            }
            _ => assert!(Self::only_reads(step), "{step:?} has no effect"),
        }
        Some(next)
    }

    fn only_reads(step: &Step) -> bool {
        matches!(
            step,
            Step::Mounted { done: false, .. }
                | Step::SawBlob { .. }
                | Step::DeletedBlob { done: false, .. }
                | Step::LackedBlobs { .. }
                | Step::Refused { .. }
                | Step::SawTag { .. }
                | Step::SawManifest { .. }
                | Step::DeletedTag { done: false, .. }
                | Step::DeletedManifest { done: false, .. }
                | Step::ListedTags(_)
                | Step::ListedReferrers(_)
        )
    }
}
