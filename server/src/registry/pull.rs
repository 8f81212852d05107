//! Pulls manifests and blobs.
//!
//! Owns: resolving a reference, and opening its bytes.
//! Refuses: blobs that the repository does not link, even if the store has them.

use std::sync::Arc;

use tonnage_engine::vocabulary::{ClientId, Digest};

use super::attributes::Attributes;
use super::ports::{Blob, ReadAccount, RepositoryView, Revision, StoredBlob};
use super::{Error, Registry, Result};
use crate::access::{Authorized, Pull};
use crate::oci::{Reference, RepositoryName};

/// Content that exists in the repository.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub length: u64,
    /// Its media type; blobs have none.
    pub media_type: Option<String>,
    /// Its bytes, where they are stored.
    stored: Option<StoredBlob>,
}

impl Found {
    fn blob(stored: StoredBlob) -> Self {
        Self {
            digest: stored.digest,
            length: stored.length,
            media_type: None,
            stored: Some(stored),
        }
    }

    /// Returns whether its answers have to lease it.
    pub(crate) fn needs_lease(&self) -> bool {
        let stored = self.stored.as_ref();
        stored.is_none_or(|stored| stored.needs_lease)
    }
}

impl Registry {
    /// Finds the manifest that a reference names. The answer promises that it exists, so it is leased, unless something
    /// keeps it.
    pub async fn find_manifest(
        &self,
        pull: &Authorized<Pull>,
        reference: &Reference,
    ) -> Result<Found> {
        let found = self.manifest(pull.repository(), reference).await?;
        match &found.stored {
            Some(stored) if stored.needs_lease => {
                self.blobs.lease_manifest(found.digest).await?;
                // It may have been removed before the lease. If it still exists, the lease protects it from then on.
                self.manifest(pull.repository(), &Reference::Digest(found.digest))
                    .await
            }
            Some(_) | None => Ok(found),
        }
    }

    async fn manifest(&self, name: &RepositoryName, reference: &Reference) -> Result<Found> {
        let view = self.view().await?;
        let Some(repository) = view.repository(name.as_str()).await? else {
            return Err(Error::NameUnknown(name.clone()));
        };
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => repository.tag(tag.as_str()).await?,
        };
        let entry = match digest {
            Some(digest) => repository.manifest(digest).await?,
            None => None,
        };
        let Some(entry) = entry else {
            return Err(Error::manifest_unknown(name, reference));
        };
        Ok(Found {
            digest: entry.digest,
            length: entry.size,
            media_type: Some(Attributes::decode(&entry.attributes)?.media_type),
            stored: repository.manifest_blob(entry.digest).await?,
        })
    }

    /// Finds the blob of that digest in the repository. The answer promises that it exists, so it is leased, unless a
    /// manifest references it.
    pub async fn find_blob(&self, pull: &Authorized<Pull>, digest: Digest) -> Result<Found> {
        let name = pull.repository();
        let mut found = self.linked(name.as_str(), digest).await?;
        if found.as_ref().is_some_and(|found| found.needs_lease) {
            found = self.lease_linked(name.as_str(), digest).await?;
        }
        let found = found.ok_or_else(|| Error::blob_unknown(name, digest))?;
        Ok(Found::blob(found))
    }

    /// Returns whether the bytes of content that was found are known to be damaged. An existence check then reports it
    /// as missing, so that the client pushes it again, which repairs it.
    pub async fn is_damaged(&self, digest: Digest) -> Result<bool> {
        self.blobs.is_damaged(digest).await
    }

    /// Returns whether [`Self::is_damaged`] may be true, without waiting.
    pub fn may_be_damaged(&self, digest: &Digest) -> bool {
        self.blobs.may_be_damaged(digest)
    }

    /// Returns the revision of the catalog. While it is the same, so is what a reference names.
    pub fn revision(&self) -> Option<Revision> {
        self.catalog.revision()
    }

    /// Returns a blob that the repository links now.
    async fn linked(&self, repository: &str, digest: Digest) -> Result<Option<StoredBlob>> {
        match self.view().await?.repository(repository).await? {
            Some(repository) => repository.blob(digest).await,
            None => Ok(None),
        }
    }

    /// Returns whether the repository links the blob and it is not known to be damaged.
    pub(super) async fn has_intact(
        &self,
        repository: Option<&dyn RepositoryView>,
        digest: Digest,
    ) -> Result<bool> {
        match repository {
            Some(repository) if !self.blobs.is_damaged(digest).await? => {
                Ok(repository.blob(digest).await?.is_some())
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Leases a blob that was found in the repository, and looks it up again, because it may have been collected before
    /// the lease. If it still exists, the lease protects it from then on.
    pub(super) async fn lease_linked(
        &self,
        repository: &str,
        digest: Digest,
    ) -> Result<Option<StoredBlob>> {
        self.blobs.lease(digest).await?;
        self.linked(repository, digest).await
    }

    /// Returns an account for the memory of one client's answers.
    pub fn read_account(&self) -> Arc<dyn ReadAccount> {
        self.blobs.read_account()
    }

    /// Opens what was found for `client`. Returns `None` if its bytes were collected meanwhile.
    pub async fn open(&self, found: &Found, client: ClientId) -> Result<Option<Box<dyn Blob>>> {
        match &found.stored {
            Some(stored) => self.blobs.open(stored, client).await,
            None => Ok(None),
        }
    }
}
