//! Deletes tags, manifests and blobs (distribution-spec, "Content Management").
//!
//! Owns: the scope of each deletion: a manifest with its tags; only the link of a blob in this repository.

use tonnage_engine::vocabulary::{Batch, Change, Digest, Require};

use super::ports::CommitError;
use super::{Error, Precondition, Registry, Result, origin};
use crate::access::{Authorized, Delete};
use crate::oci::Reference;

impl Registry {
    /// Deletes a tag, or a manifest with every tag of the repository that points at it.
    pub async fn delete_manifest(
        &self,
        delete: &Authorized<Delete>,
        reference: &Reference,
        precondition: &Precondition,
    ) -> Result<()> {
        let repository = delete.repository();
        let (require, change) = match reference {
            Reference::Tag(tag) => {
                let tag = tag.as_str().to_owned();
                (Require::TagExists(tag.clone()), Change::DeleteTag(tag))
            }
            Reference::Digest(digest) => {
                (Require::Manifest(*digest), Change::DeleteManifest(*digest))
            }
        };
        let view = self.view().await?;
        let Some(found) = view.repository(repository.as_str()).await? else {
            return Err(Error::NameUnknown(repository.clone()));
        };
        let mut requires = vec![require];
        requires.extend(precondition.requires(Some(&*found), reference).await?);
        drop((found, view));
        self.commit_delete(delete, requires, change)
            .await
            .map_err(|error| match error {
                CommitError::Failed(error) => error,
                // If it does not exist, no condition on it matters.
                CommitError::Unmet(unmet)
                    if unmet.iter().all(|r| matches!(r, Require::Tag { .. })) =>
                {
                    Error::PreconditionFailed
                }
                CommitError::Unmet(_) => Error::manifest_unknown(repository, reference),
            })
    }

    /// Removes a blob from the repository. Other repositories keep it.
    pub async fn delete_blob(&self, delete: &Authorized<Delete>, digest: Digest) -> Result<()> {
        let outcome = self
            .commit_delete(
                delete,
                vec![Require::Linked(digest)],
                Change::Unlink(digest),
            )
            .await;
        outcome.map_err(|error| match error {
            CommitError::Failed(error) => error,
            CommitError::Unmet(_) => Error::blob_unknown(delete.repository(), digest),
        })
    }

    /// Commits one change with these preconditions.
    async fn commit_delete(
        &self,
        delete: &Authorized<Delete>,
        requires: Vec<Require>,
        change: Change,
    ) -> std::result::Result<(), CommitError> {
        let batch = Batch {
            repository: delete.repository().as_str().to_owned(),
            create_repository: false,
            origin: origin(delete.requester()),
            requires,
            staged: Vec::new(),
            changes: vec![change],
        };
        self.catalog.commit(batch).await
    }
}
