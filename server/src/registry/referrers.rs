//! What refers to a manifest (distribution-spec, "Listing Referrers").
//!
//! Owns: the way through a subject's referrers, filtered by artifact type. Annotations are read from each referrer's
//! bytes, the only place where they are kept.
//! Refuses: saying 404; an unknown subject or repository has no referrers. The size of a page is its taker's matter.
//!
//! Some clients read one page and no more, so a page is not ended because of referrers that do not match: it goes on
//! until it has some, or to the end. That may be a long way. It is gone in pieces, other work has its turn after each,
//! and only few such lists are gone through at a time.

use std::collections::BTreeMap;
use std::future::Future;

use bytes::BytesMut;
use futures_util::TryStreamExt as _;
use tonnage_engine::vocabulary::{ClientId, Digest, ManifestEntry};

use super::attributes::Attributes;
use super::ports::View;
use super::{Error, LARGE_MANIFEST_BYTES, Registry, Result};
use crate::access::{Authorized, Pull};
use crate::oci::stored_annotations;

/// Bytes of manifests at which a page ends: what one request makes the server read.
const READ_BYTES: u64 = 16 << 20;
/// Referrers looked at for a page that has some.
const SCANNED_MAX: usize = 10_000;
/// Referrers looked at in one piece: a millisecond at most.
const PIECE: usize = 100;
/// Pieces after which a request takes its turn among those with long lists.
const SHORT: usize = 10;

/// One referrer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// Its media type.
    pub media_type: String,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Takes the referrers of a page.
pub trait ReferrersPage: Send {
    /// Takes one more; false: the page has no room for it.
    fn take(&mut self, referrer: Referrer) -> impl Future<Output = Result<bool>> + Send;
}

/// Which referrers are wanted.
#[derive(Debug, Clone)]
pub struct ReferrersQuery<'a> {
    /// Of what.
    pub subject: Digest,
    /// Of this artifact type only.
    pub artifact_type: Option<&'a str>,
    /// Greater ones only: where the last page ended.
    pub after: Option<Digest>,
}

impl Registry {
    /// Fills a page with referrers in the order of their digests. Returns where the next one begins (exclusive), if
    /// there may be one.
    pub async fn list_referrers(
        &self,
        pull: &Authorized<Pull>,
        query: ReferrersQuery<'_>,
        page: &mut impl ReferrersPage,
    ) -> Result<Option<Digest>> {
        let view = self.view().await?;
        let Some(repository) = view.repository(pull.repository().as_str()).await? else {
            return Ok(None);
        };
        let mut after = query.after;
        let (mut scanned, mut taken, mut read) = (0, 0_usize, 0_u64);
        for piece in 0.. {
            let turn = if piece < SHORT {
                None
            } else {
                Some(self.long_lists.acquire().await.map_err(Error::internal)?)
            };
            let entries = repository.referrers(query.subject, after, PIECE).await?;
            // The page may wait for memory, which a client that does not read holds.
            drop(turn);
            for entry in &entries {
                if taken > 0 && (scanned >= SCANNED_MAX || read >= READ_BYTES) {
                    return Ok(after);
                }
                scanned += 1;
                let attributes = Attributes::decode(&entry.attributes)?;
                let wanted = query.artifact_type;
                if wanted.is_none_or(|wanted| attributes.artifact_type.as_deref() == Some(wanted)) {
                    read = read.saturating_add(entry.size);
                    if !self.add_to_page(&*view, entry, attributes, page).await? {
                        return Ok(after);
                    }
                    taken += 1;
                }
                after = Some(entry.digest);
            }
            if entries.len() < PIECE {
                return Ok(None);
            }
            tokio::task::yield_now().await;
        }
        Ok(None)
    }

    /// Passes a referrer on to the page.
    async fn add_to_page(
        &self,
        view: &dyn View,
        entry: &ManifestEntry,
        attributes: Attributes,
        page: &mut impl ReferrersPage,
    ) -> Result<bool> {
        // What it says takes several times its bytes until it is written.
        let large = usize::try_from(entry.size).is_ok_and(|size| size >= LARGE_MANIFEST_BYTES);
        let turn = if large {
            Some(
                self.large_manifests
                    .acquire()
                    .await
                    .map_err(Error::internal)?,
            )
        } else {
            None
        };
        let annotations = self.annotations(view, entry).await;
        drop(turn);
        let annotations = match annotations {
            Ok(annotations) => annotations,
            // One damaged referrer must not hide the others.
            Err(error @ Error::Damaged(_)) => {
                tracing::warn!(digest = %entry.digest, error = &error as &dyn std::error::Error,
                    "listing a referrer without annotations; its bytes are damaged");
                BTreeMap::new()
            }
            Err(error) => return Err(error),
        };
        let referrer = Referrer {
            digest: entry.digest,
            length: entry.size,
            media_type: attributes.media_type,
            artifact_type: attributes.artifact_type,
            annotations,
        };
        page.take(referrer).await
    }

    async fn annotations(
        &self,
        view: &dyn View,
        entry: &ManifestEntry,
    ) -> Result<BTreeMap<String, String>> {
        let Some(found) = view.blob(entry.digest).await? else {
            return Ok(BTreeMap::new());
        };
        let Some(blob) = self.blobs.open(&found, ClientId::default()).await? else {
            return Ok(BTreeMap::new());
        };
        let mut windows = blob.read(0..blob.length(), None);
        let mut bytes = BytesMut::new();
        while let Some(window) = windows.try_next().await? {
            bytes.extend_from_slice(&window);
        }
        // It was judged when it was pushed, by the rules of then; one that cannot be read must not hide the others.
        Ok(stored_annotations(&bytes).unwrap_or_else(|error| {
            tracing::warn!(digest = %entry.digest, %error, "listing a referrer without annotations");
            BTreeMap::new()
        }))
    }
}
