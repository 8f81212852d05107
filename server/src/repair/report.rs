//! What a repair did.
//!
//! Owns: [`RepairReport`], the bound on what it lists, and what an outcome says about the peer.

use tonnage_engine::{Digest, Error};

use super::plan::{Place, PlannedBlob};
use crate::registry::peer::PeerError;

/// Most blobs that a report lists.
pub(super) const LISTED_MAX: usize = 1000;
/// Most places that it lists for one blob.
const REFUSALS_MAX: usize = 8;

/// What a repair did so far.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// Blobs that were healed.
    pub healed: u64,
    /// Bytes of these.
    pub healed_bytes: u64,
    /// Blobs that are still damaged.
    pub left: u64,
    /// The first of them, and the first of those that were healed.
    pub listed: Vec<RepairedBlob>,
}

/// A blob that a repair tried to heal.
#[derive(Debug, Clone)]
pub struct RepairedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// How that ended.
    pub outcome: BlobOutcome,
}

/// How an attempt to heal a blob ended.
#[derive(Debug, Clone)]
pub enum BlobOutcome {
    /// It is intact again.
    Healed(HealedFrom),
    /// It is still damaged.
    Left(Vec<(Place, HealError)>),
}

/// Who healed a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealedFrom {
    /// The peer, from this place.
    Peer(Place),
    /// A push meanwhile, or its removal: it needs no healing any more.
    Others,
}

/// Why a place did not heal a blob.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HealError {
    /// The peer did not give the content.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The peer has, or sent, content of another length.
    #[error("it has {found} bytes for it instead of {expected}")]
    Length {
        /// Bytes of the blob.
        expected: u64,
        /// Bytes that were announced or received; of too many, those that were.
        found: u64,
    },
    /// The peer sent other content.
    #[error("it sent content that is {found}")]
    OtherContent {
        /// The digest of what it sent.
        found: Digest,
    },
    /// The store could not take the content.
    #[error("the store did not take it: {0}")]
    Store(Error),
}

/// What an attempt to heal a blob says about the peer.
#[derive(Debug)]
pub(super) enum Contact<'a> {
    /// It was not asked, as far as is known.
    None,
    /// It answered.
    Answered,
    /// It could not be reached, or sent too slowly.
    Lost(&'a PeerError),
}

impl HealError {
    /// Returns what is wrong with the peer, if nothing needs to be asked of it for the same blob.
    pub(super) fn lost(&self) -> Option<&PeerError> {
        match self {
            Self::Peer(why) => why.is_about_peer().then_some(why),
            Self::Length { .. } | Self::OtherContent { .. } | Self::Store(_) => None,
        }
    }
}

impl BlobOutcome {
    /// Returns what the last place that was asked says about the peer.
    pub(super) fn contact(&self) -> Contact<'_> {
        match self {
            Self::Healed(HealedFrom::Peer(_)) => Contact::Answered,
            Self::Healed(HealedFrom::Others) => Contact::None,
            Self::Left(refusals) => match refusals.last() {
                None => Contact::None,
                Some((_, why)) => why.lost().map_or(Contact::Answered, Contact::Lost),
            },
        }
    }
}

impl RepairReport {
    /// Returns the report without its list.
    pub(crate) fn totals(&self) -> Self {
        Self {
            healed: self.healed,
            healed_bytes: self.healed_bytes,
            left: self.left,
            listed: Vec::new(),
        }
    }

    /// Adds the outcome for a blob. Blobs that are left replace healed ones in a full list.
    pub(super) fn add(&mut self, blob: &PlannedBlob, mut outcome: BlobOutcome) {
        let PlannedBlob { digest, length, .. } = *blob;
        let left = match &mut outcome {
            BlobOutcome::Healed(_) => {
                self.healed += 1;
                self.healed_bytes = self.healed_bytes.saturating_add(length);
                false
            }
            BlobOutcome::Left(refusals) => {
                refusals.truncate(REFUSALS_MAX);
                self.left += 1;
                true
            }
        };
        let entry = RepairedBlob {
            digest,
            length,
            outcome,
        };
        if self.listed.len() < LISTED_MAX {
            self.listed.push(entry);
        } else if left {
            let is_healed = |entry: &RepairedBlob| matches!(entry.outcome, BlobOutcome::Healed(_));
            if let Some(at) = self.listed.iter_mut().find(|entry| is_healed(entry)) {
                *at = entry;
            }
        }
    }
}
