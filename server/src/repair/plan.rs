//! Where a damaged blob may be asked for.
//!
//! Owns: [`PlannedBlob`] and its places, and the list that a dry run shows.

use tonnage_engine::{Digest, Error, NeededBy, Store};

use crate::registry::peer::ContentKind;

/// Most names of each kind that are looked up for one blob.
const NAMES_MAX: usize = 100;

/// A damaged blob with the places to ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// Where to ask for it, in this order. Empty if no repository needs it.
    pub places: Vec<Place>,
}

/// A repository to ask for a blob, by its name here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The repository.
    pub repository: String,
    /// What the blob is in it.
    pub kind: ContentKind,
}

impl PlannedBlob {
    /// Looks the places up.
    pub(super) async fn new(store: &Store, digest: Digest, length: u64) -> Result<Self, Error> {
        let view = store.view();
        let needed = view.read(|view| view.needed_by(&digest, NAMES_MAX)).await?;
        Ok(Self {
            digest,
            length,
            places: places(&digest, &needed),
        })
    }
}

/// Lists the places: first the repositories that have the blob as a manifest, then those in which it is visible as a
/// blob, then those that only list it in a manifest, which does not say what it is.
fn places(digest: &Digest, needed: &NeededBy) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let mut add = |repository: &str, kinds: &[ContentKind]| {
        let known = places.iter().any(|place| place.repository == repository);
        if !known {
            places.extend(kinds.iter().map(|kind| Place {
                repository: repository.to_owned(),
                kind: *kind,
            }));
        }
    };
    let own = needed.manifests.iter().filter(|(_, found)| found == digest);
    own.for_each(|(name, _)| add(name, &[ContentKind::Manifest]));
    let visible = needed.repositories.iter();
    visible.for_each(|name| add(name, &[ContentKind::Blob]));
    let lists = needed.manifests.iter();
    lists.for_each(|(name, _)| add(name, &[ContentKind::Blob, ContentKind::Manifest]));
    places
}

/// Lists at most `limit` damaged blobs of a store, and counts all of them and their bytes.
pub(crate) async fn plan(
    store: &Store,
    limit: usize,
) -> Result<(Vec<PlannedBlob>, u64, u64), Error> {
    let mut blobs = store.damaged_blobs();
    let (mut listed, mut count, mut bytes) = (Vec::new(), 0, 0_u64);
    while let Some((digest, stored)) = blobs.next().await? {
        count += 1;
        bytes = bytes.saturating_add(stored.length);
        if listed.len() < limit {
            listed.push(PlannedBlob::new(store, digest, stored.length).await?);
        }
    }
    Ok((listed, count, bytes))
}
