//! What refers to a manifest (distribution-spec, "Listing Referrers").
//!
//! Owns: pages of descriptors, filtered by artifact type. Annotations are read from each referrer's bytes, the only place
//! where they are kept.
//! Refuses: saying 404; an unknown subject or repository has no referrers.

use std::collections::BTreeMap;

use bytes::BytesMut;
use futures_util::TryStreamExt as _;
use tonnage_engine::Digest;

use super::attributes::Attributes;
use super::ports::ManifestEntry;
use super::{Error, Registry, Result};
use crate::access::{Authorized, Pull};
use crate::oci::Manifest;

/// Bytes of descriptors at which a page ends; clients take at most 4 MiB.
const PAGE_BYTES: usize = 1 << 20;
/// Referrers looked at for one page.
const SCANNED_MAX: usize = 1000;
/// Referrers asked of the catalog at a time.
const STEP: usize = 100;
/// Bytes of a descriptor beside what varies, for the page's size.
const DESCRIPTOR_BYTES: usize = 256;

/// The descriptor of one referrer.
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

/// One page of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferrersPage {
    /// In the order of their digests.
    pub referrers: Vec<Referrer>,
    /// Where the next page begins (exclusive), if there may be one.
    pub next: Option<Digest>,
}

impl Registry {
    /// Referrers of `subject` behind `after`, of one artifact type or all.
    pub async fn list_referrers(
        &self,
        pull: &Authorized<Pull>,
        subject: Digest,
        artifact_type: Option<&str>,
        after: Option<Digest>,
    ) -> Result<ReferrersPage> {
        let repository = pull.repository().as_str();
        let view = self.view().await?;
        let mut page = ReferrersPage::default();
        let mut size = 0;
        let mut scanned = 0;
        let mut after = after;
        loop {
            let step = view.referrers(repository, subject, after, STEP).await?;
            for digest in &step {
                if size >= PAGE_BYTES || scanned >= SCANNED_MAX {
                    page.next = after;
                    return Ok(page);
                }
                scanned += 1;
                after = Some(*digest);
                let Some(entry) = view.manifest(repository, *digest).await? else {
                    continue;
                };
                let attributes = Attributes::decode(&entry.attributes)?;
                if artifact_type
                    .is_some_and(|wanted| attributes.artifact_type.as_deref() != Some(wanted))
                {
                    continue;
                }
                let referrer = self.describe(&entry, attributes).await?;
                size += weight(&referrer);
                page.referrers.push(referrer);
            }
            if step.len() < STEP {
                return Ok(page);
            }
        }
    }

    async fn describe(&self, entry: &ManifestEntry, attributes: Attributes) -> Result<Referrer> {
        let annotations = match self.annotations(entry, &attributes).await {
            Ok(annotations) => annotations,
            // One damaged referrer must not hide the others.
            Err(error @ Error::Damaged(_)) => {
                tracing::warn!(digest = %entry.digest, error = &error as &dyn std::error::Error,
                    "listing a referrer without annotations; its bytes are damaged");
                BTreeMap::new()
            }
            Err(error) => return Err(error),
        };
        Ok(Referrer {
            digest: entry.digest,
            length: entry.size,
            media_type: attributes.media_type,
            artifact_type: attributes.artifact_type,
            annotations,
        })
    }

    async fn annotations(
        &self,
        entry: &ManifestEntry,
        attributes: &Attributes,
    ) -> Result<BTreeMap<String, String>> {
        let Some(blob) = self.blobs.open(entry.digest).await? else {
            return Ok(BTreeMap::new());
        };
        let mut windows = blob.read(0..blob.length());
        let mut bytes = BytesMut::new();
        while let Some(window) = windows.try_next().await? {
            bytes.extend_from_slice(&window);
        }
        let manifest =
            Manifest::parse(&bytes, Some(&attributes.media_type)).map_err(Error::internal)?;
        Ok(manifest.annotations)
    }
}

fn weight(referrer: &Referrer) -> usize {
    let annotations = referrer
        .annotations
        .iter()
        .map(|(key, value)| key.len() + value.len() + 8);
    DESCRIPTOR_BYTES + annotations.sum::<usize>()
}
