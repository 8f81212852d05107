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
use crate::oci::stored_annotations;

/// Bytes of descriptors in a page that has more than one; clients take at most 4 MiB.
const PAGE_BYTES: usize = 1 << 20;
/// Bytes of manifests at which a page ends: what one request makes the server read.
const READ_BYTES: u64 = 16 << 20;
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
        let (mut size, mut scanned, mut read) = (0, 0, 0_u64);
        let mut after = after;
        loop {
            let step = view.referrers(repository, subject, after, STEP).await?;
            for digest in &step {
                if scanned >= SCANNED_MAX || read >= READ_BYTES {
                    page.next = after;
                    return Ok(page);
                }
                scanned += 1;
                let before = after.replace(*digest);
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
                read = read.saturating_add(entry.size);
                size += weight(&referrer);
                if size > PAGE_BYTES && !page.referrers.is_empty() {
                    page.next = before;
                    return Ok(page);
                }
                page.referrers.push(referrer);
            }
            if step.len() < STEP {
                return Ok(page);
            }
        }
    }

    async fn describe(&self, entry: &ManifestEntry, attributes: Attributes) -> Result<Referrer> {
        let annotations = match self.annotations(entry).await {
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

    async fn annotations(&self, entry: &ManifestEntry) -> Result<BTreeMap<String, String>> {
        let Some(blob) = self.blobs.open(entry.digest).await? else {
            return Ok(BTreeMap::new());
        };
        let mut windows = blob.read(0..blob.length());
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

/// About the bytes that its descriptor has in the page.
fn weight(referrer: &Referrer) -> usize {
    let annotations = referrer
        .annotations
        .iter()
        .map(|(key, value)| escaped(key) + escaped(value) + 6);
    let artifact_type = referrer.artifact_type.as_deref().map_or(0, escaped);
    DESCRIPTOR_BYTES + referrer.media_type.len() + artifact_type + annotations.sum::<usize>()
}

/// Bytes of a text in JSON: at most six for a control character, two for a quote or backslash.
fn escaped(text: &str) -> usize {
    let bytes = text.bytes().map(|byte| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    });
    bytes.sum()
}
