//! Pulling manifests and blobs.
//!
//! Owns: what a reference resolves to, and opening its bytes.
//! Refuses: blobs that the repository does not link, even where the store has them.

use std::sync::Arc;

use tonnage_engine::Digest;

use super::attributes::Attributes;
use super::ports::{Blob, ClientId, ReadAccount, View};
use super::{Error, Registry, Result};
use crate::access::{Authorized, Pull};
use crate::oci::Reference;

/// Content that exists in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// Its media type; blobs have none.
    pub media_type: Option<String>,
}

impl Registry {
    /// The manifest that a reference names.
    pub async fn find_manifest(
        &self,
        pull: &Authorized<Pull>,
        reference: &Reference,
    ) -> Result<Found> {
        let repository = pull.repository();
        let view = self.view().await?;
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => view.tag(repository.as_str(), tag.as_str()).await?,
        };
        let entry = match digest {
            Some(digest) => view.manifest(repository.as_str(), digest).await?,
            None => None,
        };
        match entry {
            Some(entry) => Ok(Found {
                digest: entry.digest,
                length: entry.size,
                media_type: Some(Attributes::decode(&entry.attributes)?.media_type),
            }),
            None if !view.repository_exists(repository.as_str()).await? => {
                Err(Error::NameUnknown(repository.clone()))
            }
            None => Err(Error::manifest_unknown(repository, reference)),
        }
    }

    /// The blob of that digest, if the repository links it.
    pub async fn find_blob(&self, pull: &Authorized<Pull>, digest: Digest) -> Result<Found> {
        let repository = pull.repository();
        let unknown = || Error::blob_unknown(repository, digest);
        let seen = self.view().await?.blob(repository.as_str(), digest).await?;
        seen.ok_or_else(unknown)?;
        let length = self.promise(repository.as_str(), digest).await?;
        let length = length.ok_or_else(unknown)?;
        Ok(Found {
            digest,
            length,
            media_type: None,
        })
    }

    /// Whether its bytes are known to be damaged. An existence check then answers no, so that the client pushes it
    /// again, which heals it.
    pub fn is_damaged(&self, found: &Found) -> bool {
        self.blobs.is_damaged(found.digest)
    }

    /// Length of a blob that the repository links and that is not known to be damaged.
    pub(super) async fn intact(
        &self,
        view: &dyn View,
        repository: &str,
        digest: Digest,
    ) -> Result<Option<u64>> {
        if self.blobs.is_damaged(digest) {
            return Ok(None);
        }
        view.blob(repository, digest).await
    }

    /// Leases a blob that was seen in the repository, and looks again: between the look and the lease it may have been deleted
    /// and collected. Its length, if it is still there; from then on the lease holds it.
    pub(super) async fn promise(&self, repository: &str, digest: Digest) -> Result<Option<u64>> {
        self.blobs.lease(digest).await?;
        self.view().await?.blob(repository, digest).await
    }

    /// An account for the memory that one client's answers take.
    pub fn read_account(&self) -> Arc<dyn ReadAccount> {
        self.blobs.read_account()
    }

    /// Opens what was found for `client`. `None` if its bytes are gone meanwhile.
    pub async fn open(&self, found: &Found, client: ClientId) -> Result<Option<Box<dyn Blob>>> {
        self.blobs.open(found.digest, client).await
    }
}
