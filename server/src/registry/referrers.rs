//! Lists what refers to a manifest (distribution-spec, "Listing Referrers").
//!
//! Owns: the scan of a subject's referrers, filtered by artifact type. Annotations are stored only in the bytes of each
//! referrer and are read from there.
//! Refuses: 404, because an unknown subject or repository has no referrers; the size of a page, which its
//! [`ReferrersPage`] decides.
//!
//! Some clients read only one page. So a page does not end because of referrers that do not match: the scan continues
//! until it has some, or to the end. A long scan yields after every [`PIECE`] referrers, and only a few long scans run
//! at a time.

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

/// Bytes of manifests after which a page ends. It limits what the server reads for one request.
const READ_BYTES: u64 = 16 << 20;
/// Most referrers that are scanned for a page that is not empty.
const SCANNED_MAX: usize = 10_000;
/// Referrers that are scanned before the task yields: a millisecond at most.
const PIECE: usize = 100;
/// Pieces after which a scan counts as long and needs a permit.
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

/// A page that receives referrers.
pub trait ReferrersPage: Send {
    /// Adds a referrer. Returns false if the page has no room for it.
    fn take(&mut self, referrer: Referrer) -> impl Future<Output = Result<bool>> + Send;
}

/// Which referrers to list.
#[derive(Debug, Clone)]
pub struct ReferrersQuery<'a> {
    /// The manifest to which they refer.
    pub subject: Digest,
    /// Only those of this artifact type.
    pub artifact_type: Option<&'a str>,
    /// Only those with a greater digest: the end of the last page.
    pub after: Option<Digest>,
}

impl Registry {
    /// Fills a page with referrers in the order of their digests. Returns after which digest the next page begins, if
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
            // The permit is released first, because the page may wait for memory of a client that does not read.
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

    /// Adds a referrer to the page.
    async fn add_to_page(
        &self,
        view: &dyn View,
        entry: &ManifestEntry,
        attributes: Attributes,
        page: &mut impl ReferrersPage,
    ) -> Result<bool> {
        // Parsed, it takes several times its bytes until it is written.
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
                    "a referrer is listed without annotations because its bytes are damaged; push it again");
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
        // It was validated when it was pushed, perhaps by other rules. A referrer that cannot be parsed must not hide
        // the others.
        Ok(stored_annotations(&bytes).unwrap_or_else(|error| {
            tracing::warn!(digest = %entry.digest, %error, "a referrer is listed without annotations because it cannot be parsed");
            BTreeMap::new()
        }))
    }
}
